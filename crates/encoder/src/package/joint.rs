//! Models that take pictures and words in one input: a vision encoder makes vectors that stand in the place of tokens.

use std::path::PathBuf;

use serde_json::Value;

use super::tower::{Graph, Inputs, PatchInput};
use crate::image::Patching;

/// How pictures become part of a text.
#[derive(Debug, Clone)]
pub struct JointModel {
    /// The vision encoder.
    pub graph: Graph,
    /// Its inputs.
    pub patches: PatchInput,
    /// Its output, `[soft tokens, width]`.
    pub output: String,
    /// From picture to patches.
    pub patching: Patching,
    /// Where that was read.
    pub patching_file: PathBuf,
    /// Floats of a soft token.
    pub width: usize,
    /// Token in whose place a soft token stands.
    pub image_token: u32,
    /// Token before the soft tokens of a picture.
    pub begin_token: u32,
    /// Token after them.
    pub end_token: u32,
}

/// The tokens around and in place of pictures: `config.json`, or those of the published model.
pub(super) fn tokens(config: &Value) -> Option<[u32; 3]> {
    let read = |key: &str, unless_told: u32| {
        let told = &config[key];
        if told.is_null() { Some(unless_told) } else { told.as_u64().and_then(|id| u32::try_from(id).ok()) }
    };
    Some([read("image_token_id", 258_880)?, read("boi_token_id", 255_999)?, read("eoi_token_id", 258_882)?])
}

/// Floats of a soft token: what the graphs say, then the configuration.
pub(super) fn width(vision: &Graph, output: &str, text: &Inputs, config: &Value) -> Option<usize> {
    let of_output = vision.outline.outputs.iter().find(|value| value.name == output)?.extent(1);
    let of_input = text.features.iter().find(|input| input.of_pictures)?.width;
    let of_config =
        || config["text_config"]["hidden_size"].as_u64().and_then(|size| usize::try_from(size).ok());
    of_output.or(of_input).or_else(of_config).filter(|width| (1..=1 << 16).contains(width))
}
