//! Models that take pictures and words in one input: EmbeddingGemma 2 at tiny size.

use std::fs;

use postgres::Client;
use postgres::error::SqlState;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::models::{cluster_with_packages, copy_tree};
use crate::{encoder_data, failure, value};

fn cluster(name: &str) -> Cluster {
    let (cluster, models) = cluster_with_packages(name, &["clip"]);
    copy_tree(&encoder_data("embedding_gemma2"), &models.join("joint"));
    cluster.give(&models);
    cluster
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(encoder_data("embedding_gemma2").join(name)).unwrap()
}

fn samples() -> Vec<Value> {
    let file = std::fs::read(encoder_data("embedding_gemma2/expected.json")).unwrap();
    serde_json::from_slice::<Value>(&file).unwrap()["samples"].as_array().unwrap().clone()
}

#[test]
fn parts_in_any_order_give_the_references_embeddings() {
    let cluster = cluster("joint");
    let mut client = cluster.client();
    for sample in samples() {
        let parts: Vec<&str> =
            sample["parts"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        let name =
            |part: &str| part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
        let images: Vec<Option<Vec<u8>>> =
            parts.iter().map(|part| name(part).map(|name| picture(&name))).collect();
        let texts: Vec<Option<&str>> =
            parts.iter().map(|part| name(part).is_none().then_some(*part)).collect();
        let row =
            client.query_one("SELECT embed_parts($1, $2, 'joint')::real[]", &[&images, &texts]).unwrap();
        let found: Vec<f32> = row.get(0);
        let wanted: Vec<f64> =
            sample["embedding"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((f64::from(*found) - wanted).abs() < 1e-4, "{parts:?}: {found} for {wanted}");
        }
    }
}

/// Ten rows of pictures and captions, embedded together by a generated column.
fn shop(client: &mut Client) {
    client
        .batch_execute(
            "SET imgvec.default_model = 'joint';
             CREATE TABLE goods (id int, photo bytea, title text,
                 embedding imgvec GENERATED ALWAYS AS
                     (embed_parts(ARRAY[photo, NULL], ARRAY[NULL, title], 'joint')) STORED)",
        )
        .unwrap();
    let names = ["wide.png", "tall.png", "line.png", "square.png", "large.png"];
    let titles = ["a red ball", "two old cats", "grass and water", "small new car", "a bird in the sky"];
    for (id, (name, title)) in names.iter().zip(titles).enumerate() {
        client
            .execute(
                "INSERT INTO goods VALUES ($1, $2, $3)",
                &[&i32::try_from(id).unwrap(), &picture(name), &title],
            )
            .unwrap();
    }
}

#[test]
fn a_generated_column_of_picture_and_caption_is_searched_by_text_by_picture_and_by_both() {
    let cluster = cluster("shop");
    let mut client = cluster.client();
    shop(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM goods WHERE imgvec_dims(embedding) = 24"), 5);
    // Each row is nearest to a query of the same picture and words; a query is prefixed, rows are not.
    let both = "SELECT count(*) FROM goods q WHERE q.id = (SELECT g.id FROM goods g
                ORDER BY g.embedding <=> embed_parts(ARRAY[q.photo], ARRAY[q.title]) LIMIT 1)";
    assert_eq!(value::<i64>(&mut client, both), 5);
    for query in ["NULL, 'a red ball'", "photo, NULL", "photo, title"] {
        let ranked = format!(
            "SELECT count(*) FROM goods q, LATERAL (SELECT id FROM goods g
            ORDER BY g.embedding <=> embed_query({})) s",
            query.replace("photo", "q.photo").replace("title", "q.title")
        );
        assert_eq!(value::<i64>(&mut client, &ranked), 25, "{query}");
    }
    let same = [
        "embed_query(NULL, 'dog') = embed_text('task: search result | query: dog')",
        "(SELECT bool_and(embed_query(photo, NULL) = embed_image(photo)) FROM goods)",
        "(SELECT bool_and(embed_query(photo, 'dog') = embed_parts(ARRAY[photo, NULL],
            ARRAY[NULL, 'task: search result | query: dog'])) FROM goods)",
        "embed_query(NULL, NULL) IS NULL AND embed_query(NULL, 'dog', NULL) IS NULL",
        "embed_parts(NULL, ARRAY['a']) IS NULL AND embed_parts('{}', '{}') IS NULL",
        "embed_parts('{NULL,NULL}', '{NULL,NULL}') IS NULL",
        "embed_parts('{NULL,NULL,NULL}', '{NULL,dog,NULL}') = embed_text('dog')",
        "(SELECT embed_images(array_agg(photo ORDER BY id)) = array_agg(embed_image(photo) ORDER BY id) FROM goods)",
    ];
    for same in same {
        assert!(value::<bool>(&mut client, &format!("SELECT {same}")), "{same}");
    }
    // With a weight each part is embedded by itself.
    let weighted = "SELECT bool_and((embed_query(photo, 'dog', 0.3) <=> embed_mix(
        ARRAY[embed_image(photo), embed_text('task: search result | query: dog')], '{0.7,0.3}')) < 1e-6
        AND embed_query(photo, 'dog', 0.5) <> embed_query(photo, 'dog')) FROM goods";
    assert!(value::<bool>(&mut client, weighted));
    // Other models answer queries of one part.
    let other = "SELECT embed_query(NULL, 'a dog', 'clip') = embed_text('a dog', 'clip')
                 AND bool_and(embed_query(photo, NULL, 'clip') = embed_image(photo, 'clip')) FROM goods";
    assert!(value::<bool>(&mut client, other));
}

#[test]
fn prompts_are_asked_for_by_name() {
    let (cluster, models) = cluster_with_packages("prompts", &["clip"]);
    copy_tree(&encoder_data("embedding_gemma2"), &models.join("joint"));
    copy_tree(&models.join("clip"), &models.join("named"));
    copy_tree(&models.join("clip"), &models.join("both"));
    let named = "[prompts]\nquery = \"find \"\ndocument = \"\"\n";
    fs::write(models.join("named/imgvec.toml"), named).unwrap();
    fs::write(models.join("both/imgvec.toml"), format!("[text]\nprompt = \"see \"\n{named}")).unwrap();
    cluster.give(&models);
    let mut client = cluster.client();
    for same in [
        "embed_text('dog', 'joint', prompt => 'query') = embed_query(NULL, 'dog', 'joint')",
        "embed_text('a dog', 'named', prompt => 'query') = embed_text('find a dog', 'clip')",
        "embed_text('a dog', 'named', prompt => 'document') = embed_text('a dog', 'named')",
        // A default is not put before a prompt that was asked for.
        "embed_text('a dog', 'both') = embed_text('see a dog', 'clip')",
        "embed_text('a dog', 'both', prompt => 'query') = embed_text('find a dog', 'clip')",
        "embed_text('a dog', 'both', 'document') = embed_text('a dog', 'clip')",
        "embed_texts('{a dog,NULL,a cat}', 'both', prompt => 'query')
            = ARRAY[embed_text('a dog', 'both', 'query'), NULL, embed_text('a cat', 'both', 'query')]",
        "embed_text('a dog', 'both', 'query', 4) = embed_text('find a dog', 'clip', dims => 4)",
        "imgvec_dims(embed_text('a dog', 'both', prompt => 'query', dims => 4)) = 4",
        "(SELECT detail LIKE '%\"document\", \"query\"%' FROM imgvec_models WHERE name = 'named')",
        "(SELECT bool_and(detail IS NULL) FROM imgvec_models WHERE name IN ('both', 'clip'))",
    ] {
        assert!(value::<bool>(&mut client, &format!("SELECT {same}")), "{same}");
    }
    let error = failure(&mut client, "SELECT embed_text('dog', 'named', prompt => 'qeury')");
    assert_eq!(error.code(), &SqlState::UNDEFINED_OBJECT, "{error:?}");
    assert_eq!(error.detail(), Some("It has \"document\", \"query\"."));
    // A package that names no text.
    fs::write(models.join("named/imgvec.toml"), "[prompts]\nquery = 7\n").unwrap();
    let error = failure(&mut client, "SELECT embed_text('dog', 'named', prompt => 'query')");
    assert_eq!(error.code(), &SqlState::CONFIG_FILE_ERROR, "{error:?}");
}

#[test]
fn inputs_that_are_none_say_why() {
    let cluster = cluster("none");
    let mut client = cluster.client();
    client.batch_execute("SET imgvec.default_model = 'joint'").unwrap();
    let hex: String = picture("square.png").iter().map(|byte| format!("{byte:02x}")).collect();
    let square = format!("'\\x{hex}'::bytea");
    for (statement, code, words) in [
        ("embed_parts('{}', '{a}')".to_owned(), SqlState::INVALID_PARAMETER_VALUE, "same length"),
        (
            "embed_parts('{ab}', '{a}')".to_owned(),
            SqlState::INVALID_BINARY_REPRESENTATION,
            "could not decode",
        ),
        (format!("embed_query({square}, 'a', 1.5)"), SqlState::INVALID_PARAMETER_VALUE, "weight"),
        (
            format!("embed_parts(ARRAY[{square}], '{{a}}', 'clip')"),
            SqlState::FEATURE_NOT_SUPPORTED,
            "together",
        ),
        (
            format!("embed_parts(array_fill({square}, ARRAY[30]), array_fill(NULL::text, ARRAY[30]))"),
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "too many images",
        ),
        (
            "embed_parts(array_fill(NULL::bytea, ARRAY[2000]), array_fill('a'::text, ARRAY[2000]))"
                .to_owned(),
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "too many parts",
        ),
    ] {
        let error = failure(&mut client, &format!("SELECT {statement}"));
        assert_eq!(error.code(), &code, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
    }
    // Special tokens that a user spells are text.
    let texts = "SELECT embed_text('<|image|>') <> embed_text('<|image>') AND embed_text('<eos> dog') <> embed_text(' dog')";
    assert!(value::<bool>(&mut client, texts));
}
