//! One table on two servers: postgres_fdw below a partitioned table, as `docs/scaling-out.md` shows it. The order
//! is sent, each shard answers from its index and reads no more than is fetched, and a text is embedded once.

use std::collections::BTreeSet;

use postgres::Client;

use super::pages::{blocks, statements};
use crate::ann::{VECTORS, check, ids, quiet, script};
use crate::cluster::Cluster;
use crate::value;

const ROWS: i32 = 3000;

/// Two shards, their coordinator, and beside the sharded table `whole` with the same rows in one place.
struct Shards {
    shards: [Cluster; 2],
    coordinator: Cluster,
}

impl Shards {
    fn start(name: &str) -> Self {
        let shards = [0, 1].map(|number| {
            // The shard's log shows the plans of what it is asked.
            let shard = quiet(&format!("{name}-{number}"))
                .conf("session_preload_libraries = 'auto_explain'")
                .conf("auto_explain.log_min_duration = 0")
                .conf("auto_explain.log_analyze = on")
                .conf("auto_explain.log_timing = off")
                .start_empty();
            for statement in blocks("scaling-out.md", "shard").iter().flat_map(|block| statements(block)) {
                shard
                    .client()
                    .batch_execute(&statement)
                    .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            }
            shard
        });
        let coordinator = quiet(name).start_empty();
        let mut client = coordinator.client();
        for statement in blocks("scaling-out.md", "coordinator").iter().flat_map(|block| statements(block)) {
            let mut here = statement.replace("user 'photos'", "user 'postgres'");
            for (number, shard) in shards.iter().enumerate() {
                here = here.replace(
                    &format!("host 'shard-{number}', dbname 'photos'"),
                    &format!("host '{}', dbname 'postgres'", shard.directory().display()),
                );
            }
            client.batch_execute(&here).unwrap_or_else(|error| panic!("{here}: {error:?}"));
        }
        client.batch_execute(VECTORS).unwrap();
        client
            .batch_execute(&format!(
                "INSERT INTO photos SELECT i, 'photo ' || i, vec(i, 256) FROM generate_series(1, {ROWS}) AS i;
                 CREATE TABLE whole AS SELECT * FROM photos"
            ))
            .unwrap();
        script(&mut client, "ANALYZE photos; ANALYZE whole");
        shards.iter().for_each(|shard| shard.client().batch_execute("ANALYZE").unwrap());
        Self { shards, coordinator }
    }
}

/// The plan with the SQL that is sent, one line each.
#[track_caller]
fn verbose_plan(client: &mut Client, query: &str) -> Vec<String> {
    let rows = client.query(&format!("EXPLAIN (VERBOSE, COSTS OFF) {query}"), &[]);
    rows.unwrap_or_else(|error| panic!("{query}: {error:?}")).iter().map(|row| row.get(0)).collect()
}

/// What the plan's Foreign Scans send.
fn remote(plan: &[String]) -> Vec<&str> {
    plan.iter().filter_map(|line| line.trim_start().strip_prefix("Remote SQL: ")).collect()
}

/// How many rows the index scans of `photos_embedding` that the shard has logged since `from` gave out.
fn rows_read(shard: &Cluster, from: usize) -> Vec<u64> {
    let log = shard.log();
    let scans = log[from..].lines().filter(|line| line.contains("Index Scan using photos_embedding on"));
    scans
        .map(|line| {
            let rows = line.split("actual rows=").nth(1).unwrap_or_else(|| panic!("{line}"));
            // PostgreSQL 18 prints two decimals.
            rows.split([' ', '.', ')']).next().unwrap().parse().unwrap()
        })
        .collect()
}

/// The share of the `LIMIT` nearest of one table that the shards give.
#[track_caller]
fn agreement(client: &mut Client, query: &str) -> f64 {
    let given = ids(&client.query(&query.replace("SELECT id", "SELECT id::integer"), &[]).unwrap());
    let truth = query.replace("SELECT id", "SELECT id::integer").replace("FROM photos", "FROM whole");
    let truth = ids(&client.query(&truth, &[]).unwrap());
    let unique: BTreeSet<_> = given.iter().collect();
    assert_eq!((given.len(), unique.len()), (truth.len(), truth.len()), "{given:?}");
    given.iter().filter(|id| truth.contains(id)).count() as f64 / truth.len() as f64
}

#[test]
fn the_order_is_sent_and_each_shard_answers_from_its_index() {
    let servers = Shards::start("fdw");
    let mut client = servers.coordinator.client();
    // Batched inserts arrived, each row at the shard of its hash, each in the shard's index.
    let mut indexed = 0;
    for shard in &servers.shards {
        indexed += check(&mut shard.client(), "photos_embedding").rows;
    }
    assert_eq!(indexed, i64::from(ROWS));

    let search = &statements(&blocks("scaling-out.md", "search")[0])[0];
    let plan = verbose_plan(&mut client, search);
    assert!(plan.iter().any(|line| line.contains("Merge Append")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.contains("->  Sort")), "{plan:#?}");
    let sent = remote(&plan);
    assert_eq!(sent.len(), 2, "{plan:#?}");
    for sql in &sent {
        assert!(sql.contains("ORDER BY (embedding OPERATOR(public.<=>) $1::public.imgvec)"), "{plan:#?}");
        // With several shards the LIMIT stays here; the cursor is what stops the shards.
        assert!(!sql.contains("LIMIT"), "{plan:#?}");
    }
    let before = servers.shards.each_ref().map(|shard| shard.log().len());
    assert_eq!(client.query(search, &[]).unwrap().len(), 10);
    for (shard, from) in servers.shards.iter().zip(before) {
        let rows = rows_read(shard, from);
        assert_eq!(rows, [20], "one scan of one fetch; log:\n{}", &shard.log()[from..]);
    }
    // The shard's own word for the same cursor.
    let query: String = value(&mut client, "SELECT quote_literal(vec(-1, 256)::text)");
    let cursor = format!(
        "DECLARE c CURSOR FOR SELECT id FROM public.photos
         ORDER BY (embedding OPERATOR(public.<=>) {query}::public.imgvec) ASC NULLS LAST"
    );
    let mut shard = servers.shards[0].client();
    for fraction in ["0.001", "0.1"] {
        shard.batch_execute(&format!("SET cursor_tuple_fraction = {fraction}")).unwrap();
        let plan = verbose_plan(&mut shard, &cursor);
        assert!(
            plan.iter().any(|line| line.contains("Index Scan using photos_embedding")),
            "{fraction}: {plan:#?}"
        );
    }
    // Who fetches everything is better off with the table.
    shard.batch_execute("SET cursor_tuple_fraction = 1").unwrap();
    let plan = verbose_plan(&mut shard, &cursor);
    assert!(plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");

    // Rows beyond the first fetch, more than the index's beam is wide, all of the table; a filter goes along.
    let mut found = 0.0;
    for seed in 1..=10 {
        let vector: String = value(&mut client, &format!("SELECT quote_literal(vec(-{seed}, 256)::text)"));
        found += agreement(
            &mut client,
            &format!("SELECT id FROM photos ORDER BY embedding <=> {vector} LIMIT 10"),
        );
    }
    assert!(found / 10.0 >= 0.9, "{found} of 10");
    let nearest = |condition: &str, limit: i32| {
        format!("SELECT id FROM photos {condition} ORDER BY embedding <=> {query} LIMIT {limit}")
    };
    let many = agreement(&mut client, &nearest("", 400));
    assert!(many >= 0.9, "{many} of 400 rows");
    assert_eq!(agreement(&mut client, &nearest("", 2 * ROWS)), 1.0);
    let filtered = nearest("WHERE id % 50 = 7", 10);
    let plan = verbose_plan(&mut client, &filtered);
    assert!(remote(&plan).iter().all(|sql| sql.contains("WHERE") && sql.contains("ORDER BY")), "{plan:#?}");
    assert!(agreement(&mut client, &filtered) >= 0.9);
    // One shard gets the LIMIT too.
    let plan = verbose_plan(&mut client, &nearest("", 10).replace("photos", "photos_0"));
    assert!(remote(&plan)[0].ends_with("LIMIT 10::bigint"), "{plan:#?}");
    // Changes go to the shards and their indexes.
    client.batch_execute("UPDATE photos SET embedding = vec(id + 50000, 256) WHERE id = 77; DELETE FROM photos WHERE id = 78").unwrap();
    let moved: String = value(&mut client, "SELECT quote_literal(vec(50077, 256)::text)");
    let row = client
        .query_one(
            &format!("SELECT id, embedding <=> {moved} FROM photos ORDER BY embedding <=> {moved} LIMIT 1"),
            &[],
        )
        .unwrap();
    assert!(row.get::<_, i64>(0) == 77 && row.get::<_, f64>(1) < 1e-6, "{row:?}");
}

#[test]
fn shards_are_asked_at_once_for_their_best_rows() {
    let servers = Shards::start("fdw-parallel");
    let mut client = servers.coordinator.client();
    let parallel = &statements(&blocks("scaling-out.md", "parallel")[0])[0];
    let plan = verbose_plan(&mut client, parallel);
    let sent = remote(&plan);
    assert_eq!(sent.len(), 2, "{plan:#?}");
    for sql in sent {
        assert!(
            sql.contains("ORDER BY (embedding OPERATOR(public.<=>)") && sql.ends_with("LIMIT 10::bigint"),
            "{plan:#?}"
        );
    }
    assert_eq!(plan.iter().filter(|line| line.contains("Async Foreign Scan")).count(), 2, "{plan:#?}");
    let before = servers.shards.each_ref().map(|shard| shard.log().len());
    let given = client.query(parallel, &[]).unwrap();
    for (shard, from) in servers.shards.iter().zip(before) {
        assert_eq!(rows_read(shard, from), [10], "log:\n{}", &shard.log()[from..]);
    }
    let search = &statements(&blocks("scaling-out.md", "search")[0])[0];
    let merged = client.query(search, &[]).unwrap();
    let id = |rows: &[postgres::Row]| rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>();
    let common = id(&given).iter().filter(|one| id(&merged).contains(one)).count();
    assert!(common >= 9, "{:?} and {:?}", id(&given), id(&merged));
    // Without an order, too, both work at the same time.
    let plan = verbose_plan(
        &mut client,
        "SELECT count(*) FROM photos WHERE embedding <=> (SELECT embed_text('a dog')) < 0.9",
    );
    assert_eq!(plan.iter().filter(|line| line.contains("Async Foreign Scan")).count(), 2, "{plan:#?}");
    assert!(remote(&plan).iter().all(|sql| sql.contains("OPERATOR(public.<=>)")), "{plan:#?}");
}

#[test]
fn a_text_is_embedded_once_and_by_whom_the_query_says() {
    const ORDER: &str = "SELECT id FROM photos ORDER BY embedding <=>";
    let servers = Shards::start("fdw-embed");
    let mut client = servers.coordinator.client();
    // The counters of the sessions that this session has at the shards.
    for number in 0..2 {
        client
            .batch_execute(&format!(
                "CREATE FOREIGN TABLE embedded_{number} (texts_embedded bigint) SERVER shard_{number}
                     OPTIONS (table_name 'imgvec_backend_stats')"
            ))
            .unwrap();
    }
    let counts = |client: &mut Client| {
        let own: i64 = value(client, "SELECT texts_embedded FROM imgvec_backend_stats");
        let shards: [i64; 2] =
            [0, 1].map(|number| value(client, &format!("SELECT texts_embedded FROM embedded_{number}")));
        (own, shards)
    };
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    // A subquery: here, once, whatever form of the function; its vector is sent.
    for (place, form) in ["(SELECT embed_text($1))", "(SELECT embed_text($1, 'starter'))"].iter().enumerate()
    {
        let statement = client.prepare(&format!("{ORDER} {form} LIMIT 5")).unwrap();
        let words = format!("a dog {place}");
        for _ in 0..3 {
            assert_eq!(client.query(&statement, &[&words]).unwrap().len(), 5);
        }
        assert_eq!(counts(&mut client), (place as i64 + 1, [0, 0]), "{form}");
    }
    // A literal and a named model: folded to a vector when the query is planned.
    let plan = verbose_plan(&mut client, &format!("{ORDER} embed_text('a cat', 'starter') LIMIT 5"));
    assert!(
        remote(&plan).iter().all(|sql| sql.contains("ORDER BY") && !sql.contains("embed_text")),
        "{plan:#?}"
    );
    assert_eq!(counts(&mut client), (3, [0, 0]));
    // A parameter: neither form of the call is sent, the one for its collation, the other because the default model
    // is the session's. So nothing that depends on it is, and the tables come here to be sorted.
    script(
        &mut client,
        &format!(
            "PREPARE named (text) AS {ORDER} embed_text($1, 'starter') LIMIT 5;
             PREPARE default_model (text) AS {ORDER} embed_text($1) LIMIT 5"
        ),
    );
    for statement in ["named", "default_model"] {
        let plan = verbose_plan(&mut client, &format!("EXECUTE {statement} ('a cow')"));
        assert_eq!(remote(&plan), ["SELECT id, embedding FROM public.photos"; 2], "{plan:#?}");
        client.simple_query(&format!("EXECUTE {statement} ('a cow')")).unwrap();
    }
    assert_eq!(
        counts(&mut client),
        (4, [0, 0]),
        "one more text, and the cache knows that it is the same model's"
    );
    // Without `extensions` nothing is sent, whatever the query, and the rows are the same.
    let search = format!("{ORDER} (SELECT embed_text('a dog 0')) LIMIT 10");
    let id = |rows: Vec<postgres::Row>| rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>();
    let with = id(client.query(&search, &[]).unwrap());
    for number in 0..2 {
        client.batch_execute(&format!("ALTER SERVER shard_{number} OPTIONS (DROP extensions)")).unwrap();
    }
    let plan = verbose_plan(&mut client, &search);
    assert_eq!(remote(&plan), ["SELECT id, embedding FROM public.photos"; 2], "{plan:#?}");
    let without = id(client.query(&search, &[]).unwrap());
    assert!(with.iter().filter(|one| without.contains(one)).count() >= 9, "{with:?} and {without:?}");
}
