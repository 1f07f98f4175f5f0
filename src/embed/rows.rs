//! Embeddings of a table's rows: each input has an answer of its own, and one that fails does not keep the others back.

use super::cache::Kind;
use super::functions::fetch;
use super::session::{self, Embedding, Session};
use crate::error::Report;
use crate::types::datum::{Bytea, Text};
use imgvec_encoder::package::Modality;
use pgrx::PgMemoryContexts;

/// Bytes of inputs that are fetched together, beyond a single one that is larger.
const TOGETHER_BYTES: usize = 16 << 20;

/// What kind of input a model gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inputs {
    Images,
    Texts,
}

/// What there is to know of a model before it is used.
pub struct Facts {
    /// Unknown for a model whose package does not tell, until it has run.
    pub dim: Option<usize>,
    pub images: bool,
    pub texts: bool,
}

/// Opens a model.
///
/// # Errors
/// If there is none of that name, or it cannot be opened.
pub fn facts(model: &str) -> Result<Facts, Report> {
    session::with(|session| {
        Ok(session.model(model).map(|model| {
            let package = model.encoder.package();
            Facts {
                dim: model.encoder.dim(),
                images: package.modalities.contains(&Modality::Image),
                texts: package.modalities.contains(&Modality::Text),
            }
        }))
    })
}

/// What a row gives to embed.
pub enum Input<'a> {
    Image(Bytea<'a>),
    Text(Text<'a>),
}

impl Input<'_> {
    fn size(&self) -> usize {
        match self {
            Input::Image(image) => image.size(),
            Input::Text(text) => text.as_str().len(),
        }
    }

    fn bytes(&self) -> Result<&[u8], Report> {
        match self {
            Input::Image(image) => fetch(image),
            Input::Text(text) => Ok(text.as_str().as_bytes()),
        }
    }
}

/// The embedding of each input, NULL for NULL, or why there is none.
///
/// # Errors
/// What no input could be embedded for: the model, the runtime, or an interrupt.
pub fn embed_rows(
    model: &str,
    kind: Inputs,
    inputs: &[Option<Input<'_>>],
) -> Result<Vec<Result<Option<Embedding>, Report>>, Report> {
    let kind = match kind {
        Inputs::Images => Kind::Image,
        Inputs::Texts => Kind::Text,
    };
    session::with(|session| {
        Ok((|| {
            session.model(model)?;
            let mut answers = Vec::with_capacity(inputs.len());
            let mut rest = inputs;
            while !rest.is_empty() {
                let mut bytes = 0;
                let count = rest
                    .iter()
                    .take_while(|input| {
                        bytes += input.as_ref().map_or(0, Input::size);
                        bytes <= TOGETHER_BYTES
                    })
                    .count()
                    .max(1);
                let (group, later) = rest.split_at(count);
                // What is fetched is given back group by group.
                let mut context = PgMemoryContexts::new("imgvec inputs");
                // SAFETY: nothing that is allocated in it is kept.
                unsafe { context.switch_to(|_| embed(session, model, kind, group, &mut answers)) }?;
                rest = later;
            }
            Ok(answers)
        })())
    })
}

/// Embeds a group in one run, or where one of its inputs fails, its halves.
fn embed(
    session: &mut Session,
    model: &str,
    kind: Kind,
    group: &[Option<Input<'_>>],
    answers: &mut Vec<Result<Option<Embedding>, Report>>,
) -> Result<(), Report> {
    let begin = answers.len();
    let inputs = group.iter().map(|input| input.as_ref().map(Input::bytes).transpose());
    let result = session.embed(model, kind, false, inputs, |embedding| {
        answers.push(Ok(embedding.cloned()));
        Ok(())
    });
    let Err(report) = result else { return Ok(()) };
    if report.is_interrupt() || is_of_the_model(&report) {
        return Err(report);
    }
    answers.truncate(begin);
    if group.len() == 1 {
        answers.push(Err(report));
        return Ok(());
    }
    let (first, second) = group.split_at(group.len() / 2);
    embed(session, model, kind, first, answers)?;
    embed(session, model, kind, second, answers)
}

/// Whether no input of the model can be embedded: its files, its configuration, the library, a limit of the system.
fn is_of_the_model(report: &Report) -> bool {
    let code = report.sqlstate();
    code.starts_with("58") || code.starts_with("F0") || code.starts_with("42") || code.starts_with("XX")
}
