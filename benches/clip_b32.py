#!/usr/bin/env python3
"""Writes a model package of the size of CLIP ViT-B/32, with random weights.

    pip install numpy onnx
    python benches/clip_b32.py DIRECTORY [--external-data] [--seed N]

Speed and memory of an encoder depend on its architecture, not on what it has learned. This is the
architecture of Radford et al. 2021 ("Learning Transferable Visual Models From Natural Language
Supervision", table 20), 151 million parameters in fp32, in the files that an ONNX export of it has:
onnx/vision_model.onnx (352 MB), onnx/text_model.onnx (254 MB), tokenizer.json with 49,408 tokens,
config.json and preprocessor_config.json. Embeddings are finite and differ between inputs, and
mean nothing. The same seed and version of numpy give the same package.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 12
PROJECTION = 512
IMAGE, PATCH, VISION_WIDTH, VISION_HEADS = 224, 32, 768, 12
CONTEXT, VOCABULARY, TEXT_WIDTH, TEXT_HEADS = 77, 49408, 512, 8
START, END = "<|startoftext|>", "<|endoftext|>"
# Words that are one token, so that a query of these has as many tokens as with CLIP's vocabulary.
WORDS = """a an the of on in at by to and with is are one two three big small old new red green blue black white
photo picture image drawing dog cat bird horse cow fish car bus train boat bicycle tree flower grass water sea
beach mountain snow street city house room chair food man woman child people""".split()


# --- graphs ---------------------------------------------------------------------------------------


class Graph:
    """A graph under construction. Tensors are known by their names."""

    def __init__(self, rng):
        self.rng, self.nodes, self.tensors = rng, [], []

    def op(self, kind, *inputs, output=None, **attributes):
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values):
        name = f"constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape, deviation, mean=0.0):
        values = self.rng.standard_normal(shape, np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        return self.constant(values)

    def linear(self, x, inputs, outputs):
        product = self.op("MatMul", x, self.weight(inputs, outputs, deviation=inputs**-0.5))
        return self.op("Add", product, self.weight(outputs, deviation=0.02))

    def layer_norm(self, x, width):
        scale = self.weight(width, deviation=0.1, mean=1)
        return self.op("LayerNormalization", x, scale, self.weight(width, deviation=0.02), axis=-1, epsilon=1e-5)

    def attention(self, x, width, heads, mask):
        size = width // heads
        split = self.constant(np.array([0, 0, heads, size]))
        query, key, value = (self.linear(x, width, width) for _ in range(3))
        query = self.op("Mul", query, self.constant(np.float32(size**-0.5)))
        query = self.op("Transpose", self.op("Reshape", query, split), perm=[0, 2, 1, 3])
        key = self.op("Transpose", self.op("Reshape", key, split), perm=[0, 2, 3, 1])
        value = self.op("Transpose", self.op("Reshape", value, split), perm=[0, 2, 1, 3])
        scores = self.op("MatMul", query, key)
        if mask:
            scores = self.op("Add", scores, mask)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        mixed = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", mixed, self.constant(np.array([0, 0, width]))), width, width)

    def transformer(self, x, width, heads, mask=None):
        """Pre-norm layers with CLIP's approximation of GELU, x * sigmoid(1.702 x)."""
        for _ in range(LAYERS):
            x = self.op("Add", x, self.attention(self.layer_norm(x, width), width, heads, mask))
            wide = self.linear(self.layer_norm(x, width), width, 4 * width)
            gate = self.op("Sigmoid", self.op("Mul", wide, self.constant(np.float32(1.702))))
            x = self.op("Add", x, self.linear(self.op("Mul", wide, gate), 4 * width, width))
        return x

    def save(self, path, name, inputs, output, external):
        values = [helper.make_tensor_value_info(*value) for value in [*inputs, output]]
        graph = helper.make_graph(self.nodes, name, values[:-1], values[-1:], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        data = path.with_name(path.name + "_data")
        data.unlink(missing_ok=True)
        if external:
            onnx.save_model(
                model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name
            )  # fmt: skip
            data.chmod(0o644)  # onnx creates it for its owner alone, and a server is someone else
        else:
            onnx.save_model(model, path)


def write_vision(path, rng, external):
    graph, width = Graph(rng), VISION_WIDTH
    kernel = graph.weight(width, 3, PATCH, PATCH, deviation=(3 * PATCH * PATCH) ** -0.5)
    patches = graph.op("Conv", "pixel_values", kernel, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    patches = graph.op("Reshape", patches, graph.constant(np.array([0, width, -1])))
    patches = graph.op("Transpose", patches, perm=[0, 2, 1])
    batch = graph.op("Slice", graph.op("Shape", "pixel_values"), *(graph.constant(np.array([n])) for n in (0, 1)))
    shape = graph.op("Concat", batch, graph.constant(np.array([1, width])), axis=0)
    start = graph.op("Expand", graph.weight(1, 1, width, deviation=0.5), shape)
    x = graph.op("Concat", start, patches, axis=1)
    x = graph.op("Add", x, graph.weight((IMAGE // PATCH) ** 2 + 1, width, deviation=0.5))
    x = graph.transformer(graph.layer_norm(x, width), width, VISION_HEADS)
    x = graph.layer_norm(graph.op("Gather", x, graph.constant(np.array(0)), axis=1), width)
    graph.op("MatMul", x, graph.weight(width, PROJECTION, deviation=width**-0.5), output="image_embeds")
    pixels = ("pixel_values", TensorProto.FLOAT, ["batch_size", "num_channels", "height", "width"])
    graph.save(path, "vision", [pixels], ("image_embeds", TensorProto.FLOAT, ["batch_size", PROJECTION]), external)


def write_text(path, rng, external):
    graph, width = Graph(rng), TEXT_WIDTH
    zero, one = graph.constant(np.array(0)), graph.constant(np.array(1))
    length = graph.op("Gather", graph.op("Shape", "input_ids"), one, axis=0)
    positions = graph.op("Range", zero, length, one)
    x = graph.op("Gather", graph.weight(VOCABULARY, width, deviation=0.5), "input_ids", axis=0)
    x = graph.op("Add", x, graph.op("Gather", graph.weight(CONTEXT, width, deviation=0.5), positions, axis=0))
    # A token sees those before it and itself.
    rows = graph.op("Unsqueeze", positions, graph.constant(np.array([1])))
    future = graph.op("Greater", graph.op("Unsqueeze", positions, graph.constant(np.array([0]))), rows)
    lowest = graph.constant(np.finfo(np.float32).min)
    mask = graph.op("Where", future, lowest, graph.constant(np.float32(0)))
    x = graph.layer_norm(graph.transformer(x, width, TEXT_HEADS, mask), width)
    # The end of the text has the largest id.
    end = graph.op("ArgMax", "input_ids", axis=1, keepdims=1)
    x = graph.op("GatherND", x, end, batch_dims=1)
    graph.op("MatMul", x, graph.weight(width, PROJECTION, deviation=width**-0.5), output="text_embeds")
    ids = ("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
    graph.save(path, "text", [ids], ("text_embeds", TensorProto.FLOAT, ["batch_size", PROJECTION]), external)


# --- tokenizer ------------------------------------------------------------------------------------


def byte_alphabet():
    """The printable characters that stand for bytes in byte-level BPE, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def make_tokens(rng):
    """CLIP's vocabulary in size and order: bytes, bytes that end a word, merges, special tokens."""
    alphabet = byte_alphabet()
    tokens = alphabet + [byte + "</w>" for byte in alphabet]
    known, merges = set(tokens), []

    def add(left, right):
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges.append([left, right])

    for word in sorted(WORDS, key=len, reverse=True):
        for end in range(1, len(word)):
            add(word[:end], word[end] + ("</w>" if end + 1 == len(word) else ""))
    # The rest are syllables without a meaning.
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    lefts, rights = list(letters), letters + [letter + "</w>" for letter in letters]
    while len(tokens) < VOCABULARY - 2:
        left, right = lefts[rng.integers(len(lefts))], rights[rng.integers(len(rights))]
        merged = left + right
        if merged in known or len(merged.removesuffix("</w>")) > 12:
            continue
        add(left, right)
        rights.append(merged)
        if not merged.endswith("</w>"):
            lefts.append(merged)
    return [*tokens, START, END], merges


def write_tokenizer(directory, rng):
    tokens, merges = make_tokens(rng)
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == VOCABULARY
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[token], "content": token, **flags} for token in (START, END)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True},
            bytes_,
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, vocab[END]], "cls": [START, vocab[START]],
            "trim_offsets": False, "add_prefix_space": False,
        },
        "decoder": bytes_,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    write_json(directory / "tokenizer_config.json", {
        "bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END, "do_lower_case": True,
        "model_max_length": CONTEXT, "tokenizer_class": "CLIPTokenizer",
    })  # fmt: skip


# --- package --------------------------------------------------------------------------------------


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_configs(directory):
    shared = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": LAYERS}
    write_json(directory / "config.json", {
        "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": PROJECTION,
        "text_config": {
            **shared, "model_type": "clip_text_model", "hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH,
            "num_attention_heads": TEXT_HEADS, "max_position_embeddings": CONTEXT, "vocab_size": VOCABULARY,
            "bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "projection_dim": PROJECTION,
        },
        "vision_config": {
            **shared, "model_type": "clip_vision_model", "hidden_size": VISION_WIDTH,
            "intermediate_size": 4 * VISION_WIDTH, "num_attention_heads": VISION_HEADS, "image_size": IMAGE,
            "patch_size": PATCH, "projection_dim": PROJECTION,
        },
    })  # fmt: skip
    write_json(directory / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": IMAGE}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": IMAGE, "width": IMAGE},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    })  # fmt: skip


def write_package(directory, rng, external=False):
    # One stream for each part, so that changing one leaves the others as they were.
    vision, text, tokenizer = rng.spawn(3)
    write_vision(directory / "onnx" / "vision_model.onnx", vision, external)
    write_text(directory / "onnx" / "text_model.onnx", text, external)
    write_tokenizer(directory, tokenizer)
    write_configs(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="of the package; is made if it does not exist")
    parser.add_argument("--external-data", action="store_true", help="weights in .onnx_data files beside the graphs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory = arguments.directory
    (directory / "onnx").mkdir(parents=True, exist_ok=True)
    write_package(directory, np.random.default_rng(arguments.seed), arguments.external_data)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {size // 1_000_000} MB")


if __name__ == "__main__":
    main()
