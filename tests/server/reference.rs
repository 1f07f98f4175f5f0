//! `docs/reference.md` is what the catalog says. A table of that page begins with a comment that tells what it holds:
//!
//! - `<!-- functions embed_image embed_* -->`: functions, aggregates, window functions and procedures of these names
//! - `<!-- operators -->`, `<!-- casts -->`, `<!-- classes -->`, `<!-- settings -->`, `<!-- views -->`
//!
//! The rest of the page is written by hand. `IMGVEC_WRITE_REFERENCE=1 make test T=the_reference` writes the tables again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::Client;

use crate::cluster::Cluster;

/// Objects of one class that belong to the extension.
fn members(catalog: &str) -> String {
    format!(
        "(SELECT objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
          WHERE d.classid = '{catalog}'::regclass AND d.deptype = 'e'
            AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'imgvec')"
    )
}

fn lines(client: &mut Client, statement: &str) -> Vec<String> {
    client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Name and line of each function that somebody calls by its name. Those that types, operators, classes, aggregates, views and
/// triggers are made of have other ways in.
fn functions(client: &mut Client) -> Vec<(String, String)> {
    let statement = format!(
        "SELECT p.proname::text, format('| `%s(%s)` | %s | %s |', proname, pg_get_function_arguments(p.oid),
            CASE WHEN prokind = 'p' THEN 'procedure' ELSE '`' || pg_get_function_result(p.oid) || '`' END
                || CASE prokind WHEN 'a' THEN ', aggregate' WHEN 'w' THEN ', window' ELSE '' END,
            obj_description(p.oid, 'pg_proc'))
         FROM pg_proc p
         WHERE p.oid IN {member}
            AND NOT 'internal'::regtype = ANY (proargtypes) AND NOT 'cstring'::regtype = ANY (proargtypes)
            AND NOT '_cstring'::regtype = ANY (proargtypes)
            AND prorettype NOT IN ('cstring'::regtype, 'trigger'::regtype)
            AND NOT EXISTS (SELECT FROM pg_type t WHERE p.oid IN (typsend, typreceive, typinput, typoutput))
            AND NOT EXISTS (SELECT FROM pg_aggregate a WHERE p.oid IN (aggtransfn, aggcombinefn, aggfinalfn))
            AND NOT EXISTS (SELECT FROM pg_cast c WHERE c.castfunc = p.oid)
            AND NOT EXISTS (SELECT FROM pg_amproc a WHERE a.amproc = p.oid)
            AND obj_description(p.oid, 'pg_proc') NOT LIKE 'implementation of %'
            AND obj_description(p.oid, 'pg_proc') NOT LIKE '%see the view%'
         ORDER BY proname, pronargs, pg_get_function_arguments(p.oid)",
        member = members("pg_proc")
    );
    client.query(&statement, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn table(client: &mut Client, kind: &str) -> Vec<String> {
    let statement = match kind {
        "operators" => format!(
            "SELECT format('| `%s %s %s` | `%s` | %s |', oprleft::regtype, replace(oprname, '|', '\\|'), oprright::regtype,
                oprresult::regtype, obj_description(oid, 'pg_operator'))
             FROM pg_operator WHERE oid IN {} ORDER BY oprname COLLATE \"C\", oprleft::regtype::text, oprright::regtype::text",
            members("pg_operator")
        ),
        "casts" => format!(
            "SELECT format('| `%s` | `%s` | %s |', castsource::regtype, casttarget::regtype,
                CASE castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'on assignment' ELSE 'explicit' END)
             FROM pg_cast WHERE oid IN {} AND castsource <> casttarget ORDER BY castsource::regtype::text, casttarget::regtype::text",
            members("pg_cast")
        ),
        "classes" => format!(
            "SELECT format('| `%s` | `%s` | %s | %s |', opcname, CASE opcintype WHEN 'anyarray'::regtype THEN 'arrays'
                WHEN 'anyenum'::regtype THEN 'enum types' ELSE opcintype::regtype::text END,
                CASE WHEN opcdefault THEN 'yes' ELSE '' END, obj_description(c.oid, 'pg_opclass'))
             FROM pg_opclass c JOIN pg_am m ON m.oid = opcmethod WHERE amname = 'ann' AND c.oid IN {}
             ORDER BY opcname NOT LIKE 'imgvec%', opcname",
            members("pg_opclass")
        ),
        "settings" => "SELECT format('| `%s` | %s | %s | %s %s |', name,
                CASE WHEN boot_val = '' THEN 'empty' WHEN unit IS NULL THEN '`' || boot_val || '`'
                    ELSE pg_size_pretty(boot_val::bigint * CASE unit WHEN 'MB' THEN 1048576 ELSE 1 END) END,
                CASE context WHEN 'user' THEN 'anyone' WHEN 'superuser' THEN 'superuser' ELSE 'configuration file' END,
                regexp_replace(short_desc, '^Sets ', ''), extra_desc)
             FROM pg_settings WHERE name LIKE 'imgvec.%' ORDER BY name"
            .to_owned(),
        "views" => format!(
            "SELECT format('| `%s` | %s | %s |', relname, obj_description(c.oid, 'pg_class'),
                (SELECT string_agg('`' || attname || '`', ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0))
             FROM pg_class c WHERE relkind = 'v' AND c.oid IN {} ORDER BY relname",
            members("pg_class")
        ),
        other => panic!("the page asks for {other:?}, which is no kind of table"),
    };
    lines(client, &statement)
}

/// `embed_*` fits all that begin so.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[test]
fn the_reference_is_what_the_catalog_says() {
    let cluster = Cluster::new("reference").start_empty();
    let mut client = cluster.client();
    client.batch_execute("CREATE EXTENSION imgvec; LOAD 'imgvec'").unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let page = fs::read_to_string(&path).unwrap();
    let functions = functions(&mut client);
    assert!(functions.len() > 30, "only {} functions", functions.len());

    let (mut expected, mut told) = (String::new(), BTreeSet::new());
    let mut rest = page.lines().peekable();
    while let Some(line) = rest.next() {
        expected += line;
        expected.push('\n');
        let Some(what) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) else {
            continue;
        };
        // The head of a table is written by hand, its rows are not.
        for _ in 0..3 {
            expected += rest.next().expect("an empty line and the head of a table");
            expected.push('\n');
        }
        while rest.next_if(|line| line.starts_with('|')).is_some() {}
        let rows = if let Some(patterns) = what.strip_prefix("functions ") {
            let mut rows = Vec::new();
            for pattern in patterns.split(' ') {
                let found: Vec<_> = functions.iter().filter(|(name, _)| fits(pattern, name)).collect();
                assert!(!found.is_empty(), "no function is called {pattern}");
                for (_, row) in found {
                    assert!(told.insert(row), "twice on the page: {row}");
                    rows.push(row.clone());
                }
            }
            rows
        } else {
            table(&mut client, what)
        };
        for row in rows {
            expected += &row;
            expected.push('\n');
        }
    }
    for kind in ["operators", "casts", "classes", "settings", "views"] {
        assert!(page.contains(&format!("<!-- {kind} -->")), "the page has no table of {kind}");
    }
    for (name, row) in &functions {
        assert!(told.contains(row), "the page has no table for {name}: {row}");
    }
    if page != expected {
        if std::env::var_os("IMGVEC_WRITE_REFERENCE").is_some() {
            fs::write(&path, &expected).unwrap();
            return;
        }
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (page.lines().collect(), expected.lines().collect());
        let differ: Vec<_> = new
            .difference(&old)
            .map(|l| format!("+ {l}"))
            .chain(old.difference(&new).map(|l| format!("- {l}")))
            .collect();
        panic!(
            "docs/reference.md is not what the catalog says; IMGVEC_WRITE_REFERENCE=1 corrects it:\n{}",
            differ.join("\n")
        );
    }
}
