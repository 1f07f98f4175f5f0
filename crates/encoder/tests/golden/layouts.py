#!/usr/bin/env python3
"""Makes packages laid out as published ones whose own code comes with their weights alone, at tiny size.

    pip install numpy onnx onnxruntime open_clip_torch pillow timm torch torchvision transformers
    python crates/encoder/tests/golden/layouts.py

writes some directories of crates/encoder/tests/data/models; models.py, which writes the others, comes first. Names of files,
inputs, outputs and settings are the published ones. The towers are not, except nomic's text tower, which is in
transformers: relatives of theirs from transformers stand in. So these packages show that the layout is read as intended,
and nothing about the models themselves. Nothing is downloaded.
"""

import json
import sys

import models
import numpy as np
import torch
import transformers
from models import EAGER, IMAGE_AXES, PATCH_AXES, SMALL, TEXT_AXES, Tower, export, randomize
from openclip import pixels_of
from open_clip.transform import PreprocessCfg, image_transform_v2
from published import fresh, xlm_tokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

normalize = torch.nn.functional.normalize


def make_jina_clip(pictures):
    """One graph with both towers and no mask; embeddings with and without unit length."""
    tokenizer = xlm_tokenizer(24)
    text = transformers.XLMRobertaConfig(
        **SMALL, vocab_size=len(tokenizer), max_position_embeddings=26, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )
    text = transformers.XLMRobertaModel._from_config(text, add_pooling_layer=False, **EAGER)
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=30, patch_size=10, projection_dim=16)
    vision = transformers.CLIPVisionModelWithProjection._from_config(vision, **EAGER)
    whole = torch.nn.ModuleList([randomize(text, 61), randomize(vision, 62)])
    package = fresh("jina-clip-v2")
    package.json("config.json", {
        "model_type": "jina_clip", "architectures": ["JinaCLIPModel"], "projection_dim": 16, "matryoshka_dimensions": [8, 16],
        "text_config": {"embed_dim": 16, "hf_model_name_or_path": "jinaai/jina-embeddings-v3", "pooler_type": "mean_pooler"},
        "vision_config": {"embed_dim": 16, "image_size": 30, "layers": 2, "patch_size": 10, "width": 16, "head_width": 8},
    })  # fmt: skip
    settings = {"size": 30, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
                "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}  # fmt: skip
    package.json("preprocessor_config.json", {"image_processor_type": "JinaCLIPImageProcessor", **settings})
    package.tokenizer(tokenizer)

    def embed_text(whole, ids):
        mask = (ids != 1).long()
        return models.mean_of_tokens(whole[0](input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def embed_image(whole, pixels):
        return whole[1](pixel_values=pixels).image_embeds

    def both(whole, ids, pixels):
        words, picture = embed_text(whole, ids), embed_image(whole, pixels)
        return words, picture, normalize(words, dim=-1), normalize(picture, dim=-1)

    outputs = ["text_embeddings", "image_embeddings", "l2norm_text_embeddings", "l2norm_image_embeddings"]
    ids, _ = models.example_tokens(tokenizer)
    axes = {"input_ids": ["text_batch_size", "sequence_length"], "pixel_values": ["image_batch_size"]}
    axes |= {name: ["text_batch_size" if "text" in name else "image_batch_size"] for name in outputs}
    graph = package.graph("model.onnx", export(
        Tower(whole, both), {"input_ids": ids, "pixel_values": torch.zeros(3, 3, 30, 30)}, outputs, axes
    ))  # fmt: skip
    preprocess = image_transform_v2(PreprocessCfg(**settings | {"size": (30, 30)}), is_train=False)
    batch = np.stack([pixels_of(preprocess, path) for path in pictures])
    found = graph(pixel_values=batch, input_ids=ids.numpy())["l2norm_image_embeddings"]
    with torch.inference_mode():
        package.expect_images(
            (path, pixels, embed_image(whole, torch.from_numpy(pixels[None]))[0].numpy(), vector)
            for path, pixels, vector in zip(pictures, batch, found, strict=True)
        )
    package.expect_texts(models.text_cases(
        tokenizer, lambda ids, _: embed_text(whole, ids),
        lambda ids, _: graph(input_ids=ids, pixel_values=batch[:1])["l2norm_text_embeddings"],
    ))  # fmt: skip
    package.finish()


def make_nomic(pictures):
    """Two packages and one that joins them: nomic's text tower of transformers, and a plain ViT in place of its vision tower."""
    tokenizer = models.bert_tokenizer(20)
    config = transformers.NomicBertConfig(**SMALL, vocab_size=len(tokenizer), max_position_embeddings=40)
    model = randomize(transformers.NomicBertModel._from_config(config, **EAGER), 63)
    words = fresh("nomic-embed-text-v1.5")
    words.json("config.json", {
        "model_type": "nomic_bert", "architectures": ["NomicBertModel"], "n_embd": 16, "n_head": 2, "n_inner": 32,
        "n_layer": 2, "n_positions": 40, "vocab_size": len(tokenizer), "activation_function": "swiglu",
    })  # fmt: skip
    words.tokenizer(tokenizer, model_max_length=40, do_lower_case=True)
    words.json("sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    words.json("modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ])  # fmt: skip
    words.json("1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    ids, mask = models.example_tokens(tokenizer)

    def run(model, ids, types, mask):
        # A mask of four axes goes through as it is.
        bias = torch.where(mask[:, None, None, :].bool(), 0.0, torch.finfo(torch.float32).min)
        bias = bias.expand(-1, -1, mask.shape[1], -1)
        return model(input_ids=ids, attention_mask=bias, token_type_ids=types).last_hidden_state

    names = ["input_ids", "token_type_ids", "attention_mask", "last_hidden_state"]
    text = words.graph("model.onnx", export(
        Tower(model, run), {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask}, names[3:],
        {name: TEXT_AXES for name in names},
    ))  # fmt: skip

    def found(ids, mask):
        states = text(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))["last_hidden_state"]
        return models.mean_of_tokens(torch.from_numpy(states), torch.from_numpy(mask)).numpy()

    words.expect_texts(models.text_cases(
        tokenizer,
        lambda ids, mask: models.mean_of_tokens(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask), found,
    ))  # fmt: skip
    words.finish()

    processor = CLIPImageProcessorPil(
        size={"height": 32, "width": 32}, do_center_crop=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    vision = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    vision = randomize(transformers.ViTModel._from_config(vision, add_pooling_layer=False, **EAGER), 64, gain=2.2)
    image = fresh("nomic-embed-vision-v1.5")
    image.json("config.json", {
        "model_type": "nomic_bert", "architectures": ["NomicVisionModel"], "n_embd": 16, "n_head": 2, "n_inner": 32,
        "n_layer": 2, "img_size": 32, "patch_size": 8, "vocab_size": 0,
    })  # fmt: skip
    image.preprocessor(processor)
    graph = image.graph("model.onnx", export(
        Tower(vision, lambda model, pixels: model(pixel_values=pixels).last_hidden_state),
        {"pixel_values": torch.zeros(2, 3, 32, 32)}, ["last_hidden_state"],
        {"pixel_values": IMAGE_AXES, "last_hidden_state": PATCH_AXES},
    ))  # fmt: skip
    image.expect_images(models.image_cases(
        pictures, processor, lambda pixels: vision(pixel_values=pixels).last_hidden_state[:, 0],
        lambda pixels: graph(pixel_values=pixels)["last_hidden_state"][:, 0],
    ))  # fmt: skip
    image.finish()

    pair = fresh("nomic-embed-v1.5")
    (pair.dir / "onnx").rmdir()
    lines = ["[image]", 'package = "nomic-embed-vision-v1.5"', "[text]", 'package = "nomic-embed-text-v1.5"', "[prompts]"]
    lines += [f'{use} = "search_{use}: "' for use in ["query", "document"]]
    (pair.dir / "imgvec.toml").write_text("\n".join(lines) + "\n")
    for half in [image, words]:
        pair.expected |= json.loads((half.dir / "expected.json").read_text())
    pair.finish()


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    pictures = [models.PICTURES / name for name in ["wide.png", "tall.png", "translucent.png"]]
    steps = {"jina": make_jina_clip, "nomic": make_nomic}
    for name in sys.argv[1:] or steps:
        steps[name](pictures)


if __name__ == "__main__":
    main()
