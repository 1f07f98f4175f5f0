#!/usr/bin/env python3
"""Writes model packages of real sizes, or small ones of the same shape, with random weights.

    pip install numpy onnx
    python benches/packages.py {clip,siglip,sentence,long} DIRECTORY [--small] [--seed N]

Memory and speed of an encoder depend on its architecture, not on what it has learned. The kinds:

    clip      both towers of CLIP ViT-B/32, as benches/clip_b32.py writes them (606 MB)
    siglip    both towers of SigLIP base, patches of 16, 64 tokens, a head that pools by attention (810 MB)
    sentence  six layers of 384 (MiniLM), at most 512 tokens, mean over tokens (90 MB)
    long      a BERT base whose positions go to 8,192, mean over tokens (460 MB)

`--small` gives towers of two layers with the same number of tokens, patches and positions, so that memory
for pairs of tokens grows as in the large ones. Embeddings are finite, differ between inputs, and mean nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import clip_b32
from clip_b32 import TensorProto, WORDS, write_json

WORD_PIECES = 30522
UNIGRAMS = 32000


class Graph(clip_b32.Graph):
    """A graph under construction, with the layers of BERT and SigLIP."""

    def gelu(self, x):
        half, one, root = (self.constant(np.float32(value)) for value in (0.5, 1, 2**-0.5))
        error = self.op("Add", self.op("Erf", self.op("Mul", x, root)), one)
        return self.op("Mul", self.op("Mul", x, error), half)

    def wide(self, x, width):
        return self.linear(self.gelu(self.linear(x, width, 4 * width)), 4 * width, width)

    def pre_norm(self, x, width, heads, layers):
        for _ in range(layers):
            x = self.op("Add", x, self.attention(self.layer_norm(x, width), width, heads, None))
            x = self.op("Add", x, self.wide(self.layer_norm(x, width), width))
        return x

    def post_norm(self, x, width, heads, layers, mask):
        for _ in range(layers):
            x = self.layer_norm(self.op("Add", x, self.attention(x, width, heads, mask)), width)
            x = self.layer_norm(self.op("Add", x, self.wide(x, width)), width)
        return x

    def indices(self, *values):
        return self.constant(np.array(values))

    def size(self, x, axis):
        return self.op("Gather", self.op("Shape", x), self.constant(np.array(axis)), axis=0)

    def positions(self, ids, width, count):
        length = self.size(ids, 1)
        places = self.op("Range", self.constant(np.array(0)), length, self.constant(np.array(1)))
        return self.op("Gather", self.weight(count, width, deviation=0.5), places, axis=0)

    def attention_head(self, x, width, heads):
        """SigLIP's pooling: a learned query looks at all tokens, and a residual block follows."""
        size = width // heads
        split = self.indices(0, 0, heads, size)
        query = self.constant(self.rng.standard_normal((1, heads, 1, size)).astype(np.float32))
        key, value = (self.op("Reshape", self.linear(x, width, width), split) for _ in range(2))
        key = self.op("Transpose", key, perm=[0, 2, 3, 1])
        value = self.op("Transpose", value, perm=[0, 2, 1, 3])
        scores = self.op("MatMul", query, key)
        scores = self.op("Mul", scores, self.constant(np.float32(size**-0.5)))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        mixed = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.indices(0, 0, width))
        x = self.linear(mixed, width, width)
        x = self.op("Add", x, self.wide(self.layer_norm(x, width), width))
        return self.op("Gather", x, self.constant(np.array(0)), axis=1)


def value(name, kind, *shape):
    return (name, kind, list(shape))


# --- graphs ---------------------------------------------------------------------------------------


def write_bert(path, rng, width, heads, layers, positions, vocabulary):
    graph = Graph(rng)
    x = graph.op("Gather", graph.weight(vocabulary, width, deviation=0.5), "input_ids", axis=0)
    x = graph.op("Add", x, graph.op("Gather", graph.weight(2, width, deviation=0.5), "token_type_ids", axis=0))
    x = graph.layer_norm(graph.op("Add", x, graph.positions("input_ids", width, positions)), width)
    mask = graph.op("Cast", graph.op("Unsqueeze", "attention_mask", graph.indices(1, 2)), to=TensorProto.FLOAT)
    mask = graph.op("Sub", graph.constant(np.float32(1)), mask)
    mask = graph.op("Mul", mask, graph.constant(np.finfo(np.float32).min))
    x = graph.post_norm(x, width, heads, layers, mask)
    graph.op("Identity", x, output="last_hidden_state")
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [value(name, TensorProto.INT64, "batch_size", "sequence_length") for name in names]
    output = value("last_hidden_state", TensorProto.FLOAT, "batch_size", "sequence_length", width)
    graph.save(path, "bert", inputs, output, False)


def write_siglip_text(path, rng, width, heads, layers, vocabulary):
    graph = Graph(rng)
    x = graph.op("Gather", graph.weight(vocabulary, width, deviation=0.5), "input_ids", axis=0)
    x = graph.op("Add", x, graph.positions("input_ids", width, 64))
    x = graph.layer_norm(graph.pre_norm(x, width, heads, layers), width)
    x = graph.op("Gather", x, graph.constant(np.array(-1)), axis=1)
    product = graph.op("MatMul", x, graph.weight(width, width, deviation=width**-0.5))
    graph.op("Add", product, graph.weight(width, deviation=0.02), output="pooler_output")
    ids = value("input_ids", TensorProto.INT64, "batch_size", "sequence_length")
    graph.save(path, "text", [ids], value("pooler_output", TensorProto.FLOAT, "batch_size", width), False)


def write_siglip_vision(path, rng, width, heads, layers, patch=16, image=224):
    graph = Graph(rng)
    kernel = graph.weight(width, 3, patch, patch, deviation=(3 * patch * patch) ** -0.5)
    bias = graph.weight(width, deviation=0.02)
    x = graph.op("Conv", "pixel_values", kernel, bias, kernel_shape=[patch, patch], strides=[patch, patch])
    x = graph.op("Transpose", graph.op("Reshape", x, graph.indices(0, width, -1)), perm=[0, 2, 1])
    x = graph.op("Add", x, graph.weight((image // patch) ** 2, width, deviation=0.5))
    x = graph.layer_norm(graph.pre_norm(x, width, heads, layers), width)
    x = graph.attention_head(x, width, heads)
    graph.op("Reshape", x, graph.indices(0, width), output="pooler_output")
    pixels = value("pixel_values", TensorProto.FLOAT, "batch_size", 3, image, image)
    graph.save(path, "vision", [pixels], value("pooler_output", TensorProto.FLOAT, "batch_size", width), False)


# --- tokenizers -----------------------------------------------------------------------------------


def syllables(rng, count, known):
    """Letters without a meaning that are none of `known`."""
    found, letters = [], "abcdefghijklmnopqrstuvwxyz"
    while len(found) < count:
        syllable = "".join(letters[number] for number in rng.integers(26, size=rng.integers(2, 8)))
        if syllable not in known:
            known.add(syllable)
            found.append(syllable)
    return found


def special(names, vocab):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": vocab[name], "content": name, **flags} for name in names]


def write_word_pieces(directory, rng, count, positions):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(letter) for letter in range(33, 127) if not chr(letter).isupper()]
    tokens = names + letters + ["##" + letter for letter in letters] + [word for word in WORDS if len(word) > 1]
    tokens += syllables(rng, count - len(tokens), set(tokens)) if count > len(tokens) else []
    vocab = {token: number for number, token in enumerate(tokens)}
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    ids = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    write_json(directory / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special(names, vocab),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": ids},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    })  # fmt: skip
    write_json(directory / "tokenizer_config.json", {
        "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
        "mask_token": "[MASK]", "model_max_length": positions, "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
    })  # fmt: skip
    return len(tokens)


def write_unigrams(directory, rng, count):
    names = ["<pad>", "</s>", "<unk>"]
    letters = ["\u2581", *(chr(letter) for letter in range(33, 127) if not chr(letter).isupper())]
    words = ["\u2581" + word for word in WORDS]
    tokens = names + letters + words
    tokens += syllables(rng, count - len(tokens), set(tokens)) if count > len(tokens) else []
    vocab = {token: number for number, token in enumerate(tokens)}
    pieces = [[token, 0.0 if token in names else -2.0 - number / 10000] for number, token in enumerate(tokens)]
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    ids = {"</s>": {"id": "</s>", "ids": [vocab["</s>"]], "tokens": ["</s>"]}}
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    write_json(directory / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special(names, vocab),
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": spaces,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": ids},
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    })  # fmt: skip
    write_json(directory / "tokenizer_config.json", {
        "unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>", "model_max_length": 64,
        "tokenizer_class": "SiglipTokenizer", "do_lower_case": True,
    })  # fmt: skip
    return len(tokens)


# --- packages -------------------------------------------------------------------------------------


def write_sentence_package(directory, rng, width, heads, layers, positions, words):
    graph, tokens = rng.spawn(2)
    vocabulary = write_word_pieces(directory, tokens, words, positions)
    write_bert(directory / "onnx" / "model.onnx", graph, width, heads, layers, positions, vocabulary)
    write_json(directory / "config.json", {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": width,
        "intermediate_size": 4 * width, "num_attention_heads": heads, "num_hidden_layers": layers,
        "max_position_embeddings": positions, "type_vocab_size": 2, "vocab_size": vocabulary, "pad_token_id": 0,
    })  # fmt: skip
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": positions, "do_lower_case": False})
    write_json(directory / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ])  # fmt: skip
    (directory / "1_Pooling").mkdir(exist_ok=True)
    write_json(directory / "1_Pooling" / "config.json", {
        "word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
    })  # fmt: skip


def write_siglip_package(directory, rng, width, heads, layers, words):
    vision, text, tokens = rng.spawn(3)
    vocabulary = write_unigrams(directory, tokens, words)
    write_siglip_vision(directory / "onnx" / "vision_model.onnx", vision, width, heads, layers)
    write_siglip_text(directory / "onnx" / "text_model.onnx", text, width, heads, layers, vocabulary)
    shared = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads,
              "num_hidden_layers": layers, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}  # fmt: skip
    write_json(directory / "config.json", {
        "architectures": ["SiglipModel"], "model_type": "siglip",
        "text_config": {**shared, "model_type": "siglip_text_model", "max_position_embeddings": 64,
                        "vocab_size": vocabulary, "pad_token_id": 1, "projection_size": width},
        "vision_config": {**shared, "model_type": "siglip_vision_model", "image_size": 224, "patch_size": 16,
                          "num_channels": 3, "vision_use_head": True},
    })  # fmt: skip
    half = [0.5, 0.5, 0.5]
    write_json(directory / "preprocessor_config.json", {
        "image_processor_type": "SiglipImageProcessor", "do_convert_rgb": True, "do_resize": True,
        "size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": half, "image_std": half,
    })  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["clip", "siglip", "sentence", "long"])
    parser.add_argument("directory", type=Path, help="of the package; is made if it does not exist")
    parser.add_argument("--small", action="store_true", help="two narrow layers, a short list of tokens")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory, small = arguments.directory, arguments.small
    (directory / "onnx").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    if arguments.kind == "clip":
        if small:
            clip_b32.LAYERS, clip_b32.VISION_WIDTH, clip_b32.TEXT_WIDTH = 2, 48, 32
        clip_b32.write_package(directory, rng)
    elif arguments.kind == "siglip":
        write_siglip_package(directory, rng, *((48, 12, 2, 0) if small else (768, 12, 12, UNIGRAMS)))
    elif arguments.kind == "sentence":
        write_sentence_package(directory, rng, *((48, 12, 2, 512, 0) if small else (384, 12, 6, 512, WORD_PIECES)))
    else:
        write_sentence_package(directory, rng, *((24, 12, 2, 8192, 0) if small else (768, 12, 12, 8192, WORD_PIECES)))
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
