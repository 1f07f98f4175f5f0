//! The crate `postgres`, which is tokio-postgres with calls that wait, and the crate `pgvector`.

use std::error::Error;

use bytes::BytesMut;
use half::f16;
use pgvector::{HalfVector, Vector};
use postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutIter};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{FromSql, FromSqlOwned, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, SimpleQueryMessage};

use crate::in_each_setting;

/// `pgvector::Vector` for columns of type `imgvec`: the crate's type asks for a type named `vector`.
#[derive(Debug)]
struct Imgvec(Vector);

impl ToSql for Imgvec {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "imgvec"
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Imgvec {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Vector::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "imgvec"
    }
}

/// The same for `imghalf`, whose bytes are those of `halfvec`.
#[derive(Debug)]
struct Imghalf(HalfVector);

impl ToSql for Imghalf {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "imghalf"
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Imghalf {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        HalfVector::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "imghalf"
    }
}

impl From<Vec<f32>> for Imgvec {
    fn from(elements: Vec<f32>) -> Self {
        Self(elements.into())
    }
}

impl From<Imgvec> for Vec<f32> {
    fn from(vector: Imgvec) -> Self {
        vector.0.into()
    }
}

const DIM: usize = 256;
const ROWS: usize = 2000;

/// Numbers that look random and are the same in every run (xorshift; Marsaglia 2003).
fn vectors() -> Vec<Vec<f32>> {
    let mut state = 7_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap()) / 65536.0 - 0.5
    };
    (0..=ROWS).map(|_| (0..DIM).map(|_| next()).collect()).collect()
}

fn nearest(vectors: &[Vec<f32>], query: &[f32]) -> Vec<i64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let mut ranked: Vec<_> =
        vectors.iter().zip(1..).map(|(row, id)| (dot(row, query) / dot(row, row).sqrt(), id)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.into_iter().take(5).map(|(_, id)| id).collect()
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|x| x.to_bits()).collect()
}

/// Whether the statement's plan, an EXPLAIN's lines, is ordered by the index.
#[track_caller]
fn assert_uses_index(lines: &[String]) {
    assert!(
        lines.iter().any(|line| line.contains("Index Scan using items_embedding on items")),
        "{lines:#?}"
    );
}

fn ids(client: &mut Client, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<i64> {
    client.query(statement, parameters).unwrap().iter().map(|row| row.get(0)).collect()
}

#[track_caller]
fn assert_fails(client: &mut Client, statement: &str, sqlstate: &str) {
    let error = client.batch_execute(statement).expect_err(statement);
    assert_eq!(error.code().map(postgres::error::SqlState::code), Some(sqlstate), "{statement}: {error:?}");
}

/// Everything by the binary protocol, with `V` as the vector of the client.
fn check<V>(client: &mut Client, column_type: &str)
where
    V: ToSql + FromSqlOwned + From<Vec<f32>> + Into<Vec<f32>> + Sync,
{
    let mut rows = vectors();
    let query = rows.pop().unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE items (id bigserial PRIMARY KEY, embedding {column_type}({DIM}))"
        ))
        .unwrap();
    let embedding_type = client.prepare("SELECT embedding FROM items").unwrap().columns()[0].type_().clone();
    let types = [Type::INT8, embedding_type];

    // COPY in and out, and a query's rows.
    let copy = client.copy_in("COPY items FROM STDIN (FORMAT BINARY)").unwrap();
    let mut writer = BinaryCopyInWriter::new(copy, &types);
    for (row, id) in rows.iter().zip(1_i64..) {
        writer.write(&[&id, &V::from(row.clone())]).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), ROWS as u64);
    let copy = client.copy_out("COPY (SELECT * FROM items ORDER BY id) TO STDOUT (FORMAT BINARY)").unwrap();
    let copied = BinaryCopyOutIter::new(copy, &types);
    let copied: Vec<Vec<f32>> = copied.map(|row| Ok(row.get::<V>(1).into())).collect().unwrap();
    assert_eq!(copied, rows);
    let stored = client.query("SELECT embedding FROM items ORDER BY id", &[]).unwrap();
    assert_eq!(stored.iter().map(|row| row.get::<_, V>(0).into()).collect::<Vec<Vec<f32>>>(), rows);
    client
        .batch_execute(&format!(
            "CREATE INDEX items_embedding ON items USING ann (embedding {column_type}_cosine_ops);
             ANALYZE items; SELECT setval('items_id_seq', 10000)"
        ))
        .unwrap();

    // Bits that are not easy, NULL, and the text of both.
    let awkward = vec![0.1, -0.0, 1e-45, f32::MIN, 16_777_216.0, 1.0 / 3.0];
    let back = client
        .query_one(
            &format!("SELECT $1::{column_type}, $1::text, $2::{column_type}"),
            &[&V::from(awkward.clone()), &None::<V>],
        )
        .unwrap();
    assert_eq!(bits(&back.get::<_, V>(0).into()), bits(&awkward));
    let text: String = back.get(1);
    let parsed: Vec<f32> = text.trim_matches(['[', ']']).split(',').map(|x| x.parse().unwrap()).collect();
    assert_eq!(bits(&parsed), bits(&awkward));
    assert!(back.get::<_, Option<V>>(2).is_none());

    // A prepared statement finds the neighbors by the index, also with its generic plan.
    let wanted = nearest(&rows, &query);
    let query = V::from(query);
    let search = "SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5";
    let statement = client.prepare(search).unwrap();
    for _ in 0..12 {
        let found = client.query(&statement, &[&query]).unwrap();
        assert_eq!(found.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), wanted);
    }
    let generic =
        "SELECT name FROM pg_prepared_statements WHERE statement ~ '^SELECT id .*<=>' AND generic_plans > 0";
    let name: String = client.query_one(generic, &[]).unwrap().get(0);
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    let execute = format!("EXPLAIN EXECUTE {name}('{:?}')", rows[0]);
    let plan = client.simple_query(&execute).unwrap();
    let plan = plan.iter().filter_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    assert_uses_index(&plan.collect::<Vec<_>>());
    client.batch_execute("RESET plan_cache_mode").unwrap();
    let plan = client.query(&format!("EXPLAIN {search}"), &[&query]).unwrap();
    assert_uses_index(&plan.iter().map(|row| row.get(0)).collect::<Vec<_>>());

    // The server's embeddings.
    let dog: V =
        client.query_one(&format!("SELECT embed_text($1)::{column_type}"), &[&"a dog"]).unwrap().get(0);
    let insert = "INSERT INTO items (embedding) VALUES ($1), (embed_text($2)), ($3)";
    client.execute(insert, &[&dog, &"a cat", &None::<V>]).unwrap();
    let near = "SELECT id FROM items WHERE id > 10000 ORDER BY embedding <=>";
    assert_eq!(ids(client, &format!("{near} $1 LIMIT 2"), &[&dog]), [10001, 10002]);
    assert_eq!(ids(client, &format!("{near} embed_text($1) LIMIT 2"), &[&"a dog"]), [10001, 10002]);
    assert_eq!(ids(client, "SELECT id FROM items WHERE embedding IS NULL", &[]), [10003]);

    assert_fails(client, "INSERT INTO items (embedding) VALUES ('[1,2,3]')", "22000");
    assert_fails(client, &format!("SELECT '[1,'::{column_type}"), "22P02");
    assert_fails(client, "SELECT embed_text('a dog', 'no-such-model')", "42704");
}

/// Without a type of one's own: arrays.
fn check_arrays(client: &mut Client) {
    let query = vectors().pop().unwrap();
    let (search, read) = (
        "SELECT id FROM items ORDER BY embedding <=> $1::real[]::imgvec LIMIT 5",
        "SELECT embedding::real[] FROM items WHERE id = $1",
    );
    let rows = client.query(search, &[&query]).unwrap();
    let embedding: Vec<f32> = client.query_one(read, &[&1_i64]).unwrap().get(0);
    let mut vectors = vectors();
    vectors.pop();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), nearest(&vectors, &query));
    assert_eq!(embedding, vectors[0]);
    let plan = client.query(&format!("EXPLAIN {search}"), &[&query]).unwrap();
    assert_uses_index(&plan.iter().map(|row| row.get(0)).collect::<Vec<_>>());
}

/// Half precision, by the binary protocol: every bit comes back, in a query and by COPY, and the text is that of the numbers.
fn check_halves(client: &mut Client) {
    // Signed zero, the least number, a subnormal one, the greatest, and one that no decimal of few digits is.
    let awkward = vec![0x8000, 0x0001, 0x03ff, 0x7bff, 0xfbff, 0x3555].into_iter().map(f16::from_bits);
    let awkward: Vec<f16> = awkward.collect();
    let regular: Vec<f16> = vectors()[0][..6].iter().map(|&x| f16::from_f32(x)).collect();
    client.batch_execute("CREATE TABLE halves (id bigserial PRIMARY KEY, embedding imghalf(6))").unwrap();
    let ty = client.prepare("SELECT embedding FROM halves").unwrap().columns()[0].type_().clone();
    let copy = client.copy_in("COPY halves (embedding) FROM STDIN (FORMAT BINARY)").unwrap();
    let mut writer = BinaryCopyInWriter::new(copy, std::slice::from_ref(&ty));
    for row in [&awkward, &regular] {
        writer.write(&[&Imghalf(row.clone().into())]).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 2);
    let copy =
        client.copy_out("COPY (SELECT embedding FROM halves ORDER BY id) TO STDOUT (FORMAT BINARY)").unwrap();
    let copied = BinaryCopyOutIter::new(copy, &[ty]).map(|row| Ok(row.get::<Imghalf>(0).0.to_vec()));
    let bits = |vectors: &[Vec<f16>]| -> Vec<u16> { vectors.iter().flatten().map(|x| x.to_bits()).collect() };
    let expected = bits(&[awkward.clone(), regular.clone()]);
    assert_eq!(bits(&copied.collect::<Vec<_>>().unwrap()), expected);
    let statement = "SELECT embedding, embedding::text, embedding = $1 FROM halves ORDER BY embedding <-> $1";
    let rows = client.query(statement, &[&Imghalf(awkward.into())]).unwrap();
    assert_eq!(bits(&[0, 1].map(|row: usize| rows[row].get::<_, Imghalf>(0).0.to_vec())), expected);
    assert_eq!([0, 1].map(|row: usize| rows[row].get::<_, bool>(2)), [true, false]);
    for row in &rows {
        let text: &str = row.get(1);
        let parsed = text.trim_matches(['[', ']']).split(',').map(|x| f16::from_f32(x.parse().unwrap()));
        assert_eq!(bits(&[parsed.collect()]), bits(&[row.get::<_, Imghalf>(0).0.to_vec()]), "{text}");
    }
    let insert = "INSERT INTO halves (embedding) VALUES ($1)";
    let error = client.execute(insert, &[&Imghalf(vec![f16::ONE; 5].into())]).unwrap_err();
    assert_eq!(error.code().map(postgres::error::SqlState::code), Some("22000"), "{error:?}");
    let error = client.execute(insert, &[&Imghalf(vec![f16::NAN; 6].into())]).unwrap_err();
    assert_eq!(error.code().map(postgres::error::SqlState::code), Some("22003"), "{error:?}");
}

#[test]
fn postgres_and_pgvector() {
    in_each_setting("rust", |cluster, database, setting| {
        let mut client = cluster.client_of("postgres", database);
        if setting.column_type == "imgvec" {
            check::<Imgvec>(&mut client, "imgvec");
            check_arrays(&mut client);
            check_halves(&mut client);
        } else {
            check::<Vector>(&mut client, "vector");
        }
    });
}
