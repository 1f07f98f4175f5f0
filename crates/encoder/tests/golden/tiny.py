#!/usr/bin/env python3
"""Makes small models with random weights as transformers keeps them, for the test of models/export.py.

    python tiny.py PACKAGES TARGET

Configuration and tokenizers are those of PACKAGES (tests/data/models). TARGET gets a directory for each model; what it
computes is printed: the embeddings of some texts, and that of a white picture.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers

NAMES = ["clip", "siglip", "siglip2-naflex", "dinov2", "resnet", "bert-mean", "bert-cls"]


def unit(vector):
    return (vector / vector.norm()).tolist()


def pooled(output):
    return output if torch.is_tensor(output) else output.pooler_output


def white(source):
    """What the model takes of a white picture."""
    fields = json.loads((source / "preprocessor_config.json").read_text())
    if "max_num_patches" in fields:
        side = int(fields["max_num_patches"] ** 0.5)
        mask = torch.ones(1, side * side, dtype=torch.int64)
        pixels = torch.ones(1, side * side, 3 * fields["patch_size"] ** 2)
        return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": torch.tensor([[side, side]])}
    size = fields.get("crop_size") or fields["size"]
    height = size.get("height") or round(size["shortest_edge"])
    width = size.get("width") or height
    mean, deviation = (torch.tensor(fields[key]).reshape(1, 3, 1, 1) for key in ["image_mean", "image_std"])
    return {"pixel_values": ((1 - mean) / deviation).expand(1, 3, height, width)}


def main():
    packages, target = map(Path, sys.argv[1:])
    transformers.logging.set_verbosity_error()
    printed = {}
    for number, name in enumerate(NAMES):
        source = target / name
        shutil.copytree(packages / name, source, ignore=shutil.ignore_patterns("onnx", "expected.json"))
        config = transformers.AutoConfig.from_pretrained(source)
        torch.manual_seed(number)
        model = transformers.AutoModel.from_config(config).eval()
        with torch.no_grad():
            for values in model.parameters():
                # Different inputs shall differ.
                values += torch.randn_like(values) * 0.2
        model.save_pretrained(source)
        expected = json.loads((packages / name / "expected.json").read_text())
        known = printed[name] = {"texts": [], "white": None}
        with torch.inference_mode():
            for case in expected.get("texts", [])[1:5]:
                ids = case["ids"]
                if name.startswith("siglip"):
                    tokens = config.text_config.max_position_embeddings
                    # The configuration's default is not that of Gemma's tokenizer.
                    padding = config.text_config.pad_token_id if name == "siglip" else 0
                    ids = ids + [padding] * (tokens - len(ids))
                ids = torch.tensor([ids])
                if hasattr(model, "get_text_features"):
                    vector = pooled(model.get_text_features(input_ids=ids))[0]
                else:
                    states = model(input_ids=ids).last_hidden_state[0]
                    vector = states[0] if name == "bert-cls" else states.mean(0)
                known["texts"].append([case["text"], unit(vector)])
            if "images" in expected:
                if hasattr(model, "get_image_features"):
                    vector = pooled(model.get_image_features(**white(source)))[0]
                else:
                    vector = model(**white(source)).pooler_output[0].flatten()
                known["white"] = unit(vector)
    json.dump(printed, sys.stdout)


if __name__ == "__main__":
    main()
