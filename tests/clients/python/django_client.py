"""Django with pgvector-python: models, migrations, filters, a pool with prepared statements."""

import os

import django
from common import AWKWARD, DIM, OPCLASS, QUERY, TYPE, VECTORS, assert_uses_index, bits, nearest
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            "HOST": os.environ["PGHOST"],
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}, "server_side_binding": True, "prepare_threshold": 0},
        }
    },
    INSTALLED_APPS=["django.contrib.postgres"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.postgres.indexes import PostgresIndex  # noqa: E402
from django.db import DatabaseError, connection, migrations, models  # noqa: E402
from django.db.migrations.operations import AddIndex, CreateModel  # noqa: E402
from django.db.migrations.state import ModelState, ProjectState  # noqa: E402
from django.db.migrations.writer import MigrationWriter  # noqa: E402
from django.db.models import F, Func, Value  # noqa: E402
from pgvector.django import CosineDistance, VectorField  # noqa: E402


class AnnIndex(PostgresIndex):
    suffix = "ann"


if TYPE == "imgvec":

    class ImgvecField(VectorField):
        def db_type(self, connection):
            return f"imgvec({self.dimensions})" if self.dimensions else "imgvec"

    FIELD = ImgvecField
else:
    FIELD = VectorField


class Item(models.Model):
    owner = models.BigIntegerField(default=0)
    embedding = FIELD(dimensions=DIM, null=True)

    class Meta:
        app_label = "gallery"
        db_table = "items"
        indexes = [AnnIndex(name="items_embedding", fields=["embedding"], opclasses=[OPCLASS])]


# As a migration does it: the model, then its index; what is written into a migration's file is what the model says.
state = ProjectState()
model_state = ModelState.from_model(Item)
indexes = model_state.options.pop("indexes")
operations = [CreateModel("Item", model_state.fields.items(), options=model_state.options)]
operations += [AddIndex("item", index) for index in indexes]
written = MigrationWriter(type("Migration", (migrations.Migration,), {"operations": operations})("0001", "gallery")).as_string()
assert f"{FIELD.__name__}(dimensions={DIM}, null=True)" in written and f"opclasses=['{OPCLASS}']" in written, written
for operation in operations:
    with connection.schema_editor() as editor:
        after = state.clone()
        operation.state_forwards("gallery", after)
        operation.database_forwards("gallery", editor, state, after)
        state = after
with connection.cursor() as cursor:
    found = connection.introspection.get_constraints(cursor, "items")["items_embedding"]
    assert found["type"] == "ann" and found["columns"] == ["embedding"], found

Item.objects.bulk_create(
    Item(id=number, owner=number % 10, embedding=vector) for number, vector in enumerate(VECTORS.tolist(), 1)
)
with connection.cursor() as cursor:
    cursor.execute("ANALYZE items")
    cursor.execute("SELECT setval('items_id_seq', 10000)")
stored = Item.objects.order_by("id").values_list("embedding", flat=True)
assert [bits(vector) for vector in stored] == [bits(vector) for vector in VECTORS]
awkward = Item.objects.create(id=10004, embedding=AWKWARD.tolist())
awkward.refresh_from_db()
assert bits(awkward.embedding) == bits(AWKWARD)
awkward.delete()
assert Item.objects.create(id=10003).pk == 10003 and Item.objects.get(embedding=None).pk == 10003

search = Item.objects.order_by(CosineDistance("embedding", QUERY.tolist()))[:5]
assert_uses_index(search.explain().splitlines(), "items_embedding")
for _ in range(12):
    assert [item.id for item in search.all()] == nearest(QUERY)
with connection.cursor() as cursor:
    cursor.execute(
        """SELECT count(*) FROM pg_prepared_statements
        WHERE statement ~ '^SELECT "items".*<=>.*LIMIT' AND generic_plans > 0"""
    )
    [generic] = cursor.fetchone()
    assert generic >= 1

mine = Item.objects.filter(owner=7).annotate(distance=CosineDistance("embedding", QUERY.tolist())).order_by("distance")[:5]
wanted = [number for number in nearest(QUERY, len(VECTORS)) if number % 10 == 7][:5]
assert [item.id for item in mine] == wanted and mine[0].distance < mine[4].distance
near = Item.objects.alias(distance=CosineDistance("embedding", QUERY.tolist())).filter(distance__lt=mine[0].distance)
assert all(item.id in nearest(QUERY, len(VECTORS)) for item in near)


class EmbedText(Func):
    function = "embed_text"
    output_field = FIELD()


with connection.cursor() as cursor:
    cursor.execute("SELECT embed_text('a dog')")
    dog = FIELD().to_python(cursor.fetchone()[0])
Item.objects.create(id=10001, embedding=dog)
Item.objects.create(id=10002, embedding=EmbedText(Value("a cat")))
for near in (CosineDistance("embedding", dog), CosineDistance("embedding", EmbedText(Value("a dog")))):
    assert [item.id for item in Item.objects.filter(id__gt=10000).order_by(near)[:2]] == [10001, 10002]
copied = Item.objects.create(id=10005, owner=5)
Item.objects.filter(id=10005).update(embedding=Item.objects.filter(id=1).values(e=F("embedding")))
copied.refresh_from_db()
assert bits(copied.embedding) == bits(VECTORS[0])

for embedding, sqlstate in [([1, 2, 3], "22000"), (EmbedText(Value("a dog"), Value("no-such-model")), "42704")]:
    try:
        Item.objects.create(embedding=embedding)
        raise AssertionError(sqlstate)
    except DatabaseError as error:
        assert error.__cause__.sqlstate == sqlstate, error.__cause__.sqlstate
connection.close_pool()
