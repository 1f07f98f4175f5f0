//! Declarations that cannot be: each gives an error with its SQLSTATE, a detail and a hint.

use super::{CAPTIONS, run, start};
use crate::failure;

#[test]
fn what_cannot_be_declared_says_why() {
    let (_cluster, mut client) = start("pipeline-declare");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "CREATE TABLE nokey (id int, caption text, embedding imgvec(256));
         CREATE TABLE photos (id int PRIMARY KEY, data bytea, caption text, small imgvec(3), embedding imgvec(256),
             made imgvec(256) GENERATED ALWAYS AS (embed_text(caption, 'starter')) STORED);
         CREATE UNIQUE INDEX ON nokey (id) WHERE id > 3;
         CREATE VIEW looks AS SELECT * FROM photos;
         CREATE TEMP TABLE passing (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE INDEX photos_caption ON photos (caption);
         CREATE TABLE parent (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         CREATE TABLE ruled (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE RULE copied AS ON UPDATE TO ruled DO ALSO INSERT INTO nokey (id) VALUES (new.id)",
    );
    run(&mut client, "SELECT imgvec_maintain('child', 'caption', 'embedding', 'starter')");
    let cases = [
        ("'nokey', 'caption', 'embedding', 'starter'", "42P17"),
        ("'looks', 'caption', 'embedding', 'starter'", "42809"),
        ("'photos_caption', 'caption', 'embedding', 'starter'", "42809"),
        ("'passing', 'caption', 'embedding', 'starter'", "0A000"),
        ("'parent', 'caption', 'embedding', 'starter'", "0A000"),
        ("'ruled', 'caption', 'embedding', 'starter'", "0A000"),
        ("NULL, 'caption', 'embedding', 'starter'", "22004"),
        ("'photos', NULL, 'embedding', 'starter'", "22004"),
        ("'photos', 'caption', NULL, 'starter'", "22004"),
        ("'photos', 'caption', 'nothing', 'starter'", "42703"),
        ("'photos', 'caption', 'embedding', 'no-such-model'", "42704"),
        ("'photos', 'caption', 'caption', 'starter'", "42804"),
        ("'photos', 'caption', 'small', 'starter'", "22000"),
        ("'photos', 'caption', 'made', 'starter'", "42P17"),
        ("'photos', 'id', 'embedding', 'starter'", "42804"),
        ("'photos', 'embedding', 'embedding', 'starter'", "42804"),
        ("'photos', 'photos::text', 'embedding', 'starter'", "42703"),
        ("'photos', 'p::text', 'embedding', 'starter'", "42P17"),
        ("'photos', 'embedding::text', 'embedding', 'starter'", "42P17"),
        ("'photos', 'ctid::text', 'embedding', 'starter'", "42601"),
        ("'photos', '(SELECT max(caption) FROM photos)', 'embedding', 'starter'", "42601"),
        ("'photos', 'max(caption)', 'embedding', 'starter'", "42601"),
        ("'photos', 'caption, data', 'embedding', 'starter'", "42601"),
        ("'photos', 'caption) FROM pg_authid --', 'embedding', 'starter'", "42601"),
        ("'photos', 'caption FROM pg_authid', 'embedding', 'starter'", "42601"),
        ("'photos', 'caption; DROP TABLE photos', 'embedding', 'starter'", "42601"),
        ("'photos', '', 'embedding', 'starter'", "42601"),
        ("'photos', 'caption', 'embedding', 'starter', backfill => 'some'", "22023"),
        ("'photos', stop => true", "42704"),
        ("'notes', target => 'other', stop => true", "42704"),
        ("'notes', 'other', 'embedding', 'starter'", "42710"),
        ("0, 'caption', 'embedding', 'starter'", "42P01"),
    ];
    for (arguments, code) in cases {
        let error = failure(&mut client, &format!("SELECT imgvec_maintain({arguments})"));
        assert_eq!(error.code().code(), code, "{arguments}: {error:?}");
        // Words of the server's own have neither.
        let is_ours = !["42601", "42703"].contains(&code);
        assert!(!is_ours || (error.detail().is_some() && error.hint().is_some()), "{arguments}: {error:?}");
    }
    for (statement, code) in [
        ("SELECT imgvec_enqueue()", "39P01"),
        ("SELECT imgvec_retry('photos')", "42704"),
        ("CALL imgvec_work('photos')", "42704"),
        ("CALL imgvec_work('looks')", "42809"),
        ("BEGIN; CALL imgvec_work('notes')", "2D000"),
        ("ROLLBACK; DO $$ BEGIN CALL imgvec_work('nokey'); END $$", "2D000"),
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code().code(), code, "{statement}: {error:?}");
    }
    // A trigger of one's own with the function.
    run(&mut client, "CREATE TRIGGER mine AFTER INSERT ON photos EXECUTE FUNCTION imgvec_enqueue()");
    assert_eq!(failure(&mut client, "INSERT INTO photos VALUES (1)").code().code(), "55000");
}
