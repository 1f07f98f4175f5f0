//! Zero-shot classification: which of some labels an image looks most like.
//!
//! Each label is put into the model's prompt templates, the template embeddings are averaged and scaled
//! to unit length (CLIP, Radford et al. 2021, section 3.1.4), and its cosine to the image becomes a score
//! by the model's own rule: a softmax with temperature over the given labels, or a sigmoid with bias for
//! each label by itself (SigLIP, Zhai et al. 2023).

use super::cache::Kind;
use super::functions::image_embedding;
use super::session::{self, Session};
use crate::error::vector::different_dims;
use crate::error::{Code, Report};
use crate::guc;
use crate::types::datum::{Bytea, NewText, Text, Vector};
use imgvec_vector::{arithmetic, distance};
use pgrx::Array;
use pgrx::prelude::*;

type Rows = TableIterator<'static, (name!(label, NewText), name!(score, f32))>;

/// The cosine of each label to `embedding`. Labels pass one by one: of each, only its cosine is kept.
fn cosines(
    session: &mut Session,
    model: &str,
    labels: &[Text<'_>],
    embedding: &[f32],
) -> Result<Vec<f32>, Report> {
    let classification = session.model(model)?.encoder.package().classification.clone();
    let templates = classification.templates.len();
    let prompts = labels.iter().flat_map(|label| classification.prompts(label.as_str()));
    let mut cosines = Vec::with_capacity(labels.len());
    let mut sum = vec![0.0; embedding.len()];
    let mut unit = sum.clone();
    let mut summed = 0;
    session.embed(model, Kind::Label, true, prompts.map(|prompt| Ok(Some(prompt))), |prompt| {
        let prompt = prompt.expect("an embedding for each prompt");
        if prompt.len() != embedding.len() {
            return Err(different_dims(embedding.len(), prompt.len()));
        }
        sum.iter_mut().zip(&**prompt).for_each(|(sum, element)| *sum += element);
        summed += 1;
        if summed == templates {
            arithmetic::normalize(&sum, &mut unit);
            cosines.push((1.0 - distance::cosine(embedding, &unit)) as f32);
            sum.fill(0.0);
            summed = 0;
        }
        Ok(())
    })?;
    Ok(cosines)
}

fn classify(embedding: &[f32], labels: &Array<'_, Text<'_>>, model: &str) -> Rows {
    let labels: Vec<Text<'_>> = labels
        .iter()
        .enumerate()
        .map(|(index, label)| {
            label.unwrap_or_else(|| {
                Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, "labels must not contain nulls")
                    .detail(format!("Label {} is null.", index + 1))
                    .hint("Remove the null from the array of labels.")
                    .raise()
            })
        })
        .collect();
    let (cosines, classification) = session::with(|session| {
        let cosines = cosines(session, model, &labels, embedding)?;
        Ok((cosines, session.model(model)?.encoder.package().classification.clone()))
    });
    if cosines.iter().any(|cosine| cosine.is_nan()) {
        Report::new(Code::ERRCODE_DATA_EXCEPTION, "a zero vector cannot be classified")
            .detail("It has no direction to compare with those of the labels.")
            .hint("Supply an embedding of the same model.")
            .raise();
    }
    let mut rows: Vec<(NewText, f32)> = labels
        .iter()
        .zip(classification.scores(&cosines))
        .map(|(label, score)| (label.to_new(), score))
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    TableIterator::new(rows)
}

#[pg_extern]
fn classify_image(image: Bytea<'_>, labels: Array<'_, Text<'_>>) -> Rows {
    let model = guc::default_model();
    classify(&image_embedding(&image, &model), &labels, &model)
}

#[pg_extern]
fn classify_image_with(image: Bytea<'_>, labels: Array<'_, Text<'_>>, model: Text<'_>) -> Rows {
    classify(&image_embedding(&image, model.as_str()), &labels, model.as_str())
}

#[pg_extern]
fn classify_embedding(embedding: Vector<'_>, labels: Array<'_, Text<'_>>) -> Rows {
    classify(embedding.elements(), &labels, &guc::default_model())
}

#[pg_extern]
fn classify_embedding_with(embedding: Vector<'_>, labels: Array<'_, Text<'_>>, model: Text<'_>) -> Rows {
    classify(embedding.elements(), &labels, model.as_str())
}
