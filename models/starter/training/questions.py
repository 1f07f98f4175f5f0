"""Judges on held-out photos what `answer_image` and the threshold of `classify_image` make of cosines.

A label by itself is compared with a picture of nothing in particular, the mean of the vectors of ten kinds of things. "Is there a ...?" is asked twice of
each photo: with a name of its class, and with that of another class. "None of these" asks for CIFAR-10's ten labels at a
threshold of 0.5: of CIFAR-10's photos, which have one, and of SUN's scenes, which have none.
"""

import argparse
from pathlib import Path

import corpus
import numpy as np
from evaluate import Package

KINDS = "animal vehicle food plant person building furniture tool scenery clothes".split()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_arguments(parser)
    parser.add_argument("--package", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", type=int, default=1500)
    arguments = parser.parse_args()
    package = Package(arguments)
    labels = corpus.load_labels(arguments)
    test = corpus.load(arguments, "test", package.side)
    random = np.random.default_rng(3)
    names = np.array([entry["name"] for entry in labels.classes])
    embed = lambda rows: unit(np.concatenate([package.images(test.pixels[list(rows[at : at + 100])]) for at in range(0, len(rows), 100)]))  # noqa: E731
    nothing = unit(unit(package.texts(KINDS)).mean(0))

    photos = np.flatnonzero(test.sources != "emo")
    rows = random.permutation(photos)[: arguments.photos]
    vectors = embed(rows)
    asked = np.unique(names[test.classes[photos]])
    words = unit(package.texts(list(asked)))
    own = np.searchsorted(asked, names[test.classes[rows]])
    other = (own + random.integers(1, len(asked), len(own))) % len(asked)
    background = vectors @ nothing
    yes = ((vectors * words[own]).sum(1) > background).mean()
    no = ((vectors * words[other]).sum(1) < background).mean()
    print(f"{len(rows)} photos, {len(asked)} names: right yes {yes:.3f}, right no {no:.3f}, together {(yes + no) / 2:.3f}")

    ten = list(dict.fromkeys(entry["name"] for entry in labels.classes if entry["src"] == "c10"))
    words = unit(package.texts(ten))
    for source in ("c10", "sun"):
        rows = random.permutation(np.flatnonzero(test.sources == source))[: arguments.photos // 3]
        vectors = embed(rows)
        cosines = vectors @ words.T
        there = cosines > (vectors @ nothing)[:, None]
        none = ~there.any(1)
        if source == "c10":
            place = np.array([ten.index(name) for name in names[test.classes[rows]]])
            first = (cosines.argmax(1) == place) & ~none
            print(f"CIFAR-10, {len(rows)} photos: own label given {there[np.arange(len(rows)), place].mean():.3f}, first {first.mean():.3f}, none {none.mean():.3f}, labels a photo {there.sum(1).mean():.2f}")
        else:
            print(f"SUN, {len(rows)} photos: none {none.mean():.3f}, labels a photo {there.sum(1).mean():.2f}")


if __name__ == "__main__":
    main()
