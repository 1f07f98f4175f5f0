"""Judges tiles as `image_tiles` makes them on held-out pictures: small things in larger pictures, found by their name.

Each picture is a held-out scene with a held-out object of Caltech-101 pasted into it at a tenth of its area, in a random place. A query is
the name of a class of objects, and relevant are the pictures with such an object. Prints R@10, the part of the relevant pictures
among the ten best: by the embedding of the whole picture, and by the best of the embeddings of the picture and its tiles. The object's own
file, not pasted, tells what could be reached. "Like" asks with another held-out picture of the class instead of its name.
"""

import argparse
import io
import math
from pathlib import Path

import corpus
import numpy as np
from evaluate import Package
from PIL import Image

SIDE = 320


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def spans(side: int, count: int, length: float) -> list[tuple[int, int]]:
    step = (side - length) / max(count - 1, 1)
    half_up = lambda number: math.floor(number + 0.5)  # noqa: E731
    firsts = [min(half_up(place * step), side - 1) for place in range(count)]
    return [(first, min(half_up(place * step + length), side)) for place, first in enumerate(firsts)]


def regions(side: int, grid: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Of a square picture: the whole and its tiles, as (left, top, right, bottom)."""
    lines = spans(side, grid, side / (1 + (grid - 1) * (1 - overlap)))
    tiles = [(left, top, right, bottom) for top, bottom in lines for left, right in lines]
    return [(0, 0, side, side)] + (tiles if grid > 1 else [])


def recall(scores: np.ndarray, relevant: np.ndarray, k: int = 10) -> float:
    """`[queries, pictures]`: the mean over queries of the relevant pictures among the k best, of as many as there can be."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(relevant, best, 1).sum(1)
    return float(np.mean(found / np.minimum(relevant.sum(1), k)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_arguments(parser)
    parser.add_argument("--package", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--area", type=float, default=0.1, help="the object's part of the picture")
    arguments = parser.parse_args()
    package = Package(arguments)
    labels = corpus.load_labels(arguments)
    test = corpus.load(arguments, "test", package.side)
    random = np.random.default_rng(17)
    name_of = np.array([entry["name"] for entry in labels.classes])
    objects = random.permutation(np.flatnonzero(test.sources == "cal"))
    # One object of each class is kept back as a query.
    _, kept = np.unique(test.classes[objects], return_index=True)
    examples = objects[kept]
    objects = np.delete(objects, kept)[: arguments.pictures]
    scenes = random.choice(np.flatnonzero(test.sources == "sun"), len(objects))
    side = round(SIDE * math.sqrt(arguments.area))

    def decode(row: int, size: int) -> Image.Image:
        return Image.open(io.BytesIO(test.pixels.encoded[row])).convert("RGB").resize((size, size), Image.BICUBIC)

    pictures = []
    for scene, thing in zip(scenes, objects):
        picture = decode(scene, SIDE)
        picture.paste(decode(thing, side), tuple(random.integers(0, SIDE - side + 1, 2)))
        pictures.append(picture)

    classes = np.intersect1d(np.unique(test.classes[objects]), test.classes[examples])
    words = unit(package.texts(list(name_of[classes])))
    alike = unit(package.photos([decode(examples[np.flatnonzero(test.classes[examples] == row)[0]], SIDE) for row in classes]))
    relevant = classes[:, None] == test.classes[objects][None, :]
    embed = lambda images: unit(package.photos(images))  # noqa: E731
    whole = embed(pictures)
    alone = embed([decode(thing, SIDE) for thing in objects])
    print(f"{len(pictures)} pictures, {len(classes)} classes, objects at {arguments.area:.0%} of the area")
    for kind, queries in (("name", words), ("like", alike)):
        print(f"{kind}: whole pictures {recall(queries @ whole.T, relevant):.3f}, objects alone {recall(queries @ alone.T, relevant):.3f}")
    for grid, overlap in ((2, 0.0), (2, 0.5), (3, 0.0), (3, 0.25), (3, 0.5), (4, 0.0), (4, 0.25), (4, 0.5), (5, 0.5)):
        places = regions(SIDE, grid, overlap)
        vectors = embed([picture.crop(place) for picture in pictures for place in places]).reshape(len(pictures), len(places), -1)
        found = []
        for kind, queries in (("name", words), ("like", alike)):
            scores = np.einsum("qd,prd->qpr", queries, vectors)
            reached = recall(scores.max(2), relevant)
            found.append(f"{kind} {reached:.3f} ({reached / recall(queries @ whole.T, relevant):.2f} times)")
        print(f"grid {grid}, overlap {overlap}: {len(places)} rows a picture, {', '.join(found)}")


if __name__ == "__main__":
    main()
