"""Weights of a finished package as a start of further training."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from tokenizers import Tokenizer
from torch import nn

import corpus
from network import MEANING, Meaning
from targets import Targets


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """Every weight of an exported graph by its name, int8 ones unpacked."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    packed = [name.removesuffix(".int8") for name in stored if name.endswith(".int8")]
    return stored | {name: stored[f"{name}.int8"].astype(np.float32) * stored[f"{name}.scale"] for name in packed}


def pairs(network: Meaning):
    """Each convolution with its batch normalization, and its name in the exported graph."""
    yield network.stem, "stem"
    for index, stage in enumerate(network.stages):
        yield stage.down, f"stage{index}.down"
        for number, block in enumerate(stage.blocks):
            yield block.first, f"stage{index}.block{number}.first"
            yield block.second, f"stage{index}.block{number}.second"
    yield network.features, "features"


def load_meaning(network: Meaning, package: Path, views: torch.Tensor, targets: Targets, arguments: argparse.Namespace) -> None:
    """Fills `network` from a package of the same architecture, and turns its head to the text space of `targets`.

    The package has no batch normalization left, so it is put back: kernels get the size of a fresh network's, and scale
    and offset are set from the statistics of `views` such that the function stays what it was.
    """
    stored = weights_of(package / "onnx" / "vision_model.onnx")
    hooks = []
    for pair, name in pairs(network):
        convolution, norm = pair
        kernel = torch.from_numpy(np.array(stored[name])).to(convolution.weight)
        size = kernel.flatten(1).std(1).clamp(min=1e-6) / (2 / kernel[0].numel()) ** 0.5
        convolution.weight.data.copy_(kernel / size.view(-1, 1, 1, 1))
        bias = torch.from_numpy(np.array(stored[f"{name}.bias"])).to(kernel)

        def calibrate(norm: nn.BatchNorm2d, inputs: tuple, size: torch.Tensor = size, bias: torch.Tensor = bias) -> None:
            mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.data.copy_((variance + norm.eps).sqrt() * size)
            norm.bias.data.copy_(bias + mean * size)

        hooks.append(norm.register_forward_pre_hook(calibrate))
    text = ort.InferenceSession(package / "onnx" / "text_model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
    encoded = [np.array([encoding.ids], np.int64) for encoding in tokenizer.encode_batch(targets.bank.texts)]
    before = np.concatenate([text.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0] for ids in encoded])[:, :MEANING]
    turn = np.linalg.lstsq(before, targets.vectors.cpu().numpy(), rcond=None)[0].T
    head = stored["meaning"][:, :, 0, 0]
    network.head.weight.data.copy_(torch.from_numpy(turn @ head))
    network.head.bias.data.copy_(torch.from_numpy(turn @ stored["meaning.bias"]))
    network.eval()
    with torch.no_grad():
        network(views)
    for hook in hooks:
        hook.remove()
    network.train()


def unpack_text(package: Path, arguments: argparse.Namespace) -> None:
    """Puts the text tower of a package where `text.py` puts its own."""
    graph = onnx.load(package / "onnx" / "text_model.onnx").graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    table = stored["pieces.int8"].astype(np.float32) * stored["pieces.scale"][:, None]
    np.savez(corpus.cache_path(arguments, "text.npz"), table=table[:, :MEANING])
    shutil.copyfile(package / "tokenizer.json", corpus.cache_path(arguments, "tokenizer.json"))
