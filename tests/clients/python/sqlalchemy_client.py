"""SQLAlchemy with pgvector-python, on psycopg 3 and its pool."""

from common import AWKWARD, DIM, OPCLASS, QUERY, TYPE, VECTORS, assert_uses_index, bits, nearest
from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text, create_engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session

if TYPE == "imgvec":
    from pgvector.sqlalchemy import VECTOR
    from sqlalchemy.dialects.postgresql.base import ischema_names

    class IMGVEC(VECTOR):
        cache_ok = True

        def get_col_spec(self, **kw):
            return f"imgvec({self.dim})" if self.dim else "imgvec"

    ischema_names["imgvec"] = IMGVEC  # reflection, and so Alembic

    COLUMN_TYPE = IMGVEC
else:
    from pgvector.sqlalchemy import VECTOR

    COLUMN_TYPE = VECTOR


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id = Column(BigInteger, primary_key=True)
    owner = Column(BigInteger, nullable=False)
    note = Column(Text)
    embedding = Column(COLUMN_TYPE(DIM))


Index(
    "items_embedding",
    Item.embedding,
    postgresql_using="ann",
    postgresql_ops={"embedding": OPCLASS},
    postgresql_with={"ef_search": 80},
)

engine = create_engine("postgresql+psycopg://", connect_args={"prepare_threshold": 0}, pool_size=2)
Base.metadata.create_all(engine)

with Session(engine) as session:
    session.add_all(Item(id=number, owner=number % 10, embedding=vector) for number, vector in enumerate(VECTORS, 1))
    session.add(Item(id=10003, owner=3, embedding=None))
    session.add(Item(id=10004, owner=4, embedding=AWKWARD))
    session.commit()
    session.execute(text("ANALYZE items"))
    stored = session.scalars(select(Item.embedding).where(Item.id <= len(VECTORS)).order_by(Item.id)).all()
    assert [bits(vector) for vector in stored] == [bits(vector) for vector in VECTORS]
    assert session.get(Item, 10003).embedding is None
    assert bits(session.get(Item, 10004).embedding) == bits(AWKWARD)
    session.delete(session.get(Item, 10004))
    session.commit()

    search = select(Item.id).order_by(Item.embedding.cosine_distance(QUERY)).limit(5)
    for _ in range(12):
        assert list(session.scalars(search)) == nearest(QUERY)
    # Prepared once; planned anew for each, since SQLAlchemy sends the number behind LIMIT as a parameter.
    uses = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement ~ '^SELECT items.*<=>'"
    assert [tuple(row) for row in session.execute(text(uses))] == [(0, 12)]
    compiled = search.compile(engine, compile_kwargs={"literal_binds": True})
    assert_uses_index(session.scalars(text(f"EXPLAIN {compiled}")).all(), "items_embedding")

    # A filter, and a distance in the answer.
    distance = Item.embedding.cosine_distance(QUERY).label("distance")
    mine = session.execute(select(Item.id, distance).where(Item.owner == 7).order_by(distance).limit(5)).all()
    wanted = [number for number in nearest(QUERY, len(VECTORS)) if number % 10 == 7][:5]
    assert [row.id for row in mine] == wanted and mine[0].distance < mine[-1].distance

    # The server's embeddings: bound after they were read, inserted as an expression, searched by.
    dog = session.scalar(select(func.embed_text("a dog").cast(COLUMN_TYPE)))
    session.add(Item(id=10001, owner=1, embedding=dog))
    session.add(Item(id=10002, owner=1, embedding=func.embed_text("a cat")))
    session.commit()
    for near in (Item.embedding.cosine_distance(dog), Item.embedding.cosine_distance(func.embed_text("a dog"))):
        assert list(session.scalars(select(Item.id).where(Item.id > 10000).order_by(near).limit(2))) == [10001, 10002]
    mean = session.scalar(select(func.avg(Item.embedding, type_=COLUMN_TYPE)).where(Item.id.in_([1, 2])))
    assert bits(mean) == bits((VECTORS[0] + VECTORS[1]) / 2)

    for embedding, sqlstate in [([1, 2, 3], "22000"), (func.embed_text("a dog", "no-such-model"), "42704")]:
        session.add(Item(id=10005, owner=1, embedding=embedding))
        try:
            session.commit()
            raise AssertionError(sqlstate)
        except DBAPIError as error:
            assert error.orig.sqlstate == sqlstate, error.orig.sqlstate
            session.rollback()

# What a migration tool reads back: the type with its dimensions, the index with its method, class and option.
reflected = Table("items", MetaData(), autoload_with=engine)
assert type(reflected.c.embedding.type) is COLUMN_TYPE
with engine.connect() as connection:
    declared = connection.scalar(
        text("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname = 'embedding'")
    )
assert declared == f"{TYPE}({DIM})"
assert reflected.c.embedding.type.dim == DIM, reflected.c.embedding.type.dim
[index] = inspect(engine).get_indexes("items")
options = index["dialect_options"]
assert index["column_names"] == ["embedding"] and options["postgresql_using"] == "ann", index
assert options["postgresql_with"] == {"ef_search": "80"}, index
