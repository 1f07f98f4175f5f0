"""What an ImageNet classifier sees in every picture of the corpus: the teacher's raw material.

Writes `features-train.npy` and `features-test.npy`, float16 `[pictures, 1280]`: the pooled last features of the
reference encoder's MobileNetV2, rows in corpus order. Those of the test pictures only judge the teacher. No weight of
it is copied. Safe to interrupt: finished blocks are kept and skipped the next time.
"""

import argparse
import io
import time
from multiprocessing import get_context

import numpy as np
import onnx
import onnxruntime as ort
from PIL import Image

import corpus

POOLED = "MobilenetV2/Logits/AvgPool"
# The network is convolutional, so a picture may be shown at any size. Those of 64 and 32 pixels are recognized best when
# they are not stretched to 224 (tiny-ImageNet top-1 of its own head at 96, 128, 160, 192, 224 pixels: .33 .41 .44 .43 .40).
SIDES = {"tin": 160, "c100": 160, "c10": 160}
LARGE = 224
BLOCK, BATCH = 2048, 8
_session = None


def tower(model_path: str) -> onnx.ModelProto:
    """The classifier up to its pooled features, for any batch and side."""
    model = onnx.load(model_path)
    graph = model.graph
    position = next(i for i, node in enumerate(graph.node) if node.output[0] == POOLED)
    pool = onnx.helper.make_node("GlobalAveragePool", [graph.node[position].input[0]], [POOLED])
    kept = [*graph.node[:position], pool]
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    pixels = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, "side", "side"])
    output = onnx.helper.make_tensor_value_info(POOLED, onnx.TensorProto.FLOAT, ["batch", 1280, 1, 1])
    cut = onnx.helper.make_graph(kept, "teacher", [pixels], [output], weights)
    return onnx.helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)


def classifier(model_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight `[1001, 1280]` and bias of the classifier's last layer, which turns features into class scores."""
    graph = onnx.load(model_path).graph
    last = next(node for node in graph.node if node.op_type == "Conv" and node.input[0] == POOLED)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return weights[last.input[1]][:, :, 0, 0], weights[last.input[2]]


def _start(model: bytes) -> None:
    """Loads the tower once per process."""
    global _session
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    _session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _features(task: tuple[int, list[bytes]]) -> np.ndarray:
    side, encoded = task
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.BICUBIC) for data in encoded]
    pixels = (np.stack([np.asarray(picture, np.float32) for picture in pictures]).transpose(0, 3, 1, 2) - 128) / 128
    return _session.run(None, {"input": np.ascontiguousarray(pixels)})[0][:, :, 0, 0].astype(np.float16)


def _block(pool, encoded: list[bytes], sides: np.ndarray) -> np.ndarray:
    """Features of one block, pictures of one side together."""
    order = np.argsort(sides, kind="stable")
    parts = [part for side in np.unique(sides) for part in np.array_split(order[sides[order] == side], -(-(sides == side).sum() // BATCH))]
    rows = pool.map(_features, [(int(sides[part[0]]), [encoded[row] for row in part]) for part in parts], chunksize=4)
    features = np.empty((len(encoded), 1280), np.float16)
    features[np.concatenate(parts)] = np.concatenate(rows)
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    model = tower(str(arguments.reference / "image_mobilenetv2_conse.onnx")).SerializeToString()
    started = time.time()
    with get_context("fork").Pool(arguments.processes, _start, (model,)) as pool:
        for split in ("test", "train"):
            target = corpus.part_path(arguments, "features", split)
            if target.exists():
                continue
            blocks = target.with_suffix("")
            blocks.mkdir(parents=True, exist_ok=True)
            encoded = corpus.read_encoded(arguments, split)
            sides = np.array([SIDES.get(source, LARGE) for source in corpus.read_sources(arguments, split)])
            for begin in range(0, len(encoded), BLOCK):
                path = blocks / f"{begin:06d}.npy"
                if path.exists():
                    continue
                rows = _block(pool, encoded[begin : begin + BLOCK], sides[begin : begin + BLOCK])
                partial = path.with_suffix(".tmp")
                with partial.open("wb") as file:
                    np.save(file, rows)
                partial.rename(path)
                print(f"teacher: {begin + len(rows)} of {len(encoded)} {split} pictures, {time.time() - started:.0f} s", flush=True)
            np.save(target, np.concatenate([np.load(path) for path in sorted(blocks.glob("??????.npy"))]))


if __name__ == "__main__":
    main()
