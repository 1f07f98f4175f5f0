//! The rows behind the views `imgvec_models` and `imgvec_backend_stats`.

use super::server;
use super::session;
use crate::encoding;
use crate::error::package::list;
use crate::error::{Report, paths};
use crate::guc;
use crate::types::datum::{NewRecord, NewText};
use imgvec_encoder::package::{Listed, Package};
use pgrx::prelude::*;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

type ModelRows = TableIterator<
    'static,
    (
        name!(name, NewText),
        name!(family, Option<NewText>),
        name!(modalities, Option<Vec<String>>),
        name!(dims, Option<i32>),
        name!(precision, Option<NewText>),
        name!(digest, Option<NewText>),
        name!(path, Option<NewText>),
        name!(license, Option<NewText>),
        name!(state, NewText),
        name!(detail, Option<NewText>),
        name!(memory_bytes, Option<i64>),
    ),
>;

/// What a package takes: kinds of inputs that it embeds, or questions.
fn modalities(package: &Package) -> Vec<String> {
    let embedded = package.modalities.iter().map(|modality| modality.name());
    embedded.chain(package.answers.is_some().then_some("question")).map(str::to_owned).collect()
}

/// What to know of a package that works: whose towers it has, and that its prompts are not put before a text by themselves.
fn notes(package: &Package) -> Option<String> {
    let lent = package
        .lenders()
        .map(|(modality, lender)| format!("its {} tower is that of \"{}\"", modality.name(), lender.name));
    let answers = package.answers.as_ref().map(|model| {
        format!(
            "it answers questions about an image with one of {} answers: answer_image()",
            model.labels.len()
        )
    });
    let notes: Vec<String> = lent.chain(answers).chain(unused_prompts(package)).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// What to know of a package whose prompts are not put before a text by themselves.
fn unused_prompts(package: &Package) -> Option<String> {
    let is_prompted = package.text.as_ref().is_none_or(|tower| !tower.prompt.is_empty());
    if is_prompted || package.prompts.is_empty() {
        return None;
    }
    let names = list(package.prompts.keys().map(String::as_str));
    Some(format!(
        "its prompts are put before a text where they are named, as in embed_text(..., prompt => ...): {names}"
    ))
}

/// A path is UTF-8, or else what the server's encoding makes of it.
fn path_text(path: &Path) -> NewText {
    match path.to_str() {
        Some(utf8) => text(utf8),
        None => text(&encoding::to_utf8_lossy(path.as_os_str().as_bytes())),
    }
}

fn text(text: &str) -> NewText {
    NewText::from_utf8(&paths::printable(text))
}

#[pg_extern]
fn imgvec_model_list() -> ModelRows {
    let may_see_paths = paths::may_see_paths();
    let cache_dir = guc::cache_directory();
    let rows: Vec<_> = Package::list(&guc::model_path())
        .into_iter()
        .map(|Listed { name, dir, package }| {
            pgrx::check_for_interrupts!();
            let path = may_see_paths.then(|| path_text(&dir));
            let package = package.map_err(Report::from).and_then(|package| {
                let digest = package.digest_interruptible(cache_dir.as_deref(), server::interrupt_pending)?;
                Ok((package, digest))
            });
            // What was interrupted is not broken.
            pgrx::check_for_interrupts!();
            match package {
                Ok((package, digest)) => {
                    let memory = session::with(|session| {
                        Ok(session
                            .model_if_open(&name)
                            .filter(|model| model.digest == digest)
                            .map(|model| model.encoder.loaded().iter().map(|graph| graph.bytes).sum::<u64>()))
                    });
                    (
                        text(&name),
                        Some(text(package.family.name())),
                        Some(modalities(&package)),
                        package.dim.and_then(|dim| i32::try_from(dim).ok()),
                        Some(text(package.precision.name())),
                        Some(text(&digest.to_string())),
                        path,
                        package.license.as_deref().map(text),
                        text(if memory.is_some() { "loaded" } else { "available" }),
                        notes(&package).as_deref().map(text),
                        memory.and_then(|bytes| i64::try_from(bytes).ok()),
                    )
                }
                Err(error) => {
                    let detail = error.summary();
                    (
                        text(&name),
                        None,
                        None,
                        None,
                        None,
                        None,
                        path,
                        None,
                        text("broken"),
                        Some(text(&detail)),
                        None,
                    )
                }
            }
        })
        .collect();
    TableIterator::new(rows)
}

#[pg_extern]
fn imgvec_backend_counters() -> NewRecord {
    let integer = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    session::with(|session| {
        let cost = session.models().map(|model| model.encoder.cost());
        let (runs, inference) =
            cost.fold((0, Duration::ZERO), |(runs, cpu), cost| (runs + cost.runs, cpu + cost.cpu));
        Ok(NewRecord::new()
            .column(integer(session.counters.images))
            .column(integer(session.counters.texts))
            .column(integer(runs))
            .column(integer(session.cache.hits))
            .column(integer(session.cache.misses))
            .column(integer(u64::try_from(session.cache.len()).unwrap_or(u64::MAX)))
            .column(Some(milliseconds(session.counters.cpu)))
            .column(Some(milliseconds(inference))))
    })
}
