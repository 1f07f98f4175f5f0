//! `imgvec.toml`: what a package says about itself where its other files are silent or wrong.
//!
//! Every key is optional and overrules what was read elsewhere. An unknown key is an error, since a
//! mistyped key would otherwise be a silently different embedding.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Family, Precision};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// The kind of model, if the other files do not tell or tell wrongly.
    pub family: Option<Family>,
    /// Which of several precisions of the same graph to use.
    pub precision: Option<Precision>,
    /// The model's license, as its card states it.
    #[serde(alias = "licence")]
    pub license: Option<String>,
    /// Keep only the first so many dimensions (Matryoshka models), then normalize again.
    pub truncate_dims: Option<usize>,
    /// Whether embeddings are scaled to unit length. Default true.
    pub normalize: Option<bool>,
    /// `[image]`
    pub image: Option<ImageOverrides>,
    /// `[text]`
    pub text: Option<TextOverrides>,
    /// `[classification]`
    pub classification: Option<ClassificationOverrides>,
    /// `[query]`
    pub query: Option<QueryOverrides>,
    /// `[prompts]`: texts put before an input, by the name of a use.
    pub prompts: Option<BTreeMap<String, String>>,
}

/// The table `[query]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryOverrides {
    /// The text's part in a query of a picture and a text, 0 to 1.
    pub weight: Option<f64>,
}

/// The table `[image]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOverrides {
    /// The package that the tower is taken from, as it is there. No other key of the table goes with it.
    pub package: Option<String>,
    /// The graph file, relative to the package.
    pub graph: Option<PathBuf>,
    /// The output that is the embedding.
    pub output: Option<String>,
    /// How an output of one vector per patch becomes one vector.
    pub pooling: Option<PoolingName>,
    /// Keys of `preprocessor_config.json`, laid over that file.
    pub preprocessing: Option<Map<String, Value>>,
}

/// The table `[text]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextOverrides {
    /// The package that the tower is taken from, as it is there. No other key of the table goes with it.
    pub package: Option<String>,
    /// The graph file, relative to the package.
    pub graph: Option<PathBuf>,
    /// The output that is the embedding.
    pub output: Option<String>,
    /// How an output of one vector per token becomes one vector.
    pub pooling: Option<PoolingName>,
    /// The tokenizer file, relative to the package. Default `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// Text put before every input, such as `"query: "`.
    pub prompt: Option<String>,
    /// How short inputs are filled up.
    pub padding: Option<PaddingName>,
    /// The token that fills up, by its id.
    pub pad_id: Option<u32>,
    /// Most tokens of an input, special tokens included.
    pub max_length: Option<usize>,
    /// Whether text is converted to lower case before tokenizing.
    pub lowercase: Option<bool>,
}

/// `text.padding`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingName {
    /// To the longest input of a batch.
    Longest,
    /// Always to `max_length`.
    MaxLength,
}

/// `image.pooling` and `text.pooling`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolingName {
    /// The first token.
    Cls,
    /// The last token that is not padding.
    Last,
    /// The mean over tokens that are not padding.
    Mean,
    /// The sum over tokens that are not padding, divided by the square root of their number.
    MeanSqrtLength,
    /// The greatest value over tokens that are not padding.
    Max,
}

/// The table `[classification]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationOverrides {
    /// Prompts for a label, which replaces `{}`. Several are averaged.
    pub templates: Option<Vec<String>>,
    /// Softmax temperature: scores are softmax(cosine / temperature).
    pub temperature: Option<f32>,
    /// Sigmoid scale: scores are sigmoid(cosine * scale + bias).
    pub scale: Option<f32>,
    /// Sigmoid bias.
    pub bias: Option<f32>,
}
