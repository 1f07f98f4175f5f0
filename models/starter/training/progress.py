"""What every training script needs to run long: a device, checkpoints, and a log of means over a number of steps."""

import csv
from pathlib import Path

import torch


def device() -> torch.device:
    """A GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save_checkpoint(path: Path, state: dict) -> None:
    """Writes a checkpoint so that an interruption leaves the old one or the new one."""
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    partial.rename(path)


class Log:
    """Keeps its lines as CSV and prints them."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, step: int, state: dict[str, float], values: dict[str, float]) -> None:
        """Takes the values of one step; writes a line of their means each `every` steps."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if step % self.every == 0:
            means = {name: round(value / self.count, 4) for name, value in self.sums.items()}
            self.write({"step": step, **{name: round(value, 4) for name, value in state.items()}, **means})
            self.sums, self.count = {}, 0

    def write(self, line: dict) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, line.keys())
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(line)
        print(f"{self.path.stem}:", " ".join(f"{name} {value}" for name, value in line.items()), flush=True)
