//! A photo library as Immich keeps one: searches joined with filters, pages, thresholds, upserts, another model. The
//! queries are those of `docs/recipes.md`; each gives what the table gives without an index, by the plan that is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use postgres::error::SqlState;
use postgres::{Client, Row};

use crate::ann::{self, VECTORS, by_index, by_table, explain, is_ordered_by_index};
use crate::{failure, has_pgvector, value};

/// Vectors of the library that are copies, moved a little, of the one with the next smaller multiple of this.
const ROWS: i32 = 20_000;
const DUPLICATE_EVERY: i32 = 2000;

/// What pictures show: 224 of their 256 dimensions.
const SUBJECTS: i32 = 200;

/// `embedding(seed)`: a picture that no row has, of the same subjects.
fn create_subjects(client: &mut Client) {
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE subjects AS
                 SELECT id, vec(-1000 - id, 224) AS subject FROM generate_series(0, {SUBJECTS} - 1) AS id;
             CREATE FUNCTION embedding(seed bigint) RETURNS imgvec LANGUAGE sql IMMUTABLE STRICT AS $$
                 SELECT subject || vec(seed, 32) FROM subjects WHERE id = abs(seed) / 2 % {SUBJECTS} $$"
        ))
        .unwrap();
}

/// The SQL blocks of the document by name; unnamed ones come first, under "".
fn recipes() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let text = fs::read_to_string(path).unwrap();
    let mut blocks = BTreeMap::new();
    for block in text.split("```sql").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (sql, _) = rest.split_once("```").unwrap();
        let twice = blocks.insert(name.trim().to_owned(), sql.trim_end().trim_end_matches(';').to_owned());
        assert!(twice.is_none(), "two blocks are called {name:?}");
    }
    blocks
}

struct Gallery {
    recipes: BTreeMap<String, String>,
    column_type: &'static str,
    query: String,
}

impl Gallery {
    /// Creates and fills the tables of the document.
    fn create(client: &mut Client, column_type: &'static str) -> Self {
        let recipes: BTreeMap<_, _> = recipes()
            .into_iter()
            .map(|(name, sql)| (name, sql.replace("imgvec(", &format!("{column_type}("))))
            .collect();
        client.batch_execute(&recipes[""]).unwrap();
        // An index that is built over the rows is there in a tenth of the time.
        let index: String = value(client, "SELECT pg_get_indexdef('smart_search_embedding'::regclass)");
        client
            .batch_execute(&format!(
                "DROP INDEX smart_search_embedding;
                 INSERT INTO asset SELECT i, 1 + i % 5, CASE WHEN i % 10 = 0 THEN 'archive' ELSE 'timeline' END,
                     '2020-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, {ROWS}) AS i;
                 INSERT INTO smart_search SELECT i, subject || CASE WHEN i % {DUPLICATE_EVERY} = 1
                     THEN vec(i - 1, 32) + vec(-i, 32) * array_fill(0.001::real, ARRAY[32])::imgvec ELSE vec(i, 32) END
                     FROM generate_series(1, {ROWS}) AS i JOIN subjects ON subjects.id = i / 2 % {SUBJECTS};
                 {index}; ANALYZE asset; ANALYZE smart_search"
            ))
            .unwrap();
        // As an application sends it: text, cast to the column's type.
        let text: String = value(client, "SELECT quote_literal(embedding(-17)::text)");
        Self { recipes, column_type, query: format!("{text}::{column_type}") }
    }

    fn recipe(&self, name: &str) -> String {
        self.recipes[name].replace(":query", &self.query)
    }

    /// Asserts that the planner takes the index for a query unasked, and gives its rows.
    #[track_caller]
    fn by_choice(&self, client: &mut Client, query: &str) -> Vec<Row> {
        let plan = explain(client, query);
        let uses = plan.iter().any(|line| line.contains("using smart_search_embedding"));
        assert!(uses, "{}: {query}: {plan:#?}", self.column_type);
        client.query(query, &[]).unwrap()
    }

    /// Asserts that a query by the index gives at least 95 % of the rows that it gives without, all of them in order.
    #[track_caller]
    fn assert_finds(&self, client: &mut Client, query: &str) -> Vec<Row> {
        let given = self.by_choice(client, query);
        let truth = by_table(client, query);
        let distances = |rows: &[Row]| rows.iter().map(|row| row.get::<_, f64>(1)).collect::<Vec<_>>();
        let (found, wanted) = (distances(&given), distances(&truth));
        assert!(found.is_sorted(), "{query}: {found:?}");
        assert_eq!(found.len(), wanted.len(), "{query}");
        let last = wanted.last().copied().expect("rows to find");
        let hits = found.iter().filter(|&&distance| distance <= last).count();
        assert!(hits * 20 >= wanted.len() * 19, "{query}: {hits} of {}", wanted.len());
        given
    }
}

fn each_type(name: &str, test: fn(&mut Client, &Gallery)) {
    let cluster = ann::quiet(name).start();
    let mut client = cluster.client();
    create_subjects(&mut client);
    let gallery = Gallery::create(&mut client, "imgvec");
    test(&mut client, &gallery);
    if has_pgvector(&mut client, name) {
        client
            .batch_execute("CREATE EXTENSION imgvec_pgvector CASCADE; DROP TABLE smart_search, asset")
            .unwrap();
        let gallery = Gallery::create(&mut client, "vector");
        test(&mut client, &gallery);
    }
}

#[test]
fn searches_with_filters_of_a_joined_table_fill_their_limit() {
    each_type("gallery-search", |client, gallery| {
        let search = gallery.recipe("search");
        assert_eq!(gallery.assert_finds(client, &search).len(), 50);
        // Prepared, with a generic plan and everything a parameter, as drivers and poolers send it.
        client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
        let statement = format!(
            "SELECT a.id FROM asset a JOIN smart_search s ON s.asset_id = a.id
             WHERE a.owner = ANY ($2::integer[]) AND a.visibility = $3 AND a.taken > '2020-06-01'
             ORDER BY s.embedding <=> $1::text::{} LIMIT 50",
            gallery.column_type
        );
        let text: String = value(client, "SELECT embedding(-17)::text");
        let ids = |rows: &[Row]| rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>();
        let found = ids(&client.query(&statement, &[&text, &vec![1, 2], &"timeline"]).unwrap());
        client.batch_execute("RESET plan_cache_mode").unwrap();
        assert_eq!(found, ids(&by_index(client, &search)));
        // A setting for one transaction.
        client.batch_execute("BEGIN; SET LOCAL imgvec.ef_search = 400").unwrap();
        let truth = ids(&by_table(client, &search));
        let wide = ids(&by_index(client, &search));
        // An index that grew row by row may hold one of fifty out of reach: the seed of its inserts decides.
        let missed = truth.iter().filter(|id| !wide.contains(id)).count();
        assert!(wide.len() == truth.len() && missed <= 1, "{wide:?} instead of {truth:?}");
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(value::<String>(client, "SHOW imgvec.ef_search"), "0");
        // One owner's 50 pictures among 20,000: the filter, not the vector index, is where to begin.
        client.batch_execute("CREATE INDEX asset_owner ON asset (owner); UPDATE asset SET owner = 99 WHERE id % 400 = 7; ANALYZE asset").unwrap();
        let few = format!(
            "SELECT a.id, s.embedding <=> {0} FROM asset a JOIN smart_search s ON s.asset_id = a.id
             WHERE a.owner = 99 ORDER BY s.embedding <=> {0} LIMIT 10",
            gallery.query
        );
        let plan = explain(client, &few);
        assert!(!is_ordered_by_index(&plan), "{plan:#?}");
        assert_eq!(client.query(&few, &[]).unwrap().len(), 10);
        assert_eq!(by_index(client, &few).len(), 10);
    });
}

#[test]
fn pages_are_disjoint_and_in_order_with_a_second_key() {
    each_type("gallery-pages", |client, gallery| {
        let page = gallery.recipe("page");
        assert_eq!(gallery.assert_finds(client, &page).len(), 21);
        let mut seen = Vec::new();
        for offset in (0..200).step_by(20) {
            let sql = page.replace("LIMIT 21 OFFSET 40", &format!("LIMIT 20 OFFSET {offset}"));
            seen.extend(
                gallery
                    .by_choice(client, &sql)
                    .iter()
                    .map(|row| (row.get::<_, f64>(1), row.get::<_, i32>(0))),
            );
        }
        assert_eq!(seen.len(), 200);
        assert!(seen.is_sorted_by(|a, b| a < b), "pages overlap or descend");
        // Both keys in one ORDER BY: PostgreSQL sorts on top of the index from version 17 on.
        let both = format!(
            "SELECT asset_id, embedding <=> {0} FROM smart_search ORDER BY embedding <=> {0}, asset_id LIMIT 20",
            gallery.query
        );
        let plan = explain(client, &both).join("\n");
        let version: i32 = value(client, "SELECT current_setting('server_version_num')::integer");
        let by_index = plan.contains("Incremental Sort") && plan.contains("using smart_search_embedding");
        assert_eq!(by_index, version >= 170_000, "{plan}");
        let found: Vec<i32> = client.query(&both, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(found, by_table(client, &both).iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>());
    });
}

#[test]
fn thresholds_similarities_and_duplicates_come_by_the_index() {
    each_type("gallery-faces", |client, gallery| {
        // A query near a picture, so that something lies within the threshold.
        let near: String = value(
            client,
            "SELECT quote_literal((embedding(4000) + embedding(-5) * array_fill(0.02::real, ARRAY[256])::imgvec)::text)",
        );
        let gallery = Gallery {
            query: format!("{near}::{}", gallery.column_type),
            recipes: gallery.recipes.clone(),
            ..*gallery
        };
        let faces = gallery.recipe("faces");
        let rows = gallery.assert_finds(client, &faces);
        assert!(rows.len() >= 2 && rows.len() < 100, "{} rows", rows.len());
        assert!(rows.iter().all(|row| row.get::<_, f64>(1) <= 0.1));

        let rows = gallery.by_choice(client, &gallery.recipe("similarity"));
        assert!(rows.is_sorted_by(|a, b| a.get::<_, f64>(1) >= b.get::<_, f64>(1)) && rows.len() == 10);
        let other = format!(
            "SELECT asset_id FROM smart_search ORDER BY 1 - (embedding <=> {}) DESC LIMIT 10",
            gallery.query
        );
        assert!(!is_ordered_by_index(&explain(client, &other)), "then docs/recipes.md is wrong");

        let pairs: Vec<(i32, i32)> = gallery
            .by_choice(client, &gallery.recipe("duplicates"))
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let expected: Vec<_> =
            (1..ROWS / DUPLICATE_EVERY).map(|i| (i * DUPLICATE_EVERY, i * DUPLICATE_EVERY + 1)).collect();
        assert_eq!(pairs, expected);
    });
}

#[test]
fn embeddings_are_replaced_and_go_with_their_pictures() {
    each_type("gallery-upsert", |client, gallery| {
        // The same vectors again are rows at new places. Their nodes are shared, but for rows that were there before the
        // index, which was created first, had seen enough of them to be trained: these are known less exactly.
        let index = "SELECT live_nodes FROM ann_index_check('smart_search_embedding', true)";
        let before: i64 = value(client, index);
        let [once, twice] = [(), ()].map(|()| {
            client.batch_execute(&gallery.recipe("upsert")).unwrap();
            value::<i64>(client, index)
        });
        assert!(once <= before + 100 && twice <= once + 2, "{before}, {once}, {twice} nodes");
        client
            .batch_execute(
                "INSERT INTO smart_search VALUES (5, embedding(-99)) ON CONFLICT (asset_id) DO UPDATE SET embedding = excluded.embedding",
            )
            .unwrap();
        let nearest = format!(
            "SELECT asset_id FROM smart_search ORDER BY embedding <=> embedding(-99)::{} LIMIT 1",
            gallery.column_type
        );
        assert_eq!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0), 5);
        client.batch_execute("DELETE FROM asset WHERE id <= 1000").unwrap();
        assert!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0) > 1000);
        client.batch_execute("VACUUM smart_search").unwrap();
        assert!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0) > 1000);
        let rows: i64 = value(client, "SELECT rows FROM ann_index_check('smart_search_embedding', true)");
        assert_eq!(rows, i64::from(ROWS) - 1000);
    });
}

#[test]
fn another_model_brings_another_dimension() {
    each_type("gallery-model", |client, gallery| {
        const DIMENSIONS: &str = "SELECT atttypmod FROM pg_attribute
            WHERE attrelid = 'smart_search'::regclass AND attname = 'embedding'";
        assert_eq!(value::<i32>(client, DIMENSIONS), 256);
        // Vectors of the old model are in the way, and stay.
        let alter =
            format!("ALTER TABLE smart_search ALTER COLUMN embedding TYPE {}(384)", gallery.column_type);
        assert_eq!(failure(client, &alter).code(), &SqlState::DATA_EXCEPTION);
        assert_eq!(value::<i64>(client, "SELECT count(*) FROM smart_search"), i64::from(ROWS));
        client.batch_execute(&gallery.recipe("model")).unwrap();
        assert_eq!(value::<i32>(client, DIMENSIONS), 384);
        client.batch_execute("INSERT INTO smart_search SELECT i, vec(i, 384) FROM generate_series(1, 3000) AS i; ANALYZE smart_search").unwrap();
        let nearest = format!(
            "SELECT asset_id FROM smart_search ORDER BY embedding <=> vec(77, 384)::{} LIMIT 1",
            gallery.column_type
        );
        assert_eq!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0), 77);
        // By way of real[], as applications leave one extension for another.
        client
            .batch_execute(&format!(
                "DROP INDEX smart_search_embedding; ALTER TABLE smart_search ALTER COLUMN embedding TYPE real[];
                 ALTER TABLE smart_search ALTER COLUMN embedding TYPE {}(384);
                 CREATE INDEX smart_search_embedding ON smart_search USING ann (embedding); ANALYZE smart_search",
                gallery.column_type
            ))
            .unwrap();
        assert_eq!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0), 77);
        client.batch_execute("REINDEX INDEX smart_search_embedding").unwrap();
        assert_eq!(gallery.by_choice(client, &nearest)[0].get::<_, i32>(0), 77);
    });
}
