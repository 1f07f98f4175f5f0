#!/usr/bin/env python3
"""Writes packages of EmbeddingGemma 2's real shape with random weights: the first with fp32 graphs, the second with int8 ones.

    pip install numpy onnx onnxruntime onnxslim pillow sentencepiece tokenizers torch "transformers>=5.24"
    python benches/gemma2.py DIRECTORY/gemma2 DIRECTORY/gemma2-int8

The shape is the one that transformers builds from its own defaults: 24 layers of 512 for text and 16 of 768 for pictures, without
sound. The vocabulary has 262,144 pieces without a meaning. Embeddings are finite, differ between inputs, and mean nothing.
`benches/memory.py` measures sessions that use the packages. Needs 8 GB of memory and 4 GB of disk, and takes some minutes.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import tokenizers
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers.models.embedding_gemma2.modeling_embedding_gemma2 import EmbeddingGemma2Model, EmbeddingGemma2RMSNorm
from transformers.models.gemma4.modeling_gemma4 import Gemma4RMSNorm

GOLDEN = Path(__file__).resolve().parent.parent / "crates/encoder/tests/golden"
sys.path.insert(0, str(GOLDEN))
import embedding_gemma2 as tiny  # noqa: E402

PIECES = 262_144
FIRST = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
# Where the published vocabulary has the tokens around pictures and sound.
PLACES = {"<|image>": 255_999, "<|audio>": 256_000, "<|image|>": 258_880, "<|audio|>": 258_881, "<image|>": 258_882,
          "<audio|>": 258_883, "<|video|>": 258_884}  # fmt: skip


def tokenizer() -> tokenizers.Tokenizer:
    """Gemma's kind of BPE: pieces that begin with a blank or not, bytes for what is unknown."""
    rng = np.random.default_rng(1)
    pieces = FIRST + [f"<0x{byte:02X}>" for byte in range(256)]
    parts = [chr(code) for code in range(33, 127)] + ["▁"]
    known, merges, taken = set(parts), [], {place: token for token, place in PLACES.items()}
    pieces += parts
    while len(pieces) < PIECES:
        if len(pieces) in taken:
            pieces.append(taken[len(pieces)])
            continue
        # Short pieces are drawn more often, as frequent words are short.
        left, right = (parts[int(len(parts) * rng.random() ** 3)] for _ in range(2))
        merged = left + right
        if merged in known or "▁" in right or len(merged) > 16:
            continue
        known.add(merged)
        parts.append(merged)
        pieces.append(merged)
        merges.append((left, right))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True,
    ))  # fmt: skip
    inner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    inner.add_special_tokens([*FIRST, *PLACES])
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B <eos>",
        special_tokens=[("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])],
    )  # fmt: skip
    return inner


def normed(self, states: torch.Tensor) -> torch.Tensor:
    """The models' RMS normalization as ONNX Runtime knows it: one node instead of six, as in published graphs."""
    return states / torch.sqrt(states.pow(2).mean(-1, keepdim=True) + self.eps)


def make_model() -> EmbeddingGemma2Model:
    EmbeddingGemma2RMSNorm._norm = Gemma4RMSNorm._norm = normed
    config = transformers.AutoConfig.for_model("embedding_gemma2", vision_config={"model_type": "gemma4_vision"}, audio_config=None)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    model = EmbeddingGemma2Model(config).eval()
    for module in model.modules():
        if isinstance(module, (EmbeddingGemma2RMSNorm, Gemma4RMSNorm)) and module.with_scale:
            module.weight.data.uniform_(0.5, 1.5)  # ones would be left out of the graphs
    return model


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_graphs(model: EmbeddingGemma2Model, out: Path) -> None:
    (out / "onnx").mkdir(parents=True)
    columns, rows = np.meshgrid(np.arange(6), np.arange(6))
    places = torch.from_numpy(np.stack([columns, rows], -1).reshape(1, -1, 2)).long()
    tiny.export(
        tiny.VisionHalf(model), {"pixel_values": torch.rand(1, 36, 768), "pixel_position_ids": places}, ["image_features"],
        {"pixel_values": {0: "images", 1: "patches"}, "pixel_position_ids": {0: "images", 1: "patches"},
         "image_features": {0: "tokens"}},
        out / "onnx/vision_encoder.onnx",
    )  # fmt: skip
    token, hidden = model.config.image_token_id, model.config.text_config.hidden_size
    ids = torch.tensor([[2, 300, token, token, token, 1], [2, token, token, 1, 0, 0]])
    none = torch.zeros(0, hidden)
    example = {"input_ids": ids, "attention_mask": (ids != 0).long(), "image_features": torch.randn(5, hidden),
               "video_features": none, "audio_features": none}  # fmt: skip
    axes = {name: {0: "batch", 1: "sequence"} for name in ["input_ids", "attention_mask", "last_hidden_state"]}
    axes |= {name: {0: name} for name in ["image_features", "video_features", "audio_features"]} | {"sentence_embedding": {0: "batch"}}
    tiny.export(tiny.TextHalf(model), example, ["last_hidden_state", "sentence_embedding"], axes, out / "onnx/model.onnx")


def slim(out: Path) -> None:
    """Computes ahead what does not depend on the inputs, as the tools that publish graphs do."""
    for name in ("model", "vision_encoder"):
        path = out / f"onnx/{name}.onnx"
        onnx.save(onnxslim.slim(str(path)), path)


def write_files(model: EmbeddingGemma2Model, out: Path, soft_tokens: int) -> None:
    tokenizer().save(str(out / "tokenizer.json"))
    write(out / "config.json", json.loads(model.config.to_json_string(use_diff=False)))
    write(out / "tokenizer_config.json", {
        "model_max_length": 8192, "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "pad_token": "<pad>",
        "bos_token": "<bos>", "eos_token": "<eos>", "tokenizer_class": "GemmaTokenizer",
    })  # fmt: skip
    fields = json.loads((GOLDEN.parent / "data/embedding_gemma2/processor_config.json").read_text())
    fields["image_processor"] |= {"max_soft_tokens": soft_tokens, "image_seq_length": soft_tokens}
    write(out / "processor_config.json", fields)
    write(out / "config_sentence_transformers.json", {"prompts": {"query": tiny.QUERY, "document": tiny.DOCUMENT}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fp32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("--soft-tokens", type=int, default=280, help="of a picture, at most")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for out in (arguments.fp32, arguments.int8):
        shutil.rmtree(out, ignore_errors=True)
    model = make_model()
    for name, part in [("text", model.language_model), ("vision", model.vision_tower)]:
        print(f"{name}: {sum(weight.numel() for weight in part.parameters()) / 1e6:.0f} M parameters", flush=True)
    with torch.no_grad():
        write_graphs(model, arguments.fp32)
    slim(arguments.fp32)
    write_files(model, arguments.fp32, arguments.soft_tokens)
    shutil.copytree(arguments.fp32, arguments.int8, ignore=shutil.ignore_patterns("onnx"))
    (arguments.int8 / "onnx").mkdir()
    for name in ("model", "vision_encoder"):
        print(f"{name} to int8", flush=True)
        quantize_dynamic(arguments.fp32 / f"onnx/{name}.onnx", arguments.int8 / f"onnx/{name}_quantized.onnx",
                         weight_type=QuantType.QInt8)  # fmt: skip
        onnx.checker.check_model(str(arguments.int8 / f"onnx/{name}_quantized.onnx"))


if __name__ == "__main__":
    main()
