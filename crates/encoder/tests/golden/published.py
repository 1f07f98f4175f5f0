#!/usr/bin/env python3
"""Makes packages as they are published in 2026, at tiny size, beside those of models.py.

    pip install numpy onnx onnxruntime pillow sentencepiece torch transformers
    python crates/encoder/tests/golden/published.py

writes some directories of crates/encoder/tests/data/models; models.py, which writes the others, comes first. Each is a
package of its own with an expected.json, as README.md describes them. Nothing is downloaded.
"""

import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import models
import numpy as np
import onnx
import tokenizers
import torch
import transformers
from models import EAGER, IMAGE_AXES, OUT, PATCH_AXES, SMALL, TEXT_AXES, Graph, Package, Tower, export, randomize
from onnxruntime.quantization import QuantType, matmul_nbits_quantizer, quantize_dynamic
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

sys.path.append(str(Path(__file__).resolve().parents[4] / "models"))
import export as exporter  # noqa: E402 (models/export.py)


def fresh(name):
    shutil.rmtree(OUT / name, ignore_errors=True)
    return Package(name)


def xlm_tokenizer(max_length):
    """Unigram with the order of XLM-RoBERTa's first tokens."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(letter, -6.0) for letter in letters] + [("\u2581" + word, -4.0) for word in models.WORDS if len(word) > 1]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=3, byte_fallback=False))
    inner.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.NFKC(), tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
    ])  # fmt: skip
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    inner.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=max_length, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        unk_token="<unk>", cls_token="<s>", sep_token="</s>",
    )  # fmt: skip


def make_metaclip2(pictures):
    """CLIP for the world: XLM-V's tokenizer, and the end of text found by its id."""
    tokenizer = xlm_tokenizer(24)
    shared = dict(SMALL, projection_dim=12)
    text = dict(
        shared, vocab_size=len(tokenizer), max_position_embeddings=24, bos_token_id=0, pad_token_id=1, eos_token_id=2
    )
    config = transformers.MetaClip2Config(
        text_config=text, vision_config=dict(shared, image_size=30, patch_size=10), projection_dim=12
    )
    model = randomize(transformers.MetaClip2Model._from_config(config, **EAGER), 31)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    package = fresh("metaclip2")
    package.config(model, architectures=["MetaClip2Model"])
    package.preprocessor(processor)
    package.tokenizer(tokenizer)

    def vision(model, pixels):
        return model.get_image_features(pixel_values=pixels).pooler_output

    def words(model, ids):
        return model.get_text_features(input_ids=ids).pooler_output

    image = package.graph("vision_model.onnx", export(
        Tower(model, vision), {"pixel_values": torch.zeros(2, 3, 30, 30)}, ["image_embeds"],
        {"pixel_values": IMAGE_AXES, "image_embeds": ["batch_size"]},
    ))  # fmt: skip
    ids, _ = models.example_tokens(tokenizer)
    text = package.graph("text_model.onnx", export(
        Tower(model, words), {"input_ids": ids}, ["text_embeds"], {"input_ids": TEXT_AXES, "text_embeds": ["batch_size"]},
    ))  # fmt: skip
    package.expect_images(models.image_cases(
        pictures, processor, lambda pixels: vision(model, pixels), lambda pixels: image(pixel_values=pixels)["image_embeds"],
    ))  # fmt: skip
    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, _: words(model, ids), lambda ids, _: text(input_ids=ids)["text_embeds"],
    ))  # fmt: skip
    package.finish()


def make_dinov3(pictures):
    """Registers beside the class token, rotary places. Its processor needs torchvision; the settings are the same."""
    side = {"height": 32, "width": 32}
    processor = SiglipImageProcessorPil(
        size=side, resample=2, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    config = transformers.DINOv3ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_register_tokens=2,
    )  # fmt: skip
    model = randomize(transformers.DINOv3ViTModel._from_config(config, **EAGER), 32, gain=2.6)
    package = fresh("dinov3")
    package.config(model, architectures=["DINOv3ViTModel"])
    package.preprocessor(processor, image_processor_type="DINOv3ViTImageProcessorFast")

    def run(model, pixels):
        output = model(pixel_values=pixels)
        return output.last_hidden_state, output.pooler_output

    graph = package.graph("model.onnx", export(
        Tower(model, run), {"pixel_values": torch.zeros(2, 3, 32, 32)}, ["last_hidden_state", "pooler_output"],
        {"pixel_values": IMAGE_AXES, "last_hidden_state": PATCH_AXES, "pooler_output": ["batch_size"]},
    ))  # fmt: skip
    package.expect_images(models.image_cases(
        pictures, processor, lambda pixels: model(pixel_values=pixels).pooler_output,
        lambda pixels: graph(pixel_values=pixels)["pooler_output"],
    ))  # fmt: skip
    package.finish()


def make_embeddinggemma():
    """The layers behind the pooling are in the graph, whose output holds them: nothing of modules.json is done again."""
    tokenizer = models.gemma_tokenizer(20)
    config = transformers.Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=512, max_position_embeddings=20, use_bidirectional_attention=True,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = randomize(transformers.Gemma3TextModel._from_config(config, **EAGER), 33)
    layers = torch.nn.Sequential(torch.nn.Linear(16, 24, bias=False), torch.nn.Linear(24, 16, bias=False))
    randomize(layers, 34)

    whole = torch.nn.ModuleList([model, layers])

    def run(whole, ids, mask, is_traced=False):
        model, layers = whole
        # Without a window that is shorter than a text, both kinds of attention see all tokens.
        bias = torch.where(mask[:, None, None, :].bool(), 0.0, torch.finfo(torch.float32).min)
        bias = bias.expand(-1, -1, mask.shape[1], -1)
        both = {"full_attention": bias, "sliding_attention": bias} if is_traced else mask
        states = model(input_ids=ids, attention_mask=both).last_hidden_state
        return states, torch.nn.functional.normalize(layers(models.mean_of_tokens(states, mask)), dim=-1)

    package = fresh("embeddinggemma")
    package.config(model, architectures=["Gemma3TextModel"])
    exported = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    exported.no_padding()
    exported.no_truncation()
    package.tokenizer(tokenizer, exported, padding_side="left")
    modules = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    paths = ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]
    package.json("modules.json", [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{module}"}
        for number, (path, module) in enumerate(zip(paths, modules))
    ])  # fmt: skip
    package.json("1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    package.json("config_sentence_transformers.json", {"prompts": {"query": "a photo of "}, "default_prompt_name": None})
    ids, mask = models.example_tokens(tokenizer)
    graph = package.graph("model.onnx", export(
        Tower(whole, lambda *inputs: run(*inputs, is_traced=True)), {"input_ids": ids, "attention_mask": mask}, ["last_hidden_state", "sentence_embedding"],
        {**{name: TEXT_AXES for name in ["input_ids", "attention_mask", "last_hidden_state"]},
         "sentence_embedding": ["batch_size"]},
    ))  # fmt: skip
    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, mask: run(whole, ids, mask)[1],
        lambda ids, mask: graph(input_ids=ids, attention_mask=mask)["sentence_embedding"],
    ))  # fmt: skip
    package.finish()


class Decoder(torch.nn.Module):
    """A decoder as it is exported for generating: with places, and with keys and values of what came before."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, ids, mask, places, *past):
        before, tokens = past[0].shape[2], ids.shape[1]
        rows = torch.arange(tokens).unsqueeze(1) + before
        columns = torch.arange(tokens + before).unsqueeze(0)
        allowed = (columns <= rows)[None, None] & mask[:, None, None, :].bool()
        bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        cache = transformers.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        output = self.model(
            input_ids=ids, attention_mask=bias, position_ids=places, past_key_values=cache, use_cache=True
        )
        present = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return output.last_hidden_state, *present


def make_qwen3_embedding():
    """A decoder that embeds: filled up on the left, and read at the last token."""
    tokenizer = models.gemma_tokenizer(20)
    tokenizer.padding_side = "left"
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=20,
    )  # fmt: skip
    model = randomize(transformers.Qwen3Model._from_config(config, **EAGER), 35)
    package = fresh("qwen3-embedding")
    package.config(model, architectures=["Qwen3ForCausalLM"])
    exported = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    exported.no_padding()
    exported.no_truncation()
    package.tokenizer(tokenizer, exported, padding_side="left")
    package.json("modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])  # fmt: skip
    package.json("1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_lasttoken": True})
    ids, mask = models.example_tokens(tokenizer)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    names = [f"{layer}.{part}" for layer in range(2) for part in ["key", "value"]]
    # An example of two tokens that came before, so that their number is not built in.
    inputs = {"input_ids": ids, "attention_mask": torch.cat([torch.ones(len(ids), 2, dtype=mask.dtype), mask], 1)}
    inputs |= {"position_ids": places + 2} | {f"past_key_values.{name}": torch.randn(len(ids), 1, 2, 8) for name in names}
    axes = {"input_ids": TEXT_AXES, "position_ids": TEXT_AXES, "last_hidden_state": TEXT_AXES}
    axes["attention_mask"] = ["batch_size", "total_sequence_length"]
    axes |= {f"past_key_values.{name}": ["batch_size", "heads", "past_sequence_length", "width"] for name in names}
    outputs = ["last_hidden_state", *[f"present.{name}" for name in names]]
    graph = export(Decoder(model), inputs, outputs, axes)
    for value in graph.graph.input:
        if value.name.startswith("past"):
            # As published graphs say it.
            dims = value.type.tensor_type.shape.dim
            dims[1].dim_value, dims[3].dim_value = 1, 8
    onnx.checker.check_model(graph)
    graph = package.graph("model.onnx", graph)

    def run(ids, mask):
        places = np.maximum(mask.cumsum(1) - 1, 0)
        past = {f"past_key_values.{name}": np.zeros((len(ids), 1, 0, 8), np.float32) for name in names}
        return graph(input_ids=ids, attention_mask=mask, position_ids=places, **past)["last_hidden_state"][:, -1]

    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1], run,
    ))  # fmt: skip
    package.finish()


def make_xlm_clip(pictures):
    """A tower of XLM-RoBERTa beside CLIP's, in Immich's layout: one folder for each tower, and OpenCLIP's configuration."""
    length = 16
    tokenizer = xlm_tokenizer(length)
    tower = transformers.XLMRobertaConfig(
        **SMALL, vocab_size=len(tokenizer), max_position_embeddings=length + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )
    words = randomize(transformers.XLMRobertaModel._from_config(tower, add_pooling_layer=False, **EAGER), 36)
    projection = randomize(torch.nn.Linear(16, 12, bias=False), 37)
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=30, patch_size=10, projection_dim=12)
    vision = randomize(transformers.CLIPVisionModelWithProjection._from_config(vision, **EAGER), 38)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})

    whole = torch.nn.ModuleList([words, projection])

    def embed(whole, ids):
        model, projection = whole
        ids = ids.long()
        mask = (ids != 1).long()
        return projection(models.mean_of_tokens(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask))

    package = fresh("xlm-clip")
    (package.dir / "onnx").rmdir()
    package.json("config.json", {
        "embed_dim": 12, "vision_cfg": {"image_size": 30, "layers": 2, "width": 16, "patch_size": 10},
        "text_cfg": {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base",
                     "hf_pooler_type": "mean_pooler"},
    })  # fmt: skip
    mean, std = processor.image_mean, processor.image_std
    package.json("visual/preprocess_cfg.json", {
        "size": [30, 30], "mode": "RGB", "mean": list(mean), "std": list(std), "interpolation": "bicubic",
        "resize_mode": "shortest", "fill_color": 0,
    })  # fmt: skip
    package.tokenizer(tokenizer)
    (package.dir / "textual").mkdir()
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (package.dir / name).rename(package.dir / "textual" / name)
    graphs = {}
    ids = torch.ones(1, length, dtype=torch.int32)
    for folder, tower, inputs, output, axes in [
        ("visual", Tower(vision, lambda model, pixels: model(pixel_values=pixels).image_embeds),
         {"image": torch.zeros(1, 3, 30, 30)}, "embedding", {"image": ["batch_size"], "embedding": ["batch_size"]}),
        ("textual", Tower(whole, embed), {"text": ids}, "embedding", {"text": ["batch_size"], "embedding": ["batch_size"]}),
    ]:  # fmt: skip
        path = package.dir / folder / "model.onnx"
        onnx.save_model(export(tower, inputs, [output], axes), path)
        graphs[folder] = Graph(path)
    # The third picture's margins are odd, which OpenCLIP and transformers round apart.
    package.expect_images(models.image_cases(
        [pictures[0], pictures[2]], processor, lambda pixels: vision(pixel_values=pixels).image_embeds,
        lambda pixels: graphs["visual"](image=pixels)["embedding"],
    ))  # fmt: skip
    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, _: embed(whole, ids), lambda ids, _: graphs["textual"](text=ids.astype(np.int32))["embedding"],
        length,
    ))  # fmt: skip
    package.finish()


def make_small_weights(pictures):
    """The towers of `clip` with weights of 8 bits without sign, and of 4 bits. torch computes neither: onnxruntime does."""
    source = OUT / "clip"
    tokenizer = models.clip_tokenizer(24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})

    def to_uint8(path, target):
        quantize_dynamic(path, target, weight_type=QuantType.QUInt8)

    def to_q4(path, target):
        quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(str(path), block_size=16, is_symmetric=True)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))
        assert any(node.op_type == "MatMulNBits" for node in onnx.load(target).graph.node), target

    for name, suffix, change in [("clip-uint8", "_uint8", to_uint8), ("clip-q4", "_q4", to_q4)]:
        package = fresh(name)
        for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]:
            shutil.copyfile(source / file, package.dir / file)
        graphs = {}
        for tower in ["vision_model", "text_model"]:
            target = package.dir / "onnx" / f"{tower}{suffix}.onnx"
            change(source / "onnx" / f"{tower}.onnx", target)
            graphs[tower] = Graph(target)

        def run_image(pixels):
            return np.concatenate([graphs["vision_model"](pixel_values=one[None])["image_embeds"] for one in pixels])

        def run_text(ids, _mask):
            return graphs["text_model"](input_ids=ids)["text_embeds"]

        def itself(run):
            return lambda values, *_: torch.from_numpy(run(values.numpy(), None) if run is run_text else run(values.numpy()))

        package.expect_images(models.image_cases(pictures, processor, itself(run_image), run_image), 2e-2)
        package.expect_texts(models.text_cases(tokenizer, itself(run_text), run_text), 2e-2)
        package.finish()


# Width and height of pictures of many shapes.
SHAPES = {
    "line.png": (1, 3000), "square.png": (48, 48), "landscape.png": (640, 480), "portrait.png": (200, 433),
    "panorama.png": (1500, 61), "dot.png": (1, 1),
}  # fmt: skip


def draw(name, width, height):
    """Stripes and a slope, so that all parts differ and the file stays small."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1), 40 + 180 * ((x // 29 + y // 37) % 2)]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    path = models.PICTURES / name
    image.save(path, optimize=True)
    assert path.stat().st_size <= 10_000, f"{name} has {path.stat().st_size} bytes"
    return path


def resized(table, size, **more):
    """torch 2.15 resizes a table to one column wrongly: all of its rows are then alike. In two steps it is right."""
    resize = torch._C._nn._upsample_bilinear2d_aa
    assert more == {"mode": "bilinear", "align_corners": False, "antialias": True}
    if size[1] == 1:
        table = resize(table, [size[0], table.shape[3]], False, None)
    return resize(table, list(size), False, None)


def make_siglip2_naflex():
    """SigLIP 2 that takes pictures in their own shape: patches, a mask, and rows and columns."""
    tokenizer = models.gemma_tokenizer(16)
    exported = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    exported.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    processor = Siglip2ImageProcessorPil()
    assert (processor.patch_size, processor.max_num_patches) == (16, 256)
    shared = dict(SMALL, hidden_size=12)
    text = dict(shared, vocab_size=len(tokenizer), max_position_embeddings=16, projection_size=12)
    # The table of places has 6 x 6, so that it is stretched for some pictures and shrunk for others.
    config = transformers.Siglip2Config(text_config=text, vision_config=dict(shared, num_patches=36, patch_size=16))
    model = randomize(transformers.Siglip2Model._from_config(config, **EAGER), 41, gain=2.2)
    package = fresh("siglip2-naflex")
    package.config(model, architectures=["Siglip2Model"])
    package.preprocessor(processor, image_processor_type="Siglip2ImageProcessorFast")
    package.tokenizer(
        tokenizer, exported, lowercase=True, tokenizer_class="GemmaTokenizer", padding_side="right"
    )
    pictures = [draw(name, *size) for name, size in SHAPES.items()]
    pictures += [models.PICTURES / name for name in ["wide.png", "tall.png", "translucent.png"]]

    def process(paths):
        opened = [models.convert_to_rgb(Image.open(path)) for path in paths]
        return processor(opened, return_tensors="pt")

    batch = process(pictures)
    example = {name: batch[name][:3] for name in ["pixel_values", "pixel_attention_mask", "spatial_shapes"]}
    example["pixel_attention_mask"] = example["pixel_attention_mask"].long()
    rows = ["batch_size", "patches"]
    image = package.graph("vision_model.onnx", export(
        exporter.NaflexVision(model.vision_model), example, ["pooler_output"],
        {"pixel_values": rows, "pixel_attention_mask": rows, "spatial_shapes": ["batch_size"], "pooler_output": ["batch_size"]},
    ))  # fmt: skip

    def words(model, ids):
        return model.text_model(input_ids=ids).pooler_output

    text = package.graph("text_model.onnx", export(
        Tower(model, words), {"input_ids": torch.ones(2, 16, dtype=torch.int64)}, ["pooler_output"],
        {"input_ids": TEXT_AXES, "pooler_output": ["batch_size"]},
    ))  # fmt: skip
    found = image(
        pixel_values=batch["pixel_values"].numpy(), spatial_shapes=batch["spatial_shapes"].numpy(),
        pixel_attention_mask=batch["pixel_attention_mask"].long().numpy(),
    )["pooler_output"]  # fmt: skip
    cases = []
    for path, vector in zip(pictures, found, strict=True):
        one = process([path])
        with torch.inference_mode(), mock.patch.object(torch.nn.functional, "interpolate", resized):
            reference = model.get_image_features(**one).pooler_output[0].numpy()
        pixels, shape = one["pixel_values"][0].numpy(), one["spatial_shapes"][0].tolist()
        mask = one["pixel_attention_mask"][0].numpy()
        count = shape[0] * shape[1]
        assert mask[:count].all() and not mask[count:].any() and not pixels[count:].any()
        cases.append({
            "file": path.name, "shape": list(pixels.shape), "grid": shape, "every_997th": pixels[:count].reshape(-1)[::997],
            "embedding": package.agreed(path.name, reference, vector, models.EXACT),
        })  # fmt: skip
    package.expected["images"] = cases
    package.distinct({case["file"]: case["embedding"] for case in cases}, 0.99)
    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, _: model.get_text_features(input_ids=ids).pooler_output,
        lambda ids, _: text(input_ids=ids)["pooler_output"], 16,
    ))  # fmt: skip
    package.finish()


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    pictures = [models.PICTURES / name for name in ["wide.png", "tall.png", "translucent.png"]]
    steps = {
        "metaclip2": lambda: make_metaclip2(pictures), "dinov3": lambda: make_dinov3(pictures),
        "embeddinggemma": make_embeddinggemma, "qwen3": make_qwen3_embedding, "xlm": lambda: make_xlm_clip(pictures),
        "weights": lambda: make_small_weights(pictures), "naflex": make_siglip2_naflex,
    }  # fmt: skip
    for name in sys.argv[1:] or steps:
        steps[name]()


if __name__ == "__main__":
    main()
