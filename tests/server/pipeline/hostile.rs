//! Roles that mean harm: what they put into their own tables, triggers and types runs with their own rights, and what they
//! declare reaches nobody else's tables and keeps nobody else from working.

use postgres::Client;

use super::migrate::write_other_model;
use super::{assert_complete, run, start};
use crate::models::cluster_with_packages;
use crate::{failure, value};

/// Whether the role `thief` has become a superuser, or has seen what only superusers may.
#[track_caller]
fn assert_harmless(client: &mut Client) {
    assert!(!value::<bool>(client, "SELECT rolsuper FROM pg_roles WHERE rolname = 'thief'"));
    let seen = "SELECT string_agg(DISTINCT who::text, ' ') FROM thieves.seen";
    let seen: Option<String> = value(client, seen);
    assert!(seen.is_none_or(|seen| seen == "thief"), "code of the thief ran as another role");
}

/// A role `thief` with a schema, and a function that tries to become a superuser, and notes as whom it runs.
fn let_thief_in(client: &mut Client) {
    let sql =
        "CREATE ROLE thief LOGIN; CREATE SCHEMA thieves AUTHORIZATION thief; CREATE TABLE crown (jewel text);
         INSERT INTO crown VALUES ('ruby');
         SET ROLE thief;
         CREATE TABLE thieves.seen (who name);
         GRANT USAGE ON SCHEMA thieves TO PUBLIC;
         GRANT INSERT ON thieves.seen TO PUBLIC;
         CREATE FUNCTION thieves.climb() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO thieves.seen VALUES (current_user);
             BEGIN EXECUTE 'SET ROLE postgres'; EXECUTE 'ALTER ROLE thief SUPERUSER';
                 INSERT INTO thieves.seen VALUES (current_user);
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'ALTER ROLE thief SUPERUSER';
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'ALTER ROLE thief SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             RETURN true; END $$;
         CREATE FUNCTION thieves.climbs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM thieves.climb(); RETURN NEW; END $$;
         RESET ROLE";
    client.batch_execute(sql).unwrap();
}

const NOTES: &str = "CREATE TABLE thieves.notes (id int PRIMARY KEY, caption text, embedding imgvec(256));
    INSERT INTO thieves.notes SELECT i, 'thing ' || i FROM generate_series(1, 20) AS i;
    SELECT imgvec_maintain('thieves.notes', 'caption', 'embedding', 'starter')";

#[test]
fn a_trigger_on_the_log_does_not_climb_in_the_index_builder_nor_elsewhere() {
    let (cluster, models) = cluster_with_packages("hostile-log", &[]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let mut client = cluster.client();
    let_thief_in(&mut client);
    let mut thief = cluster.client_of("thief", "postgres");
    run(&mut thief, NOTES);
    // An index that only this session can build, so that the builder notes an error.
    run(
        &mut thief,
        "CALL imgvec_work('thieves.notes');
         CREATE FUNCTION thieves.picky(imgvec) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
             IF current_setting('thieves.builds', true) = 'yes' THEN RETURN 1; END IF; RAISE EXCEPTION 'no'; END $$;
         SET thieves.builds = 'yes';
         CREATE INDEX ON thieves.notes (thieves.picky(embedding))",
    );
    failure(&mut thief, "CALL imgvec_migrate('thieves.notes', 'embedding', 'other')");
    let log: String = value(
        &mut thief,
        "SELECT max(oid::regclass::text) FROM pg_class WHERE relname ~ '_log2$' AND relnamespace = 'thieves'::regnamespace",
    );
    for trigger in [
        format!(
            "CREATE TRIGGER climbs BEFORE INSERT ON {log} FOR EACH ROW EXECUTE FUNCTION thieves.climbs()"
        ),
        format!(
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {log} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION thieves.climbs()"
        ),
    ] {
        run(&mut thief, &trigger);
        failure(&mut thief, "CALL imgvec_migrate('thieves.notes', 'embedding', 'other')");
        failure(&mut client, "CALL imgvec_migrate('thieves.notes', 'embedding', 'other')");
        assert_harmless(&mut client);
    }
    // A superuser's session that has become the thief is still a superuser's.
    for change in ["SET ROLE thief", "SET SESSION AUTHORIZATION thief"] {
        run(&mut client, change);
        failure(&mut client, "CALL imgvec_migrate('thieves.notes', 'embedding', 'other')");
        run(&mut client, "SET thieves.builds = 'yes';\nUPDATE thieves.notes SET caption = caption || '.'");
        let _ = client.batch_execute("CALL imgvec_work('thieves.notes')");
        run(&mut client, "RESET SESSION AUTHORIZATION;\nRESET ROLE");
        assert_harmless(&mut client);
    }
    assert!(value::<i64>(&mut client, "SELECT count(*) FROM thieves.seen") > 0, "it did run");
}

#[test]
fn the_types_of_a_source_do_not_climb_when_it_is_read() {
    let (cluster, mut client) = start("hostile-types");
    let_thief_in(&mut client);
    let mut thief = cluster.client_of("thief", "postgres");
    run(
        &mut thief,
        "CREATE DOMAIN thieves.checked AS int CHECK (thieves.climb() OR VALUE > 0);
         CREATE TYPE thieves.pair AS (one thieves.checked);
         CREATE TABLE thieves.notes (id int PRIMARY KEY, caption text, pair thieves.pair, embedding imgvec(256));
         INSERT INTO thieves.notes SELECT i, 'thing ' || i FROM generate_series(1, 3) AS i;
         SELECT imgvec_maintain('thieves.notes', $$caption || ('{1}'::thieves.checked[])[1]$$, 'embedding', 'starter');
         CALL imgvec_work('thieves.notes');
         ALTER TABLE thieves.notes RENAME caption TO title;
         TRUNCATE thieves.seen",
    );
    // By a call, by a worker, and where a superuser declares over the thief's types.
    run(&mut client, "CALL imgvec_work('thieves.notes')");
    assert!(value::<i64>(&mut client, "SELECT count(*) FROM thieves.seen") > 0, "it was read");
    assert_harmless(&mut client);
    run(&mut thief, "ALTER TABLE thieves.notes RENAME title TO words;\nTRUNCATE thieves.seen");
    run(&mut client, "SELECT imgvec_start_workers(1)");
    for _ in 0..1000 {
        if value::<i64>(&mut client, "SELECT count(*) FROM thieves.seen") > 0 {
            break;
        }
        run(&mut thief, "UPDATE thieves.notes SET words = words || '.'");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    run(&mut client, "SELECT imgvec_stop_workers()");
    assert!(value::<i64>(&mut client, "SELECT count(*) FROM thieves.seen") > 0, "it was read");
    assert_harmless(&mut client);
    run(
        &mut client,
        "SELECT imgvec_maintain('thieves.notes', target => 'embedding', stop => true);
         TRUNCATE thieves.seen;
         SELECT imgvec_maintain('thieves.notes', $$words || coalesce(pair, '(7)')::text$$, 'embedding', 'starter')",
    );
    assert!(value::<i64>(&mut client, "SELECT count(*) FROM thieves.seen") > 0, "it was read");
    assert_harmless(&mut client);
    run(&mut client, "CALL imgvec_work('thieves.notes')");
    assert_harmless(&mut client);
}

/// The argument of the trigger that queues new rows of a table.
fn argument_of(client: &mut Client, table: &str) -> String {
    value(
        client,
        &format!(
            "SELECT convert_from(substring(tgargs FOR length(tgargs) - 1), 'UTF8') FROM pg_trigger
             WHERE tgname = 'imgvec_embedding_insert' AND tgrelid = '{table}'::regclass"
        ),
    )
}

/// A trigger of the thief's own making.
fn forge(client: &mut Client, table: &str, argument: &str) {
    run(
        client,
        &format!(
            "CREATE OR REPLACE TRIGGER forged AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{argument}')"
        ),
    );
}

#[track_caller]
fn assert_code(client: &mut Client, statement: &str, code: &str) {
    let error = failure(client, statement);
    assert_eq!(error.code().code(), code, "{statement}: {error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}

/// What became of the tables that a forged trigger names: whether all are there, and ties of theirs to the thief's.
#[track_caller]
fn assert_untouched(client: &mut Client) {
    let there =
        "SELECT to_regclass('public.secret') IS NOT NULL AND to_regclass('public.journal') IS NOT NULL
        AND to_regclass('public.other_embedding_queue') IS NOT NULL";
    assert!(value::<bool>(client, there));
    let ties = "SELECT count(*) FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'a'
        AND objid IN ('public.secret'::regclass, 'public.journal'::regclass)";
    assert_eq!(value::<i64>(client, ties), 0);
}

#[test]
fn a_forged_declaration_reaches_no_table_of_others() {
    let (cluster, mut client) = start("hostile-tables");
    let_thief_in(&mut client);
    // Tables of the right shape: that alone is not enough.
    run(
        &mut client,
        "CREATE TABLE secret (k1 int NOT NULL, queued_at timestamptz NOT NULL);
         CREATE TABLE journal (k1 int, kind text, at timestamptz, sqlstate text, message text, attempts int, not_before timestamptz, rows bigint);
         CREATE TABLE other (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('other', 'caption', 'embedding', 'starter')",
    );
    let mut thief = cluster.client_of("thief", "postgres");
    run(&mut thief, NOTES);
    let honest = argument_of(&mut thief, "thieves.notes");
    run(&mut thief, "CREATE TABLE thieves.bomb (id int PRIMARY KEY, caption text, embedding imgvec(256))");
    let bomb: String = value(&mut thief, "SELECT 'thieves.bomb'::regclass::oid::text");
    let notes: String = value(&mut thief, "SELECT 'thieves.notes'::regclass::oid::text");
    for (queue, log) in [
        ("[\"public\",\"secret\"]", "[\"public\",\"journal\"]"),
        ("[\"public\",\"other_embedding_queue\"]", "[\"public\",\"other_embedding_log\"]"),
        ("[\"public\",\"crown\"]", "[\"public\",\"crown\"]"),
        ("[\"pg_catalog\",\"pg_class\"]", "[\"pg_catalog\",\"pg_class\"]"),
        ("[\"thieves\",\"notes_embedding_queue\"]", "[\"thieves\",\"notes_embedding_log\"]"),
    ] {
        for relation in ["1", &bomb] {
            let forged = honest
                .replace("[\"thieves\",\"notes_embedding_queue\"]", queue)
                .replace("[\"thieves\",\"notes_embedding_log\"]", log)
                .replace(&format!("\"relation\":{notes},"), &format!("\"relation\":{relation},"));
            let oids = forged.find("\"tables\":[").unwrap();
            let end = oids + forged[oids..].find(']').unwrap();
            let forged = format!("{}\"tables\":[0,0{}", &forged[..oids], &forged[end..]);
            forge(&mut thief, "thieves.bomb", &forged);
            assert!(failure(&mut client, "CALL imgvec_work('thieves.bomb')").hint().is_some());
            failure(&mut client, "CALL imgvec_migrate('thieves.bomb', 'embedding', 'starter')");
            run(&mut client, "CALL imgvec_work()");
            let told = "SELECT last_error FROM imgvec_progress WHERE relation = 'thieves.bomb'::regclass";
            let told: String = value(&mut client, told);
            assert!(told.contains("is not valid"), "{told}");
            run(&mut client, "SELECT imgvec_maintain('thieves.bomb', target => 'embedding', stop => true)");
            assert_untouched(&mut client);
            run(&mut client, "CALL imgvec_work()");
        }
    }
    let queues = "SELECT count(*) FROM pg_class WHERE relname = 'notes_embedding_queue'";
    assert_eq!(
        value::<i64>(&mut client, queues),
        1,
        "a column's queue stays when another table's forgery ends"
    );
    assert_complete(&mut client, "thieves.notes", "embed_text(caption, 'starter')");
    run(&mut thief, "DROP TABLE thieves.bomb");
    assert_untouched(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM secret"), 0);
}

#[test]
fn a_forged_trigger_fills_no_queue_of_others() {
    let (cluster, mut client) = start("hostile-queue");
    let_thief_in(&mut client);
    run(
        &mut client,
        "CREATE TABLE docs (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('docs', 'caption', 'embedding', 'starter')",
    );
    let argument = argument_of(&mut client, "docs");
    let mut thief = cluster.client_of("thief", "postgres");
    run(
        &mut thief,
        "CREATE TABLE thieves.mine (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE TABLE thieves.root (id int PRIMARY KEY, caption text, embedding imgvec(256)) PARTITION BY HASH (id);
         CREATE TABLE thieves.part PARTITION OF thieves.root FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    );
    for table in ["thieves.mine", "thieves.root"] {
        forge(&mut thief, table, &argument);
        assert_code(&mut thief, &format!("INSERT INTO {table} VALUES (1, 'x')"), "55000");
    }
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM docs_embedding_queue"), 0);
    // A column of the victim's that works goes on working.
    run(&mut client, "INSERT INTO docs VALUES (1, 'a thing');\nCALL imgvec_work()");
    assert_complete(&mut client, "docs", "embed_text(caption, 'starter')");
}

#[test]
fn what_others_write_into_triggers_keeps_nobody_from_working() {
    let (cluster, mut client) = start("hostile-arguments");
    let_thief_in(&mut client);
    run(
        &mut client,
        "CREATE ROLE victim LOGIN; CREATE SCHEMA homes AUTHORIZATION victim; SET ROLE victim;
         CREATE TABLE homes.docs (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('homes.docs', 'caption', 'embedding', 'starter');
         INSERT INTO homes.docs VALUES (1, 'a thing');
         RESET ROLE",
    );
    let honest = argument_of(&mut client, "homes.docs");
    let mut thief = cluster.client_of("thief", "postgres");
    run(
        &mut thief,
        "CREATE TABLE thieves.many (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE VIEW thieves.seen_by AS SELECT 1 AS id, 'x'::text AS caption, NULL::imgvec AS embedding",
    );
    let arguments = [
        "'a', 'b'".to_owned(),
        "'', ''".to_owned(),
        "''".to_owned(),
        "'{'".to_owned(),
        format!("'{}'", "[".repeat(5000)),
        format!("'{honest}', ''"),
        format!("'{honest}'"),
        format!("'{}'", honest.replace("\"embedding\"", "\"embed\\u0000ding\"")),
        format!("'{}'", honest.replace("docs_embedding_queue", "docs\\u0000")),
        format!("'{}'", honest.replace("docs_embedding_log", &"x".repeat(200))),
        format!("'{}'", honest.replace("\"version\":1", "\"version\":2")),
        format!("'{}'", honest.replace("[\"id\"]", "[]")),
        format!("'{}'", honest.replace("\"id\":1", "\"id\":-7")),
    ];
    for (number, arguments) in arguments.iter().enumerate() {
        run(
            &mut thief,
            &format!(
                "CREATE TRIGGER t{number} AFTER INSERT ON thieves.many FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue({arguments});
                 CREATE TRIGGER t{number} INSTEAD OF INSERT ON thieves.seen_by FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue({arguments})"
            ),
        );
    }
    run(&mut thief, "CREATE TEMPORARY TABLE brief (id int PRIMARY KEY, caption text, embedding imgvec(256))");
    forge(&mut thief, "brief", &honest);
    let mut victim = cluster.client_of("victim", "postgres");
    for client in [&mut victim, &mut client] {
        assert_eq!(
            value::<i64>(
                client,
                "SELECT count(*) FROM imgvec_progress WHERE relation = 'homes.docs'::regclass"
            ),
            1
        );
        assert_eq!(value::<i64>(client, "SELECT count(*) FROM imgvec_failures"), 0);
        assert!(value::<i64>(client, "SELECT count(*) FROM imgvec_models") > 0);
        run(
            client,
            "INSERT INTO homes.docs SELECT max(id) + 1, 'another' FROM homes.docs;\nCALL imgvec_work()",
        );
        assert_complete(client, "homes.docs", "embed_text(caption, 'starter')");
    }
    run(
        &mut victim,
        "CREATE TABLE homes.more (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('homes.more', 'caption', 'embedding', 'starter');
         SELECT imgvec_maintain('homes.more', target => 'embedding', stop => true)",
    );
    // Nor does a lock that somebody holds on a table of his own.
    run(&mut thief, NOTES);
    run(&mut thief, "BEGIN;\nLOCK TABLE thieves.notes IN ACCESS EXCLUSIVE MODE");
    run(&mut client, "SELECT imgvec_start_workers(1)");
    run(&mut victim, "INSERT INTO homes.docs VALUES (100, 'by a worker')");
    for _ in 0..3000 {
        if super::progress(&mut victim, "homes.docs") == "0 waiting, 0 failed" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_complete(&mut victim, "homes.docs", "embed_text(caption, 'starter')");
    run(&mut thief, "ROLLBACK");
    run(&mut client, "SELECT imgvec_stop_workers()");
}

#[test]
fn the_right_to_make_triggers_declares_nothing() {
    let (cluster, mut client) = start("hostile-trigger-right");
    let_thief_in(&mut client);
    run(
        &mut client,
        "CREATE ROLE victim LOGIN; CREATE SCHEMA homes AUTHORIZATION victim; SET ROLE victim;
         CREATE TABLE homes.docs (id int PRIMARY KEY, caption text, embedding imgvec(256));
         INSERT INTO homes.docs VALUES (1, 'a thing');
         SELECT imgvec_maintain('homes.docs', 'caption', 'embedding', 'starter');
         GRANT USAGE ON SCHEMA homes TO thief; GRANT TRIGGER, INSERT ON homes.docs TO thief;
         RESET ROLE",
    );
    let honest = argument_of(&mut client, "homes.docs");
    let mut thief = cluster.client_of("thief", "postgres");
    run(
        &mut thief,
        "CREATE VIEW thieves.log AS SELECT 1 AS k1, 'error'::text AS kind, now() AS at, thieves.climb()::text AS sqlstate, ''::text AS message,
             0 AS attempts, now() AS not_before, 0::bigint AS rows;
         GRANT SELECT ON thieves.log TO PUBLIC",
    );
    let seen = "SELECT count(*) FROM thieves.seen";
    let source = "\"source\":\"caption\"";
    assert!(honest.contains(source), "{honest}");
    for forged in [
        honest
            .replace("[\"homes\",\"docs_embedding_log\"]", "[\"thieves\",\"log\"]")
            .replace("\"tables\":[", "\"tables\":[0,0],\"other\":["),
        honest.replace(source, "\"source\":\"thieves.climb()::text\""),
    ] {
        forge(&mut thief, "homes.docs", &forged);
        for client in [&mut cluster.client_of("victim", "postgres"), &mut client] {
            value::<i64>(client, "SELECT count(last_error) FROM imgvec_progress");
            value::<i64>(client, "SELECT count(*) FROM imgvec_failures");
            run(client, "UPDATE homes.docs SET caption = caption || '.';\nCALL imgvec_work()");
        }
        assert_eq!(value::<i64>(&mut client, seen), 0, "{forged}");
        assert_eq!(super::wrong(&mut client, "homes.docs", "embed_text(caption, 'starter')"), 0);
    }
    // Also in place of the trigger that was declared: then the column rests, and its owner is told.
    run(
        &mut thief,
        &format!(
            "CREATE OR REPLACE TRIGGER imgvec_embedding_insert AFTER INSERT ON homes.docs FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{}')",
            honest.replace(source, "\"source\":\"thieves.climb()::text\"")
        ),
    );
    let mut victim = cluster.client_of("victim", "postgres");
    assert_code(&mut victim, "CALL imgvec_work('homes.docs')", "55000");
    assert_eq!(value::<i64>(&mut client, seen), 0);
    run(
        &mut victim,
        "SELECT imgvec_maintain('homes.docs', target => 'embedding', stop => true);
         SELECT imgvec_maintain('homes.docs', 'caption', 'embedding', 'starter', backfill => 'all');
         CALL imgvec_work('homes.docs')",
    );
    assert_complete(&mut victim, "homes.docs", "embed_text(caption, 'starter')");
}

#[test]
fn the_right_to_make_triggers_names_no_model() {
    let (cluster, models) = cluster_with_packages("hostile-model", &[]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let mut client = cluster.client();
    let_thief_in(&mut client);
    run(
        &mut client,
        "CREATE ROLE victim LOGIN; CREATE SCHEMA homes AUTHORIZATION victim; SET ROLE victim;
         CREATE TABLE homes.docs (id int PRIMARY KEY, caption text, embedding imgvec(256), free imgvec(256));
         INSERT INTO homes.docs SELECT i, 'thing ' || i FROM generate_series(1, 20) AS i;
         SELECT imgvec_maintain('homes.docs', 'caption', 'embedding', 'starter');
         CREATE TABLE homes.years (id int PRIMARY KEY, caption text, embedding imgvec(256)) PARTITION BY RANGE (id);
         CREATE TABLE homes.year PARTITION OF homes.years FOR VALUES FROM (1) TO (100);
         SELECT imgvec_maintain('homes.years', 'caption', 'embedding', 'starter');
         INSERT INTO homes.years SELECT i, 'thing ' || i FROM generate_series(1, 20) AS i;
         RESET ROLE;\nCALL imgvec_work();
         UPDATE homes.docs SET free = embedding;
         CREATE INDEX ON homes.docs USING ann (embedding); CREATE INDEX ON homes.docs USING ann (free);
         CREATE INDEX ON homes.years USING ann (embedding);
         GRANT USAGE ON SCHEMA homes TO thief; GRANT TRIGGER ON ALL TABLES IN SCHEMA homes TO thief",
    );
    let mut thief = cluster.client_of("thief", "postgres");
    for (table, from) in
        [("homes.docs", "homes.docs"), ("homes.years", "homes.years"), ("homes.year", "homes.years")]
    {
        let honest = argument_of(&mut client, from);
        assert!(honest.contains("\"starter\""), "{honest}");
        let forged = honest.replace("\"starter\"", "\"other\"");
        // A partition has the triggers of its parent, under their names.
        if table != "homes.year" {
            forge(&mut thief, table, &forged);
        }
        // The first by its name, and of the column that nobody has declared.
        let name = table.replace("homes.", "a_forged_");
        run(
            &mut thief,
            &format!(
                "CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{forged}')"
            ),
        );
        if table == "homes.docs" {
            let free = forged
                .replace("\"target\":\"embedding\"", "\"target\":\"free\"")
                .replace("\"columns\":{", "\"columns\":{\"free\":4,");
            assert!(free.contains("\"free\""), "{free}");
            run(
                &mut thief,
                &format!(
                    "CREATE TRIGGER b_forged AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{free}')"
                ),
            );
        }
    }
    let mut victim = cluster.client_of("victim", "postgres");
    run(&mut victim, "SET enable_seqscan = off");
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        run(&mut victim, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        for table in ["homes.docs", "homes.years", "homes.year"] {
            let same = format!(
                "SELECT embed_text_for('{table}', 'embedding', 'thing 7') = embed_text('thing 7', 'starter')"
            );
            assert!(value::<bool>(&mut victim, &same), "{table}");
            for column in if table == "homes.docs" { &["embedding", "free"][..] } else { &["embedding"] } {
                let nearest = format!(
                    "SELECT id FROM {table} ORDER BY {column} <=> embed_text('thing 7', 'starter') LIMIT 1"
                );
                assert_eq!(value::<i32>(&mut victim, &nearest), 7, "{table}.{column}");
            }
            // What is declared is believed.
            let foreign = format!(
                "SELECT id FROM {table} ORDER BY embedding <=> embed_text('thing 7', 'other') LIMIT 1"
            );
            run(&mut victim, "SAVEPOINT before");
            failure(&mut victim, &foreign);
            run(&mut victim, "ROLLBACK TO before");
        }
        run(&mut victim, "COMMIT");
    }
    assert!(failure(&mut victim, "SELECT embed_text_for('homes.docs', 'free', 'x')").hint().is_some());
}

#[test]
fn a_request_to_cancel_is_no_answer() {
    let (cluster, mut client) = start("hostile-cancel");
    run(&mut client, super::CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 10) AS i;
         CALL imgvec_work();
         INSERT INTO notes_embedding_log (k1, kind, at, sqlstate, message, attempts) SELECT 1, 'failed', now(), '22000', 'none', 1",
    );
    let mut other = cluster.client();
    run(&mut other, "BEGIN;\nLOCK TABLE notes_embedding_log IN ACCESS EXCLUSIVE MODE");
    run(&mut client, "SET statement_timeout = '300ms'");
    for statement in [
        "SELECT count(*) FROM imgvec_failures",
        "SELECT count(*) FROM imgvec_progress",
        "SELECT count(outdated) FROM imgvec_models",
        "CALL imgvec_work()",
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code().code(), "57014", "{statement}: {error:?}");
    }
    run(&mut other, "ROLLBACK");
    run(&mut client, "SET statement_timeout = 0");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_failures"), 1);
    // A function that says that it was cancelled was not: its row fails, and the others do not wait for it.
    run(
        &mut client,
        "CREATE FUNCTION sly(caption text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             IF caption = 'sly' THEN RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END IF; RETURN caption; END $$;
         CREATE TABLE slow (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('slow', 'sly(caption)', 'embedding', 'starter');
         INSERT INTO slow SELECT i, CASE WHEN i = 5 THEN 'sly' ELSE 'thing ' || i END FROM generate_series(1, 10) AS i;
         CALL imgvec_work()",
    );
    assert_eq!(super::progress(&mut client, "slow"), "0 waiting, 1 failed");
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM slow"), 9);
}
