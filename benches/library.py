#!/usr/bin/env python3
"""The jobs of a picture library, measured in a server: what docs/library.md says of altered pictures, clusters and taste, and
of pairs and clusters of large tables.

    pip install psycopg2-binary numpy pyarrow pillow scikit-learn
    python benches/library.py "host=/tmp/server user=postgres dbname=postgres" pictures ../shared/data/starter-corpus
    python benches/library.py "host=/tmp/server user=postgres dbname=postgres" vectors 100000

Wants a superuser of a server on this machine in which the extension is created. Makes tables in a schema `library_bench`, and
drops it first. `pictures` takes the held-out pictures of the starter corpus; `vectors` makes rows x 512 of three families.
Processor time is that of the backend and of its threads.
"""

import io
import json
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np
import psycopg2

DIM = 512


class Server:
    def __init__(self, dsn):
        self.connection = psycopg2.connect(dsn)
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.pid = self.one("SELECT pg_backend_pid()")

    def run(self, statement, values=None):
        self.cursor.execute(statement, values)

    def rows(self, statement, values=None):
        self.run(statement, values)
        return self.cursor.fetchall()

    def one(self, statement, values=None):
        return self.rows(statement, values)[0][0]

    def seconds(self):
        """Processor time of the backend and its threads so far."""
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def timed(self, statement, values=None):
        """Rows of a statement, CPU seconds, elapsed seconds, and the most private memory in MB (from its start)."""
        with open(f"/proc/{self.pid}/clear_refs", "w") as reset:
            reset.write("5")
        before, cpu, clock = self.memory(), self.seconds(), time.time()
        rows = self.rows(statement, values)
        return rows, self.seconds() - cpu, time.time() - clock, self.peak() - before

    def field(self, name):
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

    def memory(self):
        return self.field("VmRSS") - self.field("RssShmem")

    def peak(self):
        # The highest resident size, less the shared buffers that are mapped now.
        return self.field("VmHWM") - self.field("RssShmem")

    def copy(self, table, arrays):
        """Rows of numbers and vectors by binary COPY: `id integer, embedding imgvec`."""
        head = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
        start = 0
        self.run("BEGIN")
        for array in arrays:
            n, dim = array.shape
            row = np.dtype([("n", ">i2"), ("l1", ">i4"), ("id", ">i4"), ("l2", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("v", ">f4", (dim,))])
            block = np.zeros(n, row)
            block["n"], block["l1"], block["l2"], block["dim"] = 2, 4, 4 + 4 * dim, dim
            block["id"], block["v"] = np.arange(start, start + n), array
            self.cursor.copy_expert(f"COPY {table} FROM STDIN (FORMAT binary)", io.BytesIO(head + block.tobytes() + b"\xff\xff"))
            start += n
        self.run("COMMIT")


def unit(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


# --- pictures -----------------------------------------------------------------------------------------------------------


def altered():
    from PIL import Image, ImageDraw, ImageEnhance

    def jpeg(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=20)
        return Image.open(file).convert("RGB")

    def banner(image):
        image = image.copy()
        width, height = image.size
        draw = ImageDraw.Draw(image)
        draw.rectangle([0, int(height * 0.85), width, height], fill=(20, 20, 20))
        draw.text((width * 0.1, height * 0.86), "breaking news", fill=(240, 240, 240))
        return image

    def turned(image):
        width, height = image.size
        lost = np.sin(np.radians(5)) * 0.5
        return image.rotate(5, Image.BICUBIC).crop(tuple(round(x) for x in (width * lost, height * lost, width * (1 - lost), height * (1 - lost))))

    return {
        "JPEG at quality 20": jpeg,
        "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.BICUBIC),
        "brightness 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
        "banner": banner,
        "5 degrees": turned,
        "crop to 80 %": lambda image: image.crop(tuple(round(image.width * part) for part in (0.1, 0.1, 0.9, 0.9))),
        "flip": lambda image: image.transpose(Image.FLIP_LEFT_RIGHT),
    }


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def hamming(a, b):
    return np.bitwise_count(a[:, None] ^ b[None, :]) if hasattr(np, "bitwise_count") else np.array([[bin(int(x) ^ int(y)).count("1") for y in b] for x in a])


def pictures(server, corpus):
    import pyarrow.parquet as parquet
    from PIL import Image

    table = parquet.read_table(corpus / "test.parquet")
    labels = json.loads((corpus / "labels.json").read_text())["classes"]
    source, classes, files = (table[name].to_pylist() for name in ("src", "cls", "image"))
    photos = [row for row in range(len(files)) if source[row] != "emo"]
    random = np.random.default_rng(14)
    photos = [photos[i] for i in random.permutation(len(photos))]
    server.run("CREATE TABLE pictures (id integer PRIMARY KEY, class integer, data bytea, hash bit(64), embedding imgvec(256))")

    def store(first, many):
        for place, (cls, data) in enumerate(many):
            server.run("INSERT INTO pictures (id, class, data) VALUES (%s, %s, %s)", (first + place, cls, psycopg2.Binary(data)))
        server.run("UPDATE pictures SET hash = image_hash(data), embedding = embed_image(data, 'starter') WHERE id >= %s", (first,))

    originals = photos[:10_000]
    store(0, [(classes[row], files[row]) for row in originals])
    vectors = lambda where: np.array([[float(x) for x in text[1:-1].split(",")] for (text,) in server.rows(f"SELECT embedding::text FROM pictures WHERE {where} ORDER BY id")], np.float32)
    hashes = lambda where: np.array([int(text, 2) for (text,) in server.rows(f"SELECT hash::text FROM pictures WHERE {where} ORDER BY id")], np.uint64)
    v, h = unit(vectors("id < 100000")), hashes("id < 100000")
    n = len(originals)
    print(f"\n## altered copies of 2,000 of {n} held-out pictures\n")
    # Pairs of different pictures at each threshold: what a bound costs.
    bits, near = np.zeros(65, int), []
    for start in range(0, n, 1000):
        upper = np.arange(n)[None, :] > np.arange(start, min(n, start + 1000))[:, None]
        bits += np.bincount(hamming(h[start : start + 1000], h)[upper], minlength=65)
        distance = 1 - v[start : start + 1000] @ v.T
        near.append(np.sort(distance[upper & (distance < 0.2)]))
    near, pairs = np.sort(np.concatenate(near)), np.cumsum(bits)
    print("pairs of other pictures within bits:", ", ".join(f"{b}: {pairs[b]}" for b in (0, 2, 4, 6, 8, 10, 12)))
    print("pairs of other pictures within distance:", ", ".join(f"{d}: {np.searchsorted(near, d, 'right')}" for d in (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1)))
    chosen = random.permutation(n)[:2000]
    images = [Image.open(io.BytesIO(files[originals[row]])).convert("RGB") for row in chosen]
    bounds_bits, bounds = (4, 6, 8, 10), (0.01, 0.02, 0.03, 0.05, 0.1)
    print("\n| altered | " + " | ".join(f"{b} bits" for b in bounds_bits) + " | " + " | ".join(f"distance {d}" for d in bounds) + " |")
    print("|---" * (1 + len(bounds_bits) + len(bounds)) + "|")
    for place, (name, alter) in enumerate(altered().items()):
        first = 100_000 * (place + 1)
        store(first, [(0, png(alter(image))) for image in images])
        where = f"id >= {first} AND id < {first + 100_000}"
        off = np.array([bin(int(a) ^ int(b)).count("1") for a, b in zip(hashes(where), h[chosen])])
        distance = 1 - (unit(vectors(where)) * v[chosen]).sum(1)
        print(f"| {name} | " + " | ".join(f"{(off <= b).mean():.3f}" for b in bounds_bits) + " | " + " | ".join(f"{(distance <= d).mean():.3f}" for d in bounds) + " |", flush=True)

    import warnings

    from sklearn.cluster import HDBSCAN
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    warnings.filterwarnings("ignore")
    truth = np.array([classes[row] for row in originals[:8000]])
    print("\n## clusters of 8,000 pictures against their classes: NMI (without noise, share of noise), beside scikit-learn's of the same\n")
    for size in (5, 10):
        rows, cpu, _, _ = server.timed("SELECT coalesce(cluster(embedding, %s) OVER (ORDER BY id), 0) FROM pictures WHERE id < 8000 ORDER BY id", (size,))
        ours = np.array([cluster for (cluster,) in rows])
        begin = time.process_time()
        theirs = HDBSCAN(min_cluster_size=size, copy=True).fit(v[:8000].astype(np.float64)).labels_
        spent = time.process_time() - begin
        for who, labels_, noise, seconds in (("ours", ours, 0, cpu), ("scikit-learn", theirs, -1, spent)):
            kept = labels_ != noise
            print(f"min_size {size}, {who}: NMI {normalized_mutual_info_score(truth, labels_):.4f}, of what is in clusters {normalized_mutual_info_score(truth[kept], labels_[kept]):.4f}, "
                  f"clusters {len(set(labels_[kept]))}, noise {1 - kept.mean():.3f}, {seconds:.1f} s CPU")
        print(f"adjusted Rand index of the two: {adjusted_rand_score(ours, theirs):.4f}")

    taste(server, v, np.array([classes[row] for row in originals]), random)
    server.run("CREATE TABLE candidates AS SELECT id, embedding, random() AS score FROM pictures WHERE id < 200")
    statement = "SELECT count(place) FROM (SELECT diverse_rank(embedding, score, 0.3) OVER () AS place FROM candidates) AS r"
    server.run(statement)
    _, cpu, _, _ = server.timed(f"SELECT ({statement} WHERE i > 0) FROM generate_series(1, 200) AS i")
    print(f"\ndiverse_rank of 200 candidates x 256: {1000 * cpu / 200:.2f} ms CPU")


def taste(server, v, classes, random):
    """P@10 of liked and disliked pictures: five of a class, five of the class whose mean is nearest."""
    counts = np.bincount(classes)
    large = np.flatnonzero(counts >= 25)
    means = unit(np.stack([v[classes == cls].mean(0) for cls in large]))
    likeness = means @ means.T
    np.fill_diagonal(likeness, -1)
    asked, hits = 0, {"avg of the liked": 0.0, **{f"taste, dislikes at -{w}": 0.0 for w in (0.05, 0.1, 0.2, 0.5)}}
    for place, cls in enumerate(large):
        for _ in range(8):
            liked = random.choice(np.flatnonzero(classes == cls), 5, replace=False)
            disliked = random.choice(np.flatnonzero(classes == large[likeness[place].argmax()]), 5, replace=False)
            seen = [int(x) for x in (*liked, *disliked)]
            for way in hits:
                direction = "avg(embedding) FILTER (WHERE id = ANY (%(liked)s))" if way.startswith("avg") else f"taste(embedding, CASE WHEN id = ANY (%(liked)s) THEN 1 ELSE {way.split()[-1]} END)"
                found = server.rows(
                    f"SELECT class FROM pictures, (SELECT {direction} AS d FROM pictures WHERE id = ANY (%(seen)s)) AS t "
                    "WHERE id < 10000 AND id <> ALL (%(seen)s) ORDER BY embedding <=> d LIMIT 10", {"liked": [int(x) for x in liked], "seen": seen})
                hits[way] += np.mean([c == int(cls) for (c,) in found])
            asked += 1
    print(f"\n## P@10 of {asked} times five liked, five disliked of the nearest class\n")
    for way, sum_ in hits.items():
        print(f"{way}: {sum_ / asked:.3f}")


# --- vectors ------------------------------------------------------------------------------------------------------------


def families(rows):
    """Four kinds of rows, in blocks of 50,000; in each, one row in five is near to an earlier one, at differing distances."""

    def latent(random, state):
        if not state:
            state["basis"] = random.normal(0, 1, (96, DIM)) / np.sqrt(96)
            state["centers"] = random.normal(0, 1, (2000, 96))
            share = 1 / np.arange(1, 2001)
            state["share"] = share / share.sum()
        return lambda n: (state["centers"][random.choice(2000, n, p=state["share"])] + 0.7 * random.normal(0, 1, (n, 96))) @ state["basis"]

    def sparse(random, state):
        if not state:
            state["parts"] = np.maximum(random.normal(-1, 1, (400, DIM)), 0)
        return lambda n: random.gamma(0.3, 1, (n, 400)) ** 2 @ state["parts"]

    def isotropic(random, state):
        return lambda n: random.normal(0, 1, (n, DIM)) * np.linspace(0.2, 1.5, DIM)

    def manifold(random, state):
        # Few numbers say all of a row: a random network of 12 inputs.
        if not state:
            state["in"], state["out"] = random.normal(0, 1, (12, 64)) / np.sqrt(12), random.normal(0, 1, (64, DIM)) / 8
        return lambda n: np.tanh(1.5 * random.normal(0, 1, (n, 12)) @ state["in"]) @ state["out"] + 0.02 * random.normal(0, 1, (n, DIM))

    kinds = (("latent", latent), ("sparse", sparse), ("isotropic", isotropic), ("manifold", manifold))
    for place, (name, make) in enumerate(kinds):
        random, state = np.random.default_rng(100 + place), {}
        kind, blocks = make(random, state), []
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            block = unit(kind(n))
            copies = random.random(n) < 0.2
            copies[: n // 2] = False
            width = 10 ** random.uniform(-2, -0.5, copies.sum())
            origin = random.integers(0, n // 2, copies.sum())
            block[copies] = block[origin] + (width[:, None] * unit(random.normal(0, 1, (copies.sum(), DIM)))).astype(np.float32)
            blocks.append(unit(block))
        yield name, blocks


def vectors(server, rows, parts):
    random = np.random.default_rng(3)
    for name, blocks in families(rows):
        server.run("DROP TABLE IF EXISTS items; CREATE TABLE items (id integer, embedding imgvec(%s))", (DIM,))
        server.copy("items", blocks)
        server.run("VACUUM ANALYZE items")
        server.run("SET maintenance_work_mem = '4GB'; SET max_parallel_maintenance_workers = 1")
        begin = time.time()
        server.run("CREATE INDEX items_embedding ON items USING ann (embedding)")
        print(f"\n## {name}: {rows} x {DIM}; index built in {time.time() - begin:.0f} s", flush=True)
        everything = np.concatenate(blocks)
        asked = np.arange(rows) if rows <= 20_000 else np.sort(random.permutation(rows)[:5000])
        # Distances of the rows asked to all, counted, to know which bound gives how many pairs: a pair has two rows.
        counts = np.zeros(200_001, np.int64)

        def distances(start):
            distance = 1 - everything[asked[start : start + 500]] @ everything.T
            distance[np.arange(len(distance)), asked[start : start + 500]] = 9
            return distance

        for start in range(0, len(asked), 500):
            distance = distances(start)
            counts += np.bincount((100_000 * distance[distance < 1]).clip(0).astype(np.int32), minlength=len(counts))
        for wanted in (0.5, 5):
            bound = float(1 + np.searchsorted(np.cumsum(counts), 2 * wanted * len(asked))) / 100_000
            truth = set()
            for start in range(0, len(asked), 500):
                i, j = np.nonzero(distances(start) <= bound - 1e-6)
                truth.update(zip(asked[start + i].tolist(), j.tolist()))
            found, cpu, elapsed, memory = server.timed(
                "SELECT a.id, b.id, p.distance FROM ann_pairs('items_embedding', %s) AS p JOIN items a ON a.ctid = p.a JOIN items b ON b.ctid = p.b", (bound,))
            pairs = {pair for a, b, _ in found for pair in ((a, b), (b, a))}
            missed = sum(pair not in pairs for pair in truth)
            wrong = sum(float(d) > bound for _, _, d in found) + sum(abs(float(1 - everything[a] @ everything[b]) - d) > 1e-5 for a, b, d in found[:: max(1, len(found) // 2000)])
            twice = len(found) - len({(min(a, b), max(a, b)) for a, b, _ in found})
            print(f"pairs within {bound:.4f}: {len(found)} ({len(found) / rows:.2f} a row), recall {1 - missed / max(1, len(truth)):.5f} of {len(truth)}, wrong {wrong}, twice {twice}, "
                  f"{cpu:.1f} s CPU, {elapsed:.1f} s, {memory:.0f} MB", flush=True)
        if "groups" in parts:
            found, cpu, elapsed, memory = server.timed("SELECT count(*), count(DISTINCT number) FROM ann_groups('items_embedding', %s)", (0.02,))
            print(f"groups within .02: {found[0]}, {cpu:.1f} s CPU, {elapsed:.1f} s, {memory:.0f} MB", flush=True)
        if "clusters" in parts:
            found, cpu, elapsed, memory = server.timed("SELECT count(DISTINCT cluster), avg((cluster IS NULL)::int)::real FROM ann_clusters('items_embedding', 10)")
            print(f"clusters: {found[0][0]}, noise {found[0][1]:.3f}, {cpu:.1f} s CPU, {elapsed:.1f} s, {memory:.0f} MB", flush=True)


def main():
    dsn, what, argument, *more = sys.argv[1:]
    server = Server(dsn)
    server.run("DROP SCHEMA IF EXISTS library_bench CASCADE; CREATE SCHEMA library_bench; SET search_path = library_bench, public")
    if what == "pictures":
        pictures(server, Path(argument))
    else:
        vectors(server, int(argument), more or ["groups", "clusters"])


main()
