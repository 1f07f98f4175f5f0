//! How a query of a picture and a text together becomes one vector.
//!
//! Towers that were trained together still put pictures and texts into different corners of their space (Liang et al. 2022,
//! "Mind the Gap"): a mean of both leans to where neither lies. With the mean of the model's pictures and the mean of its
//! texts, what is mixed is what makes this picture and this text differ from others.

use std::path::Path;

use serde_json::Value;

use super::PackageError;
use super::error::MalformedFile;
use super::files::PackageFiles;
use super::overrides::QueryOverrides;

/// The file with the means: `{"image": [...], "text": [...]}`.
const MEANS: &str = "modality_means.json";
/// Both parts count alike.
const DEFAULT_WEIGHT: f64 = 0.5;

/// Settings of composed queries.
#[derive(Debug, Clone, PartialEq)]
pub struct QuerySettings {
    /// The text's part, 0 to 1; the picture has the rest.
    pub weight: f64,
    /// Where pictures and texts lie.
    pub means: Option<ModalityMeans>,
}

/// The mean embedding of each modality.
#[derive(Debug, Clone, PartialEq)]
pub struct ModalityMeans {
    /// Of pictures.
    pub image: Vec<f32>,
    /// Of texts.
    pub text: Vec<f32>,
}

impl QuerySettings {
    /// What the package says. `dim` is the model's number of dimensions, if it is known.
    pub(super) fn read(
        files: &mut PackageFiles,
        overrides: Option<&QueryOverrides>,
        dim: Option<usize>,
    ) -> Result<Self, PackageError> {
        let weight = overrides.and_then(|query| query.weight).unwrap_or(DEFAULT_WEIGHT);
        if !(0.0..=1.0).contains(&weight) {
            let source = MalformedFile::Setting { setting: "query.weight", expected: "a number from 0 to 1" };
            return Err(PackageError::Malformed { path: files.dir().join("imgvec.toml"), source });
        }
        let means = files.json(Path::new(MEANS))?.map(|value| means(files, &value, dim)).transpose()?;
        Ok(QuerySettings { weight, means })
    }
}

fn means(files: &PackageFiles, value: &Value, dim: Option<usize>) -> Result<ModalityMeans, PackageError> {
    read_means(value, dim).map_err(|setting| {
        let expected = "an array of as many finite numbers as the model has dimensions";
        let source = MalformedFile::Setting { setting, expected };
        PackageError::Malformed { path: files.dir().join(MEANS), source }
    })
}

/// The means, or which of them is none.
fn read_means(value: &Value, dim: Option<usize>) -> Result<ModalityMeans, &'static str> {
    let read = |setting: &'static str| {
        let number = |value: &Value| Some(value.as_f64()? as f32).filter(|number| number.is_finite());
        let numbers = || value[setting].as_array()?.iter().map(number).collect::<Option<Vec<f32>>>();
        let fits = |mean: &Vec<f32>| !mean.is_empty() && dim.is_none_or(|dim| dim == mean.len());
        numbers().filter(fits).ok_or(setting)
    };
    let image = read("image")?;
    let text = read("text")?;
    if text.len() == image.len() { Ok(ModalityMeans { image, text }) } else { Err("text") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn means_that_do_not_fit_the_model_are_refused_by_name() {
        let means = json!({ "image": [0.5, -1], "text": [0, 1e-3] });
        let read = ModalityMeans { image: vec![0.5, -1.0], text: vec![0.0, 1e-3] };
        assert_eq!(read_means(&means, Some(2)), Ok(read.clone()));
        assert_eq!(read_means(&means, None), Ok(read));
        for (value, dim, culprit) in [
            (means, Some(3), "image"),
            (json!({ "image": [1, 2] }), Some(2), "text"),
            (json!({ "image": [1, 2], "text": [1] }), None, "text"),
            (json!({ "image": [1, 2], "text": [1, "2"] }), None, "text"),
            (json!({ "image": [], "text": [] }), None, "image"),
            (json!({ "image": [1e300], "text": [1] }), None, "image"),
            (json!([1, 2]), None, "image"),
            (json!(null), None, "image"),
        ] {
            assert_eq!(read_means(&value, dim), Err(culprit), "{value}");
        }
    }
}
