#!/usr/bin/env python3
"""Two builds of the extension in turn: embeddings, scans, searches, inserts and builds, in processor time of the backend.

    pip install psycopg2-binary numpy pillow
    git worktree add ../before COMMIT        # then make stage, and start a server of each stage
    python benches/before_after.py "host=/tmp/before user=postgres dbname=postgres" "host=/tmp/after user=postgres dbname=postgres" [MODEL]

Wants to be a superuser of two servers on this machine with the same settings, one for each build. MODEL (`starter`) has to be the same
files in both. Each line has the least and the median time of both, and the ratios of the second server to the first. Searches are
compared at equal recall, so each server prints what it finds and takes at several beam widths or lookaheads (`imgvec.ef_search`).
Makes tables in a schema `before_after`, and drops it first.
"""

import io
import os
import statistics
import sys

import numpy as np
import psycopg2
from PIL import Image

ROUNDS = 7
ROWS, DIM, QUERIES = 100_000, 512, 200
INSERTED, INSERTS = 3000, 4


class Server:
    def __init__(self, dsn):
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        self.cursor = connection.cursor()
        self.pid = self.one("SELECT pg_backend_pid()")
        self.run("CREATE EXTENSION IF NOT EXISTS imgvec; DROP SCHEMA IF EXISTS before_after CASCADE; CREATE SCHEMA before_after")
        self.run("SET search_path = before_after, public; SET imgvec.embedding_cache_entries = 0; SET maintenance_work_mem = '1GB'")

    def run(self, statement, values=None):
        self.cursor.execute(statement, values)

    def one(self, statement, values=None):
        self.run(statement, values)
        return self.cursor.fetchone()[0]

    def seconds(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def timed(self, work):
        before = self.seconds()
        result = work(self)
        return self.seconds() - before, result


def compare(name, servers, work, rounds=ROUNDS):
    """Both take turns, and the one that begins changes from round to round."""
    times = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(servers[which].timed(work)[0])
    least, median = [min(part) for part in times], [statistics.median(part) for part in times]
    print(f"{name:34} least {least[0]:8.3f} {least[1]:8.3f} s, ratio {least[1] / least[0]:.2f}; median ratio {median[1] / median[0]:.2f}", flush=True)


def literal(vector):
    return "[" + ",".join(f"{value:.5f}" for value in vector) + "]"


def photograph():
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    smooth = np.stack([x / 640 * 200, y / 480 * 220, 128 + 100 * np.sin(x / 97) * np.cos(y / 131)], -1)
    data = io.BytesIO()
    Image.fromarray(np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)).save(data, "JPEG", quality=90)
    return data.getvalue()


def rows(random, count):
    """Overlapping clusters in a space of 96 dimensions, with a little noise in all."""
    axes, centers = random.normal(size=(96, DIM)), random.normal(size=(400, 96))
    inner = centers[random.integers(0, 400, count)] + 0.6 * random.normal(size=(count, 96))
    points = inner @ axes + 0.3 * random.normal(size=(count, DIM))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def searches(server, queries, nearest, width):
    """Recall of the ten nearest, and milliseconds a search."""
    server.run(f"SET imgvec.ef_search = {width}")

    def all_of_them(server):
        found = 0
        for query, wanted in zip(queries, nearest):
            server.run("EXECUTE search (%s)", (query,))
            found += len(wanted & {row[0] for row in server.cursor.fetchall()})
        return found / (10 * len(queries))

    all_of_them(server)
    taken = [server.timed(all_of_them) for _ in range(5)]
    return taken[0][1], 1e3 * min(seconds for seconds, _ in taken) / len(queries)


def main():
    servers, model = [Server(dsn) for dsn in sys.argv[1:3]], sys.argv[3] if len(sys.argv) > 3 else "starter"
    random = np.random.default_rng(1)
    points = rows(random, ROWS + INSERTS * INSERTED)
    points, others = points[:ROWS], points[ROWS:]
    for server in servers:
        server.run("CREATE TABLE picture (data bytea); CREATE TABLE items (id serial PRIMARY KEY, embedding imgvec(%s))", (DIM,))
        server.run("CREATE TABLE others (id serial PRIMARY KEY, embedding imgvec(%s))", (DIM,))
        server.run("INSERT INTO picture VALUES (%s)", (photograph(),))
        for table, vectors in (("items", points), ("others", others)):
            server.cursor.copy_expert(f"COPY {table} (embedding) FROM STDIN", io.StringIO("\n".join(map(literal, vectors))))
            server.run(f"VACUUM ANALYZE {table}")
    for name, statement in [
        ("embed_image, 400 of 640x480", f"SELECT count(embed_image(data || int4send(i), '{model}')) FROM picture, generate_series(1, 400) AS i"),
        ("embed_text, 60,000 rows", f"SELECT count(embed_text('a dog on grass number ' || i, '{model}')) FROM generate_series(1, 60000) AS i"),
        ("embed_texts, 60,000 in one call", f"SELECT cardinality(embed_texts(ARRAY(SELECT 'a dog on grass number ' || i FROM generate_series(1, 60000) AS i), '{model}'))"),
    ]:
        for server in servers:
            server.run(f"SELECT embed_text('loads the model', '{model}'), embed_image(data, '{model}') FROM picture")
        compare(name, servers, lambda server, statement=statement: server.run(statement))
    scan = "SELECT id FROM items ORDER BY embedding <=> (SELECT embedding FROM items WHERE id = 77) LIMIT 10"
    compare("exact scan of 100,000, ten times", servers, lambda server: [server.run(scan) for _ in range(10)])
    build = "DROP INDEX IF EXISTS items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding)"
    compare("build of 100,000 x 512", servers, lambda server: server.run(build), rounds=3)

    asked = points[random.integers(0, ROWS, QUERIES)] + 0.02 * random.normal(size=(QUERIES, DIM))
    scores = asked @ points.T
    nearest = [set((np.argpartition(-part, 10)[:10] + 1).tolist()) for part in scores]
    queries = [literal(query) for query in asked]
    for which, server in enumerate(servers):
        server.run("ANALYZE items; SET enable_seqscan = off; PREPARE search (imgvec) AS SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 10")
        for width in (10, 20, 40, 80, 160):
            recall, milliseconds = searches(server, queries, nearest, width)
            print(f"server {which + 1}, ef_search {width:3}: recall {recall:.4f} in {milliseconds:.2f} ms", flush=True)
    insert = f"WITH next AS (DELETE FROM others WHERE id IN (SELECT id FROM others ORDER BY id LIMIT {INSERTED}) RETURNING embedding) INSERT INTO items (embedding) TABLE next"
    compare(f"insert of {INSERTED:,} rows", servers, lambda server: server.run(insert), rounds=INSERTS)


main()
