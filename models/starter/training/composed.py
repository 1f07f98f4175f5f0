"""Judges queries of a picture and a word together on held-out pictures, as `embed_query` composes them.

A query is a held-out photo and a name of its class; what the other held-out photos of that class have in common is what it
asks for. Prints P@10 of the picture alone, of the word alone, of their plain mean, and of the mean of what is left when the
mean of all pictures is taken from the one and the mean of all words from the other (`modality_means.json`). The means are
those of training pictures and of all class names, so that nothing is learned from what is judged. `--write` writes them.
"""

import argparse
import json
from pathlib import Path

import corpus
import numpy as np
from evaluate import Package


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def precision(rows: np.ndarray, queries: np.ndarray, own: np.ndarray, relevant: np.ndarray, k: int = 10) -> float:
    """The mean over queries; the picture of a query is no answer to it."""
    scores = queries @ rows.T
    scores[np.arange(len(own)), own] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    depth = np.minimum(relevant.sum(1) - 1, k)
    hits = np.take_along_axis(relevant, best, 1)
    return float(np.mean([row[:d].mean() for row, d in zip(hits, depth)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_arguments(parser)
    parser.add_argument("--package", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--means-of", type=int, default=4000, help="training pictures that the means are of")
    parser.add_argument("--write", type=Path, help="write the means to this file")
    arguments = parser.parse_args()
    package = Package(arguments)
    labels = corpus.load_labels(arguments)
    test = corpus.load(arguments, "test", package.side)
    photos = np.flatnonzero(test.sources != "emo")
    vectors = unit(package.images(test.pixels[list(photos)]))
    classes = test.classes[photos]

    names = sorted({entry["name"] for entry in labels.classes if entry["src"] != "emo"})
    words = unit(package.texts(names))
    text_of = {name: words[place] for place, name in enumerate(names)}
    training = corpus.load(argparse.Namespace(**{**vars(arguments), "limit": arguments.means_of, "shards": "0"}), "train", package.side)
    image_mean = unit(package.images(training.pixels)).mean(0)
    text_mean = words.mean(0)
    print(f"lengths of the means: pictures {np.linalg.norm(image_mean):.3f}, words {np.linalg.norm(text_mean):.3f}, apart {np.linalg.norm(image_mean - text_mean):.3f}")
    if arguments.write:
        rounded = {"image": image_mean, "text": text_mean}
        arguments.write.write_text(json.dumps({key: [round(float(x), 6) for x in mean] for key, mean in rounded.items()}) + "\n")

    counts = np.bincount(classes, minlength=len(labels.classes))
    asked = np.flatnonzero(counts[classes] > 5)
    asked = np.random.default_rng(11).permutation(asked)[: arguments.queries]
    name_of = np.array([entry["name"] for entry in labels.classes])
    relevant = name_of[classes[asked]][:, None] == name_of[classes][None, :]
    image = vectors[asked]
    text = np.stack([text_of[name] for name in name_of[classes[asked]]])
    judge = lambda queries: precision(vectors, queries, asked, relevant)  # noqa: E731
    print(f"{len(asked)} queries over {len(photos)} photos: picture {judge(image):.3f}, word {judge(text):.3f}")
    centered_image, centered_text = unit(image - image_mean), unit(text - text_mean)
    for weight in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        plain = judge((1 - weight) * image + weight * text)
        centered = judge((1 - weight) * centered_image + weight * centered_text)
        print(f"weight {weight}: plain {plain:.3f}, centered {centered:.3f}")


if __name__ == "__main__":
    main()
