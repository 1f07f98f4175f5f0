//! How a model's cosines become scores of labels.

use super::error::MalformedFile;
use super::overrides::ClassificationOverrides;
use super::{Family, PackageError};

/// Prompts and score function for zero-shot classification.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Prompts for a label, which replaces `{}`. With several, the label's vector is the mean of the
    /// prompts' unit vectors.
    pub templates: Vec<String>,
    /// From cosine to score.
    pub scoring: Scoring,
}

/// The function from cosines to scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scoring {
    /// softmax over the labels of cosine / temperature.
    Softmax {
        /// Greater than zero; CLIP was trained to 0.01.
        temperature: f32,
    },
    /// sigmoid(cosine * scale + bias) for each label by itself.
    Sigmoid {
        /// Factor of the cosine.
        scale: f32,
        /// Added before the sigmoid, negative since most pairs of training do not match.
        bias: f32,
    },
}

/// CLIP's training clamps the logit scale to at most 100, and the released models sit at that bound
/// (Radford et al. 2021, section 2.5); OpenCLIP's, MobileCLIP's and Jina's likewise.
const CLIP_TEMPERATURE: f32 = 0.01;

/// Kinds of things that pictures show. The mean of their vectors stands for a picture of nothing in particular.
pub const KINDS: [&str; 10] =
    ["animal", "vehicle", "food", "plant", "person", "building", "furniture", "tool", "scenery", "clothes"];

/// About exp(logit_scale) and logit_bias of siglip-base-patch16-224, not checked against the file: they
/// are weights, not configuration, and every checkpoint has its own. The order of labels is the same
/// with any; absolute scores want the model's own values in `imgvec.toml`.
const SIGLIP_SCALE: f32 = 117.33;
const SIGLIP_BIAS: f32 = -12.93;

impl Classification {
    /// The published values of `family`, overruled by `imgvec.toml`.
    pub(super) fn of(
        family: Family,
        overrides: Option<&ClassificationOverrides>,
    ) -> Result<Self, MalformedFile> {
        let wrong = |setting, expected| Err(MalformedFile::Setting { setting, expected });
        let mut classification = Self::published(family);
        let Some(overrides) = overrides else { return Ok(classification) };
        if let Some(templates) = &overrides.templates {
            if templates.is_empty() || templates.iter().any(|template| !template.contains("{}")) {
                return wrong("classification.templates", "one or more texts that contain {}");
            }
            classification.templates.clone_from(templates);
        }
        let ClassificationOverrides { temperature, scale, bias, .. } = overrides;
        if temperature.is_some() && (scale.is_some() || bias.is_some()) {
            return wrong("classification.temperature", "absent where scale or bias is given");
        }
        if let Some(temperature) = *temperature {
            if !(temperature.is_finite() && temperature > 0.0) {
                return wrong("classification.temperature", "greater than zero");
            }
            classification.scoring = Scoring::Softmax { temperature };
        } else if scale.is_some() || bias.is_some() {
            let (scale, bias) = (scale.unwrap_or(SIGLIP_SCALE), bias.unwrap_or(SIGLIP_BIAS));
            if !(scale.is_finite() && scale > 0.0 && bias.is_finite()) {
                return wrong("classification.scale", "greater than zero, with a finite bias");
            }
            classification.scoring = Scoring::Sigmoid { scale, bias };
        }
        Ok(classification)
    }

    fn published(family: Family) -> Self {
        if family.rules().sigmoid {
            Classification {
                templates: vec!["This is a photo of {}.".to_owned()],
                scoring: Scoring::Sigmoid { scale: SIGLIP_SCALE, bias: SIGLIP_BIAS },
            }
        } else {
            Classification {
                templates: vec!["a photo of a {}.".to_owned()],
                scoring: Scoring::Softmax { temperature: CLIP_TEMPERATURE },
            }
        }
    }

    /// Scores of labels each by itself: is it there, or not? `background` is the cosine of [`KINDS`] with the image.
    ///
    /// A sigmoid is trained to say so. A softmax is taken over two: the label, and a picture of just anything.
    #[must_use]
    pub fn presence(&self, cosines: &[f32], background: f32) -> Vec<f32> {
        match self.scoring {
            Scoring::Softmax { temperature } => cosines
                .iter()
                .map(|cosine| 1.0 / (1.0 + (-(cosine - background) / temperature).exp()))
                .collect(),
            Scoring::Sigmoid { .. } => self.scores(cosines),
        }
    }

    /// The texts to embed for a label.
    #[must_use]
    pub fn prompts(&self, label: &str) -> Vec<String> {
        self.templates.iter().map(|template| template.replace("{}", label)).collect()
    }

    /// Scores of labels from the cosines of their vectors with an image's.
    #[must_use]
    pub fn scores(&self, cosines: &[f32]) -> Vec<f32> {
        match self.scoring {
            Scoring::Softmax { temperature } => {
                let greatest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> =
                    cosines.iter().map(|cosine| ((cosine - greatest) / temperature).exp()).collect();
                let total: f32 = weights.iter().sum();
                weights.into_iter().map(|weight| weight / total).collect()
            }
            Scoring::Sigmoid { scale, bias } => {
                cosines.iter().map(|cosine| 1.0 / (1.0 + (-(cosine * scale + bias)).exp())).collect()
            }
        }
    }
}

impl From<(std::path::PathBuf, MalformedFile)> for PackageError {
    fn from((path, source): (std::path::PathBuf, MalformedFile)) -> Self {
        PackageError::Malformed { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_and_sigmoid_match_hand_computed_scores() {
        let clip = Classification::of(Family::Clip, None).unwrap();
        let scores = clip.scores(&[0.30, 0.28]);
        // exp(30) / (exp(30) + exp(28)) = 1 / (1 + exp(-2))
        assert!((scores[0] - 0.880_797).abs() < 1e-4, "{scores:?}");
        assert!((scores[0] + scores[1] - 1.0).abs() < 1e-6);

        let overrides = ClassificationOverrides { scale: Some(10.0), bias: Some(-1.0), ..Default::default() };
        let siglip = Classification::of(Family::Siglip, Some(&overrides)).unwrap();
        // sigmoid(0.1 * 10 - 1) = 0.5
        assert_eq!(siglip.scores(&[0.1]), [0.5]);
    }

    #[test]
    fn each_label_by_itself_against_a_picture_of_anything() {
        let clip = Classification::of(Family::Clip, None).unwrap();
        let scores = clip.presence(&[0.30, 0.28, 0.26], 0.28);
        // 1 / (1 + exp(-2)), and its rest.
        assert!((scores[0] - 0.880_797).abs() < 1e-4 && (scores[1] - 0.5).abs() < 1e-6, "{scores:?}");
        assert!((scores[2] - 0.119_203).abs() < 1e-4, "{scores:?}");
        let siglip = Classification::of(Family::Siglip, None).unwrap();
        assert_eq!(siglip.presence(&[0.1, 0.2], 0.9), siglip.scores(&[0.1, 0.2]));
    }

    #[test]
    fn a_template_without_place_for_the_label_is_refused() {
        let overrides =
            ClassificationOverrides { templates: Some(vec!["a photo".to_owned()]), ..Default::default() };
        assert!(Classification::of(Family::Clip, Some(&overrides)).is_err());
    }
}
