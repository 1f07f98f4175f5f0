#!/usr/bin/env python3
"""Makes packages of OpenCLIP's models at tiny size, beside those of models.py.

    pip install numpy onnx onnxruntime open_clip_torch pillow timm torch torchvision transformers
    python crates/encoder/tests/golden/openclip.py

writes some directories of crates/encoder/tests/data/models; models.py, which writes the others, comes first. The classes
are OpenCLIP's and timm's own, built from their published configurations with smaller sizes; pictures go through
OpenCLIP's transforms. The layout is that of Immich's exports: a folder for each tower, ids of 32 bits. Nothing is
downloaded.
"""

import copy
import gzip
import sys
import tempfile
from pathlib import Path
from unittest import mock

import models
import numpy as np
import onnx
import open_clip
import timm
import torch
import transformers
from models import EAGER, Graph, Tower, export, randomize
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from published import fresh


def published(name):
    """The configuration of a model as OpenCLIP publishes it."""
    return copy.deepcopy(open_clip.get_model_config(name))


def tiny(config, vision, text):
    """OpenCLIP's model of a configuration, its vision tower smaller by `vision`, its text tower by `text`."""
    create = timm.create_model

    def smaller(*args, **more):
        # Unwanted settings of an architecture are None.
        return create(*args, **more, **vision)

    config["text_cfg"] |= text
    with mock.patch.object(timm, "create_model", smaller):
        return open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})


class ClipTokens:
    """OpenCLIP's own tokenizer with the words of models.py, and the tokenizer.json that exports come with."""

    def __init__(self, length):
        self.exported = models.clip_tokenizer(length)
        merges, _ = models.merges_of([*word[:-1], word[-1] + "</w>"] for word in models.WORDS)
        with tempfile.NamedTemporaryFile(suffix=".gz") as file:
            lines = ["#version: 0.2", *[" ".join(merge) for merge in merges]]
            file.write(gzip.compress("\n".join(lines).encode()))
            file.flush()
            self.own = open_clip.SimpleTokenizer(file.name, context_length=length)
        self.length = length

    def agrees(self, text):
        """Whether both give the same ids: OpenCLIP repairs some texts first, which the exported file does not."""
        ids = models.token_ids(self.exported, text)
        return self.own([text])[0].tolist() == ids + [0] * (self.length - len(ids))


def pixels_of(preprocess, path):
    """What OpenCLIP's transforms make of a picture: `[channel, height, width]`. Translucent pixels lie on white."""
    return preprocess(models.convert_to_rgb(Image.open(path))).numpy()


def write(name, config, settings, model, pictures, tokenizer, length, pad, texts):
    """A package in Immich's layout, and what it is expected to give."""
    package = fresh(name)
    (package.dir / "onnx").rmdir()
    package.json("config.json", config)
    package.json("visual/preprocess_cfg.json", settings)
    package.tokenizer(tokenizer)
    (package.dir / "textual").mkdir()
    for file in ["tokenizer.json", "tokenizer_config.json"]:
        (package.dir / file).rename(package.dir / "textual" / file)
    preprocess = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    batch = np.stack([pixels_of(preprocess, path) for path in pictures])
    ids = torch.zeros(1, length, dtype=torch.int32)
    graphs = {}
    for folder, run, input, example in [
        ("visual", lambda model, pixels: model.encode_image(pixels), "image", torch.from_numpy(batch[:1])),
        ("textual", lambda model, ids: model.encode_text(ids.long()), "text", ids),
    ]:
        path = package.dir / folder / "model.onnx"
        axes = {input: ["batch_size"], "embedding": ["batch_size"]}
        onnx.save_model(export(Tower(model, run), {input: example}, ["embedding"], axes), path)
        graphs[folder] = Graph(path)
    found = graphs["visual"](image=batch)["embedding"]
    with torch.inference_mode():
        package.expect_images(
            (path, pixels, model.encode_image(torch.from_numpy(pixels[None]))[0].numpy(), vector)
            for path, pixels, vector in zip(pictures, batch, found, strict=True)
        )
        cases = []
        for text in texts:
            ids = models.token_ids(tokenizer, text)
            full = np.array([ids + [pad] * (length - len(ids))], np.int32)
            vector = model.encode_text(torch.from_numpy(full).long())[0].numpy()
            cases.append((text, ids, vector, graphs["textual"](text=full)["embedding"][0]))
    package.expect_texts(cases)
    package.finish()


def clip_texts(tokens):
    texts = [text for text in models.TEXTS if tokens.agrees(text)]
    assert len(texts) >= 8, texts
    return texts


SMALL_TEXT = {"width": 16, "heads": 2, "layers": 2}


def make_perception_encoder(pictures):
    """Rotary places and a pooling head; a causal text tower with 32 tokens, which OpenCLIP's tokenizer fills with zeros."""
    tokens = ClipTokens(16)
    config = published("PE-Core-B-16")
    config |= {"embed_dim": 12}
    model = tiny(
        config, {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8, "ref_feat_shape": (4, 4)},
        {**SMALL_TEXT, "vocab_size": len(tokens.exported), "context_length": 16},
    )  # fmt: skip
    config["vision_cfg"]["image_size"] = 32
    settings = {"size": [32, 32], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
                "resize_mode": "squash", "fill_color": 0}  # fmt: skip
    randomize(model, 51, gain=2.2)
    write("pe-core", config, settings, model, pictures, tokens.exported, 16, 0, clip_texts(tokens))


def make_mobileclip2(pictures):
    """A convolutional tower of FastViT, and a text tower that sees what a text is filled up with."""
    tokens = ClipTokens(16)
    config = published("MobileCLIP2-S0")
    config |= {"embed_dim": 12}
    model = tiny(
        config, {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 32), "mlp_ratios": (2, 2, 2, 2)},
        {**SMALL_TEXT, "vocab_size": len(tokens.exported), "context_length": 16},
    )  # fmt: skip
    config["vision_cfg"]["image_size"] = 64
    settings = {"size": [64, 64], "mode": "RGB", "mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear",
                "resize_mode": "shortest", "fill_color": 0}  # fmt: skip
    randomize(model, 52, gain=2.0)
    write("mobileclip2", config, settings, model, pictures, tokens.exported, 16, 0, clip_texts(tokens))


def nllb_tokenizer(length):
    """BPE of SentencePiece's kind, with a language before each text."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>"] + [chr(code) for code in range(33, 127)] + ["\u2581"]
    merges, merged = models.merges_of(["\u2581", *word] for word in models.WORDS)
    vocab = {token: number for number, token in enumerate(tokens + merged + ["eng_Latn", "deu_Latn", "<mask>"])}
    return transformers.NllbTokenizer(
        vocab=vocab, merges=merges, model_max_length=length, src_lang="eng_Latn",
        additional_special_tokens=["eng_Latn", "deu_Latn"],
    )  # fmt: skip


def make_nllb_clip(pictures):
    """SigLIP's vision tower beside the encoder of NLLB, which is read at its first token, the language."""
    length = 77
    tokenizer = nllb_tokenizer(length)
    config = published("nllb-clip-base-siglip")
    config |= {"embed_dim": 16}
    encoder = transformers.M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=128,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, **EAGER,
    )  # fmt: skip
    with mock.patch.object(transformers.AutoConfig, "from_pretrained", return_value=encoder):
        model = tiny(
            config, {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8},
            {"hf_model_pretrained": False},
        )  # fmt: skip
    assert type(model.text.transformer).__name__ == "M2M100Encoder"
    del config["text_cfg"]["hf_model_pretrained"]
    config["vision_cfg"]["image_size"] = 32
    settings = {"size": [32, 32], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
                "resize_mode": "squash", "fill_color": 0}  # fmt: skip
    randomize(model, 53, gain=2.0)
    write("nllb-clip", config, settings, model, pictures, tokenizer, length, 1, models.TEXTS)


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    pictures = [models.PICTURES / name for name in ["wide.png", "tall.png", "translucent.png"]]
    steps = {"pe": make_perception_encoder, "mobileclip2": make_mobileclip2, "nllb": make_nllb_clip}
    for name in sys.argv[1:] or steps:
        steps[name](pictures)


if __name__ == "__main__":
    main()
