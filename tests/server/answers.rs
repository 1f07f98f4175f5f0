//! Questions about pictures to a model that has its answers: ViLT at tiny size.

use std::fs;

use postgres::error::SqlState;
use serde_json::Value;

use crate::models::{cluster_with_packages, copy_tree};
use crate::{encoder_data, failure, value};

fn picture(name: &str) -> Vec<u8> {
    fs::read(encoder_data("vilt").join(name)).unwrap()
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(encoder_data("vilt/expected.json")).unwrap()).unwrap()
}

fn literal(name: &str) -> String {
    let hex: String = picture(name).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{hex}'::bytea")
}

#[test]
fn a_model_answers_questions_with_the_references_scores_best_first() {
    let (cluster, models) = cluster_with_packages("answers", &["clip"]);
    copy_tree(&encoder_data("vilt"), &models.join("vilt"));
    cluster.give(&models);
    let mut client = cluster.client();
    client.batch_execute("SELECT imgvec_prepare('vilt')").unwrap();
    let expected = expected();
    let answers: Vec<&str> =
        expected["answers"].as_array().unwrap().iter().map(|answer| answer.as_str().unwrap()).collect();
    for sample in expected["samples"].as_array().unwrap() {
        let (name, question) = (sample["picture"].as_str().unwrap(), sample["question"].as_str().unwrap());
        let rows = client
            .query("SELECT * FROM answer_image($1, $2, 'vilt'::text)", &[&picture(name), &question])
            .unwrap();
        let found: Vec<(String, f32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found.len(), answers.len());
        assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "{found:?}");
        for (answer, score) in found {
            let place = answers.iter().position(|known| *known == answer).unwrap();
            let wanted = sample["scores"][place].as_f64().unwrap();
            assert!(
                (f64::from(score) - wanted).abs() < 1e-4,
                "{name}, {question}: {answer} {score} {wanted}"
            );
        }
    }
    let square = literal("square.png");
    for same in [
        // Without a type, the third argument is the model's name; answers go by as they did.
        format!("SELECT count(*) = 9 FROM answer_image({square}, 'what is this', 'vilt')"),
        format!("SELECT count(*) = 9 FROM answer_image({square}, 'what is this', model => 'vilt')"),
        format!("SELECT count(*) = 2 FROM answer_image({square}, 'what is this', '{{cat,dog}}')"),
        format!("SELECT count(*) = 2 FROM answer_image({square}, 'what is this', '{{cat,dog}}', 'clip')"),
        format!("SELECT count(*) = 0 FROM answer_image({square}, NULL, 'vilt')"),
        format!("SELECT count(*) = 0 FROM answer_image({square}, 'what is this', NULL)"),
        "SELECT count(*) = 0 FROM answer_image(NULL, 'what is this', 'vilt')".to_owned(),
        // Sessions share what is prepared, and the view says what the model does.
        "SELECT family = 'vilt' AND modalities = '{question}' AND dims IS NULL AND state = 'loaded'
             AND detail LIKE '%one of 9 answers%' FROM imgvec_models WHERE name = 'vilt'"
            .to_owned(),
    ] {
        assert!(value::<bool>(&mut client, &same), "{same}");
    }
}

#[test]
fn a_model_with_answers_embeds_nothing_and_says_so() {
    let (cluster, models) = cluster_with_packages("noanswers", &["clip"]);
    copy_tree(&encoder_data("vilt"), &models.join("vilt"));
    copy_tree(&encoder_data("vilt"), &models.join("short"));
    let config = fs::read_to_string(models.join("short/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["id2label"].as_object_mut().unwrap().remove("8");
    fs::write(models.join("short/config.json"), config.to_string()).unwrap();
    copy_tree(&encoder_data("vilt"), &models.join("without"));
    config.as_object_mut().unwrap().remove("id2label");
    fs::write(models.join("without/config.json"), config.to_string()).unwrap();
    cluster.give(&models);
    let mut client = cluster.client();
    let square = literal("square.png");
    for (statement, code, words) in [
        (
            format!("SELECT embed_image({square}, 'vilt')"),
            SqlState::FEATURE_NOT_SUPPORTED,
            "does not embed images",
        ),
        (
            "SELECT embed_text('dog', 'vilt')".to_owned(),
            SqlState::FEATURE_NOT_SUPPORTED,
            "does not embed text",
        ),
        (
            format!("SELECT embed_query({square}, 'dog', 'vilt')"),
            SqlState::FEATURE_NOT_SUPPORTED,
            "does not embed",
        ),
        (
            format!("SELECT answer_image({square}, 'what', ARRAY['a'], 'vilt')"),
            SqlState::FEATURE_NOT_SUPPORTED,
            "does not embed images",
        ),
        (
            format!("SELECT answer_image({square}, 'what', 'clip')"),
            SqlState::FEATURE_NOT_SUPPORTED,
            "has no answers of its own",
        ),
        (
            format!("SELECT answer_image({square}, repeat('what ', 300), 'vilt')"),
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "question is too long",
        ),
        (
            "SELECT answer_image('\\x00', 'what', 'vilt')".to_owned(),
            SqlState::INVALID_BINARY_REPRESENTATION,
            "could not decode",
        ),
        (
            format!("SELECT answer_image({square}, 'what', 'short')"),
            SqlState::CONFIG_FILE_ERROR,
            "malformed model file",
        ),
        (
            format!("SELECT answer_image({square}, 'what', 'without')"),
            SqlState::CONFIG_FILE_ERROR,
            "malformed model file",
        ),
    ] {
        let error = failure(&mut client, &statement);
        assert_eq!(error.code(), &code, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
    }
    let broken = "SELECT count(*) FROM imgvec_models WHERE name IN ('short', 'without') AND state = 'broken'
                  AND detail LIKE '%id2label%'";
    assert_eq!(value::<i64>(&mut client, broken), 2);
    // The session goes on.
    let works = format!("SELECT count(*) FROM answer_image({square}, 'what', 'vilt')");
    assert_eq!(value::<i64>(&mut client, &works), 9);
}
