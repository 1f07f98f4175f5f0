//! Models that answer questions about pictures: question and picture in, a score for each of their answers out.

use std::path::PathBuf;

use serde_json::Value;

use super::TextTower;
use super::tower::{NamedInput, PixelInput};
use crate::image::Shaping;

/// The setting of `config.json` that names the answers.
pub(super) const SETTING: &str = "id2label";

/// How a question about a picture is answered.
#[derive(Debug, Clone)]
pub struct AnswerModel {
    /// The graph, its tokenizer, and the output that has a score for each answer.
    pub questions: TextTower,
    /// The graph's input of pixels.
    pub pixels: PixelInput,
    /// The input that says which pixels are no filling, if there is one.
    pub pixel_mask: Option<NamedInput>,
    /// From picture to pixel values.
    pub shaping: Shaping,
    /// Where that was read.
    pub shaping_file: PathBuf,
    /// The answers, in the order of the scores.
    pub labels: Vec<String>,
}

/// The answers in `config.json`, or what they should be.
pub(super) fn read(config: &Value) -> Result<Vec<String>, &'static str> {
    let expected = "an object with an answer for each number from 0";
    let named = config[SETTING].as_object().filter(|named| !named.is_empty()).ok_or(expected)?;
    let answer = |number: usize| {
        let answer = named.get(&number.to_string())?.as_str()?;
        // No text of the server holds it.
        (!answer.contains('\0')).then(|| answer.to_owned())
    };
    (0..named.len()).map(answer).collect::<Option<_>>().ok_or(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_numbered_from_zero_without_gaps() {
        let read = |labels: Value| read(&json!({ "id2label": labels }));
        assert_eq!(read(json!({ "1": "no", "0": "yes", "2": "" })).unwrap(), ["yes", "no", ""]);
        for labels in [
            json!(null),
            json!({}),
            json!([]),
            json!(["yes", "no"]),
            json!({ "1": "yes" }),
            json!({ "0": "yes", "2": "no" }),
            json!({ "0": "yes", "01": "no" }),
            json!({ "0": 1 }),
            json!({ "0": null }),
            json!({ "0": "y\u{0}s" }),
        ] {
            assert!(read(labels.clone()).is_err(), "{labels}");
        }
    }
}
