//! Embedding text.

use super::images::{BatchSize, Placeholder, batch_size};
use super::layers::TextLayer;
use super::patches::PatchTensors;
use super::pooling::Mask;
use super::values::Numbers;
use super::{EncodeError, Encoder, Expected, RunSize};
use crate::memory;
use crate::package::{Element, Modality, PixelInput, TextTower, TokenInput, TokenRole};
use crate::runtime::{Feed, RunError};
use crate::text::{Prompting, TextError, Tokens};

/// Tokens of padding that a run may have for each token of a text, and how many are free for each run:
/// starting one costs about as much as so many tokens.
const PADDING_SHARE: usize = 4;
const FREE_PADDING: usize = 32;

impl Encoder {
    /// Embeds texts, in order, each as a vector of unit length.
    ///
    /// Texts of similar length share a run, so that little is spent on padding; at most eight at a
    /// time, no more than the memory of a run allows, and one at a time where a graph quantizes
    /// activations at run time.
    ///
    /// # Errors
    /// [`EncodeError`]; what is wrong with one text is said with its place in `texts`.
    pub fn embed_texts(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.embed_texts_after(texts, Prompting::Default)
    }

    /// As [`Encoder::embed_texts`], of texts that have a prompt of their own before them: the package's is left out.
    ///
    /// # Errors
    /// As [`Encoder::embed_texts`].
    pub fn embed_prompted_texts(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.embed_texts_after(texts, Prompting::Done)
    }

    fn embed_texts_after(
        &mut self,
        texts: &[&str],
        prompting: Prompting,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let Some(tower) = self.package.text.clone() else {
            return Err(self.no_tower(Modality::Text));
        };
        let result = self.embed_texts_with(&tower, texts, prompting);
        self.drop_kept(result)
    }

    fn embed_texts_with(
        &mut self,
        tower: &TextTower,
        texts: &[&str],
        prompting: Prompting,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let tokens = self.tokenize(tower, texts, prompting)?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&index| tokens[index].ids.len());

        let fixed = tower.inputs.tokens.iter().find_map(|input| input.batch);
        let batch = batch_size(fixed, tower.graph.outline.dynamic_quantization);
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = &order[..];
        while !rest.is_empty() {
            self.check()?;
            let count = match self.fitting_texts(tower, &batch, &tokens, rest) {
                Some(count) => count,
                None => {
                    self.try_out(tower, &tokens[rest[0]], batch.rows(1))?;
                    1
                }
            };
            let (chunk, later) = rest.split_at(count);
            let estimate = |encoder: &Self, chunk: &[usize]| {
                let longest = chunk.last().map_or(0, |&index| tokens[index].ids.len());
                encoder.estimate_texts(tower, batch.rows(chunk.len()), encoder.width_of(longest))
            };
            let next = (!later.is_empty()).then(|| {
                let count = self.fitting_texts(tower, &batch, &tokens, later).unwrap_or(1);
                estimate(self, &later[..count])
            });
            let expected = Expected { bytes: estimate(self, chunk), next };
            let items: Vec<&Tokens> = chunk.iter().map(|&index| &tokens[index]).collect();
            let rows = batch.rows(count);
            match self.run_texts(tower, &items, &[], rows, expected) {
                Ok(embedded) => {
                    for (&index, vector) in chunk.iter().zip(embedded) {
                        vectors[index] = vector;
                    }
                    rest = later;
                    self.counts.texts += count as u64;
                }
                // A smaller batch comes next, as the footprint has learned.
                Err(EncodeError::RunTooLarge { .. }) if batch.rows(1) < rows => {}
                Err(error) => return Err(error),
            }
        }
        Ok(vectors)
    }

    /// How many of `rest`, whose lengths rise, make the next run; nothing if not even one fits.
    fn fitting_texts(
        &mut self,
        tower: &TextTower,
        batch: &BatchSize,
        tokens: &[Tokens],
        rest: &[usize],
    ) -> Option<usize> {
        let lengths: Vec<usize> =
            rest.iter().take(batch.items).map(|&index| tokens[index].ids.len()).collect();
        let footprint = *self.footprint(&tower.graph);
        // The last text of a batch says how wide it is.
        let estimate =
            |count: usize| self.estimate_texts(tower, batch.rows(count), self.width_of(lengths[count - 1]));
        let fits = |&count: &usize| footprint.fits(estimate(count)) && !is_mostly_padding(&lengths[..count]);
        (1..=lengths.len()).rev().find(fits)
    }

    /// Decides whether a run over one text may start though its memory is above what is trusted. A
    /// shorter piece of the text tells what the graph really takes; the piece's embedding is dropped.
    pub(super) fn try_out(
        &mut self,
        tower: &TextTower,
        text: &Tokens,
        rows: usize,
    ) -> Result<(), EncodeError> {
        let width = self.width_of(text.ids.len());
        let estimate =
            |encoder: &Self, tokens: usize| encoder.estimate_texts(tower, rows, encoder.width_of(tokens));
        let whole = estimate(self, text.ids.len());
        if self.footprint(&tower.graph).is_provisional() {
            let footprint = *self.footprint(&tower.graph);
            let piece = longest(text.ids.len(), |tokens| footprint.fits(estimate(self, tokens)));
            // A graph of fixed width takes as much for a short text.
            if let Some(piece) = piece.filter(|&piece| self.width_of(piece) < width) {
                // Without pictures there is nothing to stand in the place of their tokens.
                let fill = text.ids[0];
                let image = self.package.joint.as_ref().map(|joint| joint.image_token);
                let plain = |&id: &u32| if Some(id) == image { fill } else { id };
                let piece = Tokens { ids: text.ids[..piece].iter().map(plain).collect() };
                let bytes = estimate(self, piece.ids.len());
                self.run_texts(tower, &[&piece], &[], rows, Expected { bytes, next: None })?;
            }
            self.footprint(&tower.graph).trust();
        }
        let footprint = *self.footprint(&tower.graph);
        if footprint.may_fit(whole) {
            return Ok(());
        }
        let fitting = longest(text.ids.len(), |tokens| footprint.may_fit(estimate(self, tokens)));
        let fitting_tokens = fitting.filter(|&tokens| self.width_of(tokens) < width);
        let size = RunSize { rows, tokens: Some(width), fitting_tokens, fitting_soft_tokens: None };
        Err(self.too_large(footprint.expected(whole), size))
    }

    /// Tokens of a row whose text has so many.
    pub(super) fn width_of(&self, tokens: usize) -> usize {
        self.tokenizer.as_ref().expect("the texts are tokenized").width(tokens)
    }

    /// Bytes that a run of the text tower takes, with what the other half of a combined graph gets.
    pub(super) fn estimate_texts(&self, tower: &TextTower, rows: usize, width: usize) -> u64 {
        let own = self.architectures.text.of_tokens(rows as u64, width as u64);
        let picture = tower.inputs.pixels.as_ref().map_or(0, |pixels| {
            let (width, height) = placeholder_size(tower, pixels);
            let rows = if tower.inputs.shared_batch { rows } else { 1 };
            self.architectures.of_placeholder_pixels(pixels, rows, width, height)
        });
        let others = if tower.inputs.shared_batch { rows } else { 1 };
        let patches = tower.inputs.patches.as_ref();
        let patches = patches.map_or(0, |input| self.architectures.of_placeholder_patches(input, others));
        own.saturating_add(picture).saturating_add(patches)
    }

    /// Token ids of each text, as the model sees them.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn token_ids(&mut self, texts: &[&str]) -> Result<Vec<Tokens>, EncodeError> {
        let Some(tower) = self.package.text.clone() else {
            return Err(self.no_tower(Modality::Text));
        };
        self.tokenize(&tower, texts, Prompting::Default)
    }

    /// Loads the tokenizer, and what follows the pooling.
    pub(super) fn load_tokenizer(&mut self, tower: &TextTower) -> Result<(), EncodeError> {
        if self.layers.is_none() {
            self.layers = Some(TextLayer::load(&tower.modules, self.options.interrupt)?);
        }
        if self.tokenizer.is_none() {
            self.tokenizer = Some(self.open_tokenizer(tower)?);
            self.check()?;
        }
        Ok(())
    }

    pub(super) fn tokenize(
        &mut self,
        tower: &TextTower,
        texts: &[&str],
        prompting: Prompting,
    ) -> Result<Vec<Tokens>, EncodeError> {
        self.load_tokenizer(tower)?;
        let tokenizer = self.tokenizer.as_ref().expect("just loaded");
        let tokenize = |(index, text): (usize, &&str)| {
            let tokens =
                tokenizer.tokenize_after(prompting, text, self.options.interrupt).map_err(|source| {
                    match source {
                        TextError::Interrupted => EncodeError::Interrupted,
                        TextError::OutOfMemory(source) => EncodeError::OutOfMemory(source),
                        source @ (TextError::Tokenizer(_) | TextError::IdOutOfRange { .. }) => {
                            EncodeError::Text { index, source }
                        }
                    }
                })?;
            self.options.memory.check("tokenize a text")?;
            Ok(tokens)
        };
        texts.iter().enumerate().map(tokenize).collect()
    }

    /// Runs the text tower. `features` are the vectors that stand in the place of tokens, of all items.
    pub(super) fn run_texts(
        &mut self,
        tower: &TextTower,
        items: &[&Tokens],
        features: &[f32],
        rows: usize,
        expected: Expected,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let tokenizer = self.tokenizer.as_ref().expect("the texts are tokenized");
        let width = tokenizer.width(items.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0));
        // Ids, mask, and for each input a column of the graph's type, made from one of 64 bits.
        let columns = tower.inputs.tokens.len() + 3;
        memory::reserve(rows * width * columns * size_of::<i64>(), "hold the tokens of a batch")?;
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
            let (width, height) = placeholder_size(tower, pixels);
            Placeholder::pixels(pixels, if tower.inputs.shared_batch { rows } else { 1 }, width, height)
        });
        feeds.extend(picture.iter().map(Placeholder::feed));
        let others = if tower.inputs.shared_batch { rows } else { 1 };
        let patches = tower.inputs.patches.as_ref().map(|input| PatchTensors::placeholder(input, others));
        feeds.extend(patches.iter().flat_map(PatchTensors::feeds));

        let widths = self.package.joint.as_ref().map_or(1, |joint| joint.width);
        let shapes: Vec<[usize; 2]> = tower
            .inputs
            .features
            .iter()
            .map(|input| {
                let own = input.width.unwrap_or(widths);
                [if input.of_pictures { features.len() / own } else { 0 }, own]
            })
            .collect();
        feeds.extend(tower.inputs.features.iter().zip(&shapes).map(|(input, shape)| {
            let values = if input.of_pictures { features } else { &[] };
            (&*input.name, &shape[..], Feed::F32(values))
        }));

        let nothing: Vec<[usize; 4]> =
            tower.inputs.past.iter().map(|input| [rows, input.heads, 0, input.width]).collect();
        feeds.extend(tower.inputs.past.iter().zip(&nothing).map(|(input, shape)| {
            let feed = if input.element == Element::F16 { Feed::F16(&[]) } else { Feed::F32(&[]) };
            (&*input.name, &shape[..], feed)
        }));

        let size = RunSize { rows, tokens: Some(width), fitting_tokens: None, fitting_soft_tokens: None };
        let tensor = self
            .run(&tower.graph, &feeds, &tower.output.name, expected, size)
            .map_err(|failure| failure.or_word(|error| run_error(tower, error)))?;
        let vectors = self.finish(Modality::Text, &tensor, Mask::Rows(&mask), items.len());
        self.free(tensor);
        vectors
    }
}

/// Width and height of the picture that the unwanted image half of a combined graph gets.
fn placeholder_size(tower: &TextTower, pixels: &PixelInput) -> (usize, usize) {
    pixels.size.or(tower.picture_size).unwrap_or((224, 224))
}

/// Places of the tokens of a row that is filled up on the left: the first token has place 0, and padding has it as well.
fn places(mask: &[i64]) -> impl Iterator<Item = i64> + '_ {
    mask.iter().scan(-1, |place, token| {
        *place += token;
        Some((*place).max(0))
    })
}

/// Whether texts of these lengths, which rise, are better not run together: the shorter ones would be
/// filled up with more than a fourth of padding.
fn is_mostly_padding(lengths: &[usize]) -> bool {
    let (count, longest) = (lengths.len(), lengths.last().copied().unwrap_or(0));
    let tokens: usize = lengths.iter().sum();
    count * longest - tokens > tokens / PADDING_SHARE + FREE_PADDING
}

/// The most of `1..=most` that `fits`, which holds for all below if it holds for one.
fn longest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low)
}

/// What a failed run means. ONNX Runtime's Gather says "out of data bounds" of an id that lies beyond
/// the token table.
pub(super) fn run_error(tower: &TextTower, error: RunError) -> EncodeError {
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
pub(super) struct Column<'a> {
    name: &'a str,
    values: Numbers,
}

impl<'a> Column<'a> {
    pub(super) fn of(
        input: &'a TokenInput,
        tower: &TextTower,
        ids: &[i64],
        mask: &[i64],
        width: usize,
    ) -> Self {
        let values: Vec<i64> = match input.role {
            TokenRole::Ids => ids.to_vec(),
            TokenRole::Mask if tower.mask_padding => mask.to_vec(),
            TokenRole::Mask => vec![1; mask.len()],
            TokenRole::Types => vec![0; ids.len()],
            TokenRole::Positions if tower.pad_left => mask.chunks(width.max(1)).flat_map(places).collect(),
            TokenRole::Positions => (0_i64..).take(width).cycle().take(ids.len()).collect(),
        };
        Column { name: &input.name, values: Numbers::new(input.element, values) }
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    pub(super) fn feed(&self) -> Feed<'_> {
        self.values.feed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_do_not_run_with_short_ones() {
        assert!(!is_mostly_padding(&[8; 8]));
        assert!(!is_mostly_padding(&[6, 7, 8, 8, 9, 9, 10, 12]));
        assert!(is_mostly_padding(&[8, 8, 8, 8, 8, 8, 8, 512]));
        assert!(is_mostly_padding(&[8, 512]) && !is_mostly_padding(&[400, 512]));
        assert!(!is_mostly_padding(&[512]));
    }

    #[test]
    fn places_begin_where_the_text_does() {
        assert_eq!(places(&[0, 0, 1, 1, 1]).collect::<Vec<_>>(), [0, 0, 0, 1, 2]);
        assert_eq!(places(&[1, 1]).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn the_longest_piece_that_fits_is_found() {
        assert_eq!(longest(100, |tokens| tokens <= 37), Some(37));
        assert_eq!(longest(100, |_| true), Some(100));
        assert_eq!(longest(100, |_| false), None);
    }
}
