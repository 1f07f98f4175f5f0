//! Zero-shot classification: which of some labels an image looks most like, and which of some answers fits a question.
//!
//! Each label is put into the model's prompt templates, the template embeddings are averaged and scaled
//! to unit length (CLIP, Radford et al. 2021, section 3.1.4), and its cosine to the image becomes a score
//! by the model's own rule: a softmax with temperature over the given labels, or a sigmoid with bias for
//! each label by itself (SigLIP, Zhai et al. 2023). With a threshold, each label is scored by itself. Answers to a question
//! become labels first.

use super::cache::Kind;
use super::functions::{fetch, image_embedding};
use super::session::{self, Session};
use crate::error::vector::different_dims;
use crate::error::{Code, Report};
use crate::guc;
use crate::types::datum::{Bytea, NewText, Text, Vector};
use imgvec_encoder::package::{Classification, KINDS};
use imgvec_encoder::text::question::{self, Question};
use imgvec_vector::{arithmetic, distance};
use pgrx::Array;
use pgrx::prelude::*;

type Rows = TableIterator<'static, (name!(label, NewText), name!(score, f32))>;
type FilteredRows = TableIterator<'static, (name!(label, Option<NewText>), name!(score, f32))>;
type Answers = TableIterator<'static, (name!(answer, NewText), name!(score, f32))>;

/// The cosine of each group of prompts to `embedding`. They pass one by one: of each group, only its cosine is kept.
fn cosines(
    session: &mut Session,
    model: &str,
    embedding: &[f32],
    groups: impl Iterator<Item = Vec<String>> + Clone,
) -> Result<Vec<f32>, Report> {
    let mut sizes = groups.clone().map(|group| group.len());
    let mut cosines = Vec::new();
    let mut sum = vec![0.0; embedding.len()];
    let mut unit = sum.clone();
    let mut left = 0;
    session.embed(model, Kind::Label, true, groups.flatten().map(|prompt| Ok(Some(prompt))), |prompt| {
        let prompt = prompt.expect("an embedding for each prompt");
        if prompt.len() != embedding.len() {
            return Err(different_dims(embedding.len(), prompt.len()));
        }
        if left == 0 {
            left = sizes.next().expect("a group for each prompt");
        }
        sum.iter_mut().zip(&**prompt).for_each(|(sum, element)| *sum += element);
        left -= 1;
        if left == 0 {
            arithmetic::normalize(&sum, &mut unit);
            cosines.push((1.0 - distance::cosine(embedding, &unit)) as f32);
            sum.fill(0.0);
        }
        Ok(())
    })?;
    if cosines.iter().any(|cosine| cosine.is_nan()) {
        return Err(Report::new(Code::ERRCODE_DATA_EXCEPTION, "a zero vector cannot be classified")
            .detail("It has no direction to compare with those of the labels.")
            .hint("Supply an embedding of the same model."));
    }
    Ok(cosines)
}

fn classification(session: &mut Session, model: &str) -> Result<Classification, Report> {
    Ok(session.model(model)?.encoder.package().classification.clone())
}

/// The prompts of a picture of nothing in particular.
fn background(classification: &Classification) -> Vec<String> {
    KINDS.iter().flat_map(|kind| classification.prompts(kind)).collect()
}

/// The elements of an array that has no null.
fn elements<'a>(array: &'a Array<'_, Text<'_>>, name: &str, one: &str) -> Vec<Text<'a>> {
    let element = |(index, element): (usize, Option<Text<'a>>)| {
        element.unwrap_or_else(|| {
            Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not contain nulls"))
                .detail(format!("{one} {} is null.", index + 1))
                .hint(format!("Remove the null from the array of {name}."))
                .raise()
        })
    };
    array.iter().enumerate().map(element).collect()
}

/// Best first; equal scores in the order of the array.
fn ranked(texts: &[Text<'_>], scores: Vec<f32>) -> Vec<(NewText, f32)> {
    let mut rows: Vec<_> = texts.iter().map(Text::to_new).zip(scores).collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    rows
}

fn classify(embedding: &[f32], labels: &Array<'_, Text<'_>>, model: &str) -> Rows {
    let labels = elements(labels, "labels", "Label");
    let scores = session::with(|session| {
        let rule = classification(session, model)?;
        let groups = labels.iter().map(|label| rule.prompts(label.as_str()));
        Ok(rule.scores(&cosines(session, model, embedding, groups)?))
    });
    TableIterator::new(ranked(&labels, scores))
}

/// The labels that score at least a threshold, each by itself; a row without a label if there is none.
fn filter(embedding: &[f32], labels: &Array<'_, Text<'_>>, threshold: f64, model: &str) -> FilteredRows {
    if !(0.0..=1.0).contains(&threshold) {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "threshold must be between 0 and 1")
            .detail(format!("The threshold is {threshold}."))
            .hint("Labels with a lower score are left out. 0.5 is a usual threshold.")
            .raise();
    }
    let labels = elements(labels, "labels", "Label");
    let scores = session::with(|session| {
        let rule = classification(session, model)?;
        let groups =
            std::iter::once(background(&rule)).chain(labels.iter().map(|label| rule.prompts(label.as_str())));
        let cosines = cosines(session, model, embedding, groups)?;
        Ok(rule.presence(&cosines[1..], cosines[0]))
    });
    let best = scores.iter().copied().fold(0.0, f32::max);
    let rows = ranked(&labels, scores).into_iter().map(|(label, score)| (Some(label), score));
    let mut kept: Vec<_> = rows.filter(|(_, score)| f64::from(*score) >= threshold).collect();
    if kept.is_empty() {
        kept.push((None, 1.0 - best));
    }
    TableIterator::new(kept)
}

/// Refuses questions that nobody asks.
fn check_question(asked: &Text<'_>) {
    let length = asked.as_str().len();
    if length > question::MAX_BYTES {
        Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "question is too long")
            .detail(format!("It is {length} bytes long, and the limit is {} bytes.", question::MAX_BYTES))
            .hint("Ask for one thing in a short sentence.")
            .raise();
    }
}

fn answer(image: &Bytea<'_>, asked: &Text<'_>, answers: &Array<'_, Text<'_>>, model: &str) -> Answers {
    check_question(asked);
    let answers = elements(answers, "answers", "Answer");
    let embedding = image_embedding(image, model);
    let scores = session::with(|session| {
        let rule = classification(session, model)?;
        let texts: Vec<&str> = answers.iter().map(Text::as_str).collect();
        match Question::read(asked.as_str(), &texts) {
            Question::Whether(phrase) => {
                let groups = [background(&rule), rule.prompts(&phrase)].into_iter();
                let cosines = cosines(session, model, &embedding, groups)?;
                let yes = rule.presence(&cosines[1..], cosines[0])[0];
                let score =
                    |answer: &&str| if question::truth(answer) == Some(true) { yes } else { 1.0 - yes };
                Ok(texts.iter().map(score).collect())
            }
            Question::Which(frame) => {
                let prompts = |phrase: &String| rule.prompts(phrase);
                let groups =
                    texts.iter().map(|answer| frame.phrases(answer).iter().flat_map(prompts).collect());
                Ok(rule.scores(&cosines(session, model, &embedding, groups)?))
            }
        }
    });
    TableIterator::new(ranked(&answers, scores))
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
fn classify_image_threshold(image: Bytea<'_>, labels: Array<'_, Text<'_>>, threshold: f64) -> FilteredRows {
    let model = guc::default_model();
    filter(&image_embedding(&image, &model), &labels, threshold, &model)
}

#[pg_extern]
fn classify_image_threshold_with(
    image: Bytea<'_>,
    labels: Array<'_, Text<'_>>,
    threshold: f64,
    model: Text<'_>,
) -> FilteredRows {
    filter(&image_embedding(&image, model.as_str()), &labels, threshold, model.as_str())
}

#[pg_extern]
fn classify_embedding(embedding: Vector<'_>, labels: Array<'_, Text<'_>>) -> Rows {
    classify(embedding.elements(), &labels, &guc::default_model())
}

#[pg_extern]
fn classify_embedding_with(embedding: Vector<'_>, labels: Array<'_, Text<'_>>, model: Text<'_>) -> Rows {
    classify(embedding.elements(), &labels, model.as_str())
}

#[pg_extern]
fn classify_embedding_threshold(
    embedding: Vector<'_>,
    labels: Array<'_, Text<'_>>,
    threshold: f64,
) -> FilteredRows {
    filter(embedding.elements(), &labels, threshold, &guc::default_model())
}

#[pg_extern]
fn classify_embedding_threshold_with(
    embedding: Vector<'_>,
    labels: Array<'_, Text<'_>>,
    threshold: f64,
    model: Text<'_>,
) -> FilteredRows {
    filter(embedding.elements(), &labels, threshold, model.as_str())
}

#[pg_extern]
fn answer_image(image: Bytea<'_>, question: Text<'_>, answers: Array<'_, Text<'_>>) -> Answers {
    answer(&image, &question, &answers, &guc::default_model())
}

#[pg_extern]
fn answer_image_with(
    image: Bytea<'_>,
    question: Text<'_>,
    answers: Array<'_, Text<'_>>,
    model: Text<'_>,
) -> Answers {
    answer(&image, &question, &answers, model.as_str())
}

/// The answers of a model that has its own. A literal is a text rather than an array to the server, so that a list of
/// answers comes here as well: no model has a name that begins with a brace.
#[pg_extern]
fn answer_image_model(image: Bytea<'_>, question: Text<'_>, model: Text<'_>) -> Answers {
    if model.as_str().trim_start().starts_with('{') {
        return answer(&image, &question, &model.to_array(), &guc::default_model());
    }
    check_question(&question);
    let rows = session::with(|session| session.answers(model.as_str(), fetch(&image)?, question.as_str()));
    let row = |(answer, score): (String, f32)| (NewText::from_utf8(&answer), score);
    TableIterator::new(rows.into_iter().map(row).collect::<Vec<_>>())
}
