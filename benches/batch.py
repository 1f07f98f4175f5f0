#!/usr/bin/env python3
"""Calls for one item and for many, beside onnxruntime in Python with one thread and the same batch: CPU milliseconds an item.

    pip install psycopg2-binary numpy onnx onnxruntime tokenizers pillow
    python benches/packages.py clip /srv/models/clip        (sentence likewise)
    python benches/batch.py /srv/models "host=/tmp/server user=postgres dbname=postgres" clip,sentence

Wants to be a superuser of a server on this machine that has the extension, with /srv/models in imgvec.model_path. Python does what the
extension does: it decodes JPEG files of 640 x 480 by Pillow, resizes and normalizes them, or splits texts into tokens, and runs the
package's graph. Both take turns, and the median of three rounds is printed. The ratio is Python's time divided by ours.
"""

import io
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import psycopg2
from PIL import Image
from tokenizers import Tokenizer

ROUNDS = 3
BATCH = 8  # of the extension; larger ones do not pay
PICTURES, TEXTS = 24, 96


def pictures():
    for seed in range(PICTURES):
        noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(noise).resize((640, 480), Image.BICUBIC).save(data, "JPEG", quality=90)
        yield data.getvalue()


class Reference:
    def __init__(self, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graphs = {path.stem: path for path in (folder / "onnx").glob("*.onnx")} | {path.stem: path for path in folder.glob("*.onnx")}
        open_graph = lambda name: onnxruntime.InferenceSession(str(graphs[name]), options, providers=["CPUExecutionProvider"])  # noqa: E731
        self.vision = open_graph("vision_model") if "vision_model" in graphs else None
        self.text = open_graph("text_model" if "text_model" in graphs else "model")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text())
        self.tokenizer.enable_truncation(config.get("text_config", config)["max_position_embeddings"])
        self.tokenizer.enable_padding()
        if self.vision:
            settings = json.loads((folder / "preprocessor_config.json").read_text())
            self.mean, self.std = (np.array(settings[key], np.float32)[:, None, None] for key in ("image_mean", "image_std"))

    def pixels(self, data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        short = min(image.size)
        image = image.resize(tuple(int(224 * side / short) for side in image.size), Image.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
        return ((pixels * (1 / 255)).astype(np.float32) - self.mean) / self.std

    def embed_images(self, files, batch):
        for start in range(0, len(files), batch):
            self.vision.run(None, {"pixel_values": np.stack([self.pixels(data) for data in files[start : start + batch]])})

    def embed_texts(self, texts, batch):
        for start in range(0, len(texts), batch):
            encoded = self.tokenizer.encode_batch(texts[start : start + batch])
            inputs = {"input_ids": [item.ids for item in encoded], "attention_mask": [item.attention_mask for item in encoded]}
            inputs["token_type_ids"] = [item.type_ids for item in encoded]
            wanted = {value.name for value in self.text.get_inputs()}
            self.text.run(None, {name: np.array(value, np.int64) for name, value in inputs.items() if name in wanted})


class Server:
    def __init__(self, dsn, folder):
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        self.cursor = connection.cursor()
        self.cursor.execute("SELECT pg_backend_pid()")
        self.pid = self.cursor.fetchone()[0]
        self.run(f"SET imgvec.model_path = '{folder}'; SET imgvec.embedding_cache_entries = 0; SET imgvec.threads = 1")

    def run(self, statement, values=None):
        self.cursor.execute(statement, values)

    def seconds(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name, count, server, statement, reference):
    """Prints medians of both in milliseconds an item, and their ratio."""
    times = {"ours": [], "python": []}
    for _ in range(ROUNDS + 1):
        before = server.seconds()
        server.run(statement)
        times["ours"].append(server.seconds() - before)
        before = time.process_time()
        reference()
        times["python"].append(time.process_time() - before)
    ours, python = (1e3 * statistics.median(times[who][1:]) / count for who in ("ours", "python"))  # the first round loads
    print(f"{name:45}{ours:10.3f}{python:10.3f}{python / ours:8.2f}", flush=True)


def main():
    folder, dsn, models = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
    files = list(pictures())
    short = [f"a dog on grass number {number}" for number in range(TEXTS)]
    # One in eight has 200 words.
    mixed = [text if number % 8 else text + " and a red house" * 50 for number, text in enumerate(short)]
    print(f"{'CPU ms an item':45}{'imgvec':>10}{'Python':>10}{'ratio':>8}")
    for model in models:
        server, reference = Server(dsn, folder), Reference(folder / model)
        server.run("CREATE TEMP TABLE pictures (data bytea); CREATE TEMP TABLE short (id serial, body text); CREATE TEMP TABLE mixed (id serial, body text)")
        for data in files:
            server.run("INSERT INTO pictures VALUES (%s)", (data,))
        for table, texts in (("short", short), ("mixed", mixed)):
            server.run(f"INSERT INTO {table} (body) SELECT unnest(%s::text[])", (texts,))
        if reference.vision:
            rows = f"SELECT count(embed_image(data, '{model}')) FROM pictures"
            measure(f"{model}: pictures, row by row", len(files), server, rows, lambda: reference.embed_images(files, 1))
            array = f"SELECT cardinality(embed_images(ARRAY(SELECT data FROM pictures), '{model}'))"
            measure(f"{model}: pictures, one call; batch {BATCH}", len(files), server, array, lambda: reference.embed_images(files, BATCH))
        for table, texts in (("short", short), ("mixed", mixed)):
            rows = f"SELECT count(embed_text(body, '{model}')) FROM {table}"
            measure(f"{model}: {table} texts, row by row", len(texts), server, rows, lambda: reference.embed_texts(texts, 1))
            array = f"SELECT cardinality(embed_texts(ARRAY(SELECT body FROM {table} ORDER BY id), '{model}'))"
            for batch in (BATCH, 32):
                measure(f"{model}: {table} texts, one call; batch {batch}", len(texts), server, array, lambda: reference.embed_texts(texts, batch))


if __name__ == "__main__":
    main()
