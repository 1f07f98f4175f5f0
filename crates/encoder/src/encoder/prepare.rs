//! What processes share: whether it is there, making it ahead of use, and tokenizers in their shared form.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{EncodeError, Encoder, Warning};
use crate::memory::{self, OutOfMemory};
use crate::package::{Graph, Modality, PackageError, TextTower};
use crate::runtime::{self, Entry, Outlook, Place, PreparationWarning, Refusal, SessionOptions};
use crate::text::{self, Bytes, TextEncoder};

/// Tokenizer files below this size are read as they are: the library takes 10 ms and a few megabytes for them.
const MIN_TOKENIZER_BYTES: u64 = 512 << 10;
/// The compact form takes less than the file.
const TOKENIZER_SPACE_FACTOR: u64 = 2;
/// Bytes that loading a tokenizer takes at its peak for each byte of its file, in the library's form and in the
/// compact one, of which all but the settings is mapped.
const LIBRARY_SHARE: u64 = 12;
const COMPACT_SHARE: u64 = 1;
/// The label and the file of a tokenizer's entry. No graph has this name.
const TOKENIZER_LABEL: &str = "=tokenizer";
const TOKENIZER: &str = "tokenizer";
/// Changes whenever the way of making the compact form does; its bytes have a version of their own.
const TOKENIZER_FORMAT: u32 = 1;

impl Encoder {
    /// Whether embedding `modality` would first prepare something that another process could prepare instead.
    /// Costs a few looks at small files, and nothing once the tower is loaded.
    ///
    /// # Errors
    /// As [`Encoder::digest`].
    pub fn wants_preparing(&mut self, modality: Modality) -> Result<bool, EncodeError> {
        let takes_text = modality == Modality::Text || self.package.joint.is_some();
        let graphs: Vec<Graph> = self.package.graphs_of(modality).into_iter().cloned().collect();
        self.graphs_want_preparing(graphs, takes_text)
    }

    /// The same of answering a question.
    ///
    /// # Errors
    /// As [`Encoder::digest`].
    pub fn wants_preparing_answers(&mut self) -> Result<bool, EncodeError> {
        let graphs: Vec<Graph> = self.package.graph_of_answers().into_iter().cloned().collect();
        self.graphs_want_preparing(graphs, true)
    }

    fn graphs_want_preparing(&mut self, graphs: Vec<Graph>, takes_text: bool) -> Result<bool, EncodeError> {
        let Some(cache_dir) = self.options.cache_dir.clone() else { return Ok(false) };
        let is_loaded = |graph: &Graph| self.sessions.iter().any(|loaded| loaded.graph.path == graph.path);
        let graphs: Vec<Graph> = graphs.into_iter().filter(|graph| !is_loaded(graph)).collect();
        if graphs.is_empty() {
            return Ok(false);
        }
        let tokenizer = self.package.tokenized().filter(|tower| takes_text && is_large(tower)).cloned();
        for graph in &graphs {
            if runtime::outlook(graph, &self.place(&cache_dir, graph)?) == Outlook::Wanted {
                return Ok(true);
            }
        }
        let Some(tower) = tokenizer else { return Ok(false) };
        let place = self.place(&cache_dir, &tower.graph)?;
        Ok(tokenizer_entry(&place, &tower).outlook() == Outlook::Wanted)
    }

    /// Prepares everything of the model that processes share, and keeps nothing of it in memory.
    ///
    /// # Errors
    /// [`EncodeError::Interrupted`], or what is wrong with a file of the package. That something cannot be
    /// shared is told by [`Encoder::take_warnings`].
    pub fn prepare(&mut self) -> Result<(), EncodeError> {
        let Some(cache_dir) = self.options.cache_dir.clone() else { return Ok(()) };
        let graphs: Vec<Graph> = self.package.graphs().into_iter().cloned().collect();
        for graph in graphs {
            let options = SessionOptions {
                threads: self.options.threads,
                interrupt: self.options.interrupt,
                repeats_shapes: false,
            };
            let place = self.place(&cache_dir, &graph)?;
            if let Some(reason) = runtime::prepare(&graph, &place, options)? {
                self.warnings.push(Warning::NotShared { graph: graph.path.clone(), reason });
            }
        }
        if let Some(tower) = self.package.tokenized().filter(|tower| is_large(tower)).cloned() {
            self.compact_tokenizer(&cache_dir, &tower)?;
        }
        Ok(())
    }

    /// The tokenizer of a tower, in the form that processes share if it is large and can be had so.
    pub(super) fn open_tokenizer(&mut self, tower: &TextTower) -> Result<TextEncoder, EncodeError> {
        if let Some(cache_dir) = self.options.cache_dir.clone().filter(|_| is_large(tower))
            && let Some(prepared) = self.compact_tokenizer(&cache_dir, tower)?
        {
            // An empty file says that the library must do.
            if prepared.mapped_bytes == 0 {
                return open_in_library(tower);
            }
            reserve(prepared.mapped_bytes, COMPACT_SHARE)?;
            let bytes = self.bytes_of(&prepared.file);
            let opened = match bytes {
                Ok(bytes) => TextEncoder::open_compact(tower, bytes)?,
                Err(_) => None,
            };
            match opened {
                Some(tokenizer) => return Ok(tokenizer),
                None => runtime::discard(prepared),
            }
        }
        open_in_library(tower)
    }

    /// The compact form of a tokenizer, made now if there is none; nothing if it cannot be kept.
    fn compact_tokenizer(
        &mut self,
        cache_dir: &Path,
        tower: &TextTower,
    ) -> Result<Option<runtime::Prepared>, EncodeError> {
        let interrupt = self.options.interrupt;
        let place = self.place(cache_dir, &tower.graph)?;
        let broken: std::cell::Cell<Option<PackageError>> = std::cell::Cell::new(None);
        let made = tokenizer_entry(&place, tower).obtain(interrupt, |dir| {
            let target = dir.join(TOKENIZER);
            let refused = |source: io::Error| Refusal::from((target.clone(), source));
            reserve(size_of(tower), LIBRARY_SHARE).map_err(|_| Refusal::OutOfMemory)?;
            let bytes = text::compact_form(tower).map_err(|error| {
                broken.set(Some(error));
                refused(io::ErrorKind::InvalidData.into())
            })?;
            if interrupt() {
                return Err(Refusal::Interrupted);
            }
            std::fs::write(&target, bytes).map_err(refused)
        });
        match made {
            Ok(prepared) => Ok(Some(prepared)),
            Err(Refusal::Interrupted) => Err(EncodeError::Interrupted),
            // The library's form may still fit.
            Err(Refusal::OutOfMemory) => Ok(None),
            Err(Refusal::Warning(reason)) => {
                if let Some(error) = broken.take() {
                    return Err(error.into());
                }
                self.warn_of_tokenizer(tower, reason);
                Ok(None)
            }
        }
    }

    /// Warns that a tokenizer is not shared, unless the same was said of a graph.
    fn warn_of_tokenizer(&mut self, tower: &TextTower, reason: PreparationWarning) {
        if self.warnings.is_empty() && self.sessions.is_empty() {
            self.warnings.push(Warning::NotShared { graph: tower.tokenizer.clone(), reason });
        }
    }

    fn bytes_of(&self, path: &Path) -> io::Result<Box<dyn Bytes>> {
        let mut file = File::open(path)?;
        if let Some(map) = self.options.map {
            return map(&file);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Box::new(bytes))
    }

    /// Where the entries of a graph and of its tokenizer lie in the cache directory.
    fn place<'a>(&'a mut self, cache_dir: &'a Path, graph: &Graph) -> Result<Place<'a>, EncodeError> {
        let digest = self.digest_of(graph)?;
        let owner = self.package.owner_of_graph(graph);
        Ok(Place { cache_dir, package_key: owner.path_key(), package_dir: &owner.dir, digest })
    }
}

fn size_of(tower: &TextTower) -> u64 {
    tower.tokenizer_file.metadata().map_or(0, |metadata| metadata.len())
}

fn is_large(tower: &TextTower) -> bool {
    size_of(tower) >= MIN_TOKENIZER_BYTES
}

/// Asks for the memory that loading a tokenizer takes: its small allocations cannot bear a refusal.
fn reserve(bytes: u64, share: u64) -> Result<(), OutOfMemory> {
    memory::reserve(usize::try_from(bytes.saturating_mul(share)).unwrap_or(usize::MAX), "load a tokenizer")
}

fn open_in_library(tower: &TextTower) -> Result<TextEncoder, EncodeError> {
    reserve(size_of(tower), LIBRARY_SHARE)?;
    Ok(TextEncoder::open(tower)?)
}

fn tokenizer_entry<'a>(place: &'a Place<'a>, tower: &TextTower) -> Entry<'a> {
    let size = size_of(tower);
    Entry {
        place,
        label: TOKENIZER_LABEL.to_owned(),
        parts: vec![
            tower.tokenizer.as_os_str().as_encoded_bytes().to_vec(),
            TOKENIZER_FORMAT.to_le_bytes().to_vec(),
        ],
        main: TOKENIZER,
        mapped: TOKENIZER,
        needed: size.saturating_mul(TOKENIZER_SPACE_FACTOR),
    }
}
