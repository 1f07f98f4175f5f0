//! Embedding text.

use super::images::{Placeholder, batch_size};
use super::pooling::Mask;
use super::{EncodeError, Encoder};
use crate::package::{Element, Modality, TextTower, TokenInput, TokenRole};
use crate::runtime::{Feed, RunError};
use crate::text::{TextEncoder, TextError, Tokens};

impl Encoder {
    /// Embeds texts, in order, each as a vector of unit length.
    ///
    /// Texts of similar length share a run, so that little is spent on padding; at most eight at a
    /// time, and one at a time where a graph quantizes activations at run time.
    ///
    /// # Errors
    /// [`EncodeError`]; what is wrong with one text is said with its place in `texts`.
    pub fn embed_texts(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let Some(tower) = self.package.text.clone() else {
            return Err(EncodeError::NoTower { model: self.package.name.clone(), modality: Modality::Text });
        };
        let tokens = self.tokenize(&tower, texts)?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&index| tokens[index].ids.len());

        let fixed = tower.inputs.tokens.iter().find_map(|input| input.batch);
        let batch = batch_size(fixed, tower.graph.outline.dynamic_quantization);
        let mut vectors = vec![Vec::new(); texts.len()];
        for chunk in order.chunks(batch.items) {
            self.check_interrupt()?;
            let items: Vec<&Tokens> = chunk.iter().map(|&index| &tokens[index]).collect();
            let embedded = self.run_texts(&tower, &items, batch.rows(items.len()))?;
            for (&index, vector) in chunk.iter().zip(embedded) {
                vectors[index] = vector;
            }
            self.counts.texts += chunk.len() as u64;
        }
        Ok(vectors)
    }

    /// Token ids of each text, as the model sees them.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn token_ids(&mut self, texts: &[&str]) -> Result<Vec<Tokens>, EncodeError> {
        let Some(tower) = self.package.text.clone() else {
            return Err(EncodeError::NoTower { model: self.package.name.clone(), modality: Modality::Text });
        };
        self.tokenize(&tower, texts)
    }

    fn tokenize(&mut self, tower: &TextTower, texts: &[&str]) -> Result<Vec<Tokens>, EncodeError> {
        if self.tokenizer.is_none() {
            self.tokenizer = Some(TextEncoder::open(tower)?);
        }
        let tokenizer = self.tokenizer.as_ref().expect("just loaded");
        let tokenize = |(index, text): (usize, &&str)| {
            tokenizer.tokenize(text, self.options.interrupt).map_err(|source| match source {
                TextError::Interrupted => EncodeError::Interrupted,
                source @ (TextError::Tokenizer(_) | TextError::IdOutOfRange { .. }) => {
                    EncodeError::Text { index, source }
                }
            })
        };
        texts.iter().enumerate().map(tokenize).collect()
    }

    fn run_texts(
        &mut self,
        tower: &TextTower,
        items: &[&Tokens],
        rows: usize,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let tokenizer = self.tokenizer.as_ref().expect("the texts are tokenized");
        let width = tokenizer.width(items.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0));
        let mut ids = Vec::with_capacity(rows * width);
        let mut mask = Vec::with_capacity(rows * width);
        // A graph with a fixed batch gets its first text again where there are too few.
        for row in 0..rows {
            tokenizer.fill_row(items[if row < items.len() { row } else { 0 }], width, &mut ids, &mut mask);
        }

        let shape = [rows, width];
        let columns: Vec<Column<'_>> =
            tower.inputs.tokens.iter().map(|input| Column::of(input, tower, &ids, &mask, width)).collect();
        let mut feeds: Vec<(&str, &[usize], Feed<'_>)> =
            columns.iter().map(|column| (column.name, &shape[..], column.feed())).collect();
        let picture = tower.inputs.pixels.as_ref().map(|pixels| {
            let size = self.package.image.as_ref().map(|image| image.preprocessing.output_size());
            let size = size.map(|(height, width)| (width as usize, height as usize));
            let (width, height) = pixels.size.or(size).unwrap_or((224, 224));
            Placeholder::pixels(pixels, if tower.inputs.shared_batch { rows } else { 1 }, width, height)
        });
        feeds.extend(picture.iter().map(Placeholder::feed));

        let place = self.session(&tower.graph)?;
        let interrupt = self.options.interrupt;
        let result = self.sessions[place].session.run(&feeds, &tower.output.name, interrupt);
        let tensor = result.map_err(|error| run_error(tower, error))?;
        self.finish(Modality::Text, &tensor, Mask::Rows(&mask), items.len())
    }
}

/// What a failed run means. ONNX Runtime's Gather says "out of data bounds" of an id that lies beyond
/// the token table.
fn run_error(tower: &TextTower, error: RunError) -> EncodeError {
    let graph = tower.graph.path.clone();
    if let RunError::Failed { reason } = &error
        && reason.contains("out of data bounds")
    {
        let (tokenizer, reason) = (tower.tokenizer.clone(), reason.clone());
        return EncodeError::TokenizerMismatch { graph, tokenizer, reason };
    }
    EncodeError::from_run(graph, error)
}

/// One token input of a run, in the graph's element type.
struct Column<'a> {
    name: &'a str,
    values: Values,
}

enum Values {
    I64(Vec<i64>),
    I32(Vec<i32>),
    F32(Vec<f32>),
}

impl<'a> Column<'a> {
    fn of(input: &'a TokenInput, tower: &TextTower, ids: &[i64], mask: &[i64], width: usize) -> Self {
        let values: Vec<i64> = match input.role {
            TokenRole::Ids => ids.to_vec(),
            TokenRole::Mask if tower.mask_padding => mask.to_vec(),
            TokenRole::Mask => vec![1; mask.len()],
            TokenRole::Types => vec![0; ids.len()],
            TokenRole::Positions => (0_i64..).take(width).cycle().take(ids.len()).collect(),
        };
        let values = match input.element {
            // Ids and positions are far below 2^31, and a mask is 0 or 1.
            Element::I32 => Values::I32(values.into_iter().map(|value| value as i32).collect()),
            Element::F32 => Values::F32(values.into_iter().map(|value| value as f32).collect()),
            Element::I64 | Element::F16 | Element::Other(_) => Values::I64(values),
        };
        Column { name: &input.name, values }
    }

    fn feed(&self) -> Feed<'_> {
        match &self.values {
            Values::I64(values) => Feed::I64(values),
            Values::I32(values) => Feed::I32(values),
            Values::F32(values) => Feed::F32(values),
        }
    }
}
