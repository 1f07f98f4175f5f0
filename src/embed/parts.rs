//! `embed_parts` and `embed_query`: pictures and words as one input or as one query.
//!
//! An input is one value for the cache, so its parts are joined: for each a byte that says what it is, the length
//! of its bytes, and the bytes.

use super::cache::Kind;
use super::functions::fetch;
use super::session::{self, Embedding};
use crate::error::{Code, OrRaise, Report, out_of_memory};
use crate::guc;
use crate::types::Mix;
use crate::types::datum::{Bytea, NewVector, Text};
use imgvec_encoder::encoder::Part;
use imgvec_encoder::package::ModalityMeans;
use pgrx::Array;
use pgrx::prelude::*;

/// Most parts of an input. Each picture takes at least 70 tokens of a model that reads some thousands.
const MAX_PARTS: usize = 1000;
/// Most bytes of all parts, which are held together.
const MAX_BYTES: usize = 256 << 20;
/// Bytes before each part.
const HEAD_BYTES: usize = 1 + size_of::<u64>();

const TEXT: u8 = 0;
const PICTURE: u8 = 1;

/// The parts of an input, joined.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    parts: usize,
}

impl Joined {
    fn picture(&mut self, image: &Bytea<'_>) -> Result<(), Report> {
        self.room(image.size())?;
        self.push(PICTURE, fetch(image)?);
        Ok(())
    }

    fn text(&mut self, pieces: [&str; 2]) -> Result<(), Report> {
        let text = pieces.concat();
        self.room(text.len())?;
        self.push(TEXT, text.as_bytes());
        Ok(())
    }

    fn push(&mut self, kind: u8, part: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend((part.len() as u64).to_le_bytes());
        self.bytes.extend(part);
    }

    /// Asks for room for one more part, before it is fetched.
    fn room(&mut self, len: usize) -> Result<(), Report> {
        self.parts += 1;
        if self.parts > MAX_PARTS || self.bytes.len() + len > MAX_BYTES {
            let report = Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the input has too many parts");
            return Err(report
                .detail(format!(
                    "An input has at most {MAX_PARTS} images and texts, and {} MB in all.",
                    MAX_BYTES >> 20
                ))
                .hint("Embed the parts separately and average their vectors, or leave some out."));
        }
        let reserved = self.bytes.try_reserve_exact(len + HEAD_BYTES);
        reserved.map_err(|_| out_of_memory(format!("There is no memory for an input of {len} bytes.")))
    }
}

/// The parts of an input that was joined here.
pub fn split(mut joined: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let Some((head, rest)) = joined.split_at_checked(HEAD_BYTES) {
        let len = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
        let (part, rest) = rest.split_at(usize::try_from(len).expect("as long as the part was"));
        parts.push(match head[0] {
            TEXT => Part::Text(std::str::from_utf8(part).expect("texts are UTF-8")),
            _ => Part::Picture(part),
        });
        joined = rest;
    }
    parts
}

/// The embedding of the parts at the places of two arrays, or nothing if there is no part.
fn parts_embedding(
    images: &Array<'_, Bytea<'_>>,
    texts: &Array<'_, Text<'_>>,
    model: &str,
) -> Option<Embedding> {
    if images.len() != texts.len() {
        Report::new(
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "images and texts must be arrays of the same length",
        )
        .detail(format!("There are {} images and {} texts.", images.len(), texts.len()))
        .hint("At each position, put a part into one array and NULL into the other.")
        .raise();
    }
    let joined = || -> Result<Joined, Report> {
        let mut joined = Joined::default();
        for (image, text) in images.iter().zip(texts.iter()) {
            image.map_or(Ok(()), |image| joined.picture(&image))?;
            text.map_or(Ok(()), |text| joined.text(["", text.as_str()]))?;
        }
        Ok(joined)
    };
    let joined = joined().or_raise();
    let embed = |bytes| session::with(|session| session.embed_one(model, Kind::Parts, Ok(bytes)));
    (joined.parts > 0).then(|| embed(joined.bytes))
}

/// The embedding of a query of an image, a text or both; nothing if there is neither.
///
/// A model that takes both in one input embeds them in one pass, unless a weight is given. Others, and all with a weight,
/// embed each by itself and mix the two.
fn query_embedding(
    image: Option<&Bytea<'_>>,
    query: Option<&Text<'_>>,
    weight: Option<f64>,
    model: &str,
) -> Option<Embedding> {
    if let Some(weight) = weight.filter(|weight| !(0.0..=1.0).contains(weight)) {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "weight of the text must be between 0 and 1")
            .detail(format!("The weight is {weight}."))
            .hint("0 is the image alone and 1 the text alone; embed_mix() takes any weights.")
            .raise();
    }
    if image.is_none() && query.is_none() {
        return None;
    }
    Some(session::with(|session| {
        let encoder = &session.model(model)?.encoder;
        let (is_joint, prompt) = (encoder.is_joint(), encoder.query_prompt().to_owned());
        let settings = encoder.package().query.clone();
        let text = |query: &Text<'_>| Ok([&prompt, query.as_str()].concat());
        match (image, query) {
            (Some(image), None) if !is_joint => session.embed_one(model, Kind::Image, fetch(image)),
            (None, Some(query)) if !is_joint => session.embed_one(model, Kind::Text, text(query)),
            (Some(image), Some(query)) if !is_joint || weight.is_some() => {
                let image = session.embed_one(model, Kind::Image, fetch(image))?;
                let text = session.embed_one(model, Kind::Text, text(query))?;
                let weight = weight.unwrap_or(settings.weight);
                let mixed = mix(&image, &text, weight, settings.means.as_ref())?;
                session.remember(&mixed, model)?;
                Ok(mixed)
            }
            _ => {
                let mut joined = Joined::default();
                image.map_or(Ok(()), |image| joined.picture(image))?;
                query.map_or(Ok(()), |query| joined.text([&prompt, query.as_str()]))?;
                session.embed_one(model, Kind::Parts, Ok(joined.bytes))
            }
        }
    }))
}

/// The direction between those of an image and a text, seen from where images and texts lie.
fn mix(image: &[f32], text: &[f32], weight: f64, means: Option<&ModalityMeans>) -> Result<Embedding, Report> {
    let less = |vector: &[f32], mean: Option<&Vec<f32>>| -> Vec<f32> {
        match mean.filter(|mean| mean.len() == vector.len()) {
            Some(mean) => vector.iter().zip(mean).map(|(element, mean)| element - mean).collect(),
            None => vector.to_vec(),
        }
    };
    let mut mix = Mix::new();
    mix.add(&less(image, means.map(|means| &means.image)), 1.0 - weight)?;
    mix.add(&less(text, means.map(|means| &means.text)), weight)?;
    Ok(mix.unit()?.expect("two vectors were added").into())
}

#[pg_extern]
fn embed_parts(images: Array<'_, Bytea<'_>>, texts: Array<'_, Text<'_>>) -> Option<NewVector> {
    new_vector(parts_embedding(&images, &texts, &guc::default_model()))
}

#[pg_extern]
fn embed_parts_with(
    images: Array<'_, Bytea<'_>>,
    texts: Array<'_, Text<'_>>,
    model: Text<'_>,
) -> Option<NewVector> {
    new_vector(parts_embedding(&images, &texts, model.as_str()))
}

fn new_vector(embedding: Option<Embedding>) -> Option<NewVector> {
    embedding.map(|embedding| NewVector::from_slice(&embedding))
}

#[pg_extern]
fn embed_query(image: Option<Bytea<'_>>, query: Option<Text<'_>>) -> Option<NewVector> {
    new_vector(query_embedding(image.as_ref(), query.as_ref(), None, &guc::default_model()))
}

#[pg_extern]
fn embed_query_with(
    image: Option<Bytea<'_>>,
    query: Option<Text<'_>>,
    model: Option<Text<'_>>,
) -> Option<NewVector> {
    new_vector(query_embedding(image.as_ref(), query.as_ref(), None, model?.as_str()))
}

#[pg_extern]
fn embed_query_weighted(
    image: Option<Bytea<'_>>,
    query: Option<Text<'_>>,
    weight: Option<f64>,
) -> Option<NewVector> {
    new_vector(query_embedding(image.as_ref(), query.as_ref(), Some(weight?), &guc::default_model()))
}

#[pg_extern]
fn embed_query_weighted_with(
    image: Option<Bytea<'_>>,
    query: Option<Text<'_>>,
    weight: Option<f64>,
    model: Option<Text<'_>>,
) -> Option<NewVector> {
    new_vector(query_embedding(image.as_ref(), query.as_ref(), Some(weight?), model?.as_str()))
}
