//! The kind of model, read from its files.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::tower::Pooling;

/// Kinds of model that differ in how they are fed or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// CLIP as Hugging Face exports it: causal text tower, end-of-text pooling.
    Clip,
    /// CLIP as the OpenCLIP project exports it.
    OpenClip,
    /// MobileCLIP: like CLIP, but its text tower sees the padding, so that text is filled up.
    MobileClip,
    /// SigLIP: sigmoid scores, text filled up to 64 tokens without a mask.
    Siglip,
    /// SigLIP 2: as SigLIP, with Gemma's tokenizer and lower-case text.
    Siglip2,
    /// SigLIP 2 whose image tower takes patches of a picture in its own shape.
    Siglip2Naflex,
    /// Jina CLIP: one graph with a sentence encoder as its text tower.
    JinaClip,
    /// DINOv2 and DINOv3 backbones: images only.
    Dinov2,
    /// Vision transformers that give one vector per patch after a class token.
    Vit,
    /// Convolutional classifiers and backbones.
    Cnn,
    /// BERT-like sentence encoders: text only.
    Sentence,
    /// EmbeddingGemma 2: text and pictures in one input, a vision encoder beside the text graph.
    #[serde(rename = "embedding_gemma2")]
    EmbeddingGemma2,
    /// ViLT: a question and a picture in, a score for each of its answers out. It embeds nothing.
    Vilt,
    /// Anything else; everything is decided by the graph and `imgvec.toml`.
    Generic,
}

impl Family {
    /// The name as it is written in `imgvec.toml` and shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.rules().name
    }

    /// Whether an image tower of the family may take patches with rows and columns.
    pub(super) fn may_take_grids(self) -> bool {
        matches!(self, Family::Siglip2 | Family::Siglip2Naflex)
    }

    /// The family, now that it is known whether the image tower takes patches.
    pub(super) fn with_patches(self, takes_patches: bool) -> Family {
        match (self.may_take_grids(), takes_patches) {
            (false, _) => self,
            (true, false) => Family::Siglip2,
            (true, true) => Family::Siglip2Naflex,
        }
    }

    /// What differs by family.
    pub(super) fn rules(self) -> &'static Rules {
        RULES.iter().find(|rules| rules.family == self).expect("each family has a row")
    }
}

/// What differs by family, where no file of the package says otherwise. The row of each is in [`RULES`].
pub(super) struct Rules {
    family: Family,
    name: &'static str,
    /// Whether scores of image and text come from a sigmoid. Such models were trained without a mask.
    pub sigmoid: bool,
    /// Outputs that are the embedding, before the names that all families have.
    pub image_outputs: &'static [&'static str],
    /// The same for text.
    pub text_outputs: &'static [&'static str],
    /// How one vector for each patch becomes one.
    pub image_pooling: Pooling,
    /// How one vector for each token becomes one.
    pub text_pooling: Pooling,
    /// How far text is filled up.
    pub fill: Fill,
    /// Whether text is lower-cased before the tokenizer if its configuration asks for it, and if it does not say.
    pub lowercase: Option<bool>,
    /// Most tokens, if the family publishes them; otherwise the tokenizer's configuration says.
    pub context: Option<usize>,
    /// Most tokens, whatever files say.
    pub most: Option<usize>,
    /// Whether 16-bit floats overflow inside the model, so that other precisions are taken before them.
    pub overflows_in_half: bool,
    /// Whether OpenCLIP's file describes the model if it is there.
    pub open_clip: bool,
    /// Where `config.json` has the embedding's dimensions, the best place first.
    pub dim: &'static [&'static [&'static str]],
}

/// How far text is filled up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// To the longest of the batch: what follows the text is not seen.
    Longest,
    /// To the context length, as in training.
    Context,
    /// As OpenCLIP's description of the tower has it.
    OpenClip,
}

/// Context length of CLIP and everything derived from it.
pub(super) const CLIP_TOKENS: usize = 77;
/// Context length of SigLIP and SigLIP 2.
const SIGLIP_TOKENS: usize = 64;

/// Context length of EmbeddingGemma 2.
const GEMMA_TOKENS: usize = 8192;

const PROJECTION: &[&[&str]] = &[&["projection_dim"]];
/// The second is the name of nomic's own files.
const HIDDEN: &[&[&str]] = &[&["hidden_size"], &["n_embd"]];
const SIGLIP_DIM: &[&[&str]] = &[
    &["text_config", "projection_size"],
    &["text_config", "hidden_size"],
    &["vision_config", "hidden_size"],
];
/// The attention-pooled head is the embedding, the token vectors are not.
const POOLED: &[&str] = &["text_embeds", "pooler_output"];

/// What most families have in common.
const GENERIC: Rules = Rules {
    family: Family::Generic,
    name: "generic",
    sigmoid: false,
    image_outputs: &[],
    text_outputs: &[],
    image_pooling: Pooling::First,
    text_pooling: Pooling::Mean,
    fill: Fill::Longest,
    lowercase: None,
    context: None,
    most: None,
    overflows_in_half: false,
    open_clip: false,
    dim: &[],
};
/// What the families around CLIP have in common. Token vectors of a causal tower: the last has seen all others.
const CLIP: Rules = Rules {
    family: Family::Clip,
    name: "clip",
    text_outputs: POOLED,
    text_pooling: Pooling::Last,
    context: Some(CLIP_TOKENS),
    open_clip: true,
    dim: PROJECTION,
    ..GENERIC
};
const SIGLIP2: Rules = Rules { family: Family::Siglip2, name: "siglip2", lowercase: Some(true), ..SIGLIP };
const SIGLIP: Rules = Rules {
    family: Family::Siglip,
    name: "siglip",
    sigmoid: true,
    text_outputs: POOLED,
    fill: Fill::Context,
    lowercase: Some(false),
    context: Some(SIGLIP_TOKENS),
    open_clip: true,
    dim: SIGLIP_DIM,
    ..GENERIC
};

static RULES: [Rules; 14] = [
    CLIP,
    Rules {
        family: Family::OpenClip,
        name: "open_clip",
        text_outputs: &[],
        fill: Fill::OpenClip,
        dim: &[],
        ..CLIP
    },
    Rules { family: Family::MobileClip, name: "mobile_clip", fill: Fill::Context, ..CLIP },
    SIGLIP,
    SIGLIP2,
    Rules { family: Family::Siglip2Naflex, name: "siglip2_naflex", ..SIGLIP2 },
    Rules { family: Family::JinaClip, name: "jina_clip", open_clip: true, dim: PROJECTION, ..GENERIC },
    Rules { family: Family::Dinov2, name: "dinov2", dim: HIDDEN, ..GENERIC },
    // A class token, or the mean of patches: the pooler of a plain ViT is usually untrained.
    Rules { family: Family::Vit, name: "vit", image_outputs: &["last_hidden_state"], dim: HIDDEN, ..GENERIC },
    // No class token: the vectors are cells of a grid. The width depends on where a classifier was cut off.
    Rules { family: Family::Cnn, name: "cnn", image_pooling: Pooling::Mean, ..GENERIC },
    Rules { family: Family::Sentence, name: "sentence", dim: HIDDEN, ..GENERIC },
    Rules {
        family: Family::EmbeddingGemma2,
        name: "embedding_gemma2",
        text_outputs: &["sentence_embedding"],
        most: Some(GEMMA_TOKENS),
        overflows_in_half: true,
        dim: &[&["text_config", "embedding_dim"]],
        ..GENERIC
    },
    Rules { family: Family::Vilt, name: "vilt", text_outputs: &["logits"], ..GENERIC },
    GENERIC,
];

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What the family is read from.
pub(super) struct Evidence<'a> {
    /// `config.json`, or `Null`.
    pub config: &'a Value,
    /// The `model_cfg` of OpenCLIP, or `Null`.
    pub open_clip: &'a Value,
    /// `tokenizer_config.json`, or `Null`.
    pub tokenizer_config: &'a Value,
    /// Whether `modules.json` or `1_Pooling` is there.
    pub sentence_transformers: bool,
    /// Name of the package's directory, the only trace that some MobileCLIP exports leave.
    pub dir_name: &'a str,
}

/// The family that the evidence speaks for.
pub(super) fn detect(evidence: &Evidence<'_>) -> Family {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_ascii_lowercase();

    if evidence.open_clip.is_object() {
        let tower = text(&evidence.open_clip["vision_cfg"], "timm_model_name");
        let sigmoid = !evidence.open_clip["init_logit_bias"].is_null();
        let tokenizer = text(&evidence.open_clip["text_cfg"], "hf_tokenizer_name");
        return match () {
            () if tower.contains("mci") || tower.contains("mobileclip") => Family::MobileClip,
            () if sigmoid && tokenizer.contains("siglip2") => Family::Siglip2,
            () if sigmoid => Family::Siglip,
            () => Family::OpenClip,
        };
    }

    let model_type = text(evidence.config, "model_type");
    let origin = text(evidence.config, "_name_or_path");
    match model_type.as_str() {
        "clip" | "clip_text_model" | "clip_vision_model" | "chinese_clip" | "altclip" | "mobileclip"
        | "metaclip_2" => {
            let mobile =
                [&model_type, &origin, &evidence.dir_name.to_ascii_lowercase()].into_iter().any(|name| {
                    name.contains("mobileclip")
                        || name.contains("mobile_clip")
                        || name.contains("mobile-clip")
                });
            if mobile { Family::MobileClip } else { Family::Clip }
        }
        // Checkpoints of SigLIP 2 with a fixed image size keep SigLIP's model type.
        "siglip" | "siglip_text_model" | "siglip_vision_model" => {
            if text(evidence.tokenizer_config, "tokenizer_class").contains("gemma") {
                Family::Siglip2
            } else {
                Family::Siglip
            }
        }
        // Whether it is NaFlex shows in the inputs of its graph.
        "siglip2" | "siglip2_text_model" | "siglip2_vision_model" => Family::Siglip2,
        "jina_clip" => Family::JinaClip,
        "embedding_gemma2" => Family::EmbeddingGemma2,
        "vilt" => Family::Vilt,
        "dinov2" | "dinov2_with_registers" | "dinov3_vit" => Family::Dinov2,
        "vit" | "deit" | "beit" | "ijepa" | "vit_mae" | "vit_msn" | "data2vec-vision" => Family::Vit,
        "resnet" | "convnext" | "convnextv2" | "dinov3_convnext" | "regnet" | "efficientnet"
        | "mobilenet_v1" | "mobilenet_v2" | "mobilevit" | "mobilevitv2" | "swin" | "swinv2"
        | "poolformer" | "bit" | "levit" | "focalnet" | "van" | "timm_wrapper" => Family::Cnn,
        "bert" | "roberta" | "xlm-roberta" | "mpnet" | "distilbert" | "camembert" | "albert" | "electra"
        | "deberta" | "deberta-v2" | "nomic_bert" | "modernbert" | "new" | "xlm" | "ernie" => {
            Family::Sentence
        }
        _ if evidence.sentence_transformers => Family::Sentence,
        _ => match text(evidence.config, "architecture") {
            timm if timm.is_empty() => Family::Generic,
            timm if timm.contains("dinov2") || timm.contains("dinov3") => Family::Dinov2,
            timm if timm.starts_with("vit_") || timm.starts_with("deit") || timm.starts_with("beit") => {
                Family::Vit
            }
            _ => Family::Cnn,
        },
    }
}
