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
from onnx import TensorProto, helper, numpy_helper

import colors
import corpus
import package
import text
from network import APPEARANCE, CELLS, COLORS, CONTRAST_FLOOR, FEATURES, INPUT, LOOKS, LUMA, MEAN, MEANING, SHARES, SKETCH, SKETCHED, STAGES, STD

Weights = dict[str, tuple[np.ndarray, np.ndarray]]  # kernel and bias of each convolution by its name in the graph
DIMS = MEANING + COLORS + APPEARANCE

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

    def __init__(self, packed: bool = True) -> None:
        self.nodes, self.weights, self.count, self.packs = [], [], 0, packed

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
        return self.packed(name, value) if packed and self.packs else self.weight(name, value), self.weight(f"{name}.bias", bias), value.shape[-1]

    def conv(self, x: str, kernel: tuple[str, str, int], stride: int = 1, padded: bool = True) -> str:
        weights, bias, side = kernel
        return self.add("Conv", [x, weights, bias], kernel_shape=[side, side], strides=[stride, stride], pads=[side // 2 if padded else 0] * 4)

    def save(self, path, inputs, output: str, name: str, dims: int = DIMS) -> None:
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dims])]
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


def folded(pair) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with its batch normalization folded in."""
    convolution, norm = pair
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (convolution.weight * factor.view(-1, 1, 1, 1)).detach().numpy(), (norm.bias - norm.running_mean * factor).detach().numpy()


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", default="image", help="name of the meaning network's checkpoint in the cache directory")
    parser.add_argument("--weights-from", type=corpus.Path, help="take the networks of this finished package instead")
    parser.add_argument("--appearance-from", type=corpus.Path, help="take the appearance network of this package of the first edition instead")


def trained(arguments: argparse.Namespace) -> Weights:
    """The weights of both networks: of the checkpoints in the cache, or of a finished package where there are none."""
    checkpoint = corpus.cache_path(arguments, f"{arguments.run}.pt")
    if arguments.weights_from or not checkpoint.exists():
        stored = package.weights_of((arguments.weights_from or PACKAGE) / "onnx" / "vision_model.onnx")
        return {name: (stored[name], stored[f"{name}.bias"]) for name in stored if f"{name}.bias" in stored}
    import torch

    from network import Appearance, Meaning

    def read(part: torch.nn.Module, path: corpus.Path, layers: list, name: str, shape: tuple[int, ...]) -> Weights:
        part.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["average"])
        head = part.head.weight.detach().numpy().reshape(shape), part.head.bias.detach().numpy()
        return {own: folded(pair) for pair, own in layers} | {name: head}

    meaning, appearance = Meaning(), Appearance()
    weights = read(meaning, checkpoint, list(package.pairs(meaning)), "meaning", (-1, FEATURES, 1, 1))
    if arguments.appearance_from:
        stored = package.weights_of(arguments.appearance_from / "onnx" / "vision_model.onnx")
        names = [*(f"sketch{index}" for index in range(len(SKETCH))), "appearance"]
        return weights | {name: (stored[name], stored[f"{name}.bias"]) for name in names}
    sketches = [(layer, f"sketch{index}") for index, layer in enumerate(appearance.layers)]
    path = corpus.cache_path(arguments, "appearance.pt")
    return weights | read(appearance, path, sketches, "appearance", (-1, SKETCH[-1], CELLS // 4, CELLS // 4))


def unit(graph: Graph, x: str, length: float, kind: type = np.float32) -> str:
    """`x` `[batch, n, ...]` scaled to `length` along axis 1."""
    norm = graph.add("ReduceL2", [x], axes=[1], keepdims=1)
    bounded = graph.add("Max", [norm, graph.weight(f"{norm}.floor", kind(1e-12))])
    scaled = graph.add("Div", [x, bounded])
    return scaled if length == 1 else graph.add("Mul", [scaled, graph.weight(f"{norm}.length", kind(length))])


def total(graph: Graph, x: str, count: int) -> str:
    """The sum of `count` equal parts of the batch."""
    if count == 1:
        return x
    parts = [f"{x}.part{number}" for number in range(count)]
    graph.nodes.append(helper.make_node("Split", [x], parts, axis=0))
    return graph.add("Sum", parts)


def mirrored(graph: Graph, x: str, side: int) -> str:
    return graph.add("Gather", [x, graph.weight(f"backwards.{graph.count}", np.arange(side - 1, -1, -1, dtype=np.int64))], axis=3)


def shrunk(graph: Graph, side: int) -> str:
    """The input at another side."""
    if side == INPUT:
        return "pixel_values"
    if INPUT % side == 0:
        return graph.add("AveragePool", ["pixel_values"], kernel_shape=[INPUT // side] * 2, strides=[INPUT // side] * 2)
    scales = graph.weight(f"scales.{graph.count}", np.array([1, 1, side / INPUT, side / INPUT], np.float32))
    return graph.add("Resize", ["pixel_values", "", scales], mode="linear", coordinate_transformation_mode="half_pixel")


def middle(graph: Graph, x: str, side: int, crop: int) -> str:
    if crop == side:
        return x
    margin, name = (side - crop) // 2, f"middle.{graph.count}"
    places = [graph.weight(f"{name}.{part}", np.array(value, np.int64)) for part, value in [("from", [margin] * 2), ("to", [margin + crop] * 2), ("axes", [2, 3])]]
    return graph.add("Slice", [x, *places])


class MeaningGraph:
    """The convolutions of the meaning network, whose weights several looks share."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        # The stem's few weights see the pixels first and stay fp32.
        self.kernels = {name: graph.kernel(name, *weights[name], packed=name != "stem") for name in ["stem", *blocks(), "features"]}

    def pooled(self, x: str) -> str:
        relu = lambda x: self.graph.add("Relu", [x])  # noqa: E731
        conv = lambda x, name, stride=1: self.graph.conv(x, self.kernels[name], stride)  # noqa: E731
        x = relu(conv(x, "stem", 2))
        for index, (_, count) in enumerate(STAGES):
            x = relu(conv(x, f"stage{index}.down", 2))
            for number in range(count):
                name = f"stage{index}.block{number}"
                x = relu(self.graph.add("Add", [x, conv(relu(conv(x, f"{name}.first")), f"{name}.second")]))
        return self.graph.add("GlobalAveragePool", [relu(conv(x, "features"))])

    def looks(self, looks: list[tuple[int, int, bool]]) -> str:
        """The mean of the features of `looks`; those of one side go through together."""
        sums = []
        for crop in sorted({crop for _, crop, _ in looks}):
            mine = []
            for side, own, turned in looks:
                if own == crop:
                    x = middle(self.graph, shrunk(self.graph, side), side, crop)
                    mine.append(mirrored(self.graph, x, crop) if turned else x)
            batch = self.graph.add("Concat", mine, axis=0) if len(mine) > 1 else mine[0]
            sums.append(total(self.graph, self.pooled(batch), len(mine)))
        features = self.graph.add("Sum", sums) if len(sums) > 1 else sums[0]
        return self.graph.add("Mul", [features, self.graph.weight("share_of_a_look", np.float32(1 / len(looks)))])


def blocks() -> list[str]:
    """Names of the convolutions between stem and features."""
    names = []
    for index, (_, count) in enumerate(STAGES):
        names += [f"stage{index}.down", *[f"stage{index}.block{number}.{part}" for number in range(count) for part in ("first", "second")]]
    return names


def appearance_graph(graph: Graph, weights: Weights) -> str:
    luma = (np.array(LUMA) * STD).astype(np.float32).reshape(1, 3, 1, 1)
    bright = graph.conv("pixel_values", graph.kernel("luma", luma, np.zeros(1, np.float32), packed=False))
    cell = INPUT // CELLS
    cells = graph.add("AveragePool", [bright], kernel_shape=[cell, cell], strides=[cell, cell])
    cells = graph.add("Sub", [cells, graph.add("ReduceMean", [cells], axes=[2, 3], keepdims=1)])
    variance = graph.add("ReduceMean", [graph.add("Mul", [cells, cells])], axes=[2, 3], keepdims=1)
    spread = graph.add("Sqrt", [graph.add("Add", [variance, graph.weight("contrast_floor", np.float32(CONTRAST_FLOOR**2))])])
    x = graph.add("Div", [cells, spread])
    x = graph.add("Concat", [x, mirrored(graph, x, CELLS)], axis=0)
    for index in range(len(SKETCH)):
        x = graph.add("Relu", [graph.conv(x, graph.kernel(f"sketch{index}", *weights[f"sketch{index}"]), stride=1 if index == 0 else 2)])
    return total(graph, graph.conv(x, graph.kernel("appearance", *weights["appearance"]), padded=False), 2)


def colors_graph(graph: Graph, namer: dict[str, np.ndarray]) -> str:
    """How much of the picture has each color: names of pixels, their shares counted most in the middle, square roots."""
    cells = graph.add("AveragePool", ["pixel_values"], kernel_shape=[INPUT // colors.SIDE] * 2, strides=[INPUT // colors.SIDE] * 2)
    # The namer takes RGB of 0 to 1.
    first = (namer["first"] * np.array(STD, np.float32))[:, :, None, None]
    bias = namer["first_bias"] + namer["first"] @ np.array(MEAN, np.float32)
    x = graph.add("Relu", [graph.conv(cells, graph.kernel("colors.first", first, bias, packed=False))])
    x = graph.conv(x, graph.kernel("colors.second", namer["second"][:, :, None, None], namer["second_bias"], packed=False))
    x = graph.add("Mul", [graph.add("Softmax", [x], axis=1), graph.weight("colors.middle", colors.middle()[None, None])])
    shares = graph.add("ReduceSum", [x, graph.weight("colors.axes", np.array([2, 3], np.int64))], keepdims=1)
    return graph.add("Mul", [graph.add("Sqrt", [shares]), graph.weight("colors.weights", colors.WEIGHTS.reshape(1, -1, 1, 1))])


def pixels_of(graph: Graph):
    return [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, INPUT, INPUT])]


def export_image(weights: Weights, namer: dict[str, np.ndarray], path, packed: bool = True) -> None:
    graph = Graph(packed)
    features = MeaningGraph(graph, weights).looks(LOOKS)
    parts = {
        "meaning": graph.conv(features, graph.kernel("meaning", *weights["meaning"])),
        "colors": colors_graph(graph, namer),
        "appearance": appearance_graph(graph, weights),
    }
    scaled = [unit(graph, part, SHARES[name] ** 0.5) for name, part in parts.items()]
    graph.add("Flatten", [graph.add("Concat", scaled, axis=1)], "image_embeds", axis=1)
    graph.save(path, pixels_of(graph), "image_embeds", "imgvec_starter_image")


def export_part(weights: Weights, path, part: str, looks: list | None = None) -> None:
    """A part of the graph alone, `[batch, n]`: "features", or "appearance" before it is scaled."""
    graph = Graph(packed=False)
    made = MeaningGraph(graph, weights).looks(looks or LOOKS) if part == "features" else appearance_graph(graph, weights)
    graph.add("Flatten", [made], "vectors", axis=1)
    graph.save(path, pixels_of(graph), "vectors", f"imgvec_starter_{part}", FEATURES if part == "features" else SKETCHED)


def check_image(path, unpacked, pixels: np.ndarray) -> None:
    """The graph says what it says without the rounding of its weights, nearly."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    batch = np.ascontiguousarray(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
    first, second = (ort.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"pixel_values": batch})[0] for each in (path, unpacked))
    likeness = (first * second).sum(1)
    print(f"export: cosine of rounded and unrounded weights, mean {likeness.mean():.5f}, least {likeness.min():.5f}")
    if likeness.min() < 0.98:
        raise SystemExit("export: rounding changes what the graph says")


def export_text(table: np.ndarray, path) -> None:
    graph = Graph()
    steps, scale = quantized(table)
    double = lambda x: graph.add("Cast", [x], to=TensorProto.DOUBLE)  # noqa: E731
    rows = graph.add("Gather", [graph.weight("pieces.int8", steps), "input_ids"], axis=0)
    scales = graph.add("Gather", [graph.weight("pieces.scale", scale[:, 0]), "input_ids"], axis=0)
    weights = graph.add("Mul", [double(scales), double("attention_mask")])
    middle_axis = graph.weight("middle_axis", np.array([1], np.int64))
    # Summed in double precision: the order of summation depends on padding and batch, the rounded sum does not.
    sums = graph.add("MatMul", [graph.add("Unsqueeze", [weights, middle_axis]), double(rows)])
    sums = unit(graph, graph.add("Squeeze", [sums, middle_axis]), 1.0, kind=np.float64)
    sums = graph.add("Cast", [sums], to=TensorProto.FLOAT)
    # Text says nothing of appearance: those dimensions are zero.
    pads = graph.weight("appearance_pads", np.array([0, 0, 0, APPEARANCE], np.int64))
    graph.add("Pad", [sums, pads, graph.weight("zero", np.float32(0))], "text_embeds")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    graph.save(path, inputs, "text_embeds", "imgvec_starter_text")


def write_json(path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    add_weights_argument(parser)
    parser.add_argument("--package", type=corpus.Path, default=PACKAGE)
    arguments = parser.parse_args()
    target = arguments.package
    target.mkdir(parents=True, exist_ok=True)

    weights = trained(arguments)
    refit = np.load(corpus.cache_path(arguments, "refit.npz"))
    for name in ("meaning", "appearance"):
        weights[name] = refit[name], refit[f"{name}.bias"]
    namer = dict(np.load(corpus.cache_path(arguments, "colors.npz")))
    unpacked = corpus.cache_path(arguments, "unpacked.onnx")
    export_image(weights, namer, target / "onnx" / "vision_model.onnx")
    export_image(weights, namer, unpacked, packed=False)
    check_image(target / "onnx" / "vision_model.onnx", unpacked, corpus.load(arguments, "train", INPUT).pixels[:64])
    table = np.load(corpus.cache_path(arguments, "words.npz"))["table"]
    export_text(table, target / "onnx" / "text_model.onnx")
    shutil.copyfile(corpus.cache_path(arguments, "words.json"), target / "tokenizer.json")
    write_json(target / "config.json", {
        "model_type": "imgvec_starter",
        "edition": 2,
        "projection_dim": DIMS,
        "text_config": {"vocab_size": len(table), "pad_token_id": text.SPECIAL.index("[PAD]")},
        "vision_config": {"image_size": INPUT, "num_channels": 3},
    })  # fmt: skip
    write_json(target / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": INPUT}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": INPUT, "width": INPUT},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    })  # fmt: skip
    (target / "imgvec.toml").write_text(SETTINGS)  # its temperature is set by evaluate.py
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"export: {target.name} is {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
