"""LangChain's stores of langchain-postgres, whose texts the server embeds.

PGVectorStore takes an index of our making; it works on a table, and so also with a column of type `imgvec`. PGVector,
the older one, makes its own tables, with pgvector's type.
"""

import os
from dataclasses import dataclass

import psycopg
from common import DIM, TYPE, assert_uses_index
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import BaseIndex, QueryOptions

URL = f"postgresql+psycopg://{os.environ['PGUSER']}@/{os.environ['PGDATABASE']}?host={os.environ['PGHOST']}"
conn = psycopg.connect(autocommit=True)


class ServerEmbeddings(Embeddings):
    def embed_query_inline_template(self, parameter):  # PGVectorStore puts it into its statements
        return f"embed_text({parameter})"

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return conn.execute("SELECT embed_text(%s)::real[]", [text]).fetchone()[0]


@dataclass
class AnnIndex(BaseIndex):
    index_type: str = "ann"
    opclass: str = "vector_cosine_ops"

    def index_options(self):
        return "(ef_search = 100)"

    def get_index_function(self):
        return self.opclass


class AnnQueryOptions(QueryOptions):
    def to_parameter(self):
        return ["imgvec.ef_search = 200"]

    def to_string(self):
        return self.to_parameter()[0]


ANIMALS = ["dog", "cat", "horse", "cow", "bird", "fish", "frog", "lion", "tiger", "bear"]
PLACES = ["grass", "a beach", "a road", "snow", "a sofa", "a bridge", "a field", "a boat", "a roof", "a table"]
TEXTS = [f"a {animal} on {place}" for animal in ANIMALS for place in PLACES]
DOCUMENTS = [
    Document(text, metadata={"animal": text.split()[1], "number": number}) for number, text in enumerate(TEXTS)
]
EMBEDDINGS = ServerEmbeddings()


def truth(query, where="true", count=4):
    """The texts nearest to a query, by an exact scan."""
    with conn.transaction():
        conn.execute("SET LOCAL enable_indexscan = off")
        found = conn.execute(
            f"SELECT t FROM unnest(%s::text[]) AS t WHERE {where} ORDER BY embed_text(t) <=> embed_text(%s) LIMIT {count}",
            [TEXTS, query],
        )
        return [text for text, in found]


engine = PGEngine.from_connection_string(URL)
if TYPE == "imgvec":
    conn.execute(
        """CREATE TABLE documents (
            langchain_id uuid PRIMARY KEY, content text, embedding imgvec(256), animal text, langchain_metadata json)"""
    )
    store = PGVectorStore.create_sync(engine, ServerEmbeddings(), "documents", metadata_columns=["animal"])
    store.add_documents(DOCUMENTS)
    store.apply_vector_index(AnnIndex(name="documents_embedding", opclass="imgvec_cosine_ops"))
else:
    from langchain_postgres import Column

    engine.init_vectorstore_table("documents", 256, metadata_columns=[Column("animal", "text")])
    store = PGVectorStore.create_sync(
        engine, ServerEmbeddings(), "documents", metadata_columns=["animal"], index_query_options=AnnQueryOptions()
    )
    store.add_documents(DOCUMENTS)
    store.apply_vector_index(AnnIndex(name="documents_embedding"))
# The store's sessions embedded them, not this one.
assert conn.execute("SELECT texts_embedded FROM imgvec_backend_stats").fetchone() == (0,)
conn.execute("ANALYZE documents")
[definition] = conn.execute("SELECT pg_get_indexdef('documents_embedding'::regclass)").fetchone()
assert "USING ann" in definition and "ef_search" in definition, definition

stored = conn.execute("SELECT count(*) FROM documents WHERE embedding::real[] = embed_text(content)::real[]").fetchone()
assert stored == (len(TEXTS),)
for query in ("a dog on the grass", "a boat", "a tiger in winter"):
    found = store.similarity_search_with_score(query)
    assert [document.page_content for document, _ in found] == truth(query), query
    assert [score for _, score in found] == sorted(score for _, score in found)
found = store.similarity_search("on a sofa", k=3, filter={"animal": {"$in": ["cat", "dog"]}})
assert [document.page_content for document in found] == truth("on a sofa", "t ~ 'cat|dog'", 3)
assert found[0].metadata["animal"] in ("cat", "dog")
assert len(store.max_marginal_relevance_search("a bird", k=3)) == 3
conn.execute("SET enable_seqscan = off")
near = "SELECT * FROM documents ORDER BY embedding <=> %s LIMIT 4"
plan = conn.execute(f"EXPLAIN {near}", [str(EMBEDDINGS.embed_query("a boat"))]).fetchall()
assert_uses_index([line for line, in plan], "documents_embedding")
try:
    store.add_embeddings(["wrong"], [[1.0, 2.0]])
    raise AssertionError("two dimensions")
except Exception as error:  # SQLAlchemy's, around psycopg's
    assert error.orig.sqlstate == "22000", error

if TYPE == "vector":
    from langchain_postgres import PGVector

    old = PGVector(
        EMBEDDINGS, connection=URL, collection_name="texts", embedding_length=DIM, create_extension=False, use_jsonb=True
    )
    old.add_documents(DOCUMENTS)
    conn.execute("CREATE INDEX ON langchain_pg_embedding USING ann (embedding vector_cosine_ops)")
    conn.execute("ANALYZE langchain_pg_embedding")
    found = old.similarity_search("a dog on the grass", k=4)
    assert [document.page_content for document in found] == truth("a dog on the grass")
    found = old.similarity_search("on a sofa", k=3, filter={"animal": {"$in": ["cat", "dog"]}})
    assert [document.page_content for document in found] == truth("on a sofa", "t ~ 'cat|dog'", 3)
    near = "SELECT * FROM langchain_pg_embedding ORDER BY embedding <=> %s LIMIT 4"
    plan = conn.execute(f"EXPLAIN {near}", [str(EMBEDDINGS.embed_query("a boat"))]).fetchall()
    assert_uses_index([line for line, in plan], "langchain_pg_embedding_embedding_idx")
