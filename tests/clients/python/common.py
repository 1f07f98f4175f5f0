"""What the Python programs share: vectors, exact answers, looks at plans.

A program is called with the name of the column's type, `imgvec` or pgvector's `vector`, and finds its database by
libpq's environment variables. It asserts; whatever goes wrong ends it with a traceback.
"""

import re
import sys

import numpy as np

TYPE = sys.argv[1] if len(sys.argv) > 1 else "imgvec"
OPCLASS = f"{TYPE}_cosine_ops"
DIM, ROWS = 256, 2000

# One vector a row, of ids from 1; single precision, as they are stored.
VECTORS = np.random.default_rng(7).standard_normal((ROWS, DIM), dtype=np.float32)
QUERY = np.random.default_rng(8).standard_normal(DIM, dtype=np.float32)
# Numbers whose text and bits are not easy.
AWKWARD = np.array([0.1, -0.0, 1e-45, -3.4028235e38, 16777217.0, 1 / 3] + [1.0] * (DIM - 6), dtype=np.float32)


def bits(vector):
    """A vector as a client gives it, as the bits of its elements: -0 differs from 0."""
    if hasattr(vector, "to_list"):
        vector = vector.to_list()
    return np.asarray(vector, dtype=np.float32).tobytes()


def nearest(query, count=5):
    """The ids of the nearest rows by cosine distance, found without a database."""
    query = query.astype(np.float64)
    similarity = VECTORS @ query / np.linalg.norm(VECTORS.astype(np.float64), axis=1)
    return [int(row) + 1 for row in np.argsort(-similarity, kind="stable")[:count]]


def assert_uses_index(plan, index):
    """`plan`: the lines of EXPLAIN."""
    text = "\n".join(plan)
    assert re.search(rf"Index Scan using \"?{index}\"? on ", text) and "Order By" in text, text


# The session's prepared searches, and how often each was executed with a generic plan.
PREPARED = """SELECT name, generic_plans FROM pg_prepared_statements
    WHERE statement ~ '^SELECT id .*<=>' AND generic_plans > 0"""
