#!/usr/bin/env python3
"""Searches whose pages are on disk only: elapsed time and pages of servers in turn, such as two builds, or ann and pgvector's hnsw.

    pip install psycopg2-binary numpy
    python benches/cold.py 100000 "host=/tmp/before user=postgres dbname=postgres" "host=/tmp/after user=postgres dbname=postgres"
    python benches/cold.py 100000 "host=/tmp/after user=postgres dbname=postgres" "host=/tmp/after user=postgres dbname=postgres hnsw"

The first argument is the number of rows, of 512 dimensions. Each server needs `shared_buffers = 1MB`, so that it keeps little itself, and has to be on this machine.
Before every search the script asks the system to drop its copies of the table's and the index's files, so it needs permission to open
them. A word after the DSN is the access method, `ann` or `hnsw`. Each line has recall of the ten nearest, the median and
ninth decile of elapsed time, and the median of pages that were not in shared buffers. Makes tables in a schema
`cold_ann` or `cold_hnsw`, and drops it first. Wants a superuser, and the extension pg_prewarm.
"""

import io
import json
import os
import subprocess
import sys
import time

import numpy as np
import psycopg2

DIM, QUERIES = 512, 40
WIDTHS = {"ann": ("imgvec.ef_search", (0, 10, 40, 80)), "hnsw": ("hnsw.ef_search", (10, 40, 80, 160))}
SETUP = {
    "ann": ("imgvec", "imgvec(%s)", "ann (embedding imgvec_cosine_ops)"),
    "hnsw": ("vector", "vector(%s)", "hnsw (embedding vector_cosine_ops)"),
}


def literal(vector):
    return "[" + ",".join(f"{value:.5f}" for value in vector) + "]"


def unit(points):
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def made(rows):
    """Overlapping clusters in a space of 96 dimensions with a little noise in all; queries like rows, and queries away from all of them."""
    random = np.random.default_rng(1)
    axes, centers = random.normal(size=(96, DIM)), random.normal(size=(400, 96))

    def some(count):
        inner = centers[random.integers(0, 400, count)] + 0.6 * random.normal(size=(count, 96))
        return inner @ axes + 0.3 * random.normal(size=(count, DIM))

    points, images = unit(some(rows)).astype(np.float32), unit(some(QUERIES))
    gap = random.normal(size=DIM) * np.sqrt((96 + 0.09) / 4)
    texts = unit(some(QUERIES) * 0.5 + 1.7 * gap + 6 * random.normal(size=(QUERIES, DIM)))
    return points, {"image": images, "text": texts}


class Server:
    def __init__(self, dsn, points):
        *parts, method = dsn.split() if dsn.split()[-1] in SETUP else [*dsn.split(), "ann"]
        self.method, self.schema = method, f"cold_{method}"
        extension, kind, index = SETUP[method]
        connection = psycopg2.connect(" ".join(parts))
        connection.autocommit = True
        self.cursor = connection.cursor()
        self.run(f"CREATE EXTENSION IF NOT EXISTS {extension}; CREATE EXTENSION IF NOT EXISTS pg_prewarm; DROP SCHEMA IF EXISTS {self.schema} CASCADE; CREATE SCHEMA {self.schema}")
        self.run(f"SET search_path = {self.schema}, public; SET maintenance_work_mem = '2GB'")
        self.run(f"CREATE TABLE items (id serial, embedding {kind % DIM}); ALTER TABLE items ALTER embedding SET STORAGE MAIN")
        for begin in range(0, len(points), 10_000):
            self.cursor.copy_expert("COPY items (embedding) FROM STDIN", io.StringIO("\n".join(map(literal, points[begin : begin + 10_000]))))
        self.run("CREATE TABLE filler (id int, filling text); ALTER TABLE filler ALTER filling SET STORAGE PLAIN; INSERT INTO filler SELECT id, repeat('x', 7000) FROM generate_series(1, 600) AS id")
        self.run("VACUUM ANALYZE items")
        self.run(f"CREATE INDEX items_embedding ON items USING {index}")
        self.run("CHECKPOINT; SET enable_seqscan = off")
        folder = self.one("SHOW data_directory")
        heads = [f"{folder}/{self.one('SELECT pg_relation_filepath(%s)', (name,))}" for name in ("items", "items_embedding")]
        self.files = [path for head in heads for path in [head, *(f"{head}.{part}" for part in range(1, 99))] if os.path.exists(path)]
        subprocess.run(["sync", *self.files], check=True)

    def run(self, statement, values=None):
        self.cursor.execute(statement, values)

    def one(self, statement, values=None):
        self.run(statement, values)
        return self.cursor.fetchone()[0]

    def chill(self):
        self.one("SELECT pg_prewarm('filler', 'buffer', 'main', 0, 500)")  # pushes everything else out of shared buffers
        for path in self.files:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def search(self, query):
        """The ids found, milliseconds, and pages read from the system."""
        statement = "SELECT id FROM items ORDER BY embedding <=> %s LIMIT 10"
        self.run(statement, (query,))  # plans, and warms what is not the index's
        self.chill()
        started = time.perf_counter()
        self.run(statement, (query,))
        found = {row[0] for row in self.cursor.fetchall()}
        taken = 1e3 * (time.perf_counter() - started)
        self.chill()
        plan = self.one(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {statement}", (query,))
        plan = plan if isinstance(plan, list) else json.loads(plan)
        return found, taken, plan[0]["Plan"]["Shared Read Blocks"]


def main():
    rows = int(sys.argv[1])
    points, queries = made(rows)
    servers = [Server(dsn, points) for dsn in sys.argv[2:]]
    nearest = {kind: [set((np.argpartition(-(points @ query), 10)[:10] + 1).tolist()) for query in some.astype(np.float32)] for kind, some in queries.items()}
    for kind, some in queries.items():
        literals = [literal(query) for query in some]
        for place in range(4):
            for number, server in enumerate(servers):
                name, widths = WIDTHS[server.method]
                server.run(f"RESET {name}" if widths[place] == 0 else f"SET {name} = {widths[place]}")
                results = [server.search(query) for query in literals]
                recall = np.mean([len(found & wanted) / 10 for (found, _, _), wanted in zip(results, nearest[kind])])
                times, pages = [taken for _, taken, _ in results], [read for _, _, read in results]
                width = widths[place] or "default"
                print(f"{kind:5} server {number + 1} {server.method:4} {name.split('.')[1]} {width!s:>7}: recall {recall:.3f}, "
                      f"elapsed median {np.median(times):7.2f} ms, ninth decile {np.quantile(times, 0.9):7.2f}, pages {np.median(pages):6.0f}", flush=True)  # fmt: skip


main()
