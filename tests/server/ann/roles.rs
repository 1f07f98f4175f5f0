//! What roles may do that own nothing: nobody's code runs with another's rights, and nothing is told of rows that a
//! policy hides.

use postgres::Client;
use postgres::error::SqlState;

use super::{check, quiet, script};
use crate::cluster::Cluster;
use crate::{failure, value};

/// A table of role owner whose index calls a function of the owner, which trusts the search path: it calls `abs` of
/// `pg_catalog` by its bare name. Role thief may read the table, and has an `abs` of its own, which writes down who
/// called it into a table that lets everybody write.
fn cluster_with_a_thief(name: &str) -> (Cluster, Client, Client) {
    let cluster = quiet(name).start();
    let mut admin = cluster.client();
    script(
        &mut admin,
        "CREATE ROLE owner LOGIN; CREATE ROLE thief LOGIN; GRANT CREATE ON SCHEMA public TO owner;
         CREATE SCHEMA theirs AUTHORIZATION thief",
    );
    let mut owner = cluster.client_of("owner", "postgres");
    owner
        .batch_execute(
            "CREATE TABLE secret (who name, callee name);
             CREATE FUNCTION feature(x integer) RETURNS imgvec IMMUTABLE LANGUAGE plpgsql AS $$
             BEGIN RETURN public.array_to_imgvec(ARRAY[abs(x), 1, 2]::real[], -1, false); END $$;
             CREATE TABLE photos (id integer);
             INSERT INTO photos SELECT generate_series(1, 300);
             CREATE INDEX photos_feature ON photos USING ann ((feature(id)::imgvec(3)) imgvec_l2_ops);
             GRANT SELECT ON photos TO thief",
        )
        .unwrap();
    let mut thief = cluster.client_of("thief", "postgres");
    thief
        .batch_execute(
            "GRANT USAGE ON SCHEMA theirs TO PUBLIC;
             CREATE FUNCTION theirs.abs(x integer) RETURNS integer LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.secret VALUES (current_user, 'abs'); RETURN x; END $$;
             SET search_path = theirs, public, pg_catalog",
        )
        .unwrap();
    (cluster, owner, thief)
}

#[track_caller]
fn assert_untouched(owner: &mut Client) {
    assert_eq!(value::<i64>(owner, "SELECT count(*) FROM secret"), 0, "a stranger's code ran as the owner");
}

#[test]
fn code_of_a_stranger_does_not_run_as_the_owner() {
    let (cluster, mut owner, mut thief) = cluster_with_a_thief("ann-thief");
    assert!(value::<f64>(&mut thief, "SELECT ann_index_recall('photos_feature')") >= 0.9);
    assert_untouched(&mut owner);
    // The session's own path is back.
    assert_eq!(value::<String>(&mut thief, "SHOW search_path"), "theirs, public, pg_catalog");
    let error = failure(&mut thief, "SELECT ann_index_check('photos_feature', true)");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
    assert_untouched(&mut owner);

    // Whoever may do maintenance for others does so with a path of their own, too.
    let mut admin = cluster.client();
    admin.batch_execute("SET search_path = theirs, public, pg_catalog").unwrap();
    for statement in [
        "SELECT ann_index_check('public.photos_feature', heapallindexed => true)",
        "SELECT ann_index_recall('public.photos_feature')",
        "REINDEX INDEX public.photos_feature",
        "VACUUM public.photos",
        "CREATE INDEX another ON public.photos USING ann ((public.feature(id)::public.imgvec(3)) public.imgvec_l2_ops)",
    ] {
        admin.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert_untouched(&mut owner);
        assert_eq!(value::<String>(&mut admin, "SHOW search_path"), "theirs, public, pg_catalog");
    }
    check(&mut owner, "photos_feature");
}

#[test]
fn analyze_calls_no_function_of_a_stranger() {
    let (cluster, mut owner, _thief) = cluster_with_a_thief("ann-analyze");
    // A function that says its path itself: before 17 the server evaluates index expressions by the path of whoever analyzes.
    owner
        .batch_execute(
            "CREATE FUNCTION sure(x integer) RETURNS imgvec IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
             BEGIN RETURN public.array_to_imgvec(ARRAY[abs(x), 1, 2]::real[], -1, false); END $$;
             CREATE TABLE albums (id integer, cover imgvec(3));
             INSERT INTO albums SELECT i, ARRAY[i, 1, 2]::imgvec FROM generate_series(1, 300) AS i;
             CREATE INDEX albums_sure ON albums USING ann ((sure(id)::imgvec(3)) imgvec_l2_ops) WHERE sure(id) IS NOT NULL;
             CREATE INDEX albums_cover ON albums USING ann (cover)",
        )
        .unwrap();
    let mut admin = cluster.client();
    let version: i32 = value(&mut admin, "SELECT current_setting('server_version_num')::integer / 10000");
    for (client, path) in
        [(&mut admin, "theirs, public, pg_catalog"), (&mut owner, "theirs, pg_temp, public")]
    {
        client.batch_execute(&format!("SET search_path = {path}")).unwrap();
        let mut statements =
            vec!["ANALYZE public.albums", "VACUUM (ANALYZE) public.albums", "ANALYZE public.albums (cover)"];
        if version >= 17 {
            statements.push("ANALYZE public.photos");
        }
        for statement in statements {
            client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            assert_eq!(
                value::<i64>(client, "SELECT count(*) FROM public.secret"),
                0,
                "{version}: {statement}"
            );
            assert_eq!(value::<String>(client, "SHOW search_path"), path);
        }
        client.batch_execute("RESET search_path").unwrap();
    }
    // It did evaluate them, and the planner goes by what it found.
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM pg_stats WHERE tablename = 'albums_sure'"), 1);
    let nearest = "SET enable_seqscan = off; SELECT id FROM albums WHERE sure(id) IS NOT NULL
        ORDER BY sure(id)::imgvec(3) <-> '[7,1,2]' LIMIT 1";
    owner.batch_execute(nearest).unwrap();
    check(&mut owner, "albums_sure");
    check(&mut owner, "albums_cover");
}

#[test]
fn a_function_in_the_schema_of_temporary_tables_is_not_called() {
    let (_cluster, mut owner, mut thief) = cluster_with_a_thief("ann-temporary-thief");
    thief
        .batch_execute(
            "CREATE TEMP TABLE mine (x integer);
             CREATE FUNCTION pg_temp.abs(x integer) RETURNS integer LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.secret VALUES (current_user, 'pg_temp.abs'); RETURN x; END $$;
             SET search_path = pg_temp, public, pg_catalog",
        )
        .unwrap();
    assert!(value::<f64>(&mut thief, "SELECT ann_index_recall('photos_feature')") >= 0.9);
    assert_untouched(&mut owner);
}

#[test]
fn recall_tells_nothing_of_rows_that_a_policy_hides() {
    let (_cluster, mut owner, mut thief) = cluster_with_a_thief("ann-policies");
    let recall = "SELECT ann_index_recall('photos_feature')";
    owner
        .batch_execute(
            "ALTER TABLE photos ENABLE ROW LEVEL SECURITY; CREATE POLICY odd ON photos TO thief USING (id % 2 = 1)",
        )
        .unwrap();
    for setting in ["on", "off"] {
        thief.batch_execute(&format!("SET row_security = {setting}")).unwrap();
        let error = failure(&mut thief, recall);
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
    }
    // Policies do not bind the owner, unless the owner wants it.
    assert!(value::<f64>(&mut owner, recall) >= 0.9);
    owner.batch_execute("ALTER TABLE photos FORCE ROW LEVEL SECURITY").unwrap();
    assert_eq!(failure(&mut owner, recall).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
}

#[test]
fn who_has_no_rights_holds_no_locks() {
    let (cluster, mut owner, mut thief) = cluster_with_a_thief("ann-no-rights");
    owner.batch_execute("REVOKE ALL ON photos FROM thief").unwrap();
    // Refused at once, though the lock would have to be waited for.
    let mut other = cluster.client();
    other.batch_execute("BEGIN; LOCK TABLE photos IN ACCESS EXCLUSIVE MODE").unwrap();
    thief.batch_execute("SET lock_timeout = '1s'").unwrap();
    for function in ["ann_index_recall", "ann_index_check"] {
        let error = failure(
            &mut thief,
            &format!(
                "SELECT {function}((SELECT oid FROM pg_class WHERE relname = 'photos_feature')::regclass)"
            ),
        );
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
    }
    // A table is no index, and is not locked to find that out.
    let error = failure(&mut thief, "SELECT ann_index_check('photos')");
    assert_eq!(error.code(), &SqlState::WRONG_OBJECT_TYPE, "{error:?}");
    other.batch_execute("ROLLBACK").unwrap();
}
