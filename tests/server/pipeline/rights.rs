//! Whose rights count: those who write to the table need none on the queue, the owner's code runs as the owner, and
//! nobody fills another's tables by way of a trigger.

use postgres::Client;

use super::{assert_complete, progress, run, start};
use crate::{failure, value};

const TEXT: &str = "embed_text(caption, 'starter')";

#[test]
fn a_plain_owner_needs_no_superuser_and_writers_need_no_rights() {
    let (cluster, mut client) = start("pipeline-plain");
    run(
        &mut client,
        "CREATE ROLE owner LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE stranger LOGIN; CREATE SCHEMA album AUTHORIZATION owner;
         GRANT USAGE ON SCHEMA album TO writer, stranger",
    );
    let mut owner = cluster.client_of("owner", "postgres");
    run(
        &mut owner,
        "SET search_path = '';
         CREATE TABLE album.notes (id int PRIMARY KEY, caption text, writer name DEFAULT current_user, embedding public.imgvec(256));
         ALTER TABLE album.notes ENABLE ROW LEVEL SECURITY; ALTER TABLE album.notes FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON album.notes USING (writer = current_user);
         GRANT SELECT, INSERT, UPDATE ON album.notes TO writer;
         SELECT public.imgvec_maintain('album.notes', 'caption', 'embedding', 'starter')",
    );
    let mut writer = cluster.client_of("writer", "postgres");
    run(
        &mut writer,
        "INSERT INTO album.notes (id, caption) SELECT i, 'thing ' || i FROM generate_series(1, 30) AS i",
    );
    assert_eq!(failure(&mut writer, "TABLE album.notes_embedding_queue").code().code(), "42501");
    // The owner sees none of these rows; they are embedded all the same.
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM album.notes"), 0);
    run(&mut owner, "CALL public.imgvec_work('album.notes')");
    assert_complete(&mut client, "album.notes", TEXT);
    assert_eq!(value::<i64>(&mut owner, "SELECT embedded FROM public.imgvec_progress"), 30);
    // Others learn nothing of rows that a policy hides, nor of tables that they may not read.
    for role in ["writer", "stranger"] {
        let mut other = cluster.client_of(role, "postgres");
        assert_eq!(value::<i64>(&mut other, "SELECT count(*) FROM imgvec_progress"), 0, "{role}");
        for statement in [
            "CALL imgvec_work('album.notes')",
            "SELECT imgvec_retry('album.notes')",
            "SELECT imgvec_maintain('album.notes', stop => true)",
            "SELECT imgvec_maintain('album.notes', 'caption', 'embedding', 'starter')",
        ] {
            let error = failure(&mut other, statement);
            assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("\"owner\"")), "{error:?}");
        }
        run(&mut other, "CALL imgvec_work()");
    }
}

#[test]
fn the_owners_code_does_not_run_as_a_superuser() {
    let (cluster, mut client) = start("pipeline-superuser");
    run(
        &mut client,
        "CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner; CREATE TABLE secret (id int)",
    );
    let mut owner = cluster.client_of("owner", "postgres");
    run(
        &mut owner,
        "CREATE TABLE calls (who name, path text);
         CREATE FUNCTION spy(caption text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.calls VALUES (current_user, current_setting('search_path')); RETURN caption; END $$;
         CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.calls VALUES (current_user, current_setting('search_path')); RETURN NEW; END $$;
         CREATE TABLE notes (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE TRIGGER guard BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION guard();
         SELECT imgvec_maintain('notes', 'spy(caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 10) AS i",
    );
    run(
        &mut client,
        "CREATE SCHEMA evil; SET search_path = evil, public;
                      CALL imgvec_work('public.notes')",
    );
    let calls = "SELECT string_agg(DISTINCT format('%s by %s', who, path), '; ') FROM public.calls";
    assert_eq!(value::<String>(&mut client, calls), "owner by pg_catalog, pg_temp");
    assert_eq!(value::<String>(&mut client, "SHOW search_path"), "evil, public");
    assert_complete(&mut client, "public.notes", "public.embed_text(caption, 'starter')");
    // A superuser who declares for others looks at their expression with their rights as well.
    run(&mut client, "SELECT public.imgvec_maintain('public.notes', target => 'embedding', stop => true);
                      SELECT public.imgvec_maintain('public.notes', 'public.spy(caption)', 'embedding', 'starter', backfill => 'all')");
    let owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relname ~ '^notes_embedding_(queue|log)$'";
    assert_eq!(value::<String>(&mut client, owners), "owner");
    run(&mut owner, "CALL imgvec_work('notes')");
    assert_eq!(progress(&mut owner, "notes"), "0 waiting, 0 failed");
}

#[test]
fn no_trigger_fills_the_table_of_somebody_else() {
    let (cluster, mut client) = start("pipeline-forged");
    run(
        &mut client,
        "CREATE ROLE thief LOGIN; GRANT CREATE ON SCHEMA public TO thief; CREATE TABLE secret (k1 int NOT NULL, queued_at timestamptz NOT NULL)",
    );
    let mut thief = cluster.client_of("thief", "postgres");
    run(
        &mut thief,
        "CREATE TABLE mine (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('mine', 'caption', 'embedding', 'starter')",
    );
    let argument: String = value(
        &mut thief,
        "SELECT convert_from(substring(tgargs FOR length(tgargs) - 1), 'UTF8') FROM pg_trigger WHERE tgname = 'imgvec_embedding_insert'",
    );
    run(
        &mut thief,
        "DROP TRIGGER imgvec_embedding_insert ON mine; DROP TRIGGER imgvec_embedding_update ON mine",
    );
    // By its name, by its oid, or both; in a declaration of this table, or of another one, whose oids do not count.
    let oid = |client: &mut Client, table: &str| -> String {
        value(client, &format!("SELECT '{table}'::regclass::oid::text"))
    };
    let (queue, secret, table) =
        (oid(&mut client, "mine_embedding_queue"), oid(&mut client, "secret"), oid(&mut client, "mine"));
    let tables = format!("\"tables\":[{queue},");
    assert!(argument.contains(&tables), "{argument}");
    let by_oid = argument.replace(&tables, &format!("\"tables\":[{secret},"));
    let by_name = argument.replace("mine_embedding_queue", "secret");
    let relation = format!("\"relation\":{table},");
    for forged in [
        by_oid.clone(),
        by_oid.replace("mine_embedding_queue", "secret"),
        by_name.replace(&relation, "\"relation\":1,"),
        by_name.replace(&tables, "\"tables\":[0,"),
    ] {
        run(
            &mut thief,
            &format!(
                "CREATE OR REPLACE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{forged}')"
            ),
        );
        let error = failure(&mut thief, "INSERT INTO mine VALUES (1, 'x')");
        assert_eq!(error.code().code(), "55000", "{forged}: {error:?}");
    }
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM secret"), 0);
    // Not even into a table of one's own that is no queue.
    run(
        &mut thief,
        "CREATE TABLE other (k1 int PRIMARY KEY, queued_at timestamptz); DROP TRIGGER forged ON mine",
    );
    let other = oid(&mut client, "other");
    let forged = argument.replace(&tables, &format!("\"tables\":[{other},"));
    run(
        &mut thief,
        &format!(
            "CREATE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION imgvec_enqueue('{forged}')"
        ),
    );
    assert_eq!(failure(&mut thief, "INSERT INTO mine VALUES (1, 'x')").code().code(), "55000");
}
