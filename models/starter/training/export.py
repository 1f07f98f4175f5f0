"""Writes the model package: both towers as ONNX, the tokenizer, and the settings files.

Weights are stored as int8 with one scale per output channel (or table row) and computed in fp32: `Cast` and `Mul` stand
before each convolution and are folded when the graph is loaded. Heads are 1x1 convolutions, not matrix products, so
that a picture's vector does not depend on how many others are in its batch.
"""

import argparse
import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

import corpus
import text
from network import APPEARANCE, CELLS, CONTRAST_FLOOR, MEAN, MEANING, MEANING_SHARE, SKETCH, SMALL, STD, Appearance, ImageTower, Meaning

OPSET = 17
PACKAGE = corpus.HERE.parent
SETTINGS = """\
# What the package says about itself beyond the Hugging Face files.
license = "PostgreSQL"

[text]
max_length = 256
padding = "longest"
pad_id = 0

# The text tower reads plain names; a template would add nothing. The temperature is measured on
# held-out pictures: see README.md, calibration.
[classification]
templates = ["{}"]
temperature = 0.03
"""


class Graph:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes, self.weights, self.count = [], [], 0

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes) -> str:
        self.count += 1
        output = output or f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def packed(self, name: str, value: np.ndarray) -> str:
        """`value` as int8 with a scale per entry of its first axis, unpacked by two nodes."""
        steps, scale = quantized(value)
        stored = self.weight(f"{name}.int8", steps)
        return self.add("Mul", [self.add("Cast", [stored], to=TensorProto.FLOAT), self.weight(f"{name}.scale", scale)], name)

    def kernel(self, name: str, value: np.ndarray, bias: np.ndarray, packed: bool = True) -> tuple[str, str, int]:
        """Weights of a convolution, for one or several nodes."""
        return self.packed(name, value) if packed else self.weight(name, value), self.weight(f"{name}.bias", bias), value.shape[-1]

    def conv(self, x: str, kernel: tuple[str, str, int], stride: int = 1, padded: bool = True) -> str:
        weights, bias, side = kernel
        return self.add("Conv", [x, weights, bias], kernel_shape=[side, side], strides=[stride, stride], pads=[side // 2 if padded else 0] * 4)

    def save(self, path, inputs, output: str, name: str) -> None:
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", MEANING + APPEARANCE])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="imgvec", ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(exist_ok=True)
        onnx.save(model, path)


def quantized(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 steps and the float32 scale of each entry of the first axis, shaped to multiply."""
    axes = tuple(range(1, value.ndim))
    scale = np.maximum(np.abs(value).max(axes, keepdims=True) / 127, 1e-12).astype(np.float32)
    return np.round(value / scale).astype(np.int8), scale


def folded(pair: torch.nn.Sequential) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with its batch normalization folded in."""
    convolution, norm = pair
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return (convolution.weight * factor.view(-1, 1, 1, 1)).detach().numpy(), (norm.bias - norm.running_mean * factor).detach().numpy()


def unit(graph: Graph, x: str, length: float, kind: type = np.float32) -> str:
    """`x` `[batch, n, ...]` scaled to `length` along axis 1."""
    norm = graph.add("ReduceL2", [x], axes=[1], keepdims=1)
    bounded = graph.add("Max", [norm, graph.weight(f"{norm}.floor", kind(1e-12))])
    scaled = graph.add("Div", [x, bounded])
    return scaled if length == 1 else graph.add("Mul", [scaled, graph.weight(f"{norm}.length", kind(length))])


def halves(graph: Graph, x: str) -> str:
    """The sum of both halves of the batch."""
    first, second = f"{x}.first", f"{x}.second"
    graph.nodes.append(helper.make_node("Split", [x], [first, second], axis=0))
    return graph.add("Add", [first, second])


def export_meaning(graph: Graph, network: Meaning) -> str:
    relu = lambda x: graph.add("Relu", [x])  # noqa: E731
    # The stem's few weights see the pixels first and stay fp32.
    stem = graph.kernel("stem", *folded(network.stem), packed=False)
    stages = []
    for index, stage in enumerate(network.stages):
        down = graph.kernel(f"stage{index}.down", *folded(stage.down))
        names = [f"stage{index}.block{number}" for number in range(len(stage.blocks))]
        blocks = [
            (graph.kernel(f"{name}.first", *folded(block.first)), graph.kernel(f"{name}.second", *folded(block.second)))
            for name, block in zip(names, stage.blocks)
        ]
        stages.append((down, blocks))
    last = graph.kernel("features", *folded(network.features))

    def pooled(x: str) -> str:
        x = relu(graph.conv(x, stem, stride=2))
        for down, blocks in stages:
            x = relu(graph.conv(x, down, stride=2))
            for first, second in blocks:
                x = relu(graph.add("Add", [x, graph.conv(relu(graph.conv(x, first)), second)]))
        return graph.add("GlobalAveragePool", [relu(graph.conv(x, last))])

    # The three looks of `Meaning.of_views`; the two small ones go through together.
    backwards = graph.weight("backwards64", np.arange(corpus.SIDE - 1, -1, -1, dtype=np.int64))
    mirrored = graph.add("Gather", ["pixel_values", backwards], axis=3)
    scales = graph.weight("small.scales", np.array([1, 1, SMALL / corpus.SIDE, SMALL / corpus.SIDE], np.float32))
    small = graph.add("Resize", [mirrored, "", scales], mode="linear", coordinate_transformation_mode="half_pixel")
    margin = (corpus.SIDE - SMALL) // 2
    begins, ends, axes = (graph.weight(f"center.{name}", np.array(value, np.int64))
                          for name, value in [("begins", [margin] * 2), ("ends", [margin + SMALL] * 2), ("axes", [2, 3])])  # fmt: skip
    center = graph.add("Slice", ["pixel_values", begins, ends, axes])
    looks = graph.add("Add", [pooled("pixel_values"), halves(graph, pooled(graph.add("Concat", [small, center], axis=0)))])
    features = graph.add("Mul", [looks, graph.weight("third", np.float32(1 / 3))])
    head = graph.kernel("meaning", network.head.weight.detach().numpy()[:, :, None, None], network.head.bias.detach().numpy())
    return graph.conv(features, head)


def export_appearance(graph: Graph, network: Appearance) -> str:
    bright = graph.conv("pixel_values", graph.kernel("luma", network.luma.numpy(), np.zeros(1, np.float32), packed=False))
    cell = corpus.SIDE // CELLS
    cells = graph.add("AveragePool", [bright], kernel_shape=[cell, cell], strides=[cell, cell])
    cells = graph.add("Sub", [cells, graph.add("ReduceMean", [cells], axes=[2, 3], keepdims=1)])
    variance = graph.add("ReduceMean", [graph.add("Mul", [cells, cells])], axes=[2, 3], keepdims=1)
    spread = graph.add("Sqrt", [graph.add("Add", [variance, graph.weight("contrast_floor", np.float32(CONTRAST_FLOOR**2))])])
    x = graph.add("Div", [cells, spread])
    backwards = graph.weight("backwards16", np.arange(CELLS - 1, -1, -1, dtype=np.int64))
    x = graph.add("Concat", [x, graph.add("Gather", [x, backwards], axis=3)], axis=0)
    for index, layer in enumerate(network.layers):
        x = graph.add("Relu", [graph.conv(x, graph.kernel(f"sketch{index}", *folded(layer)), stride=layer[0].stride[0])])
    head = network.head.weight.detach().numpy().reshape(APPEARANCE, SKETCH[-1], CELLS // 4, CELLS // 4)
    return halves(graph, graph.conv(x, graph.kernel("appearance", head, network.head.bias.detach().numpy()), padded=False))


def export_image(tower: ImageTower, path) -> None:
    graph = Graph()
    parts = [
        unit(graph, export_meaning(graph, tower.meaning), MEANING_SHARE**0.5),
        unit(graph, export_appearance(graph, tower.appearance), (1 - MEANING_SHARE) ** 0.5),
    ]
    graph.add("Flatten", [graph.add("Concat", parts, axis=1)], "image_embeds", axis=1)
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, corpus.SIDE, corpus.SIDE])
    graph.save(path, [pixels], "image_embeds", "imgvec_starter_image")


def check_image(tower: ImageTower, path, pixels: np.ndarray) -> None:
    """The graph says what the network says, up to the rounding of its weights."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    batch = np.ascontiguousarray(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
    with torch.no_grad():
        expected = tower(torch.from_numpy(batch)).numpy()
    likeness = (session.run(None, {"pixel_values": batch})[0] * expected).sum(1)
    print(f"export: cosine of graph and network, mean {likeness.mean():.5f}, least {likeness.min():.5f}")
    if likeness.min() < 0.98:
        raise SystemExit("export: the graph differs from the network")


def export_text(table: np.ndarray, path) -> None:
    graph = Graph()
    steps, scale = quantized(table)
    double = lambda x: graph.add("Cast", [x], to=TensorProto.DOUBLE)  # noqa: E731
    rows = graph.add("Gather", [graph.weight("pieces.int8", steps), "input_ids"], axis=0)
    scales = graph.add("Gather", [graph.weight("pieces.scale", scale[:, 0]), "input_ids"], axis=0)
    weights = graph.add("Mul", [double(scales), double("attention_mask")])
    middle_axis = graph.weight("middle_axis", np.array([1], np.int64))
    # Summed in double precision: the order of summation depends on padding and batch, the rounded sum does not.
    total = graph.add("MatMul", [graph.add("Unsqueeze", [weights, middle_axis]), double(rows)])
    total = unit(graph, graph.add("Squeeze", [total, middle_axis]), 1.0, kind=np.float64)
    total = graph.add("Cast", [total], to=TensorProto.FLOAT)
    # Text says nothing of appearance: those dimensions are zero.
    pads = graph.weight("appearance_pads", np.array([0, 0, 0, APPEARANCE], np.int64))
    graph.add("Pad", [total, pads, graph.weight("zero", np.float32(0))], "text_embeds")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    graph.save(path, inputs, "text_embeds", "imgvec_starter_text")


def write_json(path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--run", default="image")
    parser.add_argument("--package", type=corpus.Path, default=PACKAGE)
    arguments = parser.parse_args()
    package = arguments.package
    package.mkdir(parents=True, exist_ok=True)

    tower = ImageTower()
    for part, run in [(tower.meaning, arguments.run), (tower.appearance, "appearance")]:
        part.load_state_dict(torch.load(corpus.cache_path(arguments, f"{run}.pt"), weights_only=True, map_location="cpu")["average"])
    export_image(tower.eval(), package / "onnx" / "vision_model.onnx")
    check_image(tower, package / "onnx" / "vision_model.onnx", corpus.load(arguments, "train").pixels[:64])
    table = np.load(corpus.cache_path(arguments, "text.npz"))["table"]
    export_text(table, package / "onnx" / "text_model.onnx")
    shutil.copyfile(corpus.cache_path(arguments, "tokenizer.json"), package / "tokenizer.json")
    write_json(package / "config.json", {
        "model_type": "imgvec_starter",
        "projection_dim": MEANING + APPEARANCE,
        "text_config": {"vocab_size": len(table), "pad_token_id": text.SPECIAL.index("[PAD]")},
        "vision_config": {"image_size": corpus.SIDE, "num_channels": 3},
    })  # fmt: skip
    write_json(package / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": corpus.SIDE}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": corpus.SIDE, "width": corpus.SIDE},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    })  # fmt: skip
    (package / "imgvec.toml").write_text(SETTINGS)  # its temperature is set by evaluate.py
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    print(f"export: {package.name} is {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
