"""asyncpg with pgvector-python: everything by the binary protocol, through a pool."""

import asyncio
import os

import asyncpg
from common import AWKWARD, DIM, OPCLASS, PREPARED, QUERY, TYPE, VECTORS, assert_uses_index, bits, nearest
from pgvector import Vector

if TYPE == "imgvec":

    async def init(conn):
        def encode(vector):
            return (vector if isinstance(vector, Vector) else Vector(vector)).to_binary()

        await conn.set_type_codec("imgvec", schema="public", format="binary", encoder=encode, decoder=Vector.from_binary)

else:
    from pgvector.asyncpg import register_vector

    async def init(conn):
        await register_vector(conn)


async def main():
    pool = await asyncpg.create_pool(init=init, min_size=1, max_size=2, host=os.environ["PGHOST"])
    async with pool.acquire() as conn:
        await conn.execute(f"CREATE TABLE items (id bigserial PRIMARY KEY, embedding {TYPE}({DIM}))")
        records = [(number, vector) for number, vector in enumerate(VECTORS.tolist(), 1)]
        await conn.copy_records_to_table("items", records=records)
        await conn.execute(f"CREATE INDEX items_embedding ON items USING ann (embedding {OPCLASS})")
        await conn.execute("ANALYZE items; SELECT setval('items_id_seq', 10000)")
        stored = await conn.fetch("SELECT embedding FROM items ORDER BY id")
        assert [bits(row["embedding"]) for row in stored] == [bits(vector) for vector in VECTORS]
        back = await conn.fetchrow(f"SELECT $1::{TYPE} AS value, $2::{TYPE} AS missing", AWKWARD.tolist(), None)
        assert bits(back["value"]) == bits(AWKWARD) and back["missing"] is None
        text = await conn.fetchval(f"SELECT $1::{TYPE}::text", AWKWARD.tolist())
        assert bits(Vector.from_text(text) if hasattr(Vector, "from_text") else text) == bits(AWKWARD)

        # asyncpg prepares every statement; the plan becomes generic.
        query = QUERY.tolist()
        for _ in range(12):
            rows = await conn.fetch("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5", query)
            assert [row["id"] for row in rows] == nearest(QUERY)
        name, _ = await conn.fetchrow(PREPARED)
        plan = await conn.fetch("EXPLAIN SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5", query)
        assert_uses_index([row[0] for row in plan], "items_embedding")
        await conn.execute("SET plan_cache_mode = force_generic_plan")
        plan = await conn.fetch(f"EXPLAIN EXECUTE {name}('{Vector(query).to_text()}')")
        assert_uses_index([row[0] for row in plan], "items_embedding")
        await conn.execute("RESET plan_cache_mode")

        dog = await conn.fetchval(f"SELECT embed_text($1)::{TYPE}", "a dog")
        await conn.execute("INSERT INTO items (embedding) VALUES ($1), (embed_text($2)), (NULL)", dog, "a cat")
        rows = await conn.fetch("SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=> $1 LIMIT 2", dog)
        assert [row["id"] for row in rows] == [10001, 10002]
        rows = await conn.fetch(
            "SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=> embed_text($1) LIMIT 2", "a dog"
        )
        assert [row["id"] for row in rows] == [10001, 10002]

        for statement, error_class, sqlstate in [
            ("INSERT INTO items (embedding) VALUES ('[1,2,3]')", asyncpg.DataError, "22000"),
            (f"SELECT '[1,'::{TYPE}", asyncpg.InvalidTextRepresentationError, "22P02"),
            ("SELECT embed_text('a dog', 'no-such-model')", asyncpg.UndefinedObjectError, "42704"),
        ]:
            try:
                await conn.execute(statement)
                raise AssertionError(statement)
            except error_class as error:
                assert error.sqlstate == sqlstate, (statement, error.sqlstate)

    # Two sessions of the pool at once, each with the codec.
    async def search():
        async with pool.acquire() as conn:
            return [row["id"] for row in await conn.fetch("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5", query)]

    for found in await asyncio.gather(*[search() for _ in range(8)]):
        assert found == nearest(QUERY)
    await pool.close()


asyncio.run(main())
