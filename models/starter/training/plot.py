"""Draws how a training run went: its losses, and the held-out scores that were taken in passing."""

import argparse
import csv
from pathlib import Path

import matplotlib

import corpus

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

TITLES = {"c10": "CIFAR-10", "c100": "CIFAR-100", "tin": "tiny-ImageNet", "cal": "Caltech-101", "sun": "SUN-32", "dc": "cat/dog"}


def columns(path: Path) -> dict[str, list[float]]:
    """A log by column; of a run too short for a line, nothing."""
    if not path.exists():
        return {"seconds": []}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {"seconds": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--run", default="image")
    parser.add_argument("--output", type=Path, default=corpus.HERE / "progress.png")
    arguments = parser.parse_args()
    losses, scores, copies = (columns(corpus.cache_path(arguments, f"{name}.csv")) for name in (arguments.run, f"{arguments.run}-scores", "appearance"))
    panels = 3 if copies["seconds"] else 2  # an appearance network that was taken over has no curve
    figure, (left, middle, *rest) = pyplot.subplots(1, panels, figsize=(13 * panels / 3, 3.8), layout="constrained")
    minutes = lambda table: [seconds / 60 for seconds in table["seconds"]]  # noqa: E731
    for name in ("text", "within", "place", "nearness", "guess", "features"):
        if name in losses:
            left.plot(minutes(losses), losses[name], label=name)
    left.set(title="meaning: weighted loss terms", xlabel="minutes of training", ylim=(0, None))
    for name, title in TITLES.items():
        if name in scores:
            middle.plot(minutes(scores), scores[name], marker=".", label=title)
    middle.set(title="zero-shot top-1, 2,400 held-out pictures", xlabel="minutes of training", ylim=(0, 1))
    for right in rest:
        for name in ("loss", "found"):
            right.plot(minutes(copies), copies[name], label={"found": "copies found in the batch"}.get(name, name))
        right.set(title="appearance", xlabel="minutes of training", ylim=(0, 1))
    for axes in (left, middle, *rest):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=80)
    print(f"plot: {arguments.output}")


if __name__ == "__main__":
    main()
