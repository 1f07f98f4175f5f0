//! Embeddings with options of a call: a prompt by its name, and fewer dimensions.
//!
//! A text model may have been trained with other words before a question than before a document. Its package names such prompts. A
//! Matryoshka model (Kusupati et al. 2022) packs what matters most into its first dimensions, so that the rest can be cut off.

use super::cache::Kind;
use super::functions::{embeddings, image_embedding, nulls, text_embedding};
use super::session::{self, Embedding};
use crate::error::package::list;
use crate::error::{Code, Report};
use crate::types::datum::{Bytea, NewVector, NewVectorArray, Text};
use imgvec_encoder::package::Package;
use imgvec_vector::arithmetic;
use pgrx::Array;
use pgrx::prelude::*;

/// The text of a prompt.
fn prompt_of(package: &Package, name: &str) -> Result<String, Report> {
    package.prompts.get(name).cloned().ok_or_else(|| {
        let model = &package.name;
        let detail = if package.prompts.is_empty() {
            "Its package has no prompts.".to_owned()
        } else {
            format!("It has {}.", list(package.prompts.keys().map(String::as_str)))
        };
        Report::new(
            Code::ERRCODE_UNDEFINED_OBJECT,
            format!("model \"{model}\" has no prompt \"{name}\""),
        )
        .detail(detail)
        .hint("Name another prompt, write the words before the text yourself, or add the prompt under [prompts] in the model's imgvec.toml.")
    })
}

fn prompt_named(model: &str, name: &str) -> String {
    session::with(|session| prompt_of(session.model(model)?.encoder.package(), name))
}

fn prompted_embedding(query: &Text<'_>, model: &str, prompt: &str) -> Embedding {
    let text = [&prompt_named(model, prompt), query.as_str()].concat();
    session::with(|session| session.embed_one(model, Kind::PromptedText, Ok(text)))
}

/// The first dimensions of an embedding, scaled as the model's embeddings are.
fn first(embedding: &[f32], model: &str, dims: i32) -> NewVector {
    session::with(|session| {
        let count = usize::try_from(dims).ok().filter(|count| (1..=embedding.len()).contains(count));
        let count = count.ok_or_else(|| {
            Report::new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("embeddings of model \"{model}\" cannot have {dims} dimensions"),
            )
            .detail(format!("The model has {} dimensions.", embedding.len()))
            .hint(format!("Give a number from 1 to {}.", embedding.len()))
        })?;
        let is_unit = session.model(model)?.encoder.package().normalize;
        let mut kept: Embedding = embedding[..count].into();
        if is_unit && count < embedding.len() {
            let mut unit = vec![0.0; count];
            arithmetic::normalize(&kept, &mut unit);
            kept = unit.into();
        }
        session.remember(&kept, model)?;
        Ok(NewVector::from_slice(&kept))
    })
}

#[pg_extern]
fn embed_text_prompt(query: Text<'_>, model: Text<'_>, prompt: Text<'_>) -> NewVector {
    NewVector::from_slice(&prompted_embedding(&query, model.as_str(), prompt.as_str()))
}

#[pg_extern]
fn embed_text_dims(query: Text<'_>, model: Text<'_>, dims: i32) -> NewVector {
    first(&text_embedding(&query, model.as_str()), model.as_str(), dims)
}

#[pg_extern]
fn embed_text_prompt_dims(query: Text<'_>, model: Text<'_>, prompt: Text<'_>, dims: i32) -> NewVector {
    first(&prompted_embedding(&query, model.as_str(), prompt.as_str()), model.as_str(), dims)
}

#[pg_extern]
fn embed_image_dims(image: Bytea<'_>, model: Text<'_>, dims: i32) -> NewVector {
    first(&image_embedding(&image, model.as_str()), model.as_str(), dims)
}

#[pg_extern]
fn embed_texts_prompt(queries: Array<'_, Text<'_>>, model: Text<'_>, prompt: Text<'_>) -> NewVectorArray {
    let before = prompt_named(model.as_str(), prompt.as_str());
    let inputs = queries.iter().map(|query| Ok(query.map(|query| [&before, query.as_str()].concat())));
    embeddings(Kind::PromptedText, model.as_str(), queries.len(), nulls(&queries), inputs)
}
