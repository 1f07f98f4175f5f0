//! Loading a graph in the form that costs this process least.

use super::input::Input;
use super::prepared::{self, MIN_BYTES, Outlook, Place, PreparationWarning, Refusal, Source};
use super::{GraphSession, LoadError, SessionOptions};
use crate::package::Graph;

/// A loaded graph, the form it was loaded from, and why it is not the shared one if it should be.
pub(crate) struct Loading {
    pub session: GraphSession,
    pub source: Source,
    pub warning: Option<PreparationWarning>,
}

/// Loads `graph`, in its prepared form if it is large and `place` says where that is kept. Whatever is
/// wrong with the prepared form is a warning, and the plain file is loaded instead.
pub(crate) fn load(
    graph: &Graph,
    place: Option<&Place<'_>>,
    options: SessionOptions,
) -> Result<Loading, LoadError> {
    let mut warning = None;
    if let Some(place) = place.filter(|_| graph.bytes >= MIN_BYTES) {
        match prepared::obtain(place, graph, options) {
            Ok(prepared) => match GraphSession::open(Input::Ours(&prepared.file), options) {
                Ok(session) => {
                    let source = Source::Prepared { mapped_bytes: prepared.mapped_bytes };
                    return Ok(Loading { session, source, warning });
                }
                Err(LoadError::Graph { path, reason }) => {
                    warning = Some(PreparationWarning::Failed { path, reason });
                    prepared::discard(prepared);
                }
                // A shortage says nothing about the form, which others may be using, and the plain
                // file takes more memory still.
                Err(
                    error @ (LoadError::Runtime(_) | LoadError::OutOfMemory { .. } | LoadError::Interrupted),
                ) => return Err(error),
            },
            Err(Refusal::Interrupted) => return Err(LoadError::Interrupted),
            Err(Refusal::OutOfMemory) => {
                return Err(LoadError::OutOfMemory { path: graph.path.clone() });
            }
            Err(Refusal::Warning(refused)) => warning = Some(refused),
        }
    }
    let session = GraphSession::open(Input::Package(graph), options)?;
    Ok(Loading { session, source: Source::Plain, warning })
}

/// Prepares `graph` if it is large, and returns why it could not be.
pub(crate) fn prepare(
    graph: &Graph,
    place: &Place<'_>,
    options: SessionOptions,
) -> Result<Option<PreparationWarning>, LoadError> {
    if graph.bytes < MIN_BYTES {
        return Ok(None);
    }
    match prepared::obtain(place, graph, options) {
        Ok(_) => Ok(None),
        Err(Refusal::Interrupted) => Err(LoadError::Interrupted),
        Err(Refusal::OutOfMemory) => Err(LoadError::OutOfMemory { path: graph.path.clone() }),
        Err(Refusal::Warning(warning)) => Ok(Some(warning)),
    }
}

/// Whether loading `graph` would prepare it first.
pub(crate) fn outlook(graph: &Graph, place: &Place<'_>) -> Outlook {
    prepared::outlook(place, graph)
}
