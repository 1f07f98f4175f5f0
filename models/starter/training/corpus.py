"""The starter corpus: pictures as square RGB, classes, and which texts are true of which class."""

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

SIDE = 64
HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[3] / "shared" / "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the paths every script of this directory takes."""
    parser.add_argument("--corpus", type=Path, default=SHARED / "starter-corpus")
    parser.add_argument("--reference", type=Path, default=SHARED / "reference-encoder")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "imgvec-starter", help="decoded pictures, checkpoints, logs")
    parser.add_argument("--shards", default="0,1,2", help="which of the three parts of the training pictures to use")
    parser.add_argument("--limit", type=int, default=0, help="use only so many pictures and few texts, to try the pipeline out")


def cache_path(arguments: argparse.Namespace, name: str) -> Path:
    """Path of `name` in the cache directory, which is created when missing."""
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments.cache / name


def files(arguments: argparse.Namespace, split: str) -> list[Path]:
    names = ["test"] if split == "test" else [f"train-{int(shard):02d}" for shard in arguments.shards.split(",")]
    return [arguments.corpus / f"{name}.parquet" for name in names]


def part_name(arguments: argparse.Namespace, split: str) -> str:
    """What the cache calls the pictures of a split that the arguments choose."""
    shards = "" if split == "test" or arguments.shards == "0,1,2" else f"-shards{arguments.shards.replace(',', '')}"
    return split + shards + (f"-first{arguments.limit}" if arguments.limit else "")


def part_path(arguments: argparse.Namespace, kind: str, split: str) -> Path:
    """Path of an array with a row for each chosen picture of a split."""
    return cache_path(arguments, f"{kind}-{part_name(arguments, split)}.npy")


def _columns(arguments: argparse.Namespace, split: str, names: list[str]) -> dict[str, list]:
    tables = [pq.read_table(path, columns=names) for path in files(arguments, split)]
    stride = max(1, sum(table.num_rows for table in tables) // arguments.limit) if arguments.limit else 1  # some of every source
    return {name: [value for table in tables for value in table[name].to_pylist()][::stride][: arguments.limit or None] for name in names}


def read_encoded(arguments: argparse.Namespace, split: str) -> list[bytes]:
    """The WebP files of a split, in corpus order."""
    return _columns(arguments, split, ["image"])["image"]


def preprocess(image: Image.Image, side: int = SIDE) -> np.ndarray:
    """What `preprocessor_config.json` says: shortest edge to `side`, bicubic, center crop. Returns uint8 `[side, side, 3]`.

    The long edge is truncated and the crop starts at the rounded-down half, as in Hugging Face's CLIPImageProcessor.
    """
    image = image.convert("RGB")
    width, height = image.size
    if min(width, height) != side:
        if width <= height:
            width, height = side, int(side * height / width)
        else:
            width, height = int(side * width / height), side
        image = image.resize((width, height), Image.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image)[top : top + side, left : left + side]


def read_sources(arguments: argparse.Namespace, split: str) -> list[str]:
    """The source of every picture of a split, in corpus order."""
    return _columns(arguments, split, ["src"])["src"]


class Pictures:
    """Encoded pictures that are decoded when asked for, which costs little beside what is done with them: indexing by a list
    of rows or a slice gives uint8 `[n, side, side, 3]`."""

    def __init__(self, encoded: list[bytes], side: int) -> None:
        self.encoded, self.side = encoded, side

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows) -> np.ndarray:
        chosen = self.encoded[rows] if isinstance(rows, slice) else [self.encoded[row] for row in rows]
        return np.stack([preprocess(Image.open(io.BytesIO(data)), self.side) for data in chosen])


@dataclass
class Split:
    """One split: `pixels` as `Pictures`, `classes` int `[n]`, `sources` str `[n]`."""

    pixels: Pictures
    classes: np.ndarray
    sources: np.ndarray


def load(arguments: argparse.Namespace, split: str, side: int = SIDE) -> Split:
    """A split of the corpus, its pictures at `side` pixels."""
    columns = _columns(arguments, split, ["image", "cls", "src"])
    return Split(Pictures(columns["image"], side), np.array(columns["cls"]), np.array(columns["src"]))


@dataclass
class Labels:
    """`labels.json`: the classes, and the terms that a measurement of unseen words keeps out of training."""

    classes: list[dict]
    held_out: set[str]
    sources: dict[str, dict]

    def is_emoji(self) -> np.ndarray:
        return np.array([entry["src"] == "emo" for entry in self.classes])


def load_labels(arguments: argparse.Namespace) -> Labels:
    data = json.loads((arguments.corpus / "labels.json").read_text())
    return Labels(data["classes"], set(data["held_out_terms"]), data["sources"])


@dataclass
class TextBank:
    """Every text that training may show, and how it relates to every class.

    `truth[class, text]` is 1 when the text is the class's name, synonym or hypernym, 0 when it is wrong of the class,
    and -1 when it may be either (a kind of the class, as "Egyptian cat" for a picture only known as "cat").
    `own[class]` lists the indices of the class's texts, its name first.
    """

    texts: list[str]
    truth: np.ndarray
    own: list[np.ndarray]


def text_bank(labels: Labels) -> TextBank:
    texts, index, own = [], {}, []
    for entry in labels.classes:
        mine = []
        for text in dict.fromkeys([entry["name"], *entry["train_texts"]]):
            key = text.lower()
            if key not in index:
                index[key] = len(texts)
                texts.append(text)
            if index[key] not in mine:
                mine.append(index[key])
        own.append(np.array(mine))
    truth = np.zeros((len(own), len(texts)), np.int8)
    names = [set(entry_texts[: len(entry["names"])]) for entry, entry_texts in zip(labels.classes, own)]
    everything = [set(entry_texts) for entry_texts in own]
    for child, entry_texts in enumerate(own):
        # The class is a kind of `parent` when the parent's name is among its texts: a picture of the parent may then
        # show the child, and whatever is true of the child is neither asked for nor ruled out.
        for parent in range(len(own)):
            if own[parent][0] in everything[child]:
                truth[parent, entry_texts] = -1
    for child, entry_texts in enumerate(own):
        truth[child, entry_texts] = 1
        for other in range(len(own)):
            if other != child and names[child] & names[other]:
                truth[child, own[other]] = np.where(truth[child, own[other]] == 1, 1, -1)
    return TextBank(texts, truth, own)
