//! What a session is made from, so that nobody can take it away while the session runs.
//!
//! ONNX Runtime maps external data. If somebody then writes the file again in place, the weights change
//! under the session, and if the file gets shorter, the process that reads a page after its end is killed
//! by SIGBUS. The prepared form is ours: nobody but the server may write to it, and the server only ever
//! makes and removes whole files. A package belongs to somebody else. Its graphs are read, never mapped,
//! and so are their external data: into memory of our own, from which ONNX Runtime takes them.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::LoadError;
use crate::interrupt::InterruptCheck;
use crate::memory;
use crate::package::{Graph, Outline, open_regular};

/// Bytes that are read between two looks at the interrupt check.
const PIECE: usize = 8 << 20;

/// The files of a graph.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// A file in the cache directory, with its weights in the file beside it.
    Ours(&'a Path),
    /// A graph of a package.
    Package(&'a Graph),
}

/// The files of a graph, read as far as they must be.
pub(super) enum Content {
    /// A graph whose weights are in it, or ours. ONNX Runtime reads it.
    File(PathBuf),
    /// A graph and its external data by location.
    Memory { graph: Arc<[u8]>, external: Vec<(String, Arc<[u8]>)> },
}

impl Input<'_> {
    /// The path for messages.
    pub fn path(&self) -> &Path {
        match self {
            Input::Ours(path) => path,
            Input::Package(graph) => &graph.path,
        }
    }

    /// Reads what ONNX Runtime would otherwise map.
    pub fn content(&self, interrupt: InterruptCheck) -> Result<Content, LoadError> {
        let graph = match self {
            Input::Ours(path) => return Ok(Content::File((*path).to_owned())),
            Input::Package(graph) if graph.external.is_empty() => {
                return Ok(Content::File(graph.real.clone()));
            }
            Input::Package(graph) => graph,
        };
        let refused = |reason: String| LoadError::Graph { path: graph.path.clone(), reason };
        let stopped = |error: io::Error| {
            if error.kind() == io::ErrorKind::Interrupted {
                LoadError::Interrupted
            } else if error.kind() == io::ErrorKind::OutOfMemory {
                LoadError::OutOfMemory { path: graph.path.clone() }
            } else {
                refused(error.to_string())
            }
        };
        let bytes = read(&graph.real, interrupt).map_err(stopped)?;
        let outline = Outline::read(Cursor::new(&bytes), bytes.len() as u64);
        let outline = outline.map_err(|error| refused(error.to_string()))?;
        // What the graph names now must be what was found to lie within the package.
        if !outline.external.keys().eq(graph.external.iter().map(|file| &file.location)) {
            return Err(refused("the file was replaced while it was loaded".to_owned()));
        }
        let external = graph.external.iter().map(|file| {
            let bytes = read(&file.real, interrupt).map_err(stopped)?;
            Ok((file.location.clone(), bytes))
        });
        Ok(Content::Memory { external: external.collect::<Result<_, LoadError>>()?, graph: bytes })
    }
}

impl Content {
    /// Makes a session.
    pub fn commit(self, mut builder: SessionBuilder) -> ort::Result<Session> {
        match self {
            Content::File(path) => builder.commit_from_file(path),
            Content::Memory { graph, external } => {
                for (location, bytes) in external {
                    builder = builder.with_external_initializer_file_in_memory(location, bytes)?;
                }
                builder.commit_from_memory(&graph)
            }
        }
    }
}

/// The bytes of a file. An error of kind `Interrupted` means that the check asked to stop.
fn read(real: &Path, interrupt: InterruptCheck) -> io::Result<Arc<[u8]>> {
    let (mut file, metadata) = open_regular(real)?;
    let length = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // A shared slice can only be allocated in a way that aborts: ask for as much first in one that does not.
    memory::reserve(length, "read a graph").map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    let target = Arc::get_mut(&mut bytes).expect("just made");
    for piece in target.chunks_mut(PIECE) {
        if interrupt() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.read_exact(piece)?;
    }
    Ok(bytes)
}
