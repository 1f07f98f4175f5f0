"""Asks the reference image tower what it sees in every training picture.

Writes `teacher.npy`, float16 `[pictures, 1001]`: the class scores before the softmax of the reference encoder's
MobileNetV2 (index 0 is "background"), rows in corpus order. The student learns from these scores; no weight is copied.
Safe to interrupt: finished blocks are kept and skipped the next time.
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

SCORES = "MobilenetV2/Logits/Squeeze1"
BLOCK = 2048
_session = None


def _start(model_path: str) -> None:
    """Loads the tower once per process, cut off at the class scores."""
    global _session
    model = onnx.load(model_path)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(SCORES, onnx.TensorProto.FLOAT, [1, 1001]))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    _session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _scores(encoded: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((224, 224), Image.BICUBIC)
    pixels = (np.asarray(image, np.float32).transpose(2, 0, 1)[None] - 128) / 128
    return _session.run(None, {_session.get_inputs()[0].name: pixels})[0][0].astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if corpus.cache_path(arguments, "teacher.npy").exists():
        return
    blocks = corpus.cache_path(arguments, "teacher")
    blocks.mkdir(parents=True, exist_ok=True)
    model = str(arguments.reference / "image_mobilenetv2_conse.onnx")
    encoded = corpus.read_encoded(arguments, "train")
    started = time.time()
    with get_context("fork").Pool(arguments.processes, _start, (model,)) as pool:
        for begin in range(0, len(encoded), BLOCK):
            path = blocks / f"{begin:06d}.npy"
            if path.exists():
                continue
            rows = pool.map(_scores, encoded[begin : begin + BLOCK], chunksize=32)
            partial = path.with_suffix(".tmp.npy")
            np.save(partial, np.stack(rows))
            partial.rename(path)
            print(f"teacher: {begin + len(rows)} of {len(encoded)} pictures, {time.time() - started:.0f} s", flush=True)
    np.save(corpus.cache_path(arguments, "teacher.npy"), np.concatenate([np.load(p) for p in sorted(blocks.glob("??????.npy"))]))


if __name__ == "__main__":
    main()
