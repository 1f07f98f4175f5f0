//! Answering questions about pictures, in one pass of a model that has its answers.
//!
//! The model sees question and picture together and gives a score to each answer that it was trained with. It writes no
//! text: what is not among its answers it cannot say.

use super::error::RunSize;
use super::images::PixelTensor;
use super::pooling::Flaw;
use super::texts::{self, Column};
use super::values::Numbers;
use super::{EncodeError, Encoder, Expected};
use crate::image::Shaped;
use crate::memory::{self, OutOfMemory};
use crate::package::{AnswerModel, NamedInput};
use crate::runtime::Feed;
use crate::text::{Prompting, Tokens};

impl Encoder {
    /// Scores of the model's answers to a question about an encoded picture, in the order of the answers. Each is 0 to 1 by
    /// itself: several answers may be right.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn answer(&mut self, image: &[u8], question: &str) -> Result<Vec<f32>, EncodeError> {
        let Some(model) = self.package.answers.clone() else {
            return Err(EncodeError::NoAnswers { model: self.package.name.clone() });
        };
        let result = self.answer_with(&model, image, question);
        self.drop_kept(result)
    }

    /// Token ids of a question, as the model sees them.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn token_ids_of_question(&mut self, question: &str) -> Result<Tokens, EncodeError> {
        let Some(model) = self.package.answers.clone() else {
            return Err(EncodeError::NoAnswers { model: self.package.name.clone() });
        };
        let mut tokens = self.tokenize(&model.questions, &[question], Prompting::Default)?;
        Ok(tokens.swap_remove(0))
    }

    fn answer_with(
        &mut self,
        model: &AnswerModel,
        image: &[u8],
        question: &str,
    ) -> Result<Vec<f32>, EncodeError> {
        let tokens = self.token_ids_of_question(question)?;
        self.check()?;
        let decoded = self.decode_at(0, image)?;
        let inputs = &model.questions.inputs;
        let fixed = inputs.tokens.iter().find_map(|input| input.batch).or(model.pixels.batch);
        let rows = fixed.unwrap_or(1);
        let size = model.shaping.target(&decoded);
        let sides = [size.height.into(), size.width.into()];
        let width = self.width_of(tokens.ids.len());
        let estimate = self.architectures.text.of_pixels_and_tokens(rows as u64, sides, width as u64);
        let footprint = *self.footprint(&model.questions.graph);
        if !footprint.may_fit(estimate) {
            return Err(self.too_large(footprint.expected(estimate), RunSize::pictures(rows)));
        }
        let shaped =
            model.shaping.apply(&decoded).map_err(|source| EncodeError::Preprocess { index: 0, source })?;
        drop(decoded);
        self.check()?;
        self.run_question(model, &tokens, shaped, rows, Expected { bytes: estimate, next: None })
    }

    /// Runs the graph. One with a fixed batch gets question and picture in each row.
    fn run_question(
        &mut self,
        model: &AnswerModel,
        tokens: &Tokens,
        shaped: Shaped,
        rows: usize,
        expected: Expected,
    ) -> Result<Vec<f32>, EncodeError> {
        let tower = &model.questions;
        let tokenizer = self.tokenizer.as_ref().expect("the question is tokenized");
        let width = tokenizer.width(tokens.ids.len());
        let (height, across) = (shaped.size.height as usize, shaped.size.width as usize);
        // Ids, mask, and a column for each input; a mask of eight bytes for each pixel, and more rows of the picture.
        let columns = rows * width * (tower.inputs.tokens.len() + 3) * size_of::<i64>();
        let planes = rows * height * across * (size_of::<i64>() + 3 * size_of::<f32>());
        memory::reserve(columns + planes, "hold a question and its picture")?;
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            tokenizer.fill_row(tokens, width, &mut ids, &mut mask);
        }
        let columns: Vec<Column<'_>> =
            tower.inputs.tokens.iter().map(|input| Column::of(input, tower, &ids, &mask, width)).collect();
        let pixels = if rows == 1 { shaped.pixels } else { shaped.pixels.repeat(rows) };
        let tensor = PixelTensor::new(&model.pixels, &pixels, [rows, height, across]);
        let pixel_mask = model.pixel_mask.as_ref().map(|input| Ones::new(input, [rows, height, across]));

        let shape = [rows, width];
        let mut feeds: Vec<(&str, &[usize], Feed<'_>)> =
            columns.iter().map(|column| (column.name(), &shape[..], column.feed())).collect();
        feeds.push(tensor.feed());
        feeds.extend(pixel_mask.iter().map(Ones::feed));
        let graph = &tower.graph;
        let output = self
            .run(graph, &feeds, &tower.output.name, expected, RunSize::pictures(rows))
            .map_err(|failure| failure.or_word(|error| texts::run_error(tower, error)))?;

        let expected = model.labels.len();
        let found = match output.shape[..] {
            [found] if rows == 1 => found,
            [all, found] if all == rows => found,
            _ => {
                let (graph, output, shape) =
                    (graph.path.clone(), tower.output.name.clone(), output.shape.clone());
                return Err(EncodeError::OutputShape { graph, output, shape });
            }
        };
        if found != expected {
            return Err(EncodeError::AnswersDiffer { graph: graph.path.clone(), expected, found });
        }
        let logits = &output.data[..expected];
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(EncodeError::Flawed { graph: graph.path.clone(), flaw: Flaw::NotFinite });
        }
        let mut scores = Vec::new();
        scores
            .try_reserve_exact(expected)
            .map_err(|_| OutOfMemory { purpose: "hold the scores of answers" })?;
        scores.extend(logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())));
        Ok(scores)
    }
}

/// A mask that hides nothing.
struct Ones<'a> {
    name: &'a str,
    shape: [usize; 3],
    values: Numbers,
}

impl<'a> Ones<'a> {
    fn new(input: &'a NamedInput, shape: [usize; 3]) -> Ones<'a> {
        let values = Numbers::new(input.element, vec![1; shape.iter().product()]);
        Ones { name: &input.name, shape, values }
    }

    fn feed(&self) -> (&str, &[usize], Feed<'_>) {
        (self.name, &self.shape, self.values.feed())
    }
}
