"""Teaches the teacher our texts: a small head on its features that points into the text space.

Writes `teacher-train.npy` and `teacher-test.npy`, float16 `[pictures, 192]`, unit rows: where the teacher sees each
picture of the corpus. Prints how well it does on the held-out pictures, which nothing here is fitted to.
"""

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import corpus
import progress
from network import MEANING
from targets import Targets

BATCH, HIDDEN = 1024, 1024
LIKENESS = 1.0  # weight of the cosine to the class's point; the more, the better the words that no picture came with
REPEATS = {"cal": 3, "sun": 3, "flw": 2, "clo": 2, "gro": 2, "foo": 2, "dc": 4, "emo": 2}


class Head(nn.Module):
    """Features `[n, 1280]` to unit vectors `[n, 192]`."""

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.linear = nn.Linear(len(mean), MEANING)
        self.first, self.second = nn.Linear(len(mean), HIDDEN), nn.Linear(HIDDEN, MEANING)
        self.scale = nn.Parameter(torch.tensor([14.0, 14.0]).log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout((x - self.mean) / self.spread, 0.3, self.training)
        bent = F.dropout(F.gelu(self.first(x)), 0.3, self.training)
        return F.normalize(self.linear(x) + self.second(bent), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--likeness", type=float, default=LIKENESS)
    arguments = parser.parse_args()
    device, started = progress.device(), time.time()
    torch.manual_seed(1)
    generator = np.random.default_rng(1)
    labels = corpus.load_labels(arguments)
    targets = Targets(arguments, labels)
    data = corpus.load(arguments, "train")
    features = torch.from_numpy(np.load(corpus.part_path(arguments, "features", "train"))).to(device)
    sample = features[:: max(1, len(features) // 20_000)].float()
    head = Head(sample.mean(0), sample.std(0) + 0.05).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    repeats = np.array([REPEATS.get(source, 1) for source in data.sources])
    batch = min(BATCH, len(repeats) // 4)
    steps = arguments.epochs * int(repeats.sum() // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    order = np.concatenate([generator.permutation(np.repeat(np.arange(len(repeats)), repeats)) for _ in range(arguments.epochs + 1)])
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        classes = torch.from_numpy(data.classes[rows].astype(np.int64)).to(device)
        vectors = head(features[torch.from_numpy(rows)].float())
        similarity = vectors @ targets.vectors.T
        scale = head.scale.exp().clamp(max=40)
        terms = {
            "text": targets.among_texts(scale[0] * similarity, classes, targets.draw(data.classes[rows], generator)),
            "within": targets.within_source(scale[1] * similarity, classes),
            "like": arguments.likeness * (1 - (vectors * targets.points[classes]).sum(1).mean()),
        }
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"head: step {step + 1} of {steps},", " ".join(f"{name} {value.item():.3f}" for name, value in terms.items()),
                  f"scale {scale.tolist()}, {time.time() - started:.0f} s", flush=True)  # fmt: skip
    head.eval()
    with torch.no_grad():
        for split in ("test", "train"):
            features = torch.from_numpy(np.load(corpus.part_path(arguments, "features", split)))
            vectors = torch.cat([head(part.float().to(device)).cpu() for part in features.split(8192)])
            np.save(corpus.part_path(arguments, "teacher", split), vectors.numpy().astype(np.float16))
    judge(arguments, labels, targets)


def judge(arguments: argparse.Namespace, labels: corpus.Labels, targets: Targets) -> None:
    """Prints zero-shot scores of the held-out pictures: what a student of this head alone could reach."""
    test, vectors = corpus.load(arguments, "test"), np.load(corpus.part_path(arguments, "teacher", "test")).astype(np.float32)
    similarity = vectors @ targets.vectors[targets.names].cpu().numpy().T
    for source in ("c10", "c100", "tin", "cal", "sun", "dc"):
        mine, names = np.flatnonzero(test.sources == source), np.flatnonzero([entry["src"] == source for entry in labels.classes])
        if len(mine):
            best = names[similarity[mine][:, names].argmax(1)]
            print(f"head: {source} {(best == test.classes[mine]).mean():.3f} of {len(mine)}")


if __name__ == "__main__":
    main()
