//! `embed_image`, `embed_text`, their batched forms and `image_info`.

use super::cache::Kind;
use super::server;
use super::session::{self, Embedding};
use crate::error::{Code, OrRaise, Report, image};
use crate::guc;
use crate::types::datum::{Bytea, NewBits, NewRecord, NewText, NewVector, NewVectorArray, Text};
use imgvec_encoder::image::{decode, perceptual_hash};
use pgrx::Array;
use pgrx::datum::UnboxDatum;
use pgrx::prelude::*;

/// The bytes of an image, unless there are too many: they are counted before they are read.
pub(super) fn fetch<'a>(image: &Bytea<'a>) -> Result<&'a [u8], Report> {
    let (size, limit) = (image.size(), guc::max_image_bytes());
    if size > limit {
        return Err(image::too_large(size, limit));
    }
    Ok(image.bytes())
}

pub fn image_embedding(image: &Bytea<'_>, model: &str) -> Embedding {
    session::with(|session| session.embed_one(model, Kind::Image, fetch(image)))
}

pub fn text_embedding(query: &Text<'_>, model: &str) -> Embedding {
    session::with(|session| session.embed_one(model, Kind::Text, Ok(query.as_str())))
}

fn image_embeddings(images: &Array<'_, Bytea<'_>>, model: &str) -> NewVectorArray {
    let inputs = images.iter().map(|image| image.as_ref().map(fetch).transpose());
    embeddings(Kind::Image, model, images.len(), nulls(images), inputs)
}

fn text_embeddings(queries: &Array<'_, Text<'_>>, model: &str) -> NewVectorArray {
    embeddings(Kind::Text, model, queries.len(), nulls(queries), queries.iter().map(Ok))
}

pub(super) fn nulls<'a, T: UnboxDatum>(array: &'a Array<'a, T>) -> usize {
    if array.contains_nulls() { array.iter().filter(Option::is_none).count() } else { 0 }
}

/// The embeddings of an array's elements, which go straight to their places in the result.
pub(super) fn embeddings<I: AsRef<[u8]>>(
    kind: Kind,
    model: &str,
    count: usize,
    nulls: usize,
    inputs: impl Iterator<Item = Result<Option<I>, Report>>,
) -> NewVectorArray {
    session::with(|session| {
        let known = session.model(model)?.encoder.dim();
        let mut result = known.map(|dim| NewVectorArray::new(count, nulls, dim)).transpose()?;
        let mut leading_nulls = 0;
        session.embed(model, kind, true, inputs, |embedding| {
            match (&mut result, embedding) {
                (Some(result), embedding) => result.push(embedding.map(|vector| &**vector)),
                // The first embedding tells how large all are.
                (None, None) => leading_nulls += 1,
                (None, Some(vector)) => {
                    let result = result.insert(NewVectorArray::new(count, nulls, vector.len())?);
                    (0..leading_nulls).for_each(|_| result.push(None));
                    result.push(Some(vector));
                }
            }
            Ok(())
        })?;
        match result {
            Some(result) => Ok(result),
            None => {
                let mut result = NewVectorArray::new(count, nulls, 1)?;
                (0..leading_nulls).for_each(|_| result.push(None));
                Ok(result)
            }
        }
    })
}

#[pg_extern]
fn embed_image(image: Bytea<'_>) -> NewVector {
    NewVector::from_slice(&image_embedding(&image, &guc::default_model()))
}

#[pg_extern]
fn embed_image_with(image: Bytea<'_>, model: Text<'_>) -> NewVector {
    NewVector::from_slice(&image_embedding(&image, model.as_str()))
}

#[pg_extern]
fn embed_text(query: Text<'_>) -> NewVector {
    NewVector::from_slice(&text_embedding(&query, &guc::default_model()))
}

#[pg_extern]
fn embed_text_with(query: Text<'_>, model: Text<'_>) -> NewVector {
    NewVector::from_slice(&text_embedding(&query, model.as_str()))
}

#[pg_extern]
fn embed_images(images: Array<'_, Bytea<'_>>) -> NewVectorArray {
    image_embeddings(&images, &guc::default_model())
}

#[pg_extern]
fn embed_images_with(images: Array<'_, Bytea<'_>>, model: Text<'_>) -> NewVectorArray {
    image_embeddings(&images, model.as_str())
}

#[pg_extern]
fn embed_texts(queries: Array<'_, Text<'_>>) -> NewVectorArray {
    text_embeddings(&queries, &guc::default_model())
}

#[pg_extern]
fn embed_texts_with(queries: Array<'_, Text<'_>>, model: Text<'_>) -> NewVectorArray {
    text_embeddings(&queries, model.as_str())
}

#[pg_extern]
fn image_info(image: Bytea<'_>) -> NewRecord {
    let bytes = fetch(&image).or_raise();
    let info = imgvec_encoder::image::info(bytes, &guc::image_limits()).or_raise();
    let integer = |value: u32| {
        i32::try_from(value)
            .map_err(|_| {
                Report::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range")
                    .detail(format!("A number in the image's header is {value}."))
                    .hint("Check that the file was stored completely, or save it again with an image editor.")
            })
            .or_raise()
    };
    NewRecord::new()
        .column(Some(NewText::from_utf8(info.format.name())))
        .column(Some(integer(info.width)))
        .column(Some(integer(info.height)))
        .column(info.frames.map(integer))
        .column(Some(i32::from(info.orientation)))
        .column(Some(i32::from(info.channels)))
        .column(Some(i32::from(info.bits_per_channel)))
}

/// A perceptual hash, 64 bits that copies of a picture mostly share.
#[pg_extern]
fn image_hash(image: Bytea<'_>) -> NewBits {
    let bytes = fetch(&image).or_raise();
    let hash = session::with(|_| {
        let decoded = decode(bytes, &guc::image_limits(), server::interrupt_pending);
        Ok(decoded.and_then(|image| perceptual_hash(&image))?)
    });
    NewBits((0..u64::BITS).map(|bit| hash >> (u64::BITS - 1 - bit) & 1 == 1).collect())
}
