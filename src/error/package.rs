//! Messages for model packages that cannot be used.

use super::image::sentence;
use super::{Code, Report, paths};
use imgvec_encoder::package::{FileRole, GraphValue, MalformedFile, PackageError, Unsupported};
use std::io;

const COPY_AGAIN: &str = "Copy the complete model directory again.";
const SEE_DOCUMENTATION: &str =
    "The documentation lists the supported kinds of models, and what imgvec.toml can override.";

impl From<PackageError> for Report {
    fn from(error: PackageError) -> Self {
        // A name is the user's own, whatever it looks like.
        let is_own = matches!(error, PackageError::InvalidName { .. });
        let report = word(error);
        if is_own { report } else { paths::for_role(report) }
    }
}

fn word(error: PackageError) -> Report {
    let message = error.to_string();
    match error {
            PackageError::InvalidName { .. } => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, message)
                .detail("A name consists of letters, digits, \".\", \"_\" and \"-\", and may be \"owner/model\".")
                .hint("The view imgvec_models lists the models that are there."),
            PackageError::NotFound { similar, .. } => Report::new(Code::ERRCODE_UNDEFINED_OBJECT, message)
                .detail("No directory on imgvec.model_path has that name.")
                .hint(match similar.as_slice() {
                    [] => "The view imgvec_models lists the models that are there.".to_owned(),
                    [first, ..] => format!("Perhaps you meant \"{first}\"."),
                }),
            PackageError::Missing { role, .. } => Report::new(Code::ERRCODE_UNDEFINED_FILE, message)
                .detail(match role {
                    FileRole::Graph => "The package names this file as an ONNX graph.",
                    FileRole::ExternalData => "An ONNX graph keeps its weights in this file.",
                    FileRole::Tokenizer => "Text cannot be embedded without the model's tokenizer.",
                    FileRole::Preprocessing => "Images cannot be embedded without the model's preprocessing.",
                    FileRole::Weights => "A module of modules.json keeps its weights in this file.",
                    FileRole::Config => "The package needs this configuration file.",
                })
                .hint(COPY_AGAIN),
            PackageError::NoGraph { .. } => Report::new(Code::ERRCODE_UNDEFINED_FILE, message)
                .detail("The directory and its subdirectory \"onnx\" were searched for graphs.")
                .hint("Supply the model's ONNX export; safetensors or pickle files do not work."),
            PackageError::NoSuchPrecision { found, .. } => Report::new(Code::ERRCODE_UNDEFINED_FILE, message)
                .detail(format!("It has {}.", list(found.iter().map(|precision| precision.name()))))
                .hint("Change \"precision\" in imgvec.toml, or supply the graph."),
            PackageError::Unreadable { source, .. } => {
                let hint = if source.kind() == io::ErrorKind::PermissionDenied {
                    "Make the model's directory and files readable for the server's system user."
                } else {
                    COPY_AGAIN
                };
                Report::new(Code::ERRCODE_IO_ERROR, message).detail(sentence(&source)).hint(hint)
            }
            PackageError::Malformed { path, source } => {
                let hint = match source {
                    MalformedFile::Setting { .. } if path.ends_with("modality_means.json") => {
                        "Measure the means with this model, or remove the file."
                    }
                    MalformedFile::Setting { .. } if path.extension().is_some_and(|kind| kind == "json") => COPY_AGAIN,
                    MalformedFile::Toml(_) | MalformedFile::Setting { .. } => "Correct the file imgvec.toml.",
                    MalformedFile::Preprocessing(_) => SEE_DOCUMENTATION,
                    MalformedFile::Json(_)
                    | MalformedFile::NotUtf8
                    | MalformedFile::TooLarge { .. }
                    | MalformedFile::Onnx(_)
                    | MalformedFile::Weights(_)
                    | MalformedFile::Width { .. }
                    | MalformedFile::Answers { .. }
                    | MalformedFile::Tokenizer(_) => COPY_AGAIN,
                };
                Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message).detail(sentence(&source)).hint(hint)
            }
            PackageError::Outside { .. } => Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
                .detail("The file or a directory above it is a link that leads out of imgvec.model_path.")
                .hint("Put the file itself into the model's directory, or add the directory that holds it to imgvec.model_path."),
            PackageError::Truncated { expected, found, .. } => {
                Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                    .detail(format!("It has {found} bytes and should have at least {expected}."))
                    .hint(COPY_AGAIN)
            }
            PackageError::UnsupportedInputs { inputs, unsupported, .. } => {
                Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .detail(format!(
                        "It has inputs {}, of which {} are not supported.",
                        values(&inputs),
                        list(unsupported.iter().map(String::as_str))
                    ))
                    .hint(SEE_DOCUMENTATION)
            }
            PackageError::NoOutput { wanted, outputs, .. } => {
            let named = wanted.as_ref().and_then(|name| outputs.iter().find(|output| output.name == *name));
            let wanted = match (&wanted, named) {
                (Some(name), None) => format!("There is no output \"{name}\". "),
                (Some(name), Some(_)) => format!("Output \"{name}\" is not an embedding. "),
                (None, _) => String::new(),
            };
            Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .detail(format!(
                    "{wanted}Its outputs are {}. An embedding is float32 or float16, with 1 to 4 axes.",
                    values(&outputs)
                ))
                .hint("Name the output that is the embedding in imgvec.toml, or export the model with one.")
        }
        PackageError::TowersDiffer { .. } => Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                .detail("Images and texts of one model must be comparable.")
                .hint("Supply both towers of one model, with their projections."),
            PackageError::Half { modality, package, source } => word(*source).detail_after(&format!(
                "The file imgvec.toml takes the {} tower from the model \"{package}\".",
                modality.name()
            )),
            PackageError::NestedHalf { .. } => Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                .detail("A tower can be taken only from the model that has its files.")
                .hint("Name the model that has the tower in imgvec.toml."),
            PackageError::NoHalf { .. } => Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                .detail("A tower can be taken only from a model that embeds such inputs separately.")
                .hint("Name another model in imgvec.toml; the column \"modalities\" of the view imgvec_models shows what each embeds."),
            PackageError::ImageSizeDiffers { graph, preprocessing, .. } => {
                Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                    .detail(format!(
                        "The graph expects {} x {} pixels, but preprocessing produces {} x {}.",
                        graph.0, graph.1, preprocessing.0, preprocessing.1
                    ))
                    .hint("Correct the preprocessing configuration, or override it in imgvec.toml.")
            }
            PackageError::PatchesDiffer { graph, preprocessing, .. } => {
                let [patches, length] =
                    graph.map(|fixed| fixed.map_or("any number of".to_owned(), |number| number.to_string()));
                Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
                    .detail(format!(
                        "The graph expects {patches} patches with {length} values each, but preprocessing produces {} patches with {} values each.",
                        preprocessing[0], preprocessing[1]
                    ))
                    .hint("Correct patch_size and max_num_patches in the preprocessing configuration, or override them in imgvec.toml.")
            }
            PackageError::Unsupported { feature: feature @ Unsupported::Pickle, .. } => {
                Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .detail(format!("It contains {feature}, which can run any program."))
                    .hint("Convert it to model.safetensors, as docs/models.md shows.")
            }
            PackageError::Unsupported { feature: feature @ (Unsupported::NoQuestion | Unsupported::OneShape), .. } => {
                Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .detail(format!("It is {feature}."))
                    .hint("Export the model with models/export.py, or with free axes for height and width.")
            }
            PackageError::Unsupported { feature, .. } => {
                Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .detail(format!("It needs {feature}."))
                    .hint(SEE_DOCUMENTATION)
            }
        }
}

/// Inputs or outputs of a graph: quoted names, with their types and numbers of axes.
fn values(values: &[GraphValue]) -> String {
    let each = |value: &GraphValue| {
        let axes = value.rank().map_or(String::new(), |rank| format!(", {rank} axes"));
        format!(
            "\"{}\" ({}{})",
            value.name,
            value.element.name(),
            if axes == ", 1 axes" { ", 1 axis" } else { &axes }
        )
    };
    match values {
        [] => "none".to_owned(),
        values => values.iter().map(each).collect::<Vec<_>>().join(", "),
    }
}

/// Quoted names with commas.
pub fn list(names: impl Iterator<Item = impl std::fmt::Display>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
