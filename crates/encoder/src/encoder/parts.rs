//! Embedding pictures and words together, in one pass of a model that takes both in one input.
//!
//! Each picture is a run of the vision encoder. Its vectors stand in the place of as many tokens, between a token that
//! begins a picture and one that ends it. Parts are joined by blanks, as the reference joins them. Special tokens that
//! a user spells stay text, and so no text can pretend to be a picture.

use std::borrow::Cow;

use super::error::RunSize;
use super::patches::PatchTensors;
use super::{EncodeError, Encoder, Expected};
use crate::image::{Patches, Region, RgbImage};
use crate::memory::OutOfMemory;
use crate::package::{JointModel, Modality, TextTower};
use crate::text::{TextError, Tokens};

/// A part of an input.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Words.
    Text(&'a str),
    /// An encoded picture.
    Picture(&'a [u8]),
    /// A picture that is decoded.
    Decoded(&'a RgbImage),
}

impl Part<'_> {
    fn is_picture(&self) -> bool {
        !matches!(self, Part::Text(_))
    }
}

impl Encoder {
    /// Embeds one input of texts and pictures, in their order, as a vector of unit length.
    ///
    /// Texts are taken as they are, without the package's prompt. Where all do not fit into the context, the end of
    /// the last texts is left out; pictures are never cut.
    ///
    /// # Errors
    /// [`EncodeError`]; what is wrong with one part is said with its place in `parts`.
    pub fn embed_parts(&mut self, parts: &[Part<'_>]) -> Result<Vec<f32>, EncodeError> {
        let Some((joint, tower)) = self.package.joint.clone().zip(self.package.text.clone()) else {
            return Err(self.no_joint_input());
        };
        let result = self.embed_parts_with(&joint, &tower, parts);
        self.drop_kept(result)
    }

    /// Token ids of an input, those that stand for pictures included, as the model sees them.
    ///
    /// # Errors
    /// As [`Encoder::embed_parts`].
    pub fn token_ids_of_parts(&mut self, parts: &[Part<'_>]) -> Result<Tokens, EncodeError> {
        let Some((joint, tower)) = self.package.joint.clone().zip(self.package.text.clone()) else {
            return Err(self.no_joint_input());
        };
        let result = self.assemble(&joint, &tower, parts);
        Ok(self.drop_kept(result)?.0)
    }

    fn no_joint_input(&self) -> EncodeError {
        if self.package.answers.is_some() {
            return self.no_tower(Modality::Image);
        }
        EncodeError::NoJointInput { model: self.package.name.clone() }
    }

    fn embed_parts_with(
        &mut self,
        joint: &JointModel,
        tower: &TextTower,
        parts: &[Part<'_>],
    ) -> Result<Vec<f32>, EncodeError> {
        let (tokens, features) = self.assemble(joint, tower, parts)?;
        let rows = tower.inputs.tokens.iter().find_map(|input| input.batch).unwrap_or(1);
        let estimate = self.estimate_texts(tower, rows, self.width_of(tokens.ids.len()));
        if !self.footprint(&tower.graph).fits(estimate) {
            self.try_out(tower, &tokens, rows)?;
        }
        let expected = Expected { bytes: estimate, next: None };
        let mut vectors = self.run_texts(tower, &[&tokens], &features, rows, expected)?;
        self.counts.texts += 1;
        Ok(vectors.swap_remove(0))
    }

    /// The tokens of an input, and the vectors of its pictures one after the other.
    fn assemble(
        &mut self,
        joint: &JointModel,
        tower: &TextTower,
        parts: &[Part<'_>],
    ) -> Result<(Tokens, Vec<f32>), EncodeError> {
        self.load_tokenizer(tower)?;
        let limit = self.tokenizer.as_ref().expect("just loaded").max_length();
        let mut picture_tokens = 0;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut features: Vec<f32> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            self.check()?;
            match part {
                Part::Text(text) => {
                    // Blanks at the seams belong to the text beside them.
                    let before = if index > 0 { " " } else { "" };
                    let after = if index + 1 < parts.len() { " " } else { "" };
                    pieces.push(Piece::Words(self.part_ids(&format!("{before}{text}{after}"), index)?));
                }
                Part::Picture(_) | Part::Decoded(_) => {
                    if index > 0 && parts[index - 1].is_picture() {
                        pieces.push(Piece::Words(self.part_ids(" ", index)?));
                    }
                    let more = parts[index + 1..].iter().any(Part::is_picture);
                    let found = self.picture_features(joint, *part, index, more)?;
                    let mut ids = vec![joint.begin_token];
                    ids.extend(std::iter::repeat_n(joint.image_token, found.len() / joint.width));
                    ids.push(joint.end_token);
                    picture_tokens += ids.len();
                    if picture_tokens > limit {
                        // Whatever else comes, it does not get shorter.
                        let model = self.package.name.clone();
                        return Err(EncodeError::TooManyTokens { model, tokens: picture_tokens, limit });
                    }
                    pieces.push(Piece::Picture(ids));
                    features
                        .try_reserve(found.len())
                        .map_err(|_| OutOfMemory { purpose: "hold the features of pictures" })?;
                    features.extend(found);
                }
            }
        }
        let tokenizer = self.tokenizer.as_ref().expect("just loaded");
        let (before, after) = tokenizer.frame().map_err(|source| EncodeError::Text { index: 0, source })?;
        let tokens = before.len() + after.len() + pieces.iter().map(|piece| piece.ids().len()).sum::<usize>();
        fit(&mut pieces, tokens.saturating_sub(limit)).map_err(|missing| EncodeError::TooManyTokens {
            model: self.package.name.clone(),
            tokens: limit + missing,
            limit,
        })?;
        let ids: Vec<u32> = before
            .into_iter()
            .chain(pieces.iter().flat_map(|piece| piece.ids()).copied())
            .chain(after)
            .collect();

        Ok((Tokens { ids }, features))
    }

    fn part_ids(&self, text: &str, index: usize) -> Result<Vec<u32>, EncodeError> {
        let tokenizer = self.tokenizer.as_ref().expect("loaded before parts are looked at");
        tokenizer.tokenize_part(text, self.options.interrupt).map_err(|source| match source {
            TextError::Interrupted => EncodeError::Interrupted,
            TextError::OutOfMemory(source) => EncodeError::OutOfMemory(source),
            source @ (TextError::Tokenizer(_) | TextError::IdOutOfRange { .. }) => {
                EncodeError::Text { index, source }
            }
        })
    }

    /// The vectors of a picture, `[soft tokens, width]`.
    fn picture_features(
        &mut self,
        joint: &JointModel,
        part: Part<'_>,
        index: usize,
        more: bool,
    ) -> Result<Vec<f32>, EncodeError> {
        let patching = &joint.patching;
        let (count, length) = (patching.patches(), patching.patch_len());
        let architecture = self.architectures.image;
        let estimate_of = |count: usize| architecture.of_patches(1, count as u64, length as u64);
        let estimate = estimate_of(count);
        let footprint = *self.footprint(&joint.graph);
        let fits = |count: usize| footprint.may_fit(estimate_of(count) / 3 * 4);
        let fitting_soft_tokens =
            patching.fewer_soft_tokens().find(|&(_, count)| fits(count)).map(|(tokens, _)| tokens);
        let size = RunSize { fitting_soft_tokens, ..RunSize::pictures(1) };
        if !footprint.may_fit(estimate) {
            return Err(self.too_large(footprint.expected(estimate), size));
        }
        let Patches { pixels, grid } = self.patches(joint, part, index)?;
        let tensors = PatchTensors::new(&joint.patches, Cow::Owned(pixels), count, &[grid]);
        let feeds = tensors.feeds();
        let expected = Expected { bytes: estimate, next: more.then_some(estimate) };
        let graph = &joint.graph;
        let tensor = self
            .run(graph, &feeds, &joint.output, expected, size)
            .map_err(|failure| failure.or_word(|error| EncodeError::from_run(graph.path.clone(), error)))?;
        self.counts.images += 1;
        // Of one picture the axis of pictures may be kept.
        let fits = tensor.data.len() == patching.soft_tokens(grid) * joint.width;
        if !fits || tensor.shape.last() != Some(&joint.width) {
            let (graph, output) = (graph.path.clone(), joint.output.clone());
            return Err(EncodeError::OutputShape { graph, output, shape: tensor.shape });
        }
        if !tensor.data.iter().all(|value| value.is_finite()) {
            let flaw = super::pooling::Flaw::NotFinite;
            return Err(EncodeError::Flawed { graph: graph.path.clone(), flaw });
        }
        Ok(tensor.data)
    }

    /// Cuts a picture into patches.
    fn patches(&self, joint: &JointModel, part: Part<'_>, index: usize) -> Result<Patches, EncodeError> {
        let decoded = match part {
            Part::Picture(bytes) => Cow::Owned(self.decode_at(index, bytes)?),
            Part::Decoded(image) => Cow::Borrowed(image),
            Part::Text(_) => unreachable!("asked for of pictures only"),
        };
        joint.patching.apply(&decoded).map_err(|source| EncodeError::Preprocess { index, source })
    }

    /// Embeds parts of a picture, each by itself.
    pub(super) fn embed_regions_jointly(
        &mut self,
        image: &RgbImage,
        regions: &[Region],
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let embed = |(index, region): (usize, &Region)| {
            let part = image.part(*region).map_err(|source| EncodeError::Image { index, source })?;
            self.embed_parts(&[Part::Decoded(&part)])
        };
        regions.iter().enumerate().map(embed).collect()
    }

    /// Embeds pictures of a model whose pictures are parts of an input, each by itself.
    pub(super) fn embed_pictures_jointly(&mut self, images: &[&[u8]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let embed = |(place, bytes): (usize, &&[u8])| {
            let mut result = self.embed_parts(&[Part::Picture(bytes)]);
            if let Err(EncodeError::Image { index, .. } | EncodeError::Preprocess { index, .. }) = &mut result
            {
                *index = place;
            }
            result
        };
        images.iter().enumerate().map(embed).collect()
    }

    /// The text that the package puts before a query, where texts get no other.
    #[must_use]
    pub fn query_prompt(&self) -> &str {
        let is_prompted = self.package.text.as_ref().is_some_and(|tower| !tower.prompt.is_empty());
        let prompt = self.package.prompts.get("query").filter(|_| self.is_joint() || !is_prompted);
        prompt.map_or("", String::as_str)
    }

    /// Whether pictures and words go into one input.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.package.joint.is_some()
    }
}

/// Tokens of a part.
#[derive(Debug, PartialEq)]
enum Piece {
    Words(Vec<u32>),
    /// Cannot be shortened.
    Picture(Vec<u32>),
}

impl Piece {
    fn ids(&self) -> &[u32] {
        match self {
            Piece::Words(ids) | Piece::Picture(ids) => ids,
        }
    }
}

/// Takes so many tokens from the ends of texts, the last first. If texts have too few, says how many are missing.
fn fit(pieces: &mut [Piece], mut excess: usize) -> Result<(), usize> {
    for piece in pieces.iter_mut().rev() {
        if let Piece::Words(ids) = piece {
            let taken = excess.min(ids.len());
            ids.truncate(ids.len() - taken);
            excess -= taken;
        }
    }
    if excess == 0 { Ok(()) } else { Err(excess) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_give_way_to_pictures_from_the_end() {
        let pieces = || vec![Piece::Words(vec![1; 5]), Piece::Picture(vec![7; 10]), Piece::Words(vec![2; 3])];
        let mut shortened = pieces();
        assert_eq!(fit(&mut shortened, 4), Ok(()));
        assert_eq!(shortened, [Piece::Words(vec![1; 4]), Piece::Picture(vec![7; 10]), Piece::Words(vec![])]);
        assert_eq!(fit(&mut pieces(), 8), Ok(()));
        assert_eq!(fit(&mut pieces(), 10), Err(2));
    }
}
