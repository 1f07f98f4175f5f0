//! Released versions. Today's library serves the SQL of each, and ALTER EXTENSION turns it into what a fresh
//! installation has. If `sql/imgvec.sql` changes and no upgrade script does, the catalogs differ here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::Client;
use postgres::error::SqlState;

use crate::ann::{VECTORS, by_index, check, ids};
use crate::cluster::Cluster;
use crate::{failure, has_pgvector, picture, value};

/// Everything that extension `$1` owns, a line each: what it is, its attributes, its comment.
const CATALOG: &str = "
    WITH member AS (
        SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS name
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND e.extname = $1
    ), attribute AS (
        SELECT objid, concat_ws(' ', prosrc, probin, prokind, provolatile, proisstrict, proparallel, procost, prorows,
            proleakproof, prosecdef, proretset, prosupport::regproc, proconfig, proacl, pg_get_function_arguments(objid),
            pg_get_function_result(objid), pg_get_function_sqlbody(objid)) AS text
        FROM member JOIN pg_proc p ON p.oid = objid WHERE classid = 'pg_proc'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', aggtransfn, aggfinalfn, aggcombinefn, aggtranstype::regtype, agginitval)
        FROM member JOIN pg_aggregate a ON a.aggfnoid = objid WHERE classid = 'pg_proc'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', typlen, typbyval, typcategory, typispreferred, typdelim, typinput, typoutput, typreceive,
            typsend, typmodin, typmodout, typanalyze, typalign, typstorage, typdefault, typacl)
        FROM member JOIN pg_type t ON t.oid = objid WHERE classid = 'pg_type'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', oprcode, oprcom::regoperator, oprnegate::regoperator, oprrest, oprjoin, oprcanmerge,
            oprcanhash)
        FROM member JOIN pg_operator o ON o.oid = objid WHERE classid = 'pg_operator'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', castcontext, castmethod, castfunc::regprocedure)
        FROM member JOIN pg_cast c ON c.oid = objid WHERE classid = 'pg_cast'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', opcdefault, opcintype::regtype, opckeytype::regtype)
        FROM member JOIN pg_opclass c ON c.oid = objid WHERE classid = 'pg_opclass'::regclass
        UNION ALL
        SELECT objid, pg_describe_object('pg_amop'::regclass, o.oid, 0) || ' ' || amopsortfamily
        FROM member JOIN pg_amop o ON o.amopfamily = objid WHERE classid = 'pg_opfamily'::regclass
        UNION ALL
        SELECT objid, pg_describe_object('pg_amproc'::regclass, f.oid, 0)
        FROM member JOIN pg_amproc f ON f.amprocfamily = objid WHERE classid = 'pg_opfamily'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', relkind, relacl, pg_get_viewdef(objid))
        FROM member JOIN pg_class c ON c.oid = objid WHERE classid = 'pg_class'::regclass
        UNION ALL
        SELECT objid, concat_ws(' ', amhandler, amtype)
        FROM member JOIN pg_am a ON a.oid = objid WHERE classid = 'pg_am'::regclass
    )
    SELECT concat_ws(': ', m.name, a.text, obj_description(m.objid, c.relname))
    FROM member m JOIN pg_class c ON c.oid = m.classid LEFT JOIN attribute a USING (objid)";

fn catalog(client: &mut Client, extension: &str) -> BTreeSet<String> {
    // Its parameter is of type name, which the client takes for a text.
    let rows = client.query(CATALOG, &[&extension]).unwrap();
    assert!(rows.len() > 20, "only {} objects", rows.len());
    rows.iter().map(|row| row.get(0)).collect()
}

#[track_caller]
fn assert_same(upgraded: &BTreeSet<String>, fresh: &BTreeSet<String>, what: &str) {
    let missing: Vec<_> = fresh.difference(upgraded).collect();
    let surplus: Vec<_> = upgraded.difference(fresh).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: the upgrade scripts lack a change.\nfresh only: {missing:#?}\nupgraded only: {surplus:#?}"
    );
}

/// Versions of an extension with a frozen install script.
fn released(extension: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/released");
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let versions: Vec<_> = names
        .filter_map(|name| {
            Some(name.strip_prefix(extension)?.strip_prefix("--")?.strip_suffix(".sql")?.to_owned())
        })
        .collect();
    assert!(!versions.is_empty(), "there is no released version");
    versions
}

#[test]
fn every_released_version_works_and_becomes_what_a_fresh_installation_is() {
    const NEAREST: &str = "SELECT id FROM items ORDER BY embedding <-> vec(7, 16) LIMIT 3";
    let cluster = Cluster::new("release").start();
    let fresh = catalog(&mut cluster.client(), "imgvec");
    let current: String =
        value(&mut cluster.client(), "SELECT extversion FROM pg_extension WHERE extname = 'imgvec'");
    assert_eq!(current, env!("CARGO_PKG_VERSION"));
    for version in released("imgvec") {
        let database = format!("from_{}", version.replace('.', "_"));
        cluster.client().batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
        let mut client = cluster.client_of("postgres", &database);
        client.batch_execute(&format!("CREATE EXTENSION imgvec VERSION '{version}'; {VECTORS}")).unwrap();
        client
            .batch_execute(
                "CREATE TABLE photos (data bytea, embedding imgvec(256)
                     GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED);
                 CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec(16));
                 INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1, 1000) AS i;
                 CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)",
            )
            .unwrap();
        client.execute("INSERT INTO photos VALUES ($1)", &[&picture(1)]).unwrap();
        let embedding: String = value(&mut client, "SELECT embedding::text FROM photos");
        let found = ids(&by_index(&mut client, NEAREST));
        assert_eq!(found[0], 7, "{version}");
        // Views and functions for people, by the columns that this version has.
        for (query, expected) in [
            (
                "SELECT concat_ws(' ', metric, dims, format_version) FROM ann_index_info('items_embedding')",
                "l2 16 2",
            ),
            ("SELECT rows::text FROM ann_index_check('items_embedding', true)", "1000"),
            ("SELECT (ann_index_recall('items_embedding') > 0.9)::text", "true"),
            ("SELECT (scans > 0)::text FROM ann_scan_stats", "true"),
            ("SELECT state FROM imgvec_models WHERE name = 'starter'", "loaded"),
            ("SELECT images_embedded::text FROM imgvec_backend_stats", "1"),
        ] {
            assert_eq!(value::<String>(&mut client, query), expected, "{version}: {query}");
        }

        client.batch_execute("ALTER EXTENSION imgvec UPDATE").unwrap();
        assert_same(&catalog(&mut client, "imgvec"), &fresh, &format!("from {version}"));
        assert_eq!(ids(&by_index(&mut client, NEAREST)), found, "{version}");
        assert_eq!(check(&mut client, "items_embedding").rows, 1000, "{version}");
        assert_eq!(value::<String>(&mut client, "SELECT embedding::text FROM photos"), embedding);
        client.execute("INSERT INTO photos VALUES ($1)", &[&picture(2)]).unwrap();
        let path: i64 = value(
            &mut client,
            &format!(
                "SELECT count(path) FROM pg_extension_update_paths('imgvec')
                 WHERE source = '{version}' AND target = '{current}'"
            ),
        );
        assert_eq!(path, 1, "{version}");
    }
}

/// Operators and functions that fit what a script says better than the server's own, if the script leaves the choice.
const PLANTED: &str = "
    CREATE FUNCTION public.take(bigint, double precision) RETURNS double precision LANGUAGE sql AS 'SELECT 1.0::double precision';
    CREATE FUNCTION public.judge(double precision, integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION public.judge(double precision, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION public.judge(bigint, double precision) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION public.judge(bigint, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR public./ (LEFTARG = bigint, RIGHTARG = double precision, FUNCTION = public.take);
    CREATE OPERATOR public.* (LEFTARG = bigint, RIGHTARG = double precision, FUNCTION = public.take);
    CREATE OPERATOR public.> (LEFTARG = double precision, RIGHTARG = integer, FUNCTION = public.judge);
    CREATE OPERATOR public.< (LEFTARG = double precision, RIGHTARG = integer, FUNCTION = public.judge);
    CREATE OPERATOR public.= (LEFTARG = double precision, RIGHTARG = integer, FUNCTION = public.judge);
    CREATE OPERATOR public.< (LEFTARG = double precision, RIGHTARG = numeric, FUNCTION = public.judge);
    CREATE OPERATOR public.> (LEFTARG = double precision, RIGHTARG = numeric, FUNCTION = public.judge);
    CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = public.judge)";

#[test]
fn operators_of_a_stranger_do_not_get_into_the_extensions_views() {
    let cluster = Cluster::new("release-planted").start_empty();
    let scripts = released("imgvec").into_iter().map(Some).chain([None]);
    for (number, version) in scripts.enumerate() {
        let database = format!("planted_{number}");
        cluster.client().batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
        let mut client = cluster.client_of("postgres", &database);
        client.batch_execute(PLANTED).unwrap();
        match version {
            Some(version) => client
                .batch_execute(&format!(
                    "CREATE EXTENSION imgvec VERSION '{version}'; ALTER EXTENSION imgvec UPDATE"
                ))
                .unwrap(),
            None => client.batch_execute("CREATE EXTENSION imgvec").unwrap(),
        }
        // What views and SQL functions of the extension call that neither it nor the server brought along.
        let foreign = client
            .query(
                "SELECT pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0) FROM pg_depend d
                 WHERE d.refclassid IN ('pg_operator'::regclass, 'pg_proc'::regclass) AND d.refobjid >= 16384 AND d.deptype = 'n'
                    AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
                    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')",
                &[],
            )
            .unwrap();
        let foreign: Vec<(String, String)> = foreign.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }
}

/// Members of operator families between imgvec and pgvector's types. They belong to no extension.
const MEMBERS: &str = "
    SELECT string_agg(concat_ws(' ', a.amname, f.opfname, o.amopopr::regoperator), '; '
        ORDER BY a.amname, f.opfname, o.amopopr::regoperator::text COLLATE \"C\")
    FROM pg_amop o JOIN pg_opfamily f ON f.oid = o.amopfamily JOIN pg_am a ON a.oid = o.amopmethod
    WHERE o.amoppurpose = 'o' AND a.amname IN ('ann', 'hnsw', 'ivfflat')";

/// pgvector, and imgvec with its bridge, in given versions (empty: today's), in one schema or in three.
fn create_bridge(client: &mut Client, version: &str, schemas: [&str; 3]) {
    let version = if version.is_empty() { String::new() } else { format!("VERSION '{version}'") };
    let [vector, imgvec, bridge] = schemas;
    client
        .batch_execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS {vector}; CREATE SCHEMA IF NOT EXISTS {imgvec}; CREATE SCHEMA IF NOT EXISTS {bridge};
             CREATE EXTENSION vector SCHEMA {vector}; CREATE EXTENSION imgvec SCHEMA {imgvec} {version};
             CREATE EXTENSION imgvec_pgvector SCHEMA {bridge} {version}; SET search_path = {vector}, {imgvec}, {bridge}, public"
        ))
        .unwrap();
}

#[test]
fn the_bridge_to_pgvector_is_updated_after_imgvec() {
    let cluster = Cluster::new("release-bridge").start_empty();
    if !has_pgvector(&mut cluster.client(), "release-bridge") {
        return;
    }
    let mut number = 0;
    let mut database = || {
        number += 1;
        cluster.client().batch_execute(&format!("CREATE DATABASE bridge_{number}")).unwrap();
        cluster.client_of("postgres", &format!("bridge_{number}"))
    };
    for schemas in [["public"; 3], ["a", "b", "c"]] {
        let mut client = database();
        create_bridge(&mut client, "", schemas);
        let fresh = ["imgvec", "imgvec_pgvector"].map(|extension| catalog(&mut client, extension));
        let members: String = value(&mut client, MEMBERS);
        for version in released("imgvec_pgvector") {
            let what = format!("from {version}, {schemas:?}");
            let mut client = database();
            create_bridge(&mut client, &version, schemas);
            client
                    .batch_execute(
                        "CREATE TABLE items (id integer PRIMARY KEY, own imgvec(3), single vector(3));
                         INSERT INTO items SELECT i, ARRAY[i, 1, 2]::imgvec, ARRAY[i, 1, 2]::imgvec FROM generate_series(1, 500) AS i;
                         CREATE INDEX items_own ON items USING ann (own imgvec_l2_ops);
                         CREATE INDEX items_single ON items USING ann (single vector_l2_ops);
                         CREATE VIEW widths AS SELECT vector_dims(own) FROM items",
                    )
                    .unwrap();
            let early = failure(&mut client, "ALTER EXTENSION imgvec_pgvector UPDATE");
            assert_eq!(early.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{what}: {early:?}");
            assert_eq!(early.hint(), Some("Run ALTER EXTENSION imgvec UPDATE first."), "{what}");
            for extension in ["imgvec", "imgvec_pgvector"] {
                client
                    .batch_execute(&format!("ALTER EXTENSION {extension} UPDATE"))
                    .unwrap_or_else(|error| panic!("{what}: {extension}: {error:?}"));
                assert_eq!(value::<i64>(&mut client, "SELECT sum(vector_dims) FROM widths"), 1500, "{what}");
            }
            for (extension, fresh) in ["imgvec", "imgvec_pgvector"].iter().zip(&fresh) {
                assert_same(&catalog(&mut client, extension), fresh, &format!("{what}: {extension}"));
            }
            assert_eq!(value::<String>(&mut client, MEMBERS), members, "{what}");
            for (index, query) in [
                ("items_own", "SELECT id FROM items ORDER BY own <-> '[42,1,2]'::vector LIMIT 2"),
                ("items_single", "SELECT id FROM items ORDER BY single <-> '[42,1,2]'::imgvec LIMIT 2"),
            ] {
                assert_eq!(ids(&by_index(&mut client, query))[0], 42, "{what}");
                assert_eq!(check(&mut client, index).rows, 500, "{what}");
            }
        }
    }
}

#[test]
fn control_files_name_a_library_without_a_version() {
    for extension in ["imgvec", "imgvec_pgvector"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{extension}.control"));
        let control = fs::read_to_string(path).unwrap();
        assert!(control.lines().any(|line| line == "module_pathname = '$libdir/imgvec'"), "{control}");
        assert!(control.lines().any(|line| line == "relocatable = true"), "{control}");
    }
}
