"""Trains the appearance network to tell copies of a picture from all other pictures.

Every picture of a batch meets a copy of itself (re-encoded, shrunk, blurred, toned, gray, with a banner, cropped, turned,
mirrored ...) and must be nearer to it than to the copies of all others, and the other way round. Resumable: run it again
and it goes on from its checkpoint.
"""

import argparse
import time

import numpy as np
import torch
from torch.nn import functional as F

import augment
import corpus
import progress
from network import MEAN, STD, Appearance

BATCH = 768
TEMPERATURE = 0.05


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
    return (pixels - mean) / std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.limit:
        arguments.steps = min(arguments.steps, 10)
    device = progress.device()
    torch.set_default_device(device)
    data = corpus.load(arguments, "train")
    batch = min(BATCH, len(data.pixels))
    torch.manual_seed(arguments.seed)
    network = Appearance().to(device)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.rate, weight_decay=0.02)
    checkpoint = corpus.cache_path(arguments, "appearance.pt")
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.module.load_state_dict(state["average"])
        average.n_averaged.fill_(state["step"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    log = progress.Log(corpus.cache_path(arguments, "appearance.csv"), every=25)
    while step < arguments.steps:
        started = time.time()
        generator = np.random.default_rng([arguments.seed, step])
        torch.manual_seed(arguments.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1, (step + 1) / 50) * max(1 - step / arguments.steps, 0.01)
        rows = np.sort(generator.choice(len(data.pixels), batch, replace=False))
        pixels = torch.from_numpy(data.pixels[rows]).to(device).permute(0, 3, 1, 2).float() / 255
        if step % 2:  # half of the time the original is itself a random view, for more pictures than the corpus has
            pixels = augment.random_view(pixels, corpus.SIDE)
        network.train()
        vectors = network(normalized(torch.cat([pixels, augment.copy(pixels)])))
        similarity = vectors[:batch] @ vectors[batch:].T / TEMPERATURE
        truth = torch.arange(batch)
        loss = (F.cross_entropy(similarity, truth) + F.cross_entropy(similarity.T, truth)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        step, seconds = step + 1, seconds + time.time() - started
        found = (similarity.argmax(1) == truth).float().mean()
        log.add(step, {"seconds": seconds}, {"loss": loss.item(), "found": found.item()})
        if step % 100 == 0 or step == arguments.steps:
            progress.save_checkpoint(checkpoint, {"network": network.state_dict(), "average": average.module.state_dict(),
                                                "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds})  # fmt: skip


if __name__ == "__main__":
    main()
