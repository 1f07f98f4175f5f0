#!/usr/bin/env python3
"""Makes the package `bert-dense`: the transformer of `bert-mean` with layers of sentence-transformers behind the pooling.

    pip install numpy onnxruntime
    python crates/encoder/tests/golden/sentence_modules.py

writes crates/encoder/tests/data/models/bert-dense; models.py, which writes the other packages, comes first. The layers have
random weights with a fixed seed, in each type that files have. What they compute is written down here a second time, in
double precision, after the classes Dense, LayerNorm and Normalize of sentence-transformers 5; onnxruntime gives the token
vectors.
"""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import onnxruntime

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
SOURCE = MODELS / "bert-mean"
TARGET = MODELS / "bert-dense"
TYPE = "sentence_transformers.models."


def bf16(values):
    """The nearest numbers that have the upper 16 bits of a float, and these bits."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return (upper.astype(np.uint32) << 16).view(np.float32), upper


def write_tensors(path, tensors):
    """A file of weights; gives them as they are stored."""
    header, data, stored = {}, b"", {}
    for name, (kind, values) in sorted(tensors.items()):
        if kind == "BF16":
            stored[name], raw = bf16(values)
        else:
            raw = np.asarray(values, {"F32": np.float32, "F16": np.float16}[kind])
            stored[name] = raw.astype(np.float32)
        bytes_ = raw.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return {name: values.astype(np.float64) for name, values in stored.items()}


def dense(rng, name, inputs, outputs, kind, bias, activation):
    tensors = {"linear.weight": (kind, rng.standard_normal((outputs, inputs)) / np.sqrt(inputs) * 1.5)}
    if bias:
        tensors["linear.bias"] = (kind, rng.standard_normal(outputs) * 0.3)
    stored = write_tensors(TARGET / name / "model.safetensors", tensors)
    names = {np.tanh: "torch.nn.modules.activation.Tanh", None: "torch.nn.modules.linear.Identity"}
    config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": names[activation]}
    (TARGET / name / "config.json").write_text(json.dumps(config))

    def run(vector):
        result = stored["linear.weight"] @ vector + stored.get("linear.bias", 0)
        return activation(result) if activation else result

    return run


def layer_norm(rng, name, dim, kind):
    tensors = {"norm.weight": (kind, 1 + 0.3 * rng.standard_normal(dim)), "norm.bias": (kind, 0.3 * rng.standard_normal(dim))}
    stored = write_tensors(TARGET / name / "model.safetensors", tensors)
    (TARGET / name / "config.json").write_text(json.dumps({"dimension": dim}))

    def run(vector):
        centered = vector - vector.mean()
        return centered / np.sqrt((centered**2).mean() + 1e-5) * stored["norm.weight"] + stored["norm.bias"]

    return run


def unit(vector):
    return vector / max(np.linalg.norm(vector), 1e-12)


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(SOURCE, TARGET, ignore=shutil.ignore_patterns("expected.json", "modules.json"))
    rng = np.random.default_rng(11)
    steps = [
        dense(rng, "2_Dense", 16, 24, "F32", True, np.tanh),
        layer_norm(rng, "3_LayerNorm", 24, "BF16"),
        unit,
        dense(rng, "5_Dense", 24, 12, "F16", False, None),
        unit,
    ]
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dense", "Normalize"]
    entries = [
        {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "", "type": TYPE + kind}
        for place, kind in enumerate(kinds)
    ]
    (TARGET / "modules.json").write_text(json.dumps(entries, indent=2) + "\n")

    session = onnxruntime.InferenceSession(str(TARGET / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    cases = json.loads((SOURCE / "expected.json").read_text())["texts"]
    found = []
    for case in cases:
        ids = np.array([case["ids"]])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        vector = session.run(["last_hidden_state"], inputs)[0][0].astype(np.float64).mean(0)
        assert np.abs(unit(vector) - case["embedding"]).max() < 1e-5, "the pooling is that of bert-mean"
        for step in steps:
            vector = step(vector)
        found.append({**case, "embedding": [float(f"{value:.7g}") for value in vector]})
    vectors = {tuple(case["ids"]): case["embedding"] for case in found}
    cosines = np.array(list(vectors.values())) @ np.array(list(vectors.values())).T - 2 * np.eye(len(vectors))
    assert cosines.max() < 0.999, cosines.max()
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in found)
    (TARGET / "expected.json").write_text(f'{{\n"texts": [\n{lines}\n],\n"tolerance": 1e-05\n}}\n')


if __name__ == "__main__":
    main()
