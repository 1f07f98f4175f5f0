"""Trains the image tower to point where the text tower does. Resumable: run it again and it goes on from its checkpoint.

Four terms: the picture against every text of the corpus (one true text drawn per picture, texts that may also be true
left out); the picture against the class names of its own source; the reference tower's class scores, from a
side head and in the text space; and a picture against its degraded copy.
"""

import argparse
import csv
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

import augment
import corpus
import text
from network import FEATURES, MEAN, STD, ImageTower

BATCH, COPIES = 256, 64
REPEATS = {"cal": 2, "sun": 2, "flw": 1.5, "clo": 1.5, "gro": 1.5, "foo": 1.5, "dc": 3, "emo": 2.5}  # small sources, seen more often
TEACHER_TRUST = {"tin": 0.7, "c100": 0.3, "c10": 0.3, "emo": 0.0}  # 1 elsewhere: the teacher wants pictures larger than CIFAR's
SIDES = [(0.93, 48), (1.0, 64)]  # (until this part of the training, side in pixels): small pictures first, they are cheap


class Teacher:
    """The reference tower's class scores and the texts of its classes."""

    def __init__(self, arguments: argparse.Namespace, encode) -> None:
        self.scores = np.load(corpus.cache_path(arguments, "teacher.npy"), mmap_mode="r")
        names = (arguments.reference / "imagenet_labels.txt").read_text().splitlines()
        self.names = torch.from_numpy(encode([name.split(",")[0].lower() for name in names[1:]]))

    def probabilities(self, rows: np.ndarray, temperature: float) -> torch.Tensor:
        return torch.softmax(torch.from_numpy(self.scores[rows].astype(np.float32)) / temperature, 1)


def epoch_order(sources: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    repeats = np.array([REPEATS.get(source, 1) for source in sources])
    counts = np.floor(repeats + generator.random(len(repeats))).astype(int)
    return generator.permutation(np.repeat(np.arange(len(sources)), counts))


def free_cores() -> int:
    """Cores that nobody else is using at this moment, at least 1. Threads in step with each other lose far more than their
    share when one of them has to wait for its core (measured: fivefold), so a busy machine gets fewer threads."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
        mine = sum(path.read_text().rsplit(")", 1)[1].split()[0] == "R" for path in Path("/proc/self/task").glob("*/stat"))
    except OSError:
        return torch.get_num_threads()
    return max(1, (os.cpu_count() or 1) - max(0, running - mine))


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(target * F.log_softmax(logits, 1)).sum(1)


class Trainer:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data = corpus.load(arguments, "train")
        self.labels = corpus.load_labels(arguments)
        table = np.load(corpus.cache_path(arguments, "text.npz"))["table"]
        tokenizer = Tokenizer.from_file(str(corpus.cache_path(arguments, "tokenizer.json")))
        encode = lambda texts: text.encode(tokenizer, table, texts).astype(np.float32)  # noqa: E731
        self.bank = corpus.text_bank(self.labels)
        self.bank_vectors = torch.from_numpy(encode(self.bank.texts))
        emoji = self.labels.is_emoji()
        photo_texts = np.zeros(len(self.bank.texts), bool)
        for row in np.flatnonzero(~emoji):
            photo_texts[self.bank.own[row]] = True
        # Which texts may stand as wrong answers: for photos only texts of photo classes, as "puppy face" is no error.
        self.wrong = torch.from_numpy((self.bank.truth == 0) & (photo_texts[None] | emoji[:, None]))
        class_sources = np.array([entry["src"] for entry in self.labels.classes])
        self.source_of_class = torch.from_numpy(np.unique(class_sources, return_inverse=True)[1])
        self.names = torch.from_numpy(np.array([own[0] for own in self.bank.own]))
        self.teacher = Teacher(arguments, encode)
        self.trust = torch.tensor([TEACHER_TRUST.get(source, 1.0) for source in self.data.sources])
        rows = np.flatnonzero(self.data.sources == "emo")
        self.mask_row = np.full(len(self.data.classes), -1)
        self.mask_row[rows] = np.arange(len(rows))
        self.masks = torch.from_numpy(augment.backdrop_masks(self.data.pixels[rows]))

        torch.manual_seed(arguments.seed)
        self.tower = ImageTower().to(memory_format=torch.channels_last)
        self.side_head = torch.nn.Linear(FEATURES, 1001)
        self.scale = torch.nn.Parameter(torch.tensor([math.log(14.0), math.log(14.0), math.log(14.0)]))
        self.average = ImageTower()
        self.average.load_state_dict(self.tower.state_dict())
        decayed = [p for p in [*self.tower.parameters(), *self.side_head.parameters()] if p.ndim > 1]
        plain = [p for p in [*self.tower.parameters(), *self.side_head.parameters()] if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": [*plain, self.scale], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98))
        self.step = self.epoch = self.position = 0
        self.seconds = 0.0
        self.checkpoint = corpus.cache_path(arguments, f"{arguments.run}.pt")
        if self.checkpoint.exists():
            self.restore()

    def restore(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        for name in ("tower", "side_head", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.scale.data = state["scale"]
        self.step, self.epoch, self.position, self.seconds = state["step"], state["epoch"], state["position"], state["seconds"]
        print(f"train: going on from step {self.step}", flush=True)

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("tower", "side_head", "average", "optimizer")}
        state |= {"scale": self.scale.data, "step": self.step, "epoch": self.epoch, "position": self.position, "seconds": self.seconds}
        partial = self.checkpoint.with_suffix(".tmp")
        torch.save(state, partial)
        partial.rename(self.checkpoint)

    def progress(self, epoch_steps: int) -> float:
        if self.arguments.minutes:
            return min(1.0, self.seconds / (60 * self.arguments.minutes))
        return min(1.0, (self.epoch + self.position / epoch_steps) / self.arguments.epochs)

    def views(self, rows: np.ndarray, side: int) -> torch.Tensor:
        """Augmented pictures and, for the first COPIES of them, degraded copies: `[BATCH + COPIES, 3, side, side]`."""
        pixels = torch.from_numpy(self.data.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        drawings = torch.from_numpy(np.flatnonzero(self.mask_row[rows] >= 0))
        if len(drawings):
            photos = pixels[torch.randint(0, len(pixels), (len(drawings),))]
            pixels[drawings] = augment.on_backdrop(pixels[drawings], self.masks[self.mask_row[rows[drawings.numpy()]]], photos)
        pixels = augment.degrade(augment.color(augment.random_view(pixels, side), 0.6))
        pixels = torch.cat([pixels, augment.copy(pixels[:COPIES])])
        return ((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)).contiguous(memory_format=torch.channels_last)

    def losses(self, rows: np.ndarray, side: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            images = self.views(rows, side)
        with torch.autocast("cpu", torch.bfloat16):
            meaning, appearance, features = self.tower.parts(images)
            side_scores = self.side_head(features)
        doubled = np.concatenate([rows, rows[:COPIES]])
        classes = torch.from_numpy(self.data.classes[doubled].astype(np.int64))
        scale = self.scale.exp().clamp(max=60)

        own = [self.bank.own[c] for c in classes.tolist()]
        drawn = [mine[0] if np.random.random() < 0.6 else mine[np.random.randint(len(mine))] for mine in own]
        answer = torch.from_numpy(np.array(drawn))
        allowed = self.wrong[classes]
        allowed[torch.arange(len(answer)), answer] = True
        with torch.autocast("cpu", torch.bfloat16):
            similarity = meaning @ self.bank_vectors.T
        any_text = F.cross_entropy((scale[0] * similarity.float()).masked_fill(~allowed, -1e4), answer)

        name_similarity = similarity.float()[:, self.names]
        same_source = self.source_of_class[classes][:, None] == self.source_of_class[None]
        photos = ~torch.from_numpy(self.labels.is_emoji())[classes]
        # Of two classes with one name (two "keycap" emoji) only the picture's own counts.
        twin = (self.names[None] == self.names[classes][:, None]) & (torch.arange(len(self.names))[None] != classes[:, None])
        within = F.cross_entropy((scale[1] * name_similarity).masked_fill(~same_source | twin, -1e4)[photos], classes[photos])

        trust = self.trust[torch.from_numpy(doubled)]
        side_term = (trust * soft_cross_entropy(side_scores.float() / 2, self.teacher.probabilities(doubled, 2.0))).mean()
        told = self.teacher.probabilities(doubled, 1.0)[:, 1:]
        told_term = (trust * soft_cross_entropy(scale[2] * meaning @ self.teacher.names.T, told)).mean()

        found = appearance[-COPIES:] @ appearance[: len(rows)].T / 0.06
        copies = F.cross_entropy(found, torch.arange(COPIES))
        kept = (1 - (meaning[-COPIES:] * meaning[:COPIES].detach()).sum(1)).mean()
        return {"text": any_text, "within": within, "side": 0.4 * side_term, "told": 0.3 * told_term, "copies": 0.3 * copies, "kept": 0.5 * kept}

    def run(self) -> None:
        arguments = self.arguments
        log_path = corpus.cache_path(arguments, f"{arguments.run}.csv")
        sums: dict[str, float] = {}
        while True:
            order = epoch_order(self.data.sources, np.random.default_rng([arguments.seed, self.epoch]))
            epoch_steps = len(order) // BATCH
            while self.position < epoch_steps:
                started = time.time()
                progress = self.progress(epoch_steps)
                if progress >= 1 or (arguments.steps and self.step >= arguments.steps):
                    self.save()
                    return
                side = next(side for until, side in SIDES if progress < until or until == 1.0)
                rate = arguments.rate * min(1.0, (self.step + 1) / 400) * max(1 - progress, 0.0) ** 0.9
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                if not arguments.threads:
                    torch.set_num_threads(free_cores())
                rows = np.sort(order[self.position * BATCH : (self.position + 1) * BATCH])
                rows = np.random.default_rng([arguments.seed, self.step]).permutation(rows)
                losses = self.losses(rows, side)
                self.optimizer.zero_grad(set_to_none=True)
                sum(losses.values()).backward()
                torch.nn.utils.clip_grad_norm_(self.tower.parameters(), 5.0)
                self.optimizer.step()
                decay = min(0.999, 1 - 1 / (self.step + 2) ** 0.75)
                with torch.no_grad():
                    for kept, new in zip(self.average.state_dict().values(), self.tower.state_dict().values()):
                        kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
                self.step, self.position = self.step + 1, self.position + 1
                self.seconds += time.time() - started
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.item()
                if self.step % 50 == 0:
                    row = {name: round(value / 50, 4) for name, value in sums.items()}
                    line = {"step": self.step, "epoch": round(self.epoch + self.position / epoch_steps, 2), "pixels": side,
                            "seconds": round(self.seconds), "progress": round(progress, 4), **row}  # fmt: skip
                    with log_path.open("a", newline="") as file:
                        writer = csv.DictWriter(file, line.keys())
                        if file.tell() == 0:
                            writer.writeheader()
                        writer.writerow(line)
                    print(" ".join(f"{name} {value}" for name, value in line.items()), f"scale {[round(s, 1) for s in self.scale.exp().tolist()]}", flush=True)
                    sums = {}
                if self.step % 100 == 0:
                    self.save()
            self.epoch, self.position = self.epoch + 1, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--run", default="image", help="name of the checkpoint and log in the cache directory")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=0, help="end after this training time instead; the schedules follow the clock")
    parser.add_argument("--steps", type=int, default=0, help="stop early, for trying things out")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are idle cores, step by step")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    Trainer(arguments).run()


if __name__ == "__main__":
    main()
