#!/usr/bin/env python3
"""Real vectors for `make bench-index`: pictures of the starter corpus and the names of its classes, embedded in a server.

    pip install psycopg2-binary numpy pyarrow
    python benches/corpus.py "host=/tmp/server user=postgres dbname=postgres" ../shared/data/starter-corpus starter 100000 target/bench
    make bench-index SETS=none VECTORS=target/bench/starter-pictures.npy TEXTS=target/bench/starter-texts.npy

Wants a superuser of a server in which the extension is created and the model (third argument) is on `imgvec.model_path`. With
`--package DIR REFERENCE` instead of a server it only writes the package `reference` of two towers that were trained apart:
the files of REFERENCE and an `imgvec.toml`. Emoji are left out. Texts are all names of classes and what those are kinds of.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

# The picture is squeezed to a square; its numbers are (x - 128) / 128.
REFERENCE = """family = "generic"
license = "Apache-2.0"

[image]
graph = "image_mobilenetv2_conse.onnx"

[image.preprocessing]
size = { height = 224, width = 224 }
resample = 3
do_center_crop = false
do_rescale = false
image_mean = [128, 128, 128]
image_std = [128, 128, 128]

[text]
graph = "text_minilm_centered_int8.onnx"
max_length = 256
"""


def package(target, source):
    target.mkdir(parents=True, exist_ok=True)
    for name in ("image_mobilenetv2_conse.onnx", "text_minilm_centered_int8.onnx", "tokenizer.json"):
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o644)
    (target / "imgvec.toml").write_text(REFERENCE)


def numbers(text):
    return np.array(text[1:-1].split(","), np.float32)


def main(dsn, corpus, model, pictures, out):
    import psycopg2
    import pyarrow.parquet as parquet

    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor()
    labels = json.loads((corpus / "labels.json").read_text())["classes"]
    kinds, found = set(), []
    for file in sorted(corpus.glob("*.parquet")):
        table = parquet.read_table(file, columns=["src", "cls", "image"])
        for source, cls, image in zip(*(table[name].to_pylist() for name in ("src", "cls", "image"))):
            if source == "emo" or len(found) >= pictures:
                continue
            kinds.add(cls)
            cursor.execute("SELECT embed_image(%s, %s)::text", (psycopg2.Binary(image), model))
            found.append(numbers(cursor.fetchone()[0]))
    words = sorted({word for cls in kinds for word in labels[cls]["names"] + labels[cls]["hypernyms"]})
    cursor.execute("SELECT embed_text(word, %s)::text FROM unnest(%s) WITH ORDINALITY AS w (word, place) ORDER BY place", (model, words))
    texts = [numbers(row[0]) for row in cursor.fetchall()]
    # In no order of classes or files, so that the rows that come last are like the others.
    random = np.random.default_rng(23)
    out.mkdir(parents=True, exist_ok=True)
    for name, vectors in (("pictures", found), ("texts", texts)):
        file = out / f"{model}-{name}.npy"
        np.save(file, random.permutation(np.stack(vectors)))
        print(f"{file}: {len(vectors)} x {len(vectors[0])}")


if sys.argv[1] == "--package":
    package(Path(sys.argv[2]), Path(sys.argv[3]))
else:
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
