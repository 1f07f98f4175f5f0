#!/usr/bin/env python3
"""Makes the model packages, and the expected values, that the model tests of this crate run.

    pip install numpy onnx onnxruntime pillow protobuf sentencepiece torch transformers
    python crates/encoder/tests/golden/models.py

writes crates/encoder/tests/data/models. The architectures are those of transformers, shrunk to two
layers of 16 dimensions; weights are random with fixed seeds, vocabularies are made of the words
below, pictures are drawn here. Nothing is downloaded, and a second run writes the same bytes with
the same library versions, which are noted in versions.json.

Each directory is a model package as it is published for ONNX Runtime, and has one file more:
expected.json with token ids and embeddings of texts, and pixel values and embeddings of the
pictures, computed by torch and transformers (README.md beside this script describes it). Before
anything is written, onnxruntime must agree with torch on each graph.
"""

import json
import logging
import shutil
import string
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL
import sentencepiece
import tokenizers
import torch
import transformers
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image, ImageDraw
from transformers.image_transforms import convert_to_rgb
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

OUT = Path(__file__).resolve().parent.parent / "data" / "models"
PICTURES = OUT / "pictures"
OPSET = 17
# Greatest difference of an element of a unit-length embedding, torch against onnxruntime in fp32.
EXACT = 1e-5

WORDS = """a an the of on in with and two red green blue photo picture dog dogs cat cats bird horse
car tree house street grass water sky ball child running sleeping old new small black white""".split()

TEXTS = [
    "",
    "a",
    "a photo of a dog",
    "Two   cats,\tone RED ball!\n",
    "it's they'll we've I'D 1234 3.14",
    "!?... (#@) -- '' \"x\" a_b",
    "na\u00efve caf\u00e9 Stra\u00dfe \u6771\u4eac\u306e\u732b \u043f\u0440\u0438\u0432\u0435\u0442",
    "e\u0301 \u00a0\ufb01sh \u200bx \uff24\uff2f\uff27",
    "\U0001f436 \U0001f469\u200d\U0001f469\u200d\U0001f467 dog \U0001f44d\U0001f3fd",
    "a cat <|endoftext|> a dog <|startoftext|>",
    "dog</s> <pad> cat <unk> <eos>",
    "[CLS] dog [SEP] cat [MASK] [PAD]",
    "red dog, blue cat; " * 20,
    "x" * 300,
]


# --- pictures -------------------------------------------------------------------------------------


def draw(name, width, height, translucent=False):
    y, x = np.mgrid[0:height, 0:width]
    planes = [220 * x // width, 30 + 200 * y // height, 240 - 200 * (x + y) // (width + height)]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    brush = ImageDraw.Draw(image)
    brush.ellipse([width * 0.1, height * 0.2, width * 0.6, height * 0.6], fill=(230, 70, 30))
    brush.rectangle([width * 0.55, height * 0.5, width * 0.9, height * 0.9], fill=(20, 60, 200))
    if translucent:
        alpha = (x * 5 + y * 3) % 256
        alpha[: height // 4] = 0
        image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    path = PICTURES / name
    image.save(path, optimize=True)
    assert path.stat().st_size <= 3000, f"{name} has {path.stat().st_size} bytes"
    return path


def make_pictures():
    PICTURES.mkdir()
    return [draw("wide.png", 53, 36), draw("tall.png", 31, 64), draw("translucent.png", 40, 40, translucent=True)]


# --- tokenizers -----------------------------------------------------------------------------------


def merges_of(words):
    """Merge rules that build each word from the left, in the order of the words."""
    rules = {}
    for symbols in words:
        left = symbols[0]
        for right in symbols[1:]:
            rules[left, right] = left + right
            left += right
    return list(rules), list(dict.fromkeys(rules.values()))


def clip_tokenizer(max_length):
    """Byte-level BPE with CLIP's order of tokens: bytes, bytes at the end of a word, merges, specials."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges, merged = merges_of([*word[:-1], word[-1] + "</w>"] for word in WORDS)
    tokens = alphabet + [byte + "</w>" for byte in alphabet] + merged + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def gemma_tokenizer(max_length):
    """BPE with bytes for what it does not know. Lower-cases, as SigLIP 2 was trained."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [chr(code) for code in range(33, 127)] + ["\u2581"]
    merges, merged = merges_of(["\u2581", *word] for word in WORDS)
    vocab = {token: number for number, token in enumerate(tokens + merged)}
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=vocab, merges=merges, model_max_length=max_length, padding_side="right"
    )
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", vocab["<eos>"])]
    )
    return tokenizer


def sentencepiece_tokenizer(max_length, folder):
    """SigLIP's own tokenizer around a unigram model, and the tokenizer.json that exports come with."""
    rng = np.random.default_rng(7)
    lines = [" ".join(rng.choice(WORDS, 6)) for _ in range(400)] + list(string.ascii_lowercase + string.digits)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=150, num_threads=1,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", hard_vocab_limit=False, minloglevel=2,
        character_coverage=1.0, normalization_rule_name="identity", split_digits=True,
    )  # fmt: skip
    reference = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=max_length)
    pieces = reference.sp_model
    vocab = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in range(len(pieces))]
    exported = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=2, byte_fallback=False))
    normal = tokenizers.normalizers
    exported.normalizer = normal.Sequence([
        normal.Lowercase(),
        normal.Replace(tokenizers.Regex(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]\^_`{|}~]"""), ""),
        normal.Replace(tokenizers.Regex(r"\s+"), " "),
        normal.Strip(),
    ])
    exported.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    exported.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    exported.add_special_tokens(["</s>", "<unk>", "<pad>"])
    return reference, exported


def bert_tokenizer(max_length):
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters]
    tokens += ["##" + letter for letter in letters] + ["##ing", "##s", "\u732b"]
    tokens += [word for word in WORDS if len(word) > 1]
    vocab = {token: number for number, token in enumerate(tokens)}
    return transformers.BertTokenizer(vocab=vocab, model_max_length=max_length)


def token_ids(tokenizer, text):
    """Ids of a text before padding; special tokens that the text spells are text."""
    if isinstance(tokenizer, transformers.SiglipTokenizer):
        # It puts the mark of a word's start before punctuation that it then removes, which leaves a
        # mark too many. Exported files, like the training code, remove punctuation first.
        text = tokenizer.canonicalize_text(text)
    max_length = tokenizer.model_max_length
    return tokenizer(text, truncation=True, max_length=max_length, split_special_tokens=True)["input_ids"]


# --- weights and graphs ------------------------------------------------------------------------------


def randomize(model, seed, gain=1.4):
    """Weights of a spread at which different inputs give different embeddings."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if not values.is_floating_point() or name.startswith("logit_"):
                continue
            noise = torch.from_numpy(rng.standard_normal(tuple(values.shape)).astype(np.float32))
            if "embedding" in name and values.ndim >= 2:
                noise *= 0.7
            elif values.ndim >= 2:
                noise *= gain / np.sqrt(values[0].numel())
            elif name.endswith("running_var"):
                noise = 1 + 0.2 * noise.abs()
            else:
                noise *= 0.2
                noise += name.endswith(("weight", "lambda1"))
            values.copy_(noise)
    return model.eval()


class Tower(torch.nn.Module):
    """Part of a model: `run(model, *inputs)` returns the outputs in their order."""

    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run
        self.eval()  # or the exporter, when it is done, puts the model back into training mode

    def forward(self, *inputs):
        return self.run(self.model, *inputs)


def export(tower, inputs, outputs, axes):
    """A graph. `inputs` are named examples; `axes` names the free axes of each input and output."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            tower, tuple(inputs.values()), path, input_names=list(inputs), output_names=outputs, opset_version=OPSET,
            dynamic_axes={name: dict(enumerate(names)) for name, names in axes.items()}, dynamo=False,
        )  # fmt: skip
        graph = onnx.load(path)
    # Names that a graph inside a node may use stay.
    if not any(attribute.HasField("g") for node in graph.graph.node for attribute in node.attribute):
        shorten_names(graph.graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def shorten_names(graph):
    """Numbers everything but inputs and outputs: the exporter's names are a third of a small graph."""
    kept = {value.name for value in [*graph.input, *graph.output]}
    renamed = {"": ""}

    def short(name):
        return name if name in kept else renamed.setdefault(name, f"t{len(renamed)}")

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        assert not any(attribute.HasField("g") for attribute in node.attribute), "a name may be used inside"
        node.ClearField("doc_string")
        node.ClearField("name")
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
    del graph.value_info[:]


class Graph:
    """An exported graph that can be run."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.types = {value.name: value.type for value in self.session.get_inputs()}

    def __call__(self, **inputs):
        half = {name: inputs[name].astype(np.float16) for name, type in self.types.items() if type == "tensor(float16)"}
        return dict(zip(self.outputs, self.session.run(None, {**inputs, **half})))


def to_half(graph):
    """The graph with 16-bit floats throughout, inputs and outputs included."""

    def convert(tensor):
        if tensor.data_type == TensorProto.FLOAT:
            values = np.clip(numpy_helper.to_array(tensor), -65504, 65504).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    half = onnx.ModelProto()
    half.CopyFrom(graph)
    for value in [*half.graph.input, *half.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in half.graph.initializer:
        convert(tensor)
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                convert(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


# --- packages -------------------------------------------------------------------------------------


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def short(value):
    """Floats with the seven significant digits that tell one fp32 number from the next but one."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}")
    if isinstance(value, np.ndarray | list | tuple):
        return [short(item) for item in value]
    return value


class Package:
    """A directory of model files, and what a reader of it is expected to compute."""

    def __init__(self, name):
        self.name, self.dir = name, OUT / name
        (self.dir / "onnx").mkdir(parents=True)
        self.expected = {}
        self.difference = 0.0

    def json(self, name, value):
        path = self.dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def config(self, model, **more):
        config = json.loads(model.config.to_json_string(use_diff=True))
        self.json("config.json", {**config, **more})

    def preprocessor(self, processor, **more):
        """`more` replaces fields by what published files of that kind have; None removes one."""
        fields = json.loads(processor.to_json_string())
        fields["image_processor_type"] = fields["image_processor_type"].removesuffix("Pil")
        fields = {key: value for key, value in {**fields, **more}.items() if value is not None}
        self.json("preprocessor_config.json", fields)

    def tokenizer(self, tokenizer, exported=None, lowercase=False, **more):
        """`exported` goes into tokenizer.json where it is not the tokenizer's own form.

        `lowercase`: a reader must know by itself that text is converted to lower case.
        """
        if exported is None:
            exported = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            exported.no_padding()  # what the last call of `tokenizer` asked for
            exported.no_truncation()
        (self.dir / "tokenizer.json").write_text(exported.to_str())
        names = ["unk_token", "bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "mask_token"]
        fields = {name: str(getattr(tokenizer, name)) for name in names if getattr(tokenizer, name) is not None}
        fields |= {"model_max_length": tokenizer.model_max_length, "tokenizer_class": type(tokenizer).__name__}
        self.json("tokenizer_config.json", {**fields, **more})

        # The exported file alone gives the reference's ids.
        again = tokenizers.Tokenizer.from_file(str(self.dir / "tokenizer.json"))
        again.encode_special_tokens = True
        again.no_padding()
        again.enable_truncation(tokenizer.model_max_length)
        for text in TEXTS:
            ids = again.encode(text.lower() if lowercase else text).ids
            wanted = token_ids(tokenizer, text)
            assert ids == wanted, f"{self.name}: {text!r} gives {ids} instead of {wanted}"

    def graph(self, name, graph, external=False):
        path = self.dir / "onnx" / name
        if external:
            data = path.with_name(name + "_data")
            copy = onnx.ModelProto()
            copy.CopyFrom(graph)  # save_model moves the weights out of the graph that it is given
            onnx.save_model(
                copy, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name,
                size_threshold=256,
            )  # fmt: skip
            data.chmod(0o644)
        else:
            onnx.save_model(graph, path)
        return Graph(path)

    def expect_texts(self, cases, tolerance=EXACT):
        """`cases` are text, ids, reference vector and the graph's vector for it."""
        self.expected["texts"] = [
            {"text": text, "ids": ids, "embedding": self.agreed(text, reference, found, tolerance)}
            for text, ids, reference, found in cases
        ]
        self.distinct({tuple(case["ids"]): case["embedding"] for case in self.expected["texts"]}, 0.999)
        self.expected["tolerance"] = tolerance

    def expect_images(self, cases, tolerance=EXACT):
        """`cases` are path, pixel values, reference vector and the graph's vector for it."""
        self.expected["images"] = [
            {
                "file": path.name,
                "shape": list(pixels.shape),
                "mean": pixels.mean((1, 2)),
                "deviation": pixels.std((1, 2)),
                "every_97th": pixels.reshape(-1)[::97],
                "embedding": self.agreed(path.name, reference, found, tolerance),
            }
            for path, pixels, reference, found in cases
        ]
        self.distinct({case["file"]: case["embedding"] for case in self.expected["images"]}, 0.99)
        self.expected["tolerance"] = tolerance

    def agreed(self, what, reference, found, tolerance):
        reference, found = unit(reference), unit(found)
        difference = np.abs(reference - found).max()
        assert difference <= tolerance, f"{self.name}: {what!r} differs by {difference}"
        self.difference = max(self.difference, difference)
        return reference

    def distinct(self, embeddings, limit):
        """A test that compares embeddings needs inputs that differ in them."""
        vectors = np.stack(list(embeddings.values()))
        cosines = vectors @ vectors.T - 2 * np.eye(len(vectors))
        assert cosines.max() < limit, f"{self.name}: two inputs have cosine {cosines.max()}"

    def finish(self):
        lines = []
        for key, value in self.expected.items():
            if isinstance(value, list):
                cases = [{name: short(part) for name, part in case.items()} for case in value]
                text = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases)
                lines.append(f'"{key}": [\n{text}\n]')
            else:
                lines.append(f'"{key}": {json.dumps(value)}')
        (self.dir / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        size = sum(path.stat().st_size for path in self.dir.rglob("*") if path.is_file())
        print(f"{self.name:14} {size / 1000:6.1f} kB, onnxruntime within {self.difference:.1e}")


def pixel_values(processor, path):
    """What the processor makes of a picture, `[1, channel, height, width]`.

    Most processors composite translucent pixels on white by themselves; ConvNext's refuses them.
    """
    return processor(convert_to_rgb(Image.open(path)), return_tensors="np")["pixel_values"].astype(np.float32)


def image_cases(pictures, processor, reference, run):
    """Runs the pictures one by one through `reference`, and together through the graph."""
    batch = np.concatenate([pixel_values(processor, path) for path in pictures])
    found = run(batch)
    with torch.inference_mode():
        for path, pixels, vector in zip(pictures, batch, found, strict=True):
            yield path, pixels, reference(torch.from_numpy(pixels[None]))[0].numpy(), vector


def text_cases(tokenizer, reference, run, length=None):
    """Runs the texts one by one, padded to `length` tokens if there is one.

    `reference` and `run` take ids and mask of shape `[1, tokens]`.
    """
    for text in TEXTS:
        ids = token_ids(tokenizer, text)
        padding = (length or len(ids)) - len(ids)
        full = np.array([ids + [tokenizer.pad_token_id] * padding])
        mask = np.array([[1] * len(ids) + [0] * padding])
        with torch.inference_mode():
            vector = reference(torch.from_numpy(full), torch.from_numpy(mask))[0].numpy()
        yield text, ids, vector, run(full, mask)[0]


IMAGE_AXES = ["batch_size", "num_channels", "height", "width"]
TEXT_AXES = ["batch_size", "sequence_length"]
PATCH_AXES = ["batch_size", "patches"]
EAGER = dict(attn_implementation="eager")
SMALL = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


def clip_model(tokenizer, seed, eos_token_id):
    text = dict(
        SMALL, vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=eos_token_id, pad_token_id=tokenizer.pad_token_id,
        projection_dim=12,
    )  # fmt: skip
    vision = dict(SMALL, image_size=30, patch_size=10, projection_dim=12)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return randomize(transformers.CLIPModel._from_config(config, **EAGER), seed)


def clip_image(model, pixels):
    return model.get_image_features(pixel_values=pixels).pooler_output


def clip_text(model, ids, mask):
    return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def make_clip(pictures):
    """Split towers, and the same in half precision, with external data, and quantized."""
    tokenizer = clip_tokenizer(24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    # OpenAI's checkpoints say 2, which is not their end of text and means "the largest id".
    model = clip_model(tokenizer, seed=1, eos_token_id=2)
    ids, _ = example_tokens(tokenizer)

    def vision(model, pixels):
        output = model.get_image_features(pixel_values=pixels)
        return output.pooler_output, output.last_hidden_state

    def text(model, ids):
        output = model.get_text_features(input_ids=ids)
        return output.pooler_output, output.last_hidden_state

    vision = export(
        Tower(model, vision), {"pixel_values": torch.zeros(2, 3, 30, 30)}, ["image_embeds", "last_hidden_state"],
        {"pixel_values": IMAGE_AXES, "image_embeds": ["batch_size"], "last_hidden_state": PATCH_AXES},
    )  # fmt: skip
    text = export(
        Tower(model, text), {"input_ids": ids}, ["text_embeds", "last_hidden_state"],
        {"input_ids": TEXT_AXES, "text_embeds": ["batch_size"], "last_hidden_state": TEXT_AXES},
    )  # fmt: skip

    def write(name, suffix, change, tolerance=EXACT, external=False):
        package = Package(name)
        package.config(model, architectures=["CLIPModel"])
        if name == "clip-int8":
            # The fields of OpenAI's own file, of 2022.
            old = dict(feature_extractor_type="CLIPFeatureExtractor", size=30, crop_size=30)
            package.preprocessor(processor, image_processor_type=None, do_rescale=None, rescale_factor=None, **old)
        else:
            package.preprocessor(processor)
        package.tokenizer(tokenizer, do_lower_case=True)
        image = package.graph(f"vision_model{suffix}.onnx", change(vision), external)
        words = package.graph(f"text_model{suffix}.onnx", change(text), external)

        def run_image(pixels):
            return np.concatenate([image(pixel_values=one[None])["image_embeds"] for one in pixels])

        def run_text(ids, _mask):
            return words(input_ids=ids)["text_embeds"]

        images = list(image_cases(pictures, processor, lambda pixels: clip_image(model, pixels), run_image))
        texts = list(text_cases(tokenizer, lambda ids, mask: clip_text(model, ids, mask), run_text))
        if name == "clip-int8":
            # torch has no such arithmetic: onnxruntime is the reference, and near to torch.
            for _, _, reference, found in images + texts:
                assert unit(reference) @ unit(found) > 0.99, unit(reference) @ unit(found)
            images = [(path, pixels, found, found) for path, pixels, _, found in images]
            texts = [(text, ids, found, found) for text, ids, _, found in texts]
        else:
            # The whole batch gives what single pictures gave.
            batch = np.stack([pixels for _, pixels, _, _ in images])
            together = unit(image(pixel_values=batch)["image_embeds"])
            assert np.abs(together - unit([found for *_, found in images])).max() <= tolerance
        package.expect_images(images, tolerance)
        package.expect_texts(texts, tolerance)
        package.finish()
        return images

    images = write("clip", "", lambda graph: graph)
    write("clip-external", "", lambda graph: graph, external=True)
    write("clip-fp16io", "_fp16", to_half, tolerance=5e-3)
    write("clip-int8", "_quantized", quantized, tolerance=2e-2)

    # The translucent picture shows whether transparency was dropped.
    path, _, vector, _ = images[-1]
    dropped = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        assert unit(clip_image(model, dropped)[0].numpy()) @ unit(vector) < 0.99


def quantized(graph):
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        onnx.save_model(graph, plain)
        # There is no convolution kernel for signed weights.
        quantize_dynamic(plain, small, weight_type=QuantType.QUInt8)
        return onnx.load(small)


def example_tokens(tokenizer):
    """Two texts of different length for the tracer."""
    batch = tokenizer(["a dog", "two red cats on the grass"], padding=True, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def make_clip_combined(pictures):
    """One graph with both towers, each with a batch axis of its own."""
    tokenizer = clip_tokenizer(24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 30, "width": 30})
    model = clip_model(tokenizer, seed=2, eos_token_id=tokenizer.eos_token_id)
    package = Package("clip-combined")
    package.config(model, architectures=["CLIPModel"])
    package.preprocessor(processor)
    package.tokenizer(tokenizer, do_lower_case=True)
    ids, mask = example_tokens(tokenizer)

    def both(model, ids, pixels, mask):
        output = model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
        return output.logits_per_image, output.logits_per_text, output.text_embeds, output.image_embeds

    text_axes = ["text_batch_size", "sequence_length"]
    inputs = {"input_ids": ids, "pixel_values": torch.zeros(3, 3, 30, 30), "attention_mask": mask}
    graph = package.graph("model.onnx", export(
        Tower(model, both), inputs, ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
        {
            "input_ids": text_axes, "pixel_values": ["image_batch_size", *IMAGE_AXES[1:]], "attention_mask": text_axes,
            "logits_per_image": ["image_batch_size", "text_batch_size"],
            "logits_per_text": ["text_batch_size", "image_batch_size"],
            "text_embeds": ["text_batch_size"], "image_embeds": ["image_batch_size"],
        },
    ))  # fmt: skip
    ids, mask = ids.numpy(), mask.numpy()
    blank = np.zeros((1, 3, 30, 30), np.float32)
    package.expect_images(image_cases(
        pictures, processor, lambda pixels: clip_image(model, pixels),
        lambda pixels: graph(pixel_values=pixels, input_ids=ids, attention_mask=mask)["image_embeds"],
    ))  # fmt: skip
    package.expect_texts(text_cases(
        tokenizer, lambda ids, mask: clip_text(model, ids, mask),
        lambda ids, mask: graph(pixel_values=blank, input_ids=ids, attention_mask=mask)["text_embeds"],
    ))  # fmt: skip
    package.finish()


def make_siglip(pictures, name, tokenizer, seed, exported=None, **tokenizer_config):
    """Text is filled up to a fixed length, and nothing tells the tower where it ends."""
    length = tokenizer.model_max_length
    processor = SiglipImageProcessorPil(size={"height": 30, "width": 30})
    shared = dict(SMALL, hidden_size=12)
    text = dict(shared, vocab_size=len(tokenizer), max_position_embeddings=length, projection_size=12)
    config = transformers.SiglipConfig(text_config=text, vision_config=dict(shared, image_size=30, patch_size=10))
    model = randomize(transformers.SiglipModel._from_config(config, **EAGER), seed, gain=2.2)
    package = Package(name)
    package.config(model, architectures=["SiglipModel"])
    package.preprocessor(processor)
    package.tokenizer(tokenizer, exported, **tokenizer_config)

    def vision(model, pixels):
        output = model.vision_model(pixel_values=pixels)
        return output.last_hidden_state, output.pooler_output

    def text(model, ids):
        output = model.text_model(input_ids=ids)
        return output.last_hidden_state, output.pooler_output

    outputs = ["last_hidden_state", "pooler_output"]
    image = package.graph("vision_model.onnx", export(
        Tower(model, vision), {"pixel_values": torch.zeros(2, 3, 30, 30)}, outputs,
        {"pixel_values": IMAGE_AXES, "last_hidden_state": PATCH_AXES, "pooler_output": ["batch_size"]},
    ))  # fmt: skip
    words = package.graph("text_model.onnx", export(
        Tower(model, text), {"input_ids": torch.ones(2, length, dtype=torch.int64)}, outputs,
        {"input_ids": TEXT_AXES, "last_hidden_state": TEXT_AXES, "pooler_output": ["batch_size"]},
    ))  # fmt: skip
    package.expect_images(image_cases(
        pictures, processor, lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output,
        lambda pixels: image(pixel_values=pixels)["pooler_output"],
    ))  # fmt: skip
    package.expect_texts(text_cases(
        tokenizer, lambda ids, _: model.get_text_features(input_ids=ids).pooler_output,
        lambda ids, _: words(input_ids=ids)["pooler_output"], length,
    ))  # fmt: skip
    # The reference pads as this script does.
    padded = tokenizer(TEXTS[2], padding="max_length", max_length=length)["input_ids"]
    ids = package.expected["texts"][2]["ids"]
    assert padded == ids + [tokenizer.pad_token_id] * (length - len(ids))
    package.finish()


def make_dinov2(pictures):
    """Trained at a larger size, so that the graph interpolates its table of positions."""
    processor = BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=42, patch_size=14
    )
    model = randomize(transformers.Dinov2Model._from_config(config, **EAGER), seed=5)
    package = Package("dinov2")
    package.config(model, architectures=["Dinov2Model"])
    package.preprocessor(processor)

    def run(model, pixels):
        output = model(pixel_values=pixels)
        return output.last_hidden_state, output.pooler_output

    graph = package.graph("model.onnx", export(
        Tower(model, run), {"pixel_values": torch.zeros(2, 3, 28, 28)}, ["last_hidden_state", "pooler_output"],
        {"pixel_values": IMAGE_AXES, "last_hidden_state": PATCH_AXES, "pooler_output": ["batch_size"]},
    ))  # fmt: skip

    def reference(pixels):
        output = model(pixel_values=pixels)
        assert torch.equal(output.pooler_output, output.last_hidden_state[:, 0])
        return output.pooler_output

    package.expect_images(image_cases(
        pictures, processor, reference, lambda pixels: graph(pixel_values=pixels)["pooler_output"]
    ))  # fmt: skip
    package.finish()


def make_resnet(pictures):
    """A convolutional classifier: its logits are the embedding."""
    processor = ConvNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_pct=0.875, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    labels = dict(enumerate(["dog", "cat", "bird", "horse", "car", "tree", "house", "ball"]))
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic", id2label=labels,
        label2id={word: number for number, word in labels.items()},
    )  # fmt: skip
    model = randomize(transformers.ResNetForImageClassification(config), seed=6)
    package = Package("resnet")
    package.config(model, architectures=["ResNetForImageClassification"])
    package.preprocessor(processor)
    graph = package.graph("model.onnx", export(
        Tower(model, lambda model, pixels: model(pixel_values=pixels).logits),
        {"pixel_values": torch.zeros(2, 3, 28, 28)}, ["logits"],
        {"pixel_values": IMAGE_AXES, "logits": ["batch_size"]},
    ))  # fmt: skip
    package.expect_images(image_cases(
        pictures, processor, lambda pixels: model(pixel_values=pixels).logits,
        lambda pixels: graph(pixel_values=pixels)["logits"],
    ))  # fmt: skip
    package.finish()


def mean_of_tokens(states, mask):
    weights = mask.unsqueeze(-1).float()
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def make_bert(name, seed, mode, pool):
    """The layout of sentence-transformers, whose own file limits the length below the model's."""
    tokenizer = bert_tokenizer(20)
    config = transformers.BertConfig(**SMALL, vocab_size=len(tokenizer), max_position_embeddings=40)
    model = randomize(transformers.BertModel._from_config(config, add_pooling_layer=False, **EAGER), seed)
    package = Package(name)
    package.config(model, architectures=["BertModel"])
    # As all-MiniLM-L6-v2's file does, tokenizer.json fills up and cuts off at another length.
    exported = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    exported.enable_truncation(12)
    exported.enable_padding(length=12)
    package.tokenizer(tokenizer, exported, model_max_length=40, do_lower_case=True)
    package.json("sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    modules = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    package.json("modules.json", [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{module}"}
        for number, (path, module) in enumerate(zip(paths, modules))
    ])
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]
    pooling = {"word_embedding_dimension": 16, **{f"pooling_mode_{known}": known == mode for known in modes}}
    package.json("1_Pooling/config.json", pooling)
    ids, mask = example_tokens(tokenizer)
    graph = package.graph("model.onnx", export(
        Tower(model, lambda model, ids, mask, types: model(
            input_ids=ids, attention_mask=mask, token_type_ids=types
        ).last_hidden_state),
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}, ["last_hidden_state"],
        {name: TEXT_AXES for name in ["input_ids", "attention_mask", "token_type_ids", "last_hidden_state"]},
    ))  # fmt: skip

    def reference(ids, mask):
        return pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def run(ids, mask):
        states = graph(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))["last_hidden_state"]
        return pool(torch.from_numpy(states), torch.from_numpy(mask)).numpy()

    package.expect_texts(text_cases(tokenizer, reference, run))
    # Padding under a mask changes nothing.
    for (_, _, vector, _), (*_, found) in zip(
        text_cases(tokenizer, reference, run), text_cases(tokenizer, reference, run, length=30), strict=True
    ):
        assert np.abs(unit(vector) - unit(found)).max() <= EXACT
    package.finish()


def main():
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer recommends steps that change nothing here
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    pictures = make_pictures()
    make_clip(pictures)
    make_clip_combined(pictures)
    with tempfile.TemporaryDirectory() as folder:
        reference, exported = sentencepiece_tokenizer(16, Path(folder))
        make_siglip(pictures, "siglip", reference, 3, exported, do_lower_case=True)
    # The files of SigLIP 2 are Gemma's, which keep upper case; transformers' own class does not.
    reference = gemma_tokenizer(16)
    exported = tokenizers.Tokenizer.from_str(reference.backend_tokenizer.to_str())
    exported.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    make_siglip(
        pictures, "siglip2", reference, 4, exported, lowercase=True, tokenizer_class="GemmaTokenizer",
        padding_side="right",
    )  # fmt: skip
    make_dinov2(pictures)
    make_resnet(pictures)
    make_bert("bert-mean", 7, "mean_tokens", mean_of_tokens)
    make_bert("bert-cls", 8, "cls_token", lambda states, _: states[:, 0])
    versions = {"python": sys.version.split()[0], "pillow": PIL.__version__}
    for module in [np, onnx, onnxruntime, sentencepiece, tokenizers, torch, transformers]:
        versions[module.__name__] = module.__version__
    (OUT / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
