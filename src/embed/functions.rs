//! `embed_image`, `embed_text`, their batched forms and `image_info`.

use super::cache::Kind;
use super::session::{self, Embedding};
use crate::error::{Code, OrRaise, Report, image};
use crate::guc;
use crate::types::datum::{Bytea, NewRecord, NewText, NewVector, NewVectorArray, Text};
use pgrx::Array;
use pgrx::prelude::*;

/// The bytes of an image, unless there are too many: they are counted before they are read.
fn fetch<'a>(image: &Bytea<'a>) -> Result<&'a [u8], Report> {
    let (size, limit) = (image.size(), guc::max_image_bytes());
    if size > limit {
        return Err(image::too_large(size, limit));
    }
    Ok(image.bytes())
}

pub fn image_embedding(image: &Bytea<'_>, model: &str) -> Embedding {
    session::with(|session| {
        let embeddings = session.embed(model, Kind::Image, 1, |_| fetch(image).map(Some))?;
        Ok(embeddings.into_iter().flatten().next().expect("an embedding for each input"))
    })
}

fn text_embedding(query: &Text<'_>, model: &str) -> Embedding {
    session::with(|session| {
        let embeddings = session.embed(model, Kind::Text, 1, |_| Ok(Some(query.as_str())))?;
        Ok(embeddings.into_iter().flatten().next().expect("an embedding for each input"))
    })
}

fn image_embeddings(images: &Array<'_, Bytea<'_>>, model: &str) -> NewVectorArray {
    let images: Vec<Option<Bytea<'_>>> = images.iter().collect();
    array_of(session::with(|session| {
        session.embed(model, Kind::Image, images.len(), |index| images[index].as_ref().map(fetch).transpose())
    }))
}

fn text_embeddings(queries: &Array<'_, Text<'_>>, model: &str) -> NewVectorArray {
    let queries: Vec<Option<Text<'_>>> = queries.iter().collect();
    array_of(session::with(|session| {
        session.embed(model, Kind::Text, queries.len(), |index| Ok(queries[index].as_ref().map(Text::as_str)))
    }))
}

fn array_of(embeddings: Vec<Option<Embedding>>) -> NewVectorArray {
    NewVectorArray(
        embeddings
            .into_iter()
            .map(|embedding| embedding.map(|vector| NewVector::from_slice(&vector)))
            .collect(),
    )
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
                    .hint("Check that the file was stored whole, or save it again with an image editor.")
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
