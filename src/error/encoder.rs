//! Messages for errors between a package and an embedding: runtime, graph, tokenizer, output.

use super::image::sentence;
use super::package::list;
use super::{Code, Report, paths};
use imgvec_encoder::encoder::{EncodeError, RunSize, Warning};
use imgvec_encoder::image::PreprocessError;
use imgvec_encoder::package::{DigestError, Modality};
use imgvec_encoder::runtime::RuntimeError;
use imgvec_encoder::text::TextError;

const COPY_OR_UPGRADE: &str = "Copy the complete model directory again, or use a newer ONNX Runtime.";
const INSTALL_RUNTIME: &str = "Install ONNX Runtime beside the extension with \"make install\", or have a superuser set \
                               imgvec.onnxruntime_library to the path of libonnxruntime.so.";

impl From<RuntimeError> for Report {
    fn from(error: RuntimeError) -> Self {
        paths::for_role(runtime_error(error))
    }
}

fn runtime_error(error: RuntimeError) -> Report {
    let message = error.to_string();
    match error {
        RuntimeError::NotFound { candidates } => Report::new(Code::ERRCODE_UNDEFINED_FILE, message)
            .detail(format!("Tried {}.", list(candidates.iter().map(|path| path.to_string_lossy()))))
            .hint(INSTALL_RUNTIME),
        RuntimeError::NotOnnxRuntime { reason, .. } => {
            Report::new(Code::ERRCODE_UNDEFINED_FILE, message).detail(sentence(&reason)).hint(INSTALL_RUNTIME)
        }
        RuntimeError::TooOld { needed, .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail(format!("The oldest supported version is {needed}."))
            .hint(INSTALL_RUNTIME),
        RuntimeError::OutOfMemory { reason, .. } => {
            super::out_of_memory(format!("{} {}", sentence(&message), sentence(&reason)))
        }
        // The stack of a thread is memory as well, and the system does not say which was short.
        RuntimeError::Thread { .. } => super::out_of_memory(sentence(&message)),
        RuntimeError::Start { reason, .. } => Report::new(Code::ERRCODE_SYSTEM_ERROR, message)
            .detail(sentence(&reason))
            .hint("Connect again, and check the limits on memory and threads of the server's system user."),
        RuntimeError::NotLoaded => Report::new(Code::ERRCODE_INTERNAL_ERROR, message).hint(INSTALL_RUNTIME),
    }
}

impl From<TextError> for Report {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Tokenizer(reason) => {
                Self::new(Code::ERRCODE_CONFIG_FILE_ERROR, "could not tokenize the text")
                    .detail(sentence(&reason))
                    .hint("Copy the model's tokenizer.json again.")
            }
            TextError::IdOutOfRange { .. } => {
                Self::new(Code::ERRCODE_CONFIG_FILE_ERROR, "tokenizer and graph of the model do not match")
                    .detail(sentence(&error))
                    .hint("Supply the tokenizer.json that belongs to the graph.")
            }
            TextError::OutOfMemory(error) => super::out_of_memory(sentence(&error)),
            TextError::Interrupted => super::interrupted(),
        }
    }
}

impl From<DigestError> for Report {
    fn from(error: DigestError) -> Self {
        match error {
            DigestError::Package(error) => error.into(),
            DigestError::Interrupted => super::interrupted(),
        }
    }
}

/// Why something could not be embedded. `place` returns the 0-based position of an input in its batch, or
/// `None` for a call with one input.
pub fn encode_error(error: EncodeError, place: impl Fn(usize) -> Option<usize>) -> Report {
    paths::for_role(word(error, place))
}

fn word(error: EncodeError, place: impl Fn(usize) -> Option<usize>) -> Report {
    let message = error.to_string();
    let reason_of_graph = |code, reason: &str, hint: &str| {
        Report::new(code, message.clone()).detail(sentence(&reason)).hint(hint)
    };
    match error {
        EncodeError::Interrupted => super::interrupted(),
        EncodeError::NoTower { answers: true, .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail("It answers questions about images, and returns no vectors.")
            .hint("Ask it with answer_image(image, question, model), or embed with another model."),
        EncodeError::NoTower { modality, .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail(match modality {
                Modality::Image => "Its package has no graph that takes pixels.",
                Modality::Text => "Its package has no graph that takes tokens, or no tokenizer.json.",
            })
            .hint("The column \"modalities\" of the view imgvec_models shows what each model embeds."),
        EncodeError::NoAnswers { .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail("It compares images with texts, so the answers must be given.")
            .hint("Call answer_image(image, question, answers, model), or use a model of the family vilt."),
        EncodeError::AnswersDiffer { .. } => Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
            .detail("The setting \"id2label\" of config.json names an answer for each score.")
            .hint("Supply the config.json that belongs to the graph."),
        EncodeError::NoJointInput { .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail("Its image and text towers are separate, and each returns its own vector.")
            .hint("Mix the vectors of image and text with embed_mix(), or use a model of the family embedding_gemma2."),
        EncodeError::TooManyTokens { tokens, limit, .. } => {
            Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
                .detail(format!("Images and texts take {tokens} tokens, but the model reads at most {limit}."))
                .hint("Leave images out, or lower max_soft_tokens in imgvec.toml.")
        }
        EncodeError::Image { index, source } => at(Report::from(source), place(index), "image"),
        EncodeError::Region(source) => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, message)
            .detail(sentence(&source))
            .hint("Give corners in pixels of the image as it is shown, from (0,0) at its top left."),
        EncodeError::Preprocess { index, source } => match source {
            PreprocessError::Image(source) => at(Report::from(source), place(index), "image"),
            PreprocessError::OutputLength { .. } => {
                Report::new(Code::ERRCODE_INTERNAL_ERROR, message).detail(sentence(&source))
            }
        },
        EncodeError::Text { index, source } => at(Report::from(source), place(index), "text"),
        EncodeError::Package(error) => error.into(),
        EncodeError::Runtime(error) => error.into(),
        EncodeError::OutOfMemory(error) => super::out_of_memory(sentence(&error)),
        EncodeError::RunTooLarge { size, needed_bytes, limit_bytes, .. } => {
            run_too_large(message, size, needed_bytes, limit_bytes)
        }
        EncodeError::Load { reason, .. } => {
            reason_of_graph(Code::ERRCODE_CONFIG_FILE_ERROR, &reason, COPY_OR_UPGRADE)
        }
        EncodeError::Run { reason, .. } => reason_of_graph(
            Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            &reason,
            "Check the package's preprocessing and input settings against the model's documentation.",
        ),
        EncodeError::TokenizerMismatch { reason, .. } => reason_of_graph(
            Code::ERRCODE_CONFIG_FILE_ERROR,
            &reason,
            "Supply the tokenizer.json that belongs to the graph.",
        ),
        EncodeError::OutputShape { shape, .. } => Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail(format!("Its shape is {shape:?}."))
            .hint("Name the output that is the embedding, or its pooling, in imgvec.toml."),
        EncodeError::Dimensions { .. } => Report::new(Code::ERRCODE_CONFIG_FILE_ERROR, message)
            .detail("All embeddings of a model have the same number of dimensions.")
            .hint("Supply both towers of one model, with their projections."),
        EncodeError::Flawed { flaw, .. } => Report::new(Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message)
            .detail(sentence(&flaw))
            .hint("Check that the graph's file is undamaged, or use its fp32 form."),
    }
}

/// A run beyond `imgvec.max_run_memory`. If a shorter text or fewer tokens of an image would fit, the hint suggests that first.
fn run_too_large(message: String, size: RunSize, needed: u64, limit: u64) -> Report {
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let over = match size {
        RunSize { rows: 1, tokens: Some(tokens), .. } => format!("a text of {tokens} tokens"),
        RunSize { rows, tokens: Some(tokens), .. } => format!("{rows} rows of {tokens} tokens"),
        RunSize { rows: 1, tokens: None, .. } => "one image".to_owned(),
        RunSize { rows, tokens: None, .. } => {
            format!("{rows} images, the batch size that the graph fixes")
        }
    };
    let setting = format!("have a superuser raise imgvec.max_run_memory, now {} MB", megabytes(limit));
    Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
        .detail(format!("It reads {over} and takes about {} MB.", megabytes(needed)))
        .hint(match (size.fitting_tokens, size.fitting_soft_tokens) {
            (Some(tokens), _) => format!("Shorten the text to about {tokens} tokens, or {setting}."),
            (None, Some(tokens)) => format!(
                "Set max_soft_tokens = {tokens} under [image.preprocessing] in the model's imgvec.toml, or {setting}."
            ),
            (None, None) => format!("{}{}.", setting[..1].to_uppercase(), &setting[1..]),
        })
}

/// Adds the 1-based position in a batch.
fn at(report: Report, place: Option<usize>, what: &str) -> Report {
    match place {
        Some(place) => report.detail_after(&format!("This is {what} {} of the array.", place + 1)),
        None => report,
    }
}

/// Something that works but takes more memory than necessary.
pub fn warning(warning: &Warning, model: &str) -> Report {
    let report = Report::new(
        Code::ERRCODE_WARNING,
        format!("weights of model \"{model}\" are not shared between backends"),
    )
    .detail(sentence(warning))
    .hint("Let the server write to imgvec.cache_directory and free space there, or set it to an empty string to keep private copies.");
    paths::for_role(report)
}
