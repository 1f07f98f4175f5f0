"""Trains the meaning network to point where the text tower does. Resumable: run it again and it goes on from its checkpoint.

Six terms. Two ask for the truth: which of all texts is right (one true text drawn per picture, texts that may also be
true left out), and which class name of the picture's own source. Four ask for the teacher's view of the whole picture:
its place in the text space, how near it sees every text, which of its own classes it takes the picture for, and its
features, which a side head has to tell.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

import augment
import corpus
import package
import progress
from muon import Muon
from network import FEATURES, MEAN, SMALL, STD, Meaning
from targets import Guesses, Targets

BATCH = 256
REPEATS = {"c10": 1.5, "cal": 3.5, "sun": 2, "flw": 1.5, "clo": 1.5, "gro": 1.5, "foo": 1.5, "dc": 5, "emo": 2}  # seen more often
TEACHER_SCALE = 18.0  # how sharply the teacher tells texts apart
TRUST = {"c10": 0.5, "c100": 0.7}  # 1 elsewhere: the teacher is no good at 32 pixels
WEIGHTS = {"text": 0.5, "within": 0.7, "place": 5.0, "nearness": 0.8, "guess": 0.7, "features": 4.0}
MEET_SECONDS = 30  # how often workers average their weights
JUDGED = 2400  # held-out pictures that are looked at in passing, for the plot; nothing is chosen by them


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


def halves_pay(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32: not on a processor that has no instructions for it (measured: 2.5 times slower)."""
    try:
        return device.type == "cuda" or "bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


class Trainer:
    """One worker of those that train together. Each goes its own way for half a minute, then they average their weights by
    the steps that each has done: on cores shared with other work nobody waits for a slower one at every step."""

    def __init__(self, arguments: argparse.Namespace, rank: int) -> None:
        self.arguments, self.device, self.rank = arguments, progress.device(), rank
        self.halves = halves_pay(self.device)
        self.data = corpus.load(arguments, "train")
        self.labels = corpus.load_labels(arguments)
        self.targets, self.guesses = Targets(arguments, self.labels), Guesses(arguments, self.labels)
        self.places = np.load(corpus.part_path(arguments, "teacher", "train"))
        self.features = np.load(corpus.part_path(arguments, "features", "train"), mmap_mode="r")
        sample = torch.from_numpy(self.features[:: max(1, len(self.features) // 5000)].astype(np.float32))
        self.feature_mean, self.feature_spread = sample.mean(0).to(self.device), (sample.std(0) + 0.05).to(self.device)
        self.trust = torch.tensor([TRUST.get(source, 1.0) for source in self.data.sources], device=self.device)
        rows = np.flatnonzero(self.data.sources == "emo")
        self.mask_row = np.full(len(self.data.classes), -1)
        self.mask_row[rows] = np.arange(len(rows))
        self.masks = torch.from_numpy(augment.backdrop_masks(self.data.pixels[rows]))

        torch.manual_seed(arguments.seed)  # the same start for all workers
        self.network = Meaning().to(self.device, memory_format=torch.channels_last)
        self.side_head = nn.Linear(FEATURES, self.features.shape[1]).to(self.device)
        self.scale = nn.Parameter(torch.full((3,), math.log(14.0), device=self.device))
        self.average = Meaning().to(self.device)
        # Muon is for what is between the first layer and the last ones.
        inner = [part for part in self.network.parameters() if part.ndim == 4 and part.shape[1] > 3] if arguments.muon else []
        outer = [part for part in [*self.network.parameters(), *self.side_head.parameters()] if all(part is not other for other in inner)]
        groups = [
            {"params": [part for part in outer if part.ndim > 1], "weight_decay": 0.05},
            {"params": [*(part for part in outer if part.ndim <= 1), self.scale], "weight_decay": 0.0},
        ]
        self.optimizers = [torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98))]
        if inner:
            self.optimizers.append(Muon(inner, lr=arguments.rate, weight_decay=0.05))
        self.step = self.epoch = self.position = 0
        self.seconds, self.steps_of_all, self.steps_since = 0.0, 0, 0
        self.log = progress.Log(corpus.cache_path(arguments, f"{arguments.run}.csv"), every=50)
        self.scores = progress.Log(corpus.cache_path(arguments, f"{arguments.run}-scores.csv"), every=1)
        self.checkpoint = corpus.cache_path(arguments, f"{arguments.run}.pt")
        if self.checkpoint.exists():
            self.restore()
        else:
            if arguments.continue_from:
                self.continue_from(arguments.continue_from)
            elif arguments.start_from:
                package.load_meaning(self.network, arguments.start_from, self.sample_views(), self.targets, arguments)
            self.average.load_state_dict(self.network.state_dict())
        self.seed = arguments.seed + 1000 * rank
        torch.manual_seed(self.seed + self.step)

    def continue_from(self, path: Path) -> None:
        """Takes the averaged weights of a training that is over; clocks, rates and momenta begin again."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["average"])
        self.side_head.load_state_dict(state["side_head"])
        self.scale.data = state["scale"]

    def restore(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        for name in ("network", "side_head", "average"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.scale.data = state["scale"]
        self.step, self.epoch, self.position, self.seconds = state["step"], state["epoch"], state["position"], state["seconds"]
        self.steps_of_all = state.get("steps_of_all", self.step)
        print(f"train: going on from step {self.step}", flush=True)

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("network", "side_head", "average")}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        state |= {"scale": self.scale.data, "step": self.step, "epoch": self.epoch, "position": self.position, "seconds": self.seconds}
        state["steps_of_all"] = self.steps_of_all
        progress.save_checkpoint(self.checkpoint, state)

    def meet(self) -> None:
        """Averages weights, clocks and counts with the other workers; alone it only counts."""
        shares = torch.tensor([0.0] * self.arguments.workers)
        shares[self.rank] = self.steps_since
        if self.arguments.workers > 1:
            distributed.all_reduce(shares)
            clock = torch.tensor([self.seconds])
            distributed.all_reduce(clock, distributed.ReduceOp.MAX)
            self.seconds = clock.item()
            share = (shares[self.rank] / shares.sum().clamp(min=1)).item()
            with torch.no_grad():
                for value in [*self.network.state_dict().values(), *self.side_head.state_dict().values(), self.scale]:
                    if value.is_floating_point():
                        common = (value * share).contiguous()
                        distributed.all_reduce(common)
                        value.copy_(common)
        self.steps_of_all += int(shares.sum())
        self.steps_since = 0

    def share_done(self) -> float:
        """The part of the training that is over, the same for all workers when they have just met."""
        if self.arguments.minutes:
            return min(1.0, self.seconds / (60 * self.arguments.minutes))
        pictures = sum(REPEATS.get(source, 1) for source in self.data.sources)
        return min(1.0, self.steps_of_all * BATCH / (pictures * self.arguments.epochs))

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

    def views(self, rows: np.ndarray) -> torch.Tensor:
        """Augmented pictures `[BATCH, 3, SMALL, SMALL]`."""
        pixels = torch.from_numpy(self.data.pixels[rows]).to(self.device).permute(0, 3, 1, 2).float() / 255
        drawings = torch.from_numpy(np.flatnonzero(self.mask_row[rows] >= 0))
        if len(drawings):
            photos = pixels[torch.randint(0, len(pixels), (len(drawings),))]
            masks = self.masks[self.mask_row[rows[drawings.numpy()]]].to(self.device)
            pixels[drawings] = augment.on_backdrop(pixels[drawings], masks, photos)
        return self.normalized(augment.degrade(augment.color(augment.random_view(pixels, SMALL), 0.6)))

    def sample_views(self) -> torch.Tensor:
        rows = np.sort(np.random.default_rng(0).permutation(len(self.data.pixels))[:1024])
        with torch.no_grad():
            return self.views(rows)

    def losses(self, rows: np.ndarray, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            images = self.views(rows)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves):
            meaning, features = self.network(images)
            told = self.side_head(features)
            similarity = meaning @ self.targets.vectors.T
        similarity, meaning = similarity.float(), meaning.float()
        classes = torch.from_numpy(self.data.classes[rows].astype(np.int64)).to(self.device)
        place = torch.from_numpy(self.places[rows].astype(np.float32)).to(self.device)
        raw = torch.from_numpy(self.features[rows].astype(np.float32)).to(self.device)
        seen = (raw - self.feature_mean) / self.feature_spread
        scale = self.scale.exp().clamp(max=40)
        trust = self.trust[torch.from_numpy(rows)]
        near = torch.softmax(TEACHER_SCALE * place @ self.targets.vectors.T, 1)
        terms = {
            "text": self.targets.among_texts(scale[0] * similarity, classes, self.targets.draw(self.data.classes[rows], generator)),
            "within": self.targets.within_source(scale[1] * similarity, classes),
            "place": (trust * (1 - (meaning * place).sum(1))).mean(),
            "nearness": (trust * F.kl_div(F.log_softmax(TEACHER_SCALE * similarity, 1), near, reduction="none").sum(1)).mean(),
            "guess": (trust * self.guesses.distance(scale[2] * meaning @ self.guesses.places.T, raw)).mean(),
            "features": 1 - F.cosine_similarity(told.float(), seen, dim=1).mean(),
        }
        return {name: WEIGHTS[name] * value for name, value in terms.items()}

    def judge(self) -> dict[str, float]:
        """Zero-shot scores of the averaged weights on some held-out pictures."""
        test = corpus.load(self.arguments, "test")
        rows = np.sort(np.random.default_rng(3).permutation(len(test.pixels))[:JUDGED])
        self.average.eval()
        with torch.no_grad():
            parts = [torch.from_numpy(test.pixels[part]).to(self.device).permute(0, 3, 1, 2).float() / 255 for part in np.array_split(rows, 10)]
            vectors = torch.cat([self.average(self.normalized(part))[0] for part in parts])
        similarity = vectors @ self.targets.vectors[self.targets.names].T
        reached = {}
        for source in ("c10", "c100", "tin", "cal", "sun", "dc"):
            mine = np.flatnonzero(test.sources[rows] == source)
            names = np.flatnonzero([entry["src"] == source for entry in self.labels.classes])
            best = names[similarity[torch.from_numpy(mine)][:, torch.from_numpy(names)].argmax(1).cpu().numpy()]
            reached[source] = float((best == test.classes[rows[mine]]).mean())
        return reached

    def one_step(self, rows: np.ndarray, done: float) -> None:
        started = time.time()
        rate = self.arguments.rate * min(1.0, (self.step + 1) / self.arguments.warm_up) * max(1 - done, 0.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if not self.arguments.threads:
            torch.set_num_threads(free_cores() if self.arguments.workers == 1 else 1)
        losses = self.losses(rows, np.random.default_rng([self.seed, self.step]))
        self.network.zero_grad(set_to_none=True)
        self.side_head.zero_grad(set_to_none=True)
        self.scale.grad = None
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(0.998, 1 - 1 / (self.step + 2) ** 0.75)
        with torch.no_grad():
            for kept, new in zip(self.average.state_dict().values(), self.network.state_dict().values()):
                kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
        self.step, self.position, self.steps_since = self.step + 1, self.position + 1, self.steps_since + 1
        self.seconds += time.time() - started
        if self.rank == 0:
            state = {"pixels": SMALL, "seconds": self.seconds, "done": done, "pictures": BATCH * self.steps_of_all}
            self.log.add(self.step, state, {name: value.item() for name, value in losses.items()})

    def run(self) -> None:
        arguments = self.arguments
        met, judged, saved = time.time(), time.time(), time.time()
        if self.share_done() >= 1:
            return
        while True:
            order = epoch_order(self.data.sources, np.random.default_rng([self.seed, self.epoch]))
            epoch_steps = len(order) // BATCH
            while self.position < epoch_steps:
                done = self.share_done()
                self.one_step(order[self.position * BATCH : (self.position + 1) * BATCH], done)
                if time.time() - met < MEET_SECONDS:
                    continue
                self.meet()
                met = time.time()
                # All workers come here with the same clock, so all leave together.
                finished = self.share_done() >= 1 or (arguments.steps and self.steps_of_all >= arguments.steps)
                if self.rank == 0 and (finished or met - judged > 900):
                    self.scores.add(self.step, {"seconds": self.seconds}, self.judge())
                    judged = time.time()
                if self.rank == 0 and (finished or met - saved > 90):
                    self.save()
                    saved = time.time()
                if finished:
                    return
            self.epoch, self.position = self.epoch + 1, 0


def work(rank: int, arguments: argparse.Namespace) -> None:
    torch.set_default_device(progress.device())
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.workers > 1:
        meeting = corpus.cache_path(arguments, f"{arguments.run}.meeting").resolve()
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=arguments.workers)
    Trainer(arguments, rank).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--run", default="image", help="name of the checkpoint and log in the cache directory")
    parser.add_argument("--start-from", type=Path, help="begin with the weights of this model package")
    parser.add_argument("--continue-from", type=Path, help="begin with the weights of this checkpoint, whose training is over")
    parser.add_argument("--muon", action="store_true", help="Muon for the inner layers, AdamW for the others")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=0, help="end after this training time instead; the schedules follow the clock")
    parser.add_argument("--steps", type=int, default=0, help="stop early, for trying things out")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--warm-up", type=int, default=200, help="steps until the rate is reached")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each; better than threads on busy cores")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are idle cores, step by step")
    arguments = parser.parse_args()
    corpus.cache_path(arguments, f"{arguments.run}.meeting").unlink(missing_ok=True)
    if arguments.workers > 1:
        multiprocessing.spawn(work, (arguments,), nprocs=arguments.workers)
    else:
        work(0, arguments)


if __name__ == "__main__":
    main()
