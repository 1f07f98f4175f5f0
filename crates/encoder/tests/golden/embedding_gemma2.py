#!/usr/bin/env python3
"""Makes the package of EmbeddingGemma 2 at tiny size, and the values that its tests expect.

    pip install numpy onnx onnxruntime pillow torch transformers
    python crates/encoder/tests/golden/embedding_gemma2.py

writes crates/encoder/tests/data/embedding_gemma2: random weights with a fixed seed, a text model of two layers (one
with a sliding window, one without), a vision model of two, and a vocabulary of Gemma's kind. Both halves are exported
as published packages have them. expected.json has for each sample the ids that the processor of transformers makes,
a digest of patches and positions, and the embedding that its model gives. Nothing is downloaded.
"""

import io
import json
import shutil
import warnings
import zlib
from pathlib import Path

import models
import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from transformers.models.embedding_gemma2.modeling_embedding_gemma2 import EmbeddingGemma2Model
from transformers.models.embedding_gemma2.processing_embedding_gemma2 import EmbeddingGemma2Processor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

OUT = Path(__file__).resolve().parent.parent / "data" / "embedding_gemma2"
SOFT_TOKENS = 70
PATCHES = 9 * SOFT_TOKENS
SPECIAL = ["<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"]
QUERY = "task: search result | query: "
DOCUMENT = "title: none | text: "

# Sides of the pictures, and how they are stored.
PICTURES = {
    "wide.png": (64, 40), "tall.png": (33, 90), "line.png": (1, 3000), "square.png": (48, 48), "panorama.png": (2000, 37),
    "large.png": (500, 400),
}  # fmt: skip

# Lists of parts: a text, or the name of a picture in brackets.
SAMPLES = [
    ["a photo of a dog"],
    [QUERY + "two red cats"],
    [DOCUMENT + "grass and water " * 30],
    ["[wide.png]"],
    ["[tall.png]"],
    ["[line.png]"],
    ["[square.png]"],
    ["[panorama.png]"],
    ["[large.png]"],
    ["[wide.png]", QUERY + "a dog on the grass"],
    ["a dog", "[tall.png]", "two cats", "[square.png]"],
    ["[wide.png]", "[tall.png]", "[line.png]", "[square.png]", "[panorama.png]"],
    ["title: a red ball | text: new", "[large.png]", "old and small"],
    ["<|image|> is a text, and so are <|image> and <bos>"],
]


def tokenizer():
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += [chr(code) for code in range(33, 127)] + ["\u2581"]
    merges, merged = models.merges_of(["\u2581", *word] for word in models.WORDS)
    vocab = {token: number for number, token in enumerate(words + merged + SPECIAL)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True,
    ))  # fmt: skip
    inner.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    inner.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse(),
    ])  # fmt: skip
    inner.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *SPECIAL])
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B <eos>",
        special_tokens=[("<bos>", vocab["<bos>"]), ("<eos>", vocab["<eos>"])],
    )  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=1024, padding_side="right", pad_token="<pad>", eos_token="<eos>",
        bos_token="<bos>", unk_token="<unk>", mask_token="<mask>",
        extra_special_tokens={
            "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
            "boa_token": "<|audio>", "eoa_token": "<audio|>",
        },
    )  # fmt: skip


def make_model(words):
    ids = {name: words.convert_tokens_to_ids(token) for name, token in zip(
        ["image_token_id", "boi_token_id", "eoi_token_id", "audio_token_id", "boa_token_id", "eoa_token_index",
         "video_token_id"], SPECIAL)}  # fmt: skip
    config = transformers.AutoConfig.for_model(
        "embedding_gemma2",
        text_config={
            "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "global_head_dim": 12,
            "num_global_key_value_heads": 1, "sliding_window": 8, "sliding_window_pattern": 2,
            "hidden_size_per_layer_input": 8, "embedding_dim": 24, "max_position_embeddings": 1024,
        },
        vision_config={
            "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 256,
            "standardize": True,
        },
        audio_config=None, **ids,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = EmbeddingGemma2Model(config)
    return models.randomize(model, 91)


def pool(states, mask):
    weights = mask.unsqueeze(-1).to(states.dtype)
    mean = (states * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


class TextHalf(torch.nn.Module):
    """Ids and features of pictures to states of tokens and to the embedding, as published graphs have it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, image_features, video_features, audio_features):
        config = self.model.config
        embeds = None
        kinds = [(config.image_token_id, image_features), (config.video_token_id, video_features),
                 (config.audio_token_id, audio_features)]  # fmt: skip
        masks = [input_ids == token for token, _ in kinds]
        plain = torch.where(masks[0] | masks[1] | masks[2], config.text_config.pad_token_id, input_ids)
        embeds = self.model.get_input_embeddings()(plain)
        for mask, (_, features) in zip(masks, kinds):
            # The n-th placeholder of the batch takes the n-th row. A row of zeros keeps the gather valid.
            rows = torch.cat([features, torch.zeros(1, embeds.shape[-1])])
            places = torch.cumsum(mask.reshape(-1).to(torch.int64), 0) - 1
            places = torch.where(mask.reshape(-1), places, features.shape[0]).reshape(input_ids.shape)
            embeds = torch.where(mask.unsqueeze(-1), rows[places], embeds)
        states = self.model.language_model(attention_mask=attention_mask, inputs_embeds=embeds).last_hidden_state
        return states, pool(states, attention_mask)


class VisionHalf(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, pixel_position_ids):
        states = self.model.vision_tower(
            pixel_values=pixel_values, pixel_position_ids=pixel_position_ids
        ).last_hidden_state
        return self.model.embed_vision(inputs_embeds=states)


def draw(name, width, height):
    y, x = np.mgrid[0:height, 0:width]
    planes = [220 * x // width, 30 + 200 * y // height, 240 - 200 * (x + y) // (width + height)]
    planes[0] = (planes[0] + 90 * ((x // 9 + y // 7) % 2)) % 256
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    image.save(OUT / name, optimize=True)
    assert (OUT / name).stat().st_size <= 60_000, name


def export(half, inputs, outputs, axes, path):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            half.eval(), tuple(inputs.values()), buffer, input_names=list(inputs), output_names=outputs,
            opset_version=18, dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    path.write_bytes(buffer.getvalue())


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "onnx").mkdir(parents=True)
    for name, (width, height) in PICTURES.items():
        draw(name, width, height)
    words = tokenizer()
    model = make_model(words)
    images = Gemma4ImageProcessorPil(max_soft_tokens=SOFT_TOKENS)
    # The class insists on parts for sound and video, which nothing here uses.
    EmbeddingGemma2Processor.check_argument_for_proper_class = lambda *_: None
    processor = EmbeddingGemma2Processor(None, images, words, None)

    hidden = model.config.text_config.hidden_size
    pictures = images([Image.open(OUT / "wide.png"), Image.open(OUT / "tall.png")], return_tensors="pt")
    example = {"pixel_values": pictures["pixel_values"].float(), "pixel_position_ids": pictures["image_position_ids"]}
    export(
        VisionHalf(model), example, ["image_features"],
        {"pixel_values": {0: "images", 1: "patches"}, "pixel_position_ids": {0: "images", 1: "patches"},
         "image_features": {0: "tokens"}},
        OUT / "onnx/vision_encoder.onnx",
    )  # fmt: skip
    token = model.config.image_token_id
    ids = torch.tensor([[2, 300, token, token, token, 1], [2, token, token, 1, 0, 0]])
    none = torch.zeros(0, hidden)
    example = {
        "input_ids": ids, "attention_mask": (ids != 0).long(), "image_features": torch.randn(5, hidden),
        "video_features": none, "audio_features": none,
    }  # fmt: skip
    axes = {name: {0: "batch", 1: "sequence"} for name in ["input_ids", "attention_mask", "last_hidden_state"]}
    axes |= {name: {0: name} for name in ["image_features", "video_features", "audio_features"]}
    axes["sentence_embedding"] = {0: "batch"}
    export(TextHalf(model), example, ["last_hidden_state", "sentence_embedding"], axes, OUT / "onnx/model.onnx")

    words.backend_tokenizer.save(str(OUT / "tokenizer.json"))

    def write(name, value):
        path = OUT / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    config = json.loads(model.config.to_json_string(use_diff=True))
    write("config.json", config)
    write("tokenizer_config.json", {
        "model_max_length": 1024, "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
        "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "tokenizer_class": "GemmaTokenizer",
    })  # fmt: skip
    fields = json.loads(images.to_json_string())
    fields["image_processor_type"] = "Gemma4ImageProcessor"
    write("processor_config.json", {"image_processor": fields, "processor_class": "EmbeddingGemma2Processor"})
    write("modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])  # fmt: skip
    write("1_Pooling/config.json", {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True})
    write("config_sentence_transformers.json", {
        "prompts": {"query": QUERY, "document": DOCUMENT, "clustering": "task: clustering | query: "},
        "default_prompt_name": None,
    })  # fmt: skip

    text_half = models.Graph(OUT / "onnx/model.onnx")
    vision_half = models.Graph(OUT / "onnx/vision_encoder.onnx")
    samples = []
    for parts in SAMPLES:
        names = [part[1:-1] for part in parts if part.startswith("[")]
        opened = [Image.open(OUT / name).convert("RGB") for name in names]
        is_spelled = any("<|image" in part for part in parts)
        if is_spelled:
            # Special tokens that a user spells are text, which the processor has no way to say.
            encoded = words(parts[0], split_special_tokens=True, return_tensors="pt")
            batch = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        else:
            text = " ".join("<|image|>" if part.startswith("[") else part for part in parts)
            batch = dict(processor(text=[text], images=[opened] if opened else None, return_tensors="pt"))
        more = {}
        if opened:
            more = {"pixel_values": batch["pixel_values"].float(), "image_position_ids": batch["image_position_ids"]}
        with torch.no_grad():
            states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **more).last_hidden_state
            embedding = pool(states, batch["attention_mask"])[0].numpy()
        features = np.zeros((0, hidden), np.float32)
        if opened:
            features = vision_half(
                pixel_values=more["pixel_values"].numpy(), pixel_position_ids=more["image_position_ids"].numpy()
            )["image_features"]
        nothing = np.zeros((0, hidden), np.float32)
        exported = text_half(
            input_ids=batch["input_ids"].numpy(), attention_mask=batch["attention_mask"].numpy(),
            image_features=features, video_features=nothing, audio_features=nothing,
        )["sentence_embedding"][0]  # fmt: skip
        difference = np.abs(exported - embedding).max()
        assert difference < 2e-5, f"{parts}: {difference}"
        digests = [
            {
                "file": name,
                "patches": int((positions[:, 0] >= 0).sum()),
                "pixels": zlib.crc32(pixels.numpy().astype("<f4").tobytes()),
                "positions": zlib.crc32(positions.numpy().astype("<i8").tobytes()),
            }
            for name, pixels, positions in zip(names, more.get("pixel_values", []), more.get("image_position_ids", []))
        ]
        samples.append({
            "parts": parts, "ids": batch["input_ids"][0].tolist(), "pictures": digests,
            "embedding": models.short(embedding),
        })  # fmt: skip
        print(len(samples), parts[0][:30], len(samples[-1]["ids"]), f"{difference:.1e}")
    vectors = np.array([sample["embedding"] for sample in samples])
    cosines = vectors @ vectors.T - 2 * np.eye(len(vectors))
    print("largest cosine of two samples", cosines.max())
    assert cosines.max() < 0.995
    path = OUT / "expected.json"
    path.write_text("{\"samples\": [\n" + ",\n".join(json.dumps(sample) for sample in samples) + "\n]}\n")
    print(sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file()), "bytes")


if __name__ == "__main__":
    main()
