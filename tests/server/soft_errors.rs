//! Input that fails without ending the statement: PostgreSQL 16 asks a type whether a text is one of its values, and
//! COPY of 17 passes over rows that are not.

use std::io::Write as _;

use crate::cluster::Cluster;
use crate::{skip, value};

const BAD: [(&str, &str, &str); 8] = [
    ("", "imgvec", "22P02"),
    ("[1,é]", "imgvec", "22P02"),
    ("[1,2]x", "imgvec", "22P02"),
    ("[]", "imgvec", "22000"),
    ("[nan]", "imgvec", "22003"),
    ("[1e99]", "imgvec", "22003"),
    ("[0x1p200]", "imgvec", "22003"),
    ("[1,2,3]", "imgvec(2)", "22000"),
];

#[test]
fn a_text_that_is_no_vector_does_not_end_the_statement() {
    let cluster = Cluster::new("soft-errors").start();
    let mut client = cluster.client();
    let version: i32 = value(&mut client, "SELECT current_setting('server_version_num')::integer");
    if version < 160_000 {
        return skip("soft-errors", "PostgreSQL before 16 has no soft errors", "IMGVEC_REQUIRE_SOFT_ERRORS");
    }
    for (text, type_name, code) in BAD {
        let row = client
            .query_one(
                "SELECT pg_input_is_valid($1, $2), message, detail, hint, sql_error_code FROM pg_input_error_info($1, $2)",
                &[&text, &type_name],
            )
            .unwrap();
        assert!(!row.get::<_, bool>(0), "{text}");
        assert_eq!(row.get::<_, String>(4), code, "{text}: {row:?}");
        assert!((1..=3).all(|column| row.get::<_, Option<String>>(column).is_some()), "{text}: {row:?}");
    }
    let told: String = value(&mut client, "SELECT message FROM pg_input_error_info('[1,é]', 'imgvec')");
    assert!(told.contains("\"[1,é]\""), "{told}");
    for (text, type_name) in [("[1,2]", "imgvec"), ("[1,2]", "imgvec(2)"), ("[0x10]", "imgvec")] {
        let valid: bool = value(&mut client, &format!("SELECT pg_input_is_valid('{text}', '{type_name}')"));
        assert!(valid, "{text} {type_name}");
    }
    if version >= 170_000 {
        client.batch_execute("CREATE TABLE items (id integer, e imgvec(2))").unwrap();
        let mut copy = client.copy_in("COPY items FROM STDIN WITH (ON_ERROR ignore)").unwrap();
        copy.write_all(b"1\t[1,2]\n2\t[1,2,3]\n3\tx\n4\t[3,4]\n").unwrap();
        copy.finish().unwrap();
        assert_eq!(
            value::<String>(&mut client, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM items"),
            "1 4"
        );
    }
}
