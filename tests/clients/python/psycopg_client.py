"""psycopg 3 with pgvector-python."""

import psycopg
from common import AWKWARD, DIM, OPCLASS, PREPARED, QUERY, TYPE, VECTORS, assert_uses_index, bits, nearest
from pgvector import Vector

conn = psycopg.connect(autocommit=True)
if TYPE == "imgvec":
    from pgvector.psycopg.vector import register_vector_info
    from psycopg.types import TypeInfo

    register_vector_info(conn, TypeInfo.fetch(conn, "imgvec"))
else:
    from pgvector.psycopg import register_vector

    register_vector(conn)

conn.execute(f"CREATE TABLE items (id bigserial PRIMARY KEY, embedding {TYPE}({DIM}))")
with conn.cursor().copy("COPY items (id, embedding) FROM STDIN WITH (FORMAT BINARY)") as copy:
    copy.set_types(["int8", TYPE])
    for number, vector in enumerate(VECTORS, 1):
        copy.write_row([number, Vector(vector)])
conn.execute(f"CREATE INDEX items_embedding ON items USING ann (embedding {OPCLASS})")
conn.execute("ANALYZE items; SELECT setval('items_id_seq', 10000)")

# Out again, by both protocols and by COPY; what came in by the binary one.
for binary in (False, True):
    stored = conn.execute("SELECT embedding FROM items ORDER BY id", binary=binary).fetchall()
    assert [bits(vector) for vector, in stored] == [bits(vector) for vector in VECTORS]
    for parameter in ("%t", "%b"):
        back = conn.execute(f"SELECT {parameter}::{TYPE}, NULL::{TYPE}", [Vector(AWKWARD)], binary=binary).fetchone()
        assert bits(back[0]) == bits(AWKWARD) and back[1] is None
with conn.cursor().copy("COPY (SELECT embedding FROM items ORDER BY id) TO STDOUT WITH (FORMAT BINARY)") as copy:
    copy.set_types([TYPE])
    assert [bits(vector) for vector, in copy.rows()] == [bits(vector) for vector in VECTORS]

# A bound vector, computed by the client, finds its neighbors by the index.
query = Vector(QUERY)
rows = conn.execute("SELECT id FROM items ORDER BY embedding <=> %s LIMIT 5", [query]).fetchall()
assert [number for number, in rows] == nearest(QUERY)
plan = conn.execute("EXPLAIN SELECT id FROM items ORDER BY embedding <=> %s LIMIT 5", [query]).fetchall()
assert_uses_index([line for line, in plan], "items_embedding")

# A list, once the statement says what it is.
found = conn.execute(f"SELECT id FROM items ORDER BY embedding <=> %s::real[]::{TYPE} LIMIT 5", [QUERY.tolist()])
assert [number for number, in found] == nearest(QUERY)

# The server embeds a text; its answer is bound like any other vector.
[dog] = conn.execute(f"SELECT embed_text(%s)::{TYPE}", ["a dog"]).fetchone()
conn.execute("INSERT INTO items (embedding) VALUES (%s), (embed_text(%s)), (%s)", [dog, "a cat", None])
rows = conn.execute(
    "SELECT id, embedding <=> %(dog)s FROM items WHERE id > 10000 ORDER BY embedding <=> %(dog)s LIMIT 2", {"dog": dog}
).fetchall()
assert [number for number, _ in rows] == [10001, 10002] and abs(rows[0][1]) < 1e-6 < rows[1][1], rows
by_text = conn.execute(
    "SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=> embed_text(%s) LIMIT 2", ["a dog"]
).fetchall()
assert [number for number, in by_text] == [10001, 10002]
assert conn.execute("SELECT id FROM items WHERE embedding IS NULL").fetchall() == [(10003,)]

# Many statements at once, and a prepared statement that comes to a generic plan.
with conn.cursor() as cursor:
    cursor.executemany("UPDATE items SET embedding = %s WHERE id = %s", [(Vector(AWKWARD), 10003), (dog, 10002)])
for _ in range(12):
    rows = conn.execute("SELECT id FROM items ORDER BY embedding <=> %s LIMIT 5", [query], prepare=True).fetchall()
    assert [number for number, in rows] == nearest(QUERY)
[name, generic_plans] = conn.execute(PREPARED).fetchone()
conn.execute("SET plan_cache_mode = force_generic_plan")
plan = conn.execute(f"EXPLAIN EXECUTE {name}('{query.to_text()}')").fetchall()
assert_uses_index([line for line, in plan], "items_embedding")
assert "$1" in str(plan), plan

# Errors have their SQLSTATE.
for statement, sqlstate in [
    ("INSERT INTO items (embedding) VALUES ('[1,2,3]')", "22000"),
    (f"SELECT '[1,'::{TYPE}", "22P02"),
    ("SELECT embed_text('a dog', 'no-such-model')", "42704"),
]:
    try:
        conn.execute(statement)
        raise AssertionError(statement)
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, (statement, error.sqlstate)

# Half precision has pgvector's class for it, under our type's name.
if TYPE == "imgvec":
    import numpy as np
    from pgvector import HalfVector
    from pgvector.psycopg.halfvec import register_halfvec_info

    register_halfvec_info(conn, TypeInfo.fetch(conn, "imghalf"))
    # Signed zero, the least number, a subnormal one and the greatest among them.
    halves = VECTORS[:20].astype(np.float16)
    halves[0, :5] = [-0.0, 5.9604645e-08, 6.097555e-05, 65504, -65504]
    conn.execute(f"CREATE TABLE halves (id bigserial PRIMARY KEY, embedding imghalf({DIM}))")
    with conn.cursor().copy("COPY halves (embedding) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["imghalf"])
        for half in halves:
            copy.write_row([HalfVector(half)])
    for binary in (False, True):
        stored = conn.execute("SELECT embedding FROM halves ORDER BY id", binary=binary).fetchall()
        assert [np.asarray(half.to_list(), np.float16).tobytes() for half, in stored] == [half.tobytes() for half in halves]
        for parameter in ("%t", "%b"):
            back = conn.execute(f"SELECT {parameter}::imghalf, NULL::imghalf", [HalfVector(halves[0])], binary=binary).fetchone()
            assert np.asarray(back[0].to_list(), np.float16).tobytes() == halves[0].tobytes() and back[1] is None
    conn.execute("CREATE INDEX halves_embedding ON halves USING ann (embedding)")
    conn.execute("SET enable_seqscan = off")
    for query in (HalfVector(halves[7]), Vector(halves[7])):
        search = "SELECT id FROM halves ORDER BY embedding <=> %s LIMIT 1"
        assert conn.execute(search, [query]).fetchall() == [(8,)]
        plan = conn.execute(f"EXPLAIN {search}", [query]).fetchall()
        assert_uses_index([line for line, in plan], "halves_embedding")
