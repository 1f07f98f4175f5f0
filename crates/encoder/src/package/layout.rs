//! Which files are the graphs: places, names and precisions that exporters use.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Family;
use super::error::{FileRole, PackageError};
use super::files::PackageFiles;

/// Numeric precision of a graph's weights, according to its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats; also what a file name without suffix means.
    Fp32,
    /// 16-bit floats.
    Fp16,
    /// 8-bit integers.
    #[serde(alias = "quantized")]
    Int8,
    /// 8-bit unsigned integers.
    Uint8,
    /// 4-bit integers with 16-bit floats.
    Q4f16,
    /// 4-bit integers.
    Q4,
    /// 4-bit bitsandbytes.
    Bnb4,
}

impl Precision {
    /// In the order of preference where `imgvec.toml` does not choose.
    const ALL: [Precision; 7] = [
        Precision::Fp32,
        Precision::Fp16,
        Precision::Int8,
        Precision::Uint8,
        Precision::Q4f16,
        Precision::Q4,
        Precision::Bnb4,
    ];

    /// The name as it is written in `imgvec.toml` and shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
            Precision::Uint8 => "uint8",
            Precision::Q4f16 => "q4f16",
            Precision::Q4 => "q4",
            Precision::Bnb4 => "bnb4",
        }
    }

    /// File name suffixes of transformers.js, Optimum and sentence-transformers exports. `_O4` is
    /// Optimum's name for a graph converted to 16-bit floats; `_O1` to `_O3` are 32-bit.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Precision::Fp32 => &["", "_fp32", "_O3", "_O2", "_O1"],
            Precision::Fp16 => &["_fp16", "_O4"],
            Precision::Int8 => &[
                "_int8",
                "_quantized",
                "_q8",
                "_qint8_avx512_vnni",
                "_qint8_avx512",
                "_qint8_avx2",
                "_qint8_arm64",
            ],
            Precision::Uint8 => &["_uint8", "_quint8_avx2"],
            Precision::Q4f16 => &["_q4f16"],
            Precision::Q4 => &["_q4"],
            Precision::Bnb4 => &["_bnb4"],
        }
    }

    /// The precision that a file name contains.
    fn of(stem: &str) -> Self {
        let told = |precision: &Precision| {
            precision.suffixes().iter().any(|suffix| !suffix.is_empty() && stem.ends_with(suffix))
        };
        Precision::ALL.into_iter().find(told).unwrap_or(Precision::Fp32)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Directories in which graphs lie, in the order in which they are tried.
const PLACES: [&str; 2] = ["onnx", ""];
const IMAGE_STEMS: [&str; 5] = ["vision_model", "visual", "image_encoder", "image_model", "image"];
const TEXT_STEMS: [&str; 5] = ["text_model", "textual", "text_encoder", "text", "text_transformer"];
const WHOLE_STEMS: [&str; 1] = ["model"];
/// Immich keeps each tower in a directory of its own.
const IMMICH_IMAGE: &str = "visual/model";
const IMMICH_TEXT: &str = "textual/model";

/// A graph file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphChoice {
    /// Relative to the package.
    pub file: PathBuf,
    /// According to the file name.
    pub precision: Precision,
}

/// The graphs of a package. At least one is there.
#[derive(Debug, Clone, Default)]
pub struct Graphs {
    /// The image tower's graph.
    pub image: Option<GraphChoice>,
    /// The text tower's graph.
    pub text: Option<GraphChoice>,
    /// A graph whose inputs decide what it is: one tower, or both.
    pub whole: Option<GraphChoice>,
}

impl Graphs {
    /// Finds the graphs of a package. Files named in `imgvec.toml` come first; then split towers;
    /// a single `model.onnx` only where neither tower has a file of its own.
    ///
    /// # Errors
    /// [`PackageError::NoGraph`], [`PackageError::NoSuchPrecision`], [`PackageError::Missing`] for
    /// a file named in `imgvec.toml`, [`PackageError::Unreadable`].
    pub fn find(
        files: &mut PackageFiles,
        image: Option<&Path>,
        text: Option<&Path>,
        precision: Option<Precision>,
        family: Family,
    ) -> Result<Graphs, PackageError> {
        let mut found = Vec::new();
        let mut graphs = Graphs::default();
        if image.is_some() || text.is_some() {
            graphs.image = image.map(|file| named(files, file)).transpose()?;
            graphs.text = text.map(|file| named(files, file)).transpose()?;
        } else {
            let mut tower = |stems: &[&str], immich| -> Result<Option<GraphChoice>, PackageError> {
                let bases = PLACES.iter().flat_map(|place| stems.iter().map(move |stem| base(place, stem)));
                choose(files, bases.chain(immich), precision, family, &mut found)
            };
            if family == Family::EmbeddingGemma2 {
                graphs.image = tower(&["vision_encoder"], None)?;
                graphs.text = tower(&WHOLE_STEMS, None)?;
                return match graphs.text {
                    Some(_) => Ok(graphs),
                    None => Err(nothing(files, precision, found)),
                };
            }
            if family == Family::Vilt {
                graphs.whole = tower(&WHOLE_STEMS, None)?;
                return match graphs.whole {
                    Some(_) => Ok(graphs),
                    None => Err(nothing(files, precision, found)),
                };
            }
            graphs.image = tower(&IMAGE_STEMS, Some(IMMICH_IMAGE.to_owned()))?;
            graphs.text = tower(&TEXT_STEMS, Some(IMMICH_TEXT.to_owned()))?;
            if graphs.image.is_none() && graphs.text.is_none() {
                graphs.whole = tower(&WHOLE_STEMS, None)?;
            }
        }
        if graphs.image.is_none() && graphs.text.is_none() && graphs.whole.is_none() {
            return Err(nothing(files, precision, found));
        }
        Ok(graphs)
    }
}

/// The error of a package without the graph that was looked for.
fn nothing(files: &PackageFiles, precision: Option<Precision>, found: Vec<Precision>) -> PackageError {
    let dir = files.dir().to_owned();
    match precision {
        Some(wanted) if !found.is_empty() => PackageError::NoSuchPrecision { dir, wanted, found },
        _ => PackageError::NoGraph { dir },
    }
}

fn base(place: &str, stem: &str) -> String {
    if place.is_empty() { stem.to_owned() } else { format!("{place}/{stem}") }
}

fn named(files: &mut PackageFiles, file: &Path) -> Result<GraphChoice, PackageError> {
    files.require(file, FileRole::Graph)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(GraphChoice { file: file.to_owned(), precision: Precision::of(&stem) })
}

/// The first graph among `bases` of the wanted precision, or of the most preferred one. Precisions
/// that are there but not wanted are added to `found`.
fn choose(
    files: &mut PackageFiles,
    bases: impl Iterator<Item = String>,
    wanted: Option<Precision>,
    family: Family,
    found: &mut Vec<Precision>,
) -> Result<Option<GraphChoice>, PackageError> {
    let mut precisions = Precision::ALL;
    if family.rules().overflows_in_half {
        // The sort keeps the order of the rest.
        precisions.sort_by_key(|precision| matches!(precision, Precision::Fp16 | Precision::Q4f16));
    }
    for base in bases {
        for precision in precisions {
            for suffix in precision.suffixes() {
                let file = PathBuf::from(format!("{base}{suffix}.onnx"));
                if !files.exists(&file)? {
                    continue;
                }
                if wanted.is_none_or(|wanted| wanted == precision) {
                    return Ok(Some(GraphChoice { file, precision }));
                }
                if !found.contains(&precision) {
                    found.push(precision);
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_precision() {
        for (stem, precision) in [
            ("vision_model", Precision::Fp32),
            ("model_quantized", Precision::Int8),
            ("model_qint8_avx512_vnni", Precision::Int8),
            ("model_quint8_avx2", Precision::Uint8),
            ("text_model_q4f16", Precision::Q4f16),
            ("model_O4", Precision::Fp16),
            ("text_minilm_centered_int8", Precision::Int8),
        ] {
            assert_eq!(Precision::of(stem), precision, "{stem}");
        }
    }
}
