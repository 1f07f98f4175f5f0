#!/usr/bin/env python3
"""Makes the package of ViLT at tiny size, and the scores that its tests expect.

    pip install numpy onnx onnxruntime pillow torch transformers
    python crates/encoder/tests/golden/vilt.py

writes crates/encoder/tests/data/vilt: random weights with a fixed seed, two layers of 16 dimensions, nine answers.
expected.json has for each sample of a picture and a question the ids, the shape of the pixel values and some of them, and
the score of each answer, as the processor and the model of transformers give them. Nothing is downloaded.

The model itself takes the patches of a picture in a random order, which attention does not see. The graph takes them in
the order of rows, so that it has no random numbers in it.
"""

import json
import shutil
from pathlib import Path

import models
import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

OUT = Path(__file__).resolve().parent.parent / "data" / "vilt"
SIDE, PATCH, LENGTH = 48, 16, 20
ANSWERS = ["yes", "no", "2", "red", "dog", "blue", "caf\u00e9", "on grass", "baseball bat"]

# Sides of the pictures.
PICTURES = {
    "wide.png": (64, 40), "tall.png": (33, 90), "small.png": (3, 4), "square.png": (48, 48), "banner.png": (200, 60),
    "large.png": (500, 400),
}  # fmt: skip
QUESTIONS = [
    "What color is the ball?",
    "is there a dog",
    "",
    "How many cats?!  ",
    "na\u00efve caf\u00e9 [SEP] \u732b [PAD]",
    "what is the small black horse running in on with the child and the " * 5,
]


class InRows(torch.nn.Module):
    """ViltForQuestionAnswering over all patches of pictures that fill their tensor, in the order of rows."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, input_ids, attention_mask, token_type_ids, pixel_values, pixel_mask):
        embeddings = self.model.vilt.embeddings
        cells = embeddings.patch_embeddings(pixel_values)
        batch, width = cells.shape[0], cells.shape[1]
        side = embeddings.config.image_size // embeddings.config.patch_size
        places = embeddings.position_embeddings[:, 1:, :].transpose(1, 2).view(1, width, side, side)
        places = torch.nn.functional.interpolate(places, size=cells.shape[2:], mode="bilinear", align_corners=True)
        mask = torch.nn.functional.interpolate(pixel_mask[:, None].float(), size=cells.shape[2:]).long().flatten(1)
        patches = (cells + places).flatten(2).transpose(1, 2)
        first = (embeddings.cls_token + embeddings.position_embeddings[:, :1, :]).expand(batch, -1, -1)
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            image_embeds=torch.cat([first, patches], dim=1), pixel_mask=mask,
        ).logits  # fmt: skip


def draw(name, width, height):
    y, x = np.mgrid[0:height, 0:width]
    planes = [220 * x // width, 30 + 200 * y // height, 240 - 200 * (x + y) // (width + height)]
    planes[0] = (planes[0] + 90 * ((x // 9 + y // 7) % 2)) % 256
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(OUT / name, optimize=True)


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(5)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "onnx").mkdir(parents=True)
    for name, (width, height) in PICTURES.items():
        draw(name, width, height)
    tokenizer = models.bert_tokenizer(LENGTH)
    config = transformers.ViltConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=24, image_size=64, patch_size=PATCH,
        id2label=dict(enumerate(ANSWERS)), label2id={answer: place for place, answer in enumerate(ANSWERS)},
    )  # fmt: skip
    model = models.randomize(transformers.ViltForQuestionAnswering._from_config(config, **models.EAGER), 71)
    # Parameters that are no weights of a layer, and that stay zero otherwise.
    images = ViltImageProcessorPil(size={"shortest_edge": SIDE}, size_divisor=PATCH)

    def inputs_of(name, question):
        ids = models.token_ids(tokenizer, question)
        pixels = images(Image.open(OUT / name), return_tensors="pt")
        ids = torch.tensor([ids])
        return {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids),
            "pixel_values": pixels["pixel_values"], "pixel_mask": pixels["pixel_mask"],
        }  # fmt: skip

    example = inputs_of("wide.png", QUESTIONS[0])
    example = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in example.items()}
    tokens, pixels = ["batch", "tokens"], ["batch", "channels", "height", "width"]
    axes = {name: dict(enumerate(tokens)) for name in ["input_ids", "attention_mask", "token_type_ids"]}
    axes |= {"pixel_values": {0: "batch", 2: "height", 3: "width"}, "pixel_mask": dict(enumerate(pixels[:1] + pixels[2:]))}
    path = OUT / "onnx/model.onnx"
    torch.onnx.export(
        InRows(model), tuple(example.values()), str(path), input_names=list(example), output_names=["logits"],
        opset_version=models.OPSET, dynamic_axes={**axes, "logits": {0: "batch"}}, dynamo=False,
    )  # fmt: skip
    graph = models.Graph(path)

    def write(name, value):
        (OUT / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    fields = json.loads(model.config.to_json_string(use_diff=True))
    write("config.json", {**fields, "architectures": ["ViltForQuestionAnswering"]})
    fields = json.loads(images.to_json_string())
    fields["image_processor_type"] = "ViltImageProcessor"
    write("preprocessor_config.json", fields)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(OUT / "tokenizer.json"))
    write("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": LENGTH, "do_lower_case": True})

    samples = []
    for number, name in enumerate(PICTURES):
        for question in [QUESTIONS[number], QUESTIONS[(number + 2) % len(QUESTIONS)], QUESTIONS[0]]:
            inputs = inputs_of(name, question)
            with torch.inference_mode():
                scores = model(**inputs).logits.sigmoid()[0].numpy()
            found = graph(**{key: value.numpy() for key, value in inputs.items()})["logits"][0]
            assert np.abs(scores - 1 / (1 + np.exp(-found))).max() < models.EXACT, (name, question)
            samples.append({
                "picture": name, "question": question, "ids": inputs["input_ids"][0].tolist(),
                "shape": list(inputs["pixel_values"].shape[2:]),
                "every_97th": models.short(inputs["pixel_values"].flatten()[::97].numpy()),
                "scores": models.short(scores),
            })  # fmt: skip
    scores = np.array([sample["scores"] for sample in samples])
    assert scores.std(0).min() > 0.01, scores.std(0)
    write("expected.json", {"answers": ANSWERS, "samples": samples, "versions": {
        module.__name__: module.__version__ for module in [np, models.onnxruntime, models.tokenizers, torch, transformers]
    }})  # fmt: skip


if __name__ == "__main__":
    main()
