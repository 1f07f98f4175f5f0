//! A graph's inputs, and the output that is the embedding, determined from its outline.
//!
//! Inputs are recognized by name first and by rank and type second, because exporters agree on
//! neither. An unsupported input is an error that lists all inputs, before any weight is loaded.

use std::path::PathBuf;

use super::Family;
use super::error::{PackageError, Unsupported};
use super::onnx::{Element, GraphValue, Outline};
use super::overrides::PoolingName;

/// A graph file with its outline.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Relative to the package.
    pub file: PathBuf,
    /// The file, as the package names it.
    pub path: PathBuf,
    /// The same without links.
    pub real: PathBuf,
    /// Inputs, outputs, external data.
    pub outline: Outline,
    /// The files of `outline.external`.
    pub external: Vec<ExternalFile>,
    /// Bytes of the file and its external data.
    pub bytes: u64,
}

/// A file of weights beside a graph.
#[derive(Debug, Clone)]
pub struct ExternalFile {
    /// Its name in the graph, relative to the graph's directory.
    pub location: String,
    /// The file, without links.
    pub real: PathBuf,
}

/// Order of the axes of an image input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channel, height, width]`
    ChannelsFirst,
    /// `[batch, height, width, channel]`
    ChannelsLast,
}

/// The input that takes pixels.
#[derive(Debug, Clone)]
pub struct PixelInput {
    /// Name in the graph.
    pub name: String,
    /// Float type.
    pub element: Element,
    /// Order of the axes.
    pub layout: Layout,
    /// Batch size, if the graph fixes it.
    pub batch: Option<usize>,
    /// Width and height, if the graph fixes them.
    pub size: Option<(usize, usize)>,
}

/// What an input of a text tower means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// Token ids.
    Ids,
    /// One for each token, zero for padding.
    Mask,
    /// Zero everywhere: inputs are single sentences.
    Types,
    /// 0, 1, 2, ...
    Positions,
}

/// An input of shape `[batch, tokens]`.
#[derive(Debug, Clone)]
pub struct TokenInput {
    /// Name in the graph.
    pub name: String,
    /// Integer type; a mask may also be a float.
    pub element: Element,
    /// What it means.
    pub role: TokenRole,
    /// Batch size, if the graph fixes it.
    pub batch: Option<usize>,
    /// Number of tokens, if the graph fixes it.
    pub tokens: Option<usize>,
}

/// An input of patches, `[images, patches, floats]`, and those that say where they lie.
#[derive(Debug, Clone)]
pub struct PatchInput {
    /// Name of the input of patches.
    pub pixels: String,
    /// Float type.
    pub element: Element,
    /// Number of images, if the graph fixes it.
    pub batch: Option<usize>,
    /// Patches of an image, if the graph fixes them.
    pub patches: Option<usize>,
    /// Floats of a patch, if the graph fixes them.
    pub patch_len: Option<usize>,
    /// Where the patches lie.
    pub places: PatchPlaces,
}

/// How a graph is told where patches lie, and which are filling.
#[derive(Debug, Clone)]
pub enum PatchPlaces {
    /// Gemma: an input of column and row of each patch, `[images, patches, 2]`.
    Positions(String),
    /// SigLIP 2 NaFlex.
    Grid {
        /// One for each patch, zero for filling: `[images, patches]`.
        mask: NamedInput,
        /// Rows and columns of patches: `[images, 2]`.
        shapes: NamedInput,
    },
}

impl PatchInput {
    /// The names of its inputs.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match &self.places {
            PatchPlaces::Positions(positions) => vec![&self.pixels, positions],
            PatchPlaces::Grid { mask, shapes } => vec![&self.pixels, &mask.name, &shapes.name],
        }
    }

    /// Whether images are told by rows and columns, as SigLIP 2 NaFlex is.
    #[must_use]
    pub fn has_grid(&self) -> bool {
        matches!(self.places, PatchPlaces::Grid { .. })
    }
}

/// An input of numbers.
#[derive(Debug, Clone)]
pub struct NamedInput {
    /// Name in the graph.
    pub name: String,
    /// Integer type; a mask may also be a float.
    pub element: Element,
}

impl NamedInput {
    fn of(value: &GraphValue) -> NamedInput {
        NamedInput { name: value.name.clone(), element: value.element }
    }
}

/// An input of vectors that stand in the place of tokens, `[tokens, width]`.
#[derive(Debug, Clone)]
pub struct FeatureInput {
    /// Name in the graph.
    pub name: String,
    /// Whether they come from pictures; others are fed with none.
    pub of_pictures: bool,
    /// Floats of a vector, if the graph fixes them.
    pub width: Option<usize>,
}

/// An input of keys or values of tokens that came before, `[batch, heads, tokens, width]`: decoders that were exported for
/// generating have them. An embedder gets none.
#[derive(Debug, Clone)]
pub struct PastInput {
    /// Name in the graph.
    pub name: String,
    /// Float type.
    pub element: Element,
    /// Heads.
    pub heads: usize,
    /// Floats of a head.
    pub width: usize,
}

/// All inputs of a graph.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The pixel input, if there is one.
    pub pixels: Option<PixelInput>,
    /// Token inputs; ids among them if there are any.
    pub tokens: Vec<TokenInput>,
    /// The input of patches, if there is one.
    pub patches: Option<PatchInput>,
    /// Inputs of vectors beside the tokens.
    pub features: Vec<FeatureInput>,
    /// Inputs of what came before, which stay empty.
    pub past: Vec<PastInput>,
    /// The input that says which pixels are no filling, `[batch, height, width]`, if there is one.
    pub pixel_mask: Option<NamedInput>,
    /// Whether pixel and token inputs share one batch axis, so that both need as many rows.
    pub shared_batch: bool,
}

impl Inputs {
    /// Assigns every input of the graph.
    ///
    /// # Errors
    /// [`PackageError::UnsupportedInputs`] if one is left over, [`PackageError::Unsupported`] if the
    /// graph takes neither images nor text.
    pub fn of(graph: &Graph) -> Result<Inputs, PackageError> {
        let mut inputs = Inputs::default();
        let mut unsupported = Vec::new();
        inputs.patches = patch_input(&graph.outline.inputs);
        let of_patches = |value: &GraphValue, inputs: &Inputs| {
            inputs.patches.as_ref().is_some_and(|patches| patches.names().contains(&&*value.name))
        };
        for value in &graph.outline.inputs {
            if of_patches(value, &inputs) {
                continue;
            }
            if let Some(features) = feature_input(value) {
                inputs.features.push(features);
            } else if let Some(past) = past_input(value) {
                inputs.past.push(past);
            } else if let Some(mask) = pixel_mask(value) {
                inputs.pixel_mask = Some(mask);
            } else if let Some(pixels) = pixel_input(value).filter(|_| inputs.pixels.is_none()) {
                inputs.pixels = Some(pixels);
            } else if let Some(tokens) =
                token_input(value).filter(|new| inputs.tokens.iter().all(|old| old.role != new.role))
            {
                inputs.tokens.push(tokens);
            } else {
                unsupported.push(value.name.clone());
            }
        }
        let has_ids = inputs.tokens.iter().any(|input| input.role == TokenRole::Ids);
        if !has_ids {
            unsupported.extend(inputs.tokens.iter().map(|input| input.name.clone()));
        }
        if !unsupported.is_empty() {
            return Err(PackageError::UnsupportedInputs {
                path: graph.path.clone(),
                inputs: graph.outline.inputs.clone(),
                unsupported,
            });
        }
        if inputs.pixels.is_none() && inputs.patches.is_none() && !has_ids {
            return Err(PackageError::Unsupported {
                path: graph.path.clone(),
                feature: Unsupported::NoModality,
            });
        }
        let axes: Vec<_> =
            graph.outline.inputs.iter().map(|input| input.shape.as_ref().and_then(|s| s.first())).collect();
        inputs.shared_batch = axes.windows(2).all(|pair| pair[0] == pair[1]);
        Ok(inputs)
    }

    /// Whether the graph holds both towers.
    #[must_use]
    pub fn both(&self) -> bool {
        (self.pixels.is_some() || self.patches.is_some()) && !self.tokens.is_empty()
    }
}

/// The inputs that Gemma's vision encoders have, or those of SigLIP 2 NaFlex.
fn patch_input(inputs: &[GraphValue]) -> Option<PatchInput> {
    let named = |name: &str, rank: usize| {
        inputs.iter().find(|value| value.name == name && value.rank().is_none_or(|found| found == rank))
    };
    let pixels = named("pixel_values", 3)?;
    let positions = named("pixel_position_ids", 3).filter(|value| value.element == Element::I64);
    let places = match positions {
        Some(positions) if pixels.element == Element::F32 => PatchPlaces::Positions(positions.name.clone()),
        _ if pixels.element.is_float() => {
            let mask = named("pixel_attention_mask", 2).filter(|value| can_be_mask(value))?;
            let shapes = named("spatial_shapes", 2).filter(|value| value.element.is_integer())?;
            PatchPlaces::Grid { mask: NamedInput::of(mask), shapes: NamedInput::of(shapes) }
        }
        _ => return None,
    };
    Some(PatchInput {
        pixels: pixels.name.clone(),
        element: pixels.element,
        batch: pixels.extent(0),
        patches: pixels.extent(1),
        patch_len: pixels.extent(2),
        places,
    })
}

fn feature_input(value: &GraphValue) -> Option<FeatureInput> {
    let is_known = matches!(&*value.name, "image_features" | "video_features" | "audio_features");
    let is_fit = value.element == Element::F32 && value.rank().is_none_or(|rank| rank == 2);
    (is_known && is_fit).then(|| FeatureInput {
        name: value.name.clone(),
        of_pictures: value.name == "image_features",
        width: value.extent(1),
    })
}

fn past_input(value: &GraphValue) -> Option<PastInput> {
    let is_past = value.name.starts_with("past_key_values.") && value.element.is_float();
    let shape = value.extent(1).zip(value.extent(3)).filter(|_| is_past && value.rank() == Some(4));
    shape.map(|(heads, width)| PastInput { name: value.name.clone(), element: value.element, heads, width })
}

fn pixel_mask(value: &GraphValue) -> Option<NamedInput> {
    let is_mask = value.name == "pixel_mask" && value.rank().is_none_or(|rank| rank == 3);
    (is_mask && can_be_mask(value)).then(|| NamedInput::of(value))
}

/// Whether it is of a type that a mask can be fed in.
fn can_be_mask(value: &GraphValue) -> bool {
    value.element.is_integer() || value.element == Element::F32
}

fn pixel_input(value: &GraphValue) -> Option<PixelInput> {
    if !value.element.is_float() || value.rank().is_some_and(|rank| rank != 4) {
        return None;
    }
    // Without a declared rank only the name can tell.
    if value.rank().is_none() && !matches!(value.name.as_str(), "pixel_values" | "image" | "images") {
        return None;
    }
    let layout = match (value.extent(1), value.extent(3)) {
        (Some(3), _) => Layout::ChannelsFirst,
        (_, Some(3)) => Layout::ChannelsLast,
        (None, None) => Layout::ChannelsFirst,
        // One, four or more channels: not a color image.
        (Some(_), _) => return None,
        (None, Some(_)) => Layout::ChannelsFirst,
    };
    let (height, width) = match layout {
        Layout::ChannelsFirst => (value.extent(2), value.extent(3)),
        Layout::ChannelsLast => (value.extent(1), value.extent(2)),
    };
    Some(PixelInput {
        name: value.name.clone(),
        element: value.element,
        layout,
        batch: value.extent(0),
        size: width.zip(height),
    })
}

fn token_input(value: &GraphValue) -> Option<TokenInput> {
    if value.rank().is_some_and(|rank| rank != 2) {
        return None;
    }
    let role = match value.name.as_str() {
        "input_ids" | "text" | "tokens" | "ids" | "token_ids" | "input" | "texts" => TokenRole::Ids,
        "attention_mask" | "mask" | "input_mask" => TokenRole::Mask,
        "token_type_ids" | "segment_ids" | "token_types" => TokenRole::Types,
        "position_ids" | "positions" => TokenRole::Positions,
        _ => return None,
    };
    let feedable = value.element.is_integer() || (role == TokenRole::Mask && value.element == Element::F32);
    feedable.then(|| TokenInput {
        name: value.name.clone(),
        element: value.element,
        role,
        batch: value.extent(0),
        tokens: value.extent(1),
    })
}

/// How one vector per token or patch becomes one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    First,
    /// The last token that is not padding.
    Last,
    /// The mean over tokens that are not padding.
    Mean,
    /// Their sum divided by the square root of their number.
    MeanSqrtLength,
    /// Their greatest value, by dimension.
    Max,
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Cls => Pooling::First,
            PoolingName::Last => Pooling::Last,
            PoolingName::Mean => Pooling::Mean,
            PoolingName::MeanSqrtLength => Pooling::MeanSqrtLength,
            PoolingName::Max => Pooling::Max,
        }
    }
}

/// The output that is the embedding. Its rank decides what is done with it: 2 is taken as it is, 3
/// is pooled over tokens, 4 is averaged over height and width.
#[derive(Debug, Clone)]
pub struct Output {
    /// Name in the graph.
    pub name: String,
    /// What is done with one vector per token or patch.
    pub pooling: Pooling,
    /// Dimensions of the embedding, if the graph declares them.
    pub dim: Option<usize>,
}

/// The two kinds of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Pictures.
    Image,
    /// Text.
    Text,
}

impl Modality {
    /// As it is called in `imgvec.toml` and in the view of models.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Modality::Image => "image",
            Modality::Text => "text",
        }
    }
}

/// Names of outputs that are an image's embedding, the best first.
const IMAGE_OUTPUTS: [&str; 12] = [
    "image_embeds",
    "image_embedding",
    "image_embeddings",
    "l2norm_image_embeddings",
    "image_features",
    "embedding",
    "embeddings",
    "pooler_output",
    "last_hidden_state",
    "features",
    "output",
    "logits",
];
/// Names of outputs that are a text's embedding, the best first. BERT's `pooler_output` is not among
/// those before the token vectors: it belongs to a training task and is no sentence vector.
const TEXT_OUTPUTS: [&str; 12] = [
    "text_embeds",
    "text_embedding",
    "text_embeddings",
    "l2norm_text_embeddings",
    "text_features",
    "sentence_embedding",
    "sentence_embeddings",
    "embedding",
    "embeddings",
    "token_embeddings",
    "last_hidden_state",
    "output",
];

impl Output {
    /// Chooses the output of `graph` that embeds `modality`.
    ///
    /// # Errors
    /// [`PackageError::NoOutput`].
    pub fn of(
        graph: &Graph,
        modality: Modality,
        family: Family,
        wanted: Option<&str>,
        pooling: Pooling,
        both: bool,
    ) -> Result<Output, PackageError> {
        let outputs: Vec<&GraphValue> =
            graph.outline.outputs.iter().filter(|output| is_embedding(output)).collect();
        let named = |name: &str| outputs.iter().copied().find(|output| output.name == name);
        let preferred = || {
            let rules = family.rules();
            let (first, names) = match modality {
                Modality::Image => (rules.image_outputs, &IMAGE_OUTPUTS),
                Modality::Text => (rules.text_outputs, &TEXT_OUTPUTS),
            };
            first.iter().chain(names).find_map(|name| named(name))
        };
        // The one output of a graph with one tower needs no name.
        let only = || (outputs.len() == 1 && !both).then(|| outputs[0]);
        let chosen = match wanted {
            Some(name) => named(name),
            None => preferred().or_else(only),
        };
        let Some(value) = chosen else {
            return Err(PackageError::NoOutput {
                path: graph.path.clone(),
                wanted: wanted.map(str::to_owned),
                outputs: graph.outline.outputs.clone(),
            });
        };
        let dim = match value.rank() {
            Some(4) => value.extent(1),
            Some(rank) => value.extent(rank - 1),
            None => None,
        };
        Ok(Output { name: value.name.clone(), pooling, dim })
    }
}

/// A float tensor of rank 1 to 4, or of a rank that is not declared.
fn is_embedding(output: &GraphValue) -> bool {
    output.element.is_float() && output.rank().is_none_or(|rank| (1..=4).contains(&rank))
}
