#!/usr/bin/env python3
"""Memory of sessions that embed: what one holds after its first calls, what a call takes, what is left afterwards.

    python benches/packages.py clip /srv/models/clip        (siglip, sentence, long likewise)
    python benches/gemma2.py /srv/models/gemma2 /srv/models/gemma2-int8
    pip install psycopg2-binary pillow numpy
    python benches/memory.py /srv/models "host=/tmp/server user=postgres dbname=postgres" clip,siglip,sentence,long

Wants to be a superuser of a server on this machine that has the extension. Each model gets a session of its own, which has been
used by nobody: prepare the model before (SELECT imgvec_prepare('clip')). Prints megabytes, what the
session holds as a share of what it held after its first calls, which must stay below 1.5, and processor time.
"""

import io
import sys
import threading
import time

import numpy as np
import psycopg2
from PIL import Image


def private(pid, field="Anonymous"):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith(field)) / 1024


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / 100


class Peak:
    """The most private memory of a process while a block runs."""

    def __init__(self, pid):
        self.pid, self.most, self.stop = pid, 0, False

    def look(self):
        while not self.stop:
            with open(f"/proc/{self.pid}/statm") as pages:
                _, resident, shared, *_ = map(int, pages.read().split())
            self.most = max(self.most, (resident - shared) * 4 / 1024)
            time.sleep(0.001)

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((640, 480)).save(data, "JPEG")
    return data.getvalue()


def words(count):
    return " ".join((["dog", "cat", "photo", "red", "house"] * (count // 5 + 1))[:count])


def calls_of(model):
    def texts(tokens, count=1):
        query = f"SELECT array_length(embed_texts(ARRAY(SELECT %s || ' ' || i FROM generate_series(1, {count}) i), '{model}'), 1)"
        return f"{count} texts of {tokens} tokens", query, (words(tokens - 3),)

    def pictures(count):
        query = f"SELECT array_length(embed_images(%s::bytea[], '{model}'), 1)"
        return f"{count} pictures", query, ([picture(seed) for seed in range(count)],)

    first = [("first text", f"SELECT embed_text('a dog', '{model}')", ())]
    if model.startswith("sentence"):
        return first, [texts(512), texts(512, 8), texts(16, 100), texts(128, 64), texts(512, 16)]
    if model.startswith("long"):
        return first, [texts(512), texts(1024), texts(1400), texts(16, 100), texts(8100)]
    if model.startswith("gemma"):
        both = "one of both", f"SELECT embed_query(%s, 'a red ball', '{model}')", (picture(1),)
        return [*first, pictures(1)], [both, pictures(4), texts(60, 16), texts(512)]
    return [*first, pictures(1)], [pictures(8), pictures(20), texts(60, 100)]


def session(connection, path, model):
    client = psycopg2.connect(connection)
    client.autocommit = True
    cursor = client.cursor()
    cursor.execute("LOAD 'imgvec'")
    cursor.execute("SELECT set_config('imgvec.model_path', current_setting('imgvec.model_path') || ':' || %s, false)", (path,))
    cursor.execute("SELECT pg_backend_pid()")
    pid = cursor.fetchone()[0]
    print(f"{model}: {private(pid):.1f} before anything")
    base = None
    firsts, calls = calls_of(model)
    for number, (what, query, arguments) in enumerate(firsts + calls):
        if number == len(firsts):
            base = private(pid)
        before, started, result = private(pid), processor_seconds(pid), ""
        with Peak(pid) as peak:
            try:
                cursor.execute(query, arguments)
            except psycopg2.Error as error:
                result = f"{error.pgcode} {error.diag.message_detail or error.diag.message_primary}"
        held = private(pid)
        share = f"{held / base:.2f}" if base else "    "
        took = processor_seconds(pid) - started
        print(f"  {what:28} peak +{max(peak.most - before, 0):6.1f}  holds {held:6.1f}  {share}  CPU {took:6.2f} s {result}", flush=True)
    client.close()


def main():
    path, connection, models = sys.argv[1:]
    for model in models.split(","):
        session(connection, path, model)


if __name__ == "__main__":
    main()
