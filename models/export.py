#!/usr/bin/env python3
"""Exports a model of transformers as a package for imgvec.

    pip install torch transformers onnx onnxruntime
    python models/export.py openai/clip-vit-base-patch32 /srv/models/clip-b32

MODEL is a name on the Hugging Face hub or a directory. It may be a model with a tower for pictures and one for texts (CLIP,
SigLIP and kin), a model of pictures (DINOv2, ViT, ResNet), an encoder of texts (BERT and kin, with the files of
sentence-transformers) or a model that answers questions about pictures (ViLT). TARGET is a directory that is not there yet. The configuration files are copied as they are;
onnx/ gets a graph for each tower. If onnxruntime is installed, each graph must give what torch gives.
"""

import argparse
import inspect
import json
import logging
import shutil
import sys
import warnings
from pathlib import Path

import torch
import transformers

OPSET = 17
# Greatest difference of an element between torch and onnxruntime, as a share of the largest element.
TOLERANCE = 1e-4
# What imgvec reads beside the graphs, where a model has it.
FILES = [
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "1_Pooling/config.json", "README.md",
]  # fmt: skip
# Files of a module behind the pooling; the second of weights is another form of the first.
MODULE_FILES = ["config.json", "model.safetensors", "pytorch_model.bin"]


class Tower(torch.nn.Module):
    """A model with one of its functions as the forward pass."""

    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run
        # Of this module too: the exporter sets the whole back to the mode that it finds here.
        self.eval()

    def forward(self, *inputs):
        return self.run(self.model, *inputs)


class Questions(torch.nn.Module):
    """ViltForQuestionAnswering over all patches of pictures that fill their tensor.

    The model takes patches in random order, which its attention does not see. Here they come in rows.
    """

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
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            image_embeds=torch.cat([first, patches], dim=1), pixel_mask=torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1),
        ).logits  # fmt: skip


class NaflexVision(torch.nn.Module):
    """The vision tower of SigLIP 2 NaFlex.

    The model resizes its table of places in a loop over the pictures, and tracing would build in the sizes. Here each patch
    takes its weights of the table's rows and columns, which is the same sum.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    @staticmethod
    def weights(places, sizes, side):
        """Of an antialiased bilinear resize from `side` to `sizes`: `[pictures, patches, side]`."""
        scale = side / sizes.float()[:, None]
        middle = (places.float() + 0.5) * scale
        columns = torch.arange(side, dtype=torch.float32) + 0.5
        distance = (columns - middle[:, :, None]).abs() / scale.clamp(min=1.0)[:, :, None]
        raw = (1.0 - distance).clamp(min=0.0)
        return raw / raw.sum(-1, keepdim=True)

    def forward(self, pixels, mask, shapes):
        vision, config = self.model, self.model.config
        side = vision.embeddings.position_embedding_size
        heights, widths = shapes[:, 0], shapes[:, 1]
        # Places behind the last patch are hidden by the mask.
        number = torch.arange(pixels.shape[1]).unsqueeze(0) * mask.long()
        rows = torch.div(number, widths[:, None], rounding_mode="floor")
        down = self.weights(rows, heights, side)
        across = self.weights(number - rows * widths[:, None], widths, side)
        cells = (down.unsqueeze(3) * across.unsqueeze(2)).flatten(2)
        places = cells @ vision.embeddings.position_embedding.weight
        states = vision.embeddings.patch_embedding(pixels) + places
        bias = torch.where(mask[:, None, None, :].bool(), 0.0, torch.finfo(torch.float32).min)
        states = vision.encoder(inputs_embeds=states, attention_mask=bias).last_hidden_state
        states = vision.post_layernorm(states)
        # The pooling head, with one question for each picture.
        head = vision.head
        heads, width = config.num_attention_heads, config.hidden_size
        weight, offset = head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3)

        def split(values):
            return values.reshape(values.shape[0], -1, heads, width // heads).transpose(1, 2)

        probe = head.probe.expand(pixels.shape[0], -1, -1)
        query, key, value = (
            split(torch.nn.functional.linear(source, weight[part], offset[part]))
            for part, source in enumerate([probe, states, states])
        )
        scores = query @ key.transpose(-1, -2) / (width // heads) ** 0.5 + bias
        found = (scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, 1, width)
        found = head.attention.out_proj(found)
        found = found + head.mlp(head.layernorm(found))
        return found[:, 0]


def vector(output):
    """The embedding in what `get_text_features` and `get_image_features` return, by version."""
    return output if torch.is_tensor(output) else output.pooler_output


def source_of(name):
    """The directory of a model. Weights of a name on the hub are fetched later, by transformers."""
    if Path(name).is_dir():
        return Path(name)
    import huggingface_hub

    modules = [f"[2-9]_*/{file}" for file in MODULE_FILES]
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES + modules))


def copy_modules(source, target):
    """Copies the layers that modules.json names behind the pooling, their weights as safetensors."""
    import safetensors.torch

    listed = source / "modules.json"
    for entry in json.loads(listed.read_text()) if listed.is_file() else []:
        module = source / entry["path"]
        if not entry["path"] or entry["path"] == "1_Pooling" or not module.is_dir():
            continue
        (target / entry["path"]).mkdir()
        for file in MODULE_FILES[:2]:
            if (module / file).is_file():
                shutil.copyfile(module / file, target / entry["path"] / file)
        if not (module / MODULE_FILES[1]).is_file() and (module / MODULE_FILES[2]).is_file():
            weights = torch.load(module / MODULE_FILES[2], weights_only=True)
            safetensors.torch.save_file(weights, target / entry["path"] / MODULE_FILES[1])


def preprocessing(source):
    """The settings of the image processor."""
    path = source / "preprocessor_config.json"
    if not path.exists():
        sys.exit("export: the model has no preprocessor_config.json, which says how a picture becomes numbers")
    return json.loads(path.read_text())


def picture_size(source, config):
    """Height and width of the tensor that the preprocessing makes."""
    fields = preprocessing(source)
    size = fields.get("crop_size") if fields.get("do_center_crop", "crop_size" in fields) else None
    size = size or fields.get("size") or getattr(config, "vision_config", config).image_size
    if isinstance(size, int):
        return size, size
    return size.get("height") or size["shortest_edge"], size.get("width") or size["shortest_edge"]


def example_of_texts(config):
    """Two texts, the second shorter. What the tokens are does not matter; a model of one length gets that."""
    text_config = getattr(config, "text_config", config)
    tokens = text_config.max_position_embeddings if "siglip" in config.model_type else 9
    mask = torch.ones(2, tokens, dtype=torch.int64)
    mask[1, tokens - 3 :] = 0
    ids = torch.randint(0, text_config.vocab_size, (2, tokens))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def write(tower, inputs, outputs, axes, path, dynamic=None, shorter=2):
    """Writes a graph whose first axes are free, or those of `dynamic`. An embedding has the batch alone.

    It must work with texts that are `shorter` by so many tokens.
    """
    if dynamic is None:
        dynamic = {name: dict(enumerate(axes)) for name in [*inputs, *outputs]}
        dynamic |= {name: {0: axes[0]} for name in outputs if name != "last_hidden_state"}
    options = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=outputs, opset_version=OPSET,
            dynamic_axes=dynamic, **options,
        )  # fmt: skip
    check(tower, inputs, outputs, path, shorter)


def check(tower, inputs, outputs, path, shorter):
    try:
        import onnxruntime
    except ImportError:
        print(f"{path.name}: not compared with torch, as onnxruntime is not installed")
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # The second item by itself, a text without its end: neither batch nor length of the example are built in.
    for rows, less in (slice(None), 0), (slice(1, 2), shorter):
        part = {name: values[rows] for name, values in inputs.items()}
        part = {name: v[:, : v.shape[1] - less] if v.ndim == 2 else v for name, v in part.items()}
        with torch.inference_mode():
            wanted = tower(*part.values())
        wanted = [wanted] if torch.is_tensor(wanted) else list(wanted)
        found = session.run(outputs, {name: values.numpy() for name, values in part.items()})
        for name, one, other in zip(outputs, wanted, found):
            largest = one.abs().max().item()
            difference = (one - torch.from_numpy(other)).abs().max().item()
            if not difference <= TOLERANCE * largest:
                sys.exit(f"export: {path.name}: {name} differs from torch by {difference} of {largest}")
    print(f"{path.name}: as torch computes it")


def copy_files(source, target):
    (target / "onnx").mkdir(parents=True)
    for file in FILES:
        if (source / file).is_file():
            (target / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / file, target / file)


def save_tokenizer(name, target):
    if not (target / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        if not tokenizer.is_fast:
            sys.exit("export: the tokenizer has no form as tokenizer.json")
        tokenizer.save_pretrained(target)


def export_questions(name, source, config, target):
    """A model that scores its answers to a question about a picture."""
    model = transformers.ViltForQuestionAnswering.from_pretrained(name, attn_implementation="eager").float()
    copy_files(source, target)
    save_tokenizer(name, target)
    side = 2 * config.patch_size
    inputs = example_of_texts(config)
    inputs["pixel_values"] = torch.randn(2, 3, side, 3 * config.patch_size)
    inputs["pixel_mask"] = torch.ones(2, side, 3 * config.patch_size, dtype=torch.int64)
    axes = {key: {0: "batch", 1: "tokens"} for key in list(inputs)[:3]}
    axes |= {"pixel_values": {0: "batch", 2: "height", 3: "width"}, "pixel_mask": {0: "batch", 1: "height", 2: "width"}}
    write(Questions(model), inputs, ["logits"], ["batch"], target / "onnx/model.onnx", axes | {"logits": {0: "batch"}})


def write_naflex(model, source, target):
    """The vision tower of SigLIP 2 NaFlex, compared with the model's own first."""
    fields = preprocessing(source)
    patches, side = fields.get("max_num_patches") or 256, fields.get("patch_size") or 16
    # Two pictures of different shapes; the second leaves patches over.
    shapes = torch.tensor([[1, patches], [2, max(patches // 3, 1)]])
    mask = (torch.arange(patches) < shapes.prod(1, keepdim=True)).long()
    inputs = {
        "pixel_values": torch.randn(2, patches, 3 * side * side), "pixel_attention_mask": mask, "spatial_shapes": shapes
    }
    tower = NaflexVision(model.vision_model)
    with torch.inference_mode():
        wanted, found = vector(model.get_image_features(**inputs)), tower(*inputs.values())
    if not (wanted - found).abs().max() <= TOLERANCE * wanted.abs().max():
        sys.exit("export: the vision tower differs from that of transformers, whose version is perhaps too new")
    axes = {name: {0: "batch", 1: "patches"} for name in ["pixel_values", "pixel_attention_mask"]}
    axes |= {name: {0: "batch"} for name in ["spatial_shapes", "image_embeds"]}
    write(tower, inputs, ["image_embeds"], ["batch"], target, axes, shorter=0)


def export(name, target):
    source = source_of(name)
    config = transformers.AutoConfig.from_pretrained(name)
    if config.model_type == "vilt":
        export_questions(name, source, config, target)
        return
    try:
        model = transformers.AutoModel.from_pretrained(name, attn_implementation="eager")
    except ValueError:
        # Convolutions have no attention.
        model = transformers.AutoModel.from_pretrained(name)
    model = model.float().eval()
    has_both = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
    has_pictures = has_both or model.main_input_name == "pixel_values"
    has_texts = has_both or model.main_input_name == "input_ids"
    if not has_pictures and not has_texts:
        sys.exit(f"export: {config.model_type} takes {model.main_input_name}, neither pictures nor texts")
    takes_patches = has_both and "spatial_shapes" in inspect.signature(model.get_image_features).parameters
    pixels = torch.randn(2, 3, *picture_size(source, config)) if has_pictures and not takes_patches else None

    copy_files(source, target)
    copy_modules(source, target)
    if has_texts:
        save_tokenizer(name, target)
        batch = example_of_texts(config)

    if has_both:
        if takes_patches:
            write_naflex(model, source, target / "onnx/vision_model.onnx")
        else:
            write(
                Tower(model, lambda model, pixels: vector(model.get_image_features(pixel_values=pixels))),
                {"pixel_values": pixels}, ["image_embeds"], ["batch"], target / "onnx/vision_model.onnx",
            )  # fmt: skip
        # CLIP reads its result where the text ends, and SigLIP was trained without a mask: ids are enough.
        takes = inspect.signature(model.get_text_features).parameters
        causal = config.model_type.startswith("clip")
        names = ["input_ids"]
        if not causal and "siglip" not in config.model_type and "attention_mask" in takes:
            names.append("attention_mask")
        write(
            Tower(model, lambda model, *inputs: vector(model.get_text_features(**dict(zip(names, inputs))))),
            {key: batch[key] for key in names}, ["text_embeds"], ["batch", "tokens"], target / "onnx/text_model.onnx",
        )  # fmt: skip
    elif has_pictures:
        with torch.inference_mode():
            sample = model(pixel_values=pixels)
        outputs = [key for key in ["last_hidden_state", "pooler_output"] if sample.get(key) is not None]
        write(
            Tower(model, lambda model, pixels: tuple(model(pixel_values=pixels)[key] for key in outputs)),
            {"pixel_values": pixels}, outputs, ["batch"], target / "onnx/model.onnx",
        )  # fmt: skip
    else:
        takes = inspect.signature(model.forward).parameters
        names = [key for key in batch if key in takes]
        write(
            Tower(model, lambda model, *inputs: model(**dict(zip(names, inputs))).last_hidden_state),
            {key: batch[key] for key in names}, ["last_hidden_state"], ["batch", "tokens"], target / "onnx/model.onnx",
        )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("target", metavar="TARGET", type=Path)
    arguments = parser.parse_args()
    if arguments.target.exists():
        sys.exit(f"export: {arguments.target} exists")
    logging.getLogger().setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(1)
    # Whoever looks into the directory sees a whole package or none.
    unfinished = arguments.target.with_name("." + arguments.target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        export(arguments.model, unfinished)
        unfinished.rename(arguments.target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    main()
