//! What a backend keeps between calls: open encoders, the embedding cache, counters.
//!
//! Loaded in the backend on first use, never in the postmaster. A model's files are looked at again once
//! in each statement; when they have changed, the model is opened again.

use super::cache::{EmbeddingCache, Key, Kind};
use super::{background, mapping, origin, parts, server};
use crate::error::{Report, encoder, out_of_memory};
use crate::{guc, memory};
use imgvec_encoder::image::{Corners, ImageLimits, Region, Tiling};
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::{ModelDigest, Package};
use imgvec_encoder::runtime::{self, process_cpu};
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

/// A vector of unit length, shared with the cache.
pub type Embedding = Rc<[f32]>;

/// An open model.
pub struct Model {
    pub encoder: Encoder,
    pub digest: ModelDigest,
    found_by: Settings,
    checked_in_statement: i64,
    /// Graphs that were loaded when free memory was last given back.
    settled_graphs: usize,
}

/// The settings that decide how a model is opened.
#[derive(PartialEq)]
struct Settings {
    model_path: Vec<u8>,
    threads: usize,
    image_limits: ImageLimits,
    max_run_bytes: u64,
}

impl Settings {
    fn current() -> Self {
        Self {
            model_path: guc::model_path_setting(),
            threads: guc::threads(),
            image_limits: guc::image_limits(),
            max_run_bytes: guc::max_run_bytes(),
        }
    }
}

/// What a call asks for.
struct Request<'a> {
    name: &'a str,
    digest: ModelDigest,
    kind: Kind,
    /// Whether errors say which input they mean.
    is_batch: bool,
}

/// What encoders did in this backend.
#[derive(Default)]
pub struct Counters {
    pub images: u64,
    pub texts: u64,
    /// Processor time of encoders, all threads: decoding, tokenizing and model runs.
    pub cpu: Duration,
}

/// The state of the backend.
pub struct Session {
    models: HashMap<String, Model>,
    pub cache: EmbeddingCache,
    pub counters: Counters,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Runs `work` with the session. The error is raised after the borrow has ended, so that a failed call
/// leaves the session usable.
pub fn with<T>(work: impl FnOnce(&mut Session) -> Result<T, Report>) -> T {
    if !memory::keep_aside() {
        out_of_memory("There is not enough memory to start embedding.").raise();
    }
    let result = SESSION.with_borrow_mut(|session| {
        work(session.get_or_insert_with(|| Session {
            models: HashMap::new(),
            cache: EmbeddingCache::new(),
            counters: Counters::default(),
        }))
    });
    match result {
        Ok(value) => value,
        Err(report) => {
            // A cancelled run ends as PostgreSQL words it: user request, timeout or termination.
            pgrx::check_for_interrupts!();
            report.raise()
        }
    }
}

impl Session {
    /// Models that are open, by name.
    pub fn model_if_open(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// All open models.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }

    /// The open model of a name, opened if it is not, reopened if its files or settings changed.
    pub fn model(&mut self, name: &str) -> Result<&mut Model, Report> {
        let statement = server::statement_start();
        let settings = Settings::current();
        let is_current = self.models.get(name).is_some_and(|model| {
            model.found_by == settings
                && (model.checked_in_statement == statement || !model.encoder.package().changed_since_open())
        });
        if !is_current {
            self.models.remove(name);
            let model = open(name, settings)?;
            self.models.insert(name.to_owned(), model);
        }
        let model = self.models.get_mut(name).expect("just opened");
        model.checked_in_statement = statement;
        Ok(model)
    }

    /// Hands `sink` the embeddings of inputs of one kind, in order: from the cache, or by one run over those
    /// that are missing, each distinct input once.
    ///
    /// Inputs pass in groups, so that memory is bounded by a group and a cancelled call has kept the
    /// groups before.
    pub fn embed<I: AsRef<[u8]>>(
        &mut self,
        name: &str,
        kind: Kind,
        is_batch: bool,
        inputs: impl Iterator<Item = Result<Option<I>, Report>>,
        mut sink: impl FnMut(Option<&Embedding>) -> Result<(), Report>,
    ) -> Result<(), Report> {
        let request = Request { name, digest: self.model(name)?.digest, kind, is_batch };
        let (most, most_bytes) = kind.group();
        let (mut start, mut group, mut bytes) = (0, Vec::new(), 0);
        for input in inputs {
            let input = input?;
            bytes += input.as_ref().map_or(0, |input| input.as_ref().len());
            group.push(input);
            if group.len() == most || bytes >= most_bytes {
                self.embed_group(&request, start, &group, &mut sink)?;
                start += group.len();
                group.clear();
                bytes = 0;
                pgrx::check_for_interrupts!();
            }
        }
        if group.is_empty() { Ok(()) } else { self.embed_group(&request, start, &group, &mut sink) }
    }

    /// The embedding of a single input.
    pub fn embed_one<I: AsRef<[u8]>>(
        &mut self,
        name: &str,
        kind: Kind,
        input: Result<I, Report>,
    ) -> Result<Embedding, Report> {
        let mut found = None;
        self.embed(name, kind, false, std::iter::once(input.map(Some)), |embedding| {
            found = embedding.cloned();
            Ok(())
        })?;
        Ok(found.expect("an embedding for each input"))
    }

    /// Remembers that a vector was made of embeddings of a model, so that it counts as one of them.
    pub fn remember(&mut self, embedding: &Embedding, name: &str) -> Result<(), Report> {
        origin::remember(embedding, name, self.model(name)?.digest);
        Ok(())
    }

    fn embed_group<I: AsRef<[u8]>>(
        &mut self,
        request: &Request<'_>,
        start: usize,
        inputs: &[Option<I>],
        sink: &mut impl FnMut(Option<&Embedding>) -> Result<(), Report>,
    ) -> Result<(), Report> {
        let keys: Vec<Option<Key>> = inputs
            .iter()
            .map(|input| input.as_ref().map(|input| Key::new(request.digest, request.kind, input.as_ref())))
            .collect();
        // Of each distinct input its embedding, or none until it has been run.
        let mut found: HashMap<Key, Option<Embedding>> = HashMap::new();
        let mut missing: Vec<usize> = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            if let Entry::Vacant(entry) = found.entry(*key)
                && entry.insert(self.cache.get(key)).is_none()
            {
                missing.push(position);
            }
        }
        if !missing.is_empty() {
            let bytes: Vec<&[u8]> = missing
                .iter()
                .map(|&position| inputs[position].as_ref().expect("has a key").as_ref())
                .collect();
            let vectors = self.run(request.name, request.kind, &bytes).map_err(|error| {
                encoder::encode_error(error, |index| request.is_batch.then(|| start + missing[index]))
            })?;
            for (&position, vector) in missing.iter().zip(vectors) {
                let key = keys[position].expect("missing inputs have a key");
                let embedding = Embedding::from(vector);
                self.cache.put(key, Rc::clone(&embedding));
                found.insert(key, Some(embedding));
            }
        }
        keys.iter().try_for_each(|key| {
            let embedding = key.as_ref().map(|key| found[key].as_ref().expect("cached or just run"));
            if let Some(embedding) = embedding {
                origin::remember(embedding, request.name, request.digest);
            }
            sink(embedding)
        })
    }

    /// The embedding of a part of a picture.
    pub fn embed_region(&mut self, name: &str, image: &[u8], corners: Corners) -> Result<Embedding, Report> {
        let [left, right, top, bottom] =
            [corners.x[0], corners.x[1], corners.y[0], corners.y[1]].map(f64::to_le_bytes);
        let pieces: [&[u8]; 5] = [&left, &right, &top, &bottom, image];
        self.embed_piece(name, Kind::Region, &pieces, |encoder| encoder.embed_region(image, corners))
    }

    /// The embedding of a frame of a picture, from 1.
    pub fn embed_frame(&mut self, name: &str, image: &[u8], frame: u32) -> Result<Embedding, Report> {
        let pieces: [&[u8]; 2] = [&frame.to_le_bytes(), image];
        self.embed_piece(name, Kind::Frame, &pieces, |encoder| encoder.embed_frame(image, frame))
    }

    /// The embedding of something in a picture, from the cache if these pieces tell that it is there.
    fn embed_piece(
        &mut self,
        name: &str,
        kind: Kind,
        pieces: &[&[u8]],
        embed: impl FnOnce(&mut Encoder) -> Result<Vec<f32>, EncodeError>,
    ) -> Result<Embedding, Report> {
        let digest = self.model(name)?.digest;
        let key = Key::of_pieces(digest, kind, pieces);
        let embedding = match self.cache.get(&key) {
            Some(known) => known,
            None => {
                let mut vectors = self
                    .work(name, kind, |encoder| Ok(vec![embed(encoder)?]))
                    .map_err(|error| encoder::encode_error(error, |_| None))?;
                let embedding = Embedding::from(vectors.swap_remove(0));
                self.cache.put(key, Rc::clone(&embedding));
                embedding
            }
        };
        origin::remember(&embedding, name, digest);
        Ok(embedding)
    }

    /// The embeddings of a picture and its tiles. They are not kept: they go into a table.
    pub fn embed_tiles(
        &mut self,
        name: &str,
        image: &[u8],
        tiling: Tiling,
    ) -> Result<Vec<(Region, Vec<f32>)>, Report> {
        self.model(name)?;
        self.work(name, Kind::Region, |encoder| encoder.embed_tiles(image, tiling))
            .map_err(|error| encoder::encode_error(error, |_| None))
    }

    /// The model's own answers to a question about a picture with their scores, best first.
    pub fn answers(
        &mut self,
        name: &str,
        image: &[u8],
        question: &str,
    ) -> Result<Vec<(String, f32)>, Report> {
        self.model(name)?;
        let scores = self
            .work(name, Kind::Question, |encoder| encoder.answer(image, question))
            .map_err(|error| encoder::encode_error(error, |_| None))?;
        let answers = &self.model(name)?.encoder.package().answers;
        let labels = answers.as_ref().map(|model| model.labels.clone()).unwrap_or_default();
        let mut rows: Vec<(String, f32)> = labels.into_iter().zip(scores).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(rows)
    }

    fn run(&mut self, name: &str, kind: Kind, inputs: &[&[u8]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.work(name, kind, |encoder| match kind {
            Kind::Image => encoder.embed_images(inputs),
            Kind::Text | Kind::PromptedText | Kind::Label => {
                let texts: Vec<&str> = inputs
                    .iter()
                    .map(|text| std::str::from_utf8(text).expect("text inputs are UTF-8"))
                    .collect();
                if kind == Kind::PromptedText {
                    encoder.embed_prompted_texts(&texts)
                } else {
                    encoder.embed_texts(&texts)
                }
            }
            Kind::Parts => inputs.iter().map(|input| encoder.embed_parts(&parts::split(input))).collect(),
            Kind::Region | Kind::Frame | Kind::Question => unreachable!("they have a way of their own"),
        })
    }

    /// Has the encoder of an open model embed something, and takes note of what it did.
    fn work<T>(
        &mut self,
        name: &str,
        kind: Kind,
        embed: impl FnOnce(&mut Encoder) -> Result<Vec<T>, EncodeError>,
    ) -> Result<Vec<T>, EncodeError> {
        let model = self.models.get_mut(name).expect("opened before");
        let encoder = &mut model.encoder;
        background::before_use(name, encoder, kind)?;
        let began = process_cpu();
        let vectors = embed(encoder)?;
        let graphs = encoder.loaded().len();
        if graphs != model.settled_graphs {
            model.settled_graphs = graphs;
            memory::give_back();
        }
        self.counters.cpu += process_cpu().saturating_sub(began);
        for warning in encoder.take_warnings() {
            encoder::warning(&warning, name).warn();
        }
        let count = u64::try_from(vectors.len()).expect("a count");
        match kind {
            Kind::Image | Kind::Region | Kind::Frame => self.counters.images += count,
            Kind::Text | Kind::PromptedText | Kind::Label | Kind::Parts => self.counters.texts += count,
            // Nothing is embedded.
            Kind::Question => {}
        }
        Ok(vectors)
    }
}

impl Kind {
    /// Most inputs that are held and run together, and the bytes at which a group ends. Texts are many, so
    /// that each finds others of its length.
    fn group(self) -> (usize, usize) {
        match self {
            Kind::Image | Kind::Region | Kind::Frame | Kind::Parts | Kind::Question => (32, 32 << 20),
            Kind::Text | Kind::PromptedText | Kind::Label => (256, 1 << 20),
        }
    }
}

fn open(name: &str, settings: Settings) -> Result<Model, Report> {
    let package = Package::find(&guc::model_path(), name)?;
    runtime::init(&guc::onnxruntime_candidates())?;
    let cache_dir = guc::cache_directory();
    let digest = package.digest_interruptible(cache_dir.as_deref(), server::interrupt_pending)?;
    let options = EncoderOptions {
        threads: settings.threads,
        cache_dir,
        interrupt: server::interrupt_pending,
        image_limits: settings.image_limits,
        memory: ProcessMemory {
            max_run_bytes: settings.max_run_bytes,
            give_back: memory::give_back,
            is_short: memory::is_short,
        },
        map: Some(mapping::map),
    };
    let encoder = Encoder::open(package, options).map_err(|error| encoder::encode_error(error, |_| None))?;
    Ok(Model { encoder, digest, found_by: settings, checked_in_statement: 0, settled_graphs: 0 })
}
