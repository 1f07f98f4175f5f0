//! Model packages: a directory of model files becomes a description of how to run them.
//!
//! [`Package::open`] reads the small files and the outlines of the graphs, and decides everything
//! that does not need ONNX Runtime: family, towers, inputs, outputs, preprocessing, padding. What is
//! wrong with a package is found here, in milliseconds, not in the middle of the first query.

mod answers;
mod classification;
mod describe;
mod digest;
mod error;
mod family;
mod files;
mod joint;
mod layout;
mod locate;
mod modules;
mod onnx;
mod overrides;
mod place;
mod query;
mod tower;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use answers::AnswerModel;
pub use classification::{Classification, KINDS, Scoring};
pub use digest::{DigestError, ModelDigest};
pub use error::{FileRole, MalformedFile, PackageError, Unsupported};
pub use family::Family;
pub use files::Stamp;
pub use joint::JointModel;
pub use layout::Precision;
pub use locate::Listed;
pub use modules::{Activation, Dense, LayerNorm, Module, Weights};
pub use onnx::{Element, Extent, GraphValue, OnnxError, Outline};
pub use query::{ModalityMeans, QuerySettings};
pub use tower::{
    FeatureInput, Graph, Inputs, Layout, Modality, NamedInput, Output, PastInput, PatchInput, PatchPlaces,
    PixelInput, Pooling, TokenInput, TokenRole,
};

use crate::image::{Patching, Preprocessing};
use files::PackageFiles;
use place::Bounds;
pub(crate) use place::open_regular;

/// A model package that was read and found usable, as far as that shows without running it.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name: the path below a directory of the model path, with `/` between owner and model.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The kind of model.
    pub family: Family,
    /// What it can embed, images first.
    pub modalities: Vec<Modality>,
    /// Dimensions of its embeddings, if the files contain them; otherwise the first embedding shows them.
    pub dim: Option<usize>,
    /// Precision of its graphs, according to their names. That of the image tower where they differ.
    pub precision: Precision,
    /// The license that its model card or `imgvec.toml` states.
    pub license: Option<String>,
    /// Prompts and scores for zero-shot classification.
    pub classification: Classification,
    /// How a picture and a text become one query.
    pub query: QuerySettings,
    /// Whether embeddings are scaled to unit length.
    pub normalize: bool,
    /// Dimensions to keep of a Matryoshka model.
    pub truncate_dims: Option<usize>,
    /// The image tower.
    pub image: Option<Arc<ImageTower>>,
    /// The text tower.
    pub text: Option<Arc<TextTower>>,
    /// How pictures become part of a text, if the text tower takes both in one input.
    pub joint: Option<Arc<JointModel>>,
    /// How questions about pictures are answered, if the model does that. Then it embeds nothing.
    pub answers: Option<Arc<AnswerModel>>,
    /// Texts put before an input, by the name of a use.
    pub prompts: BTreeMap<String, String>,
    /// The package that the image tower is taken from, if it is not this one.
    pub image_from: Option<Box<Package>>,
    /// The package that the text tower is taken from, if it is not this one.
    pub text_from: Option<Box<Package>>,
    files: PackageFiles,
}

/// Finds a package that lends a tower, by its name. Such a package borrows none itself, so that no two wait for each other.
type FindHalf<'a> = &'a dyn Fn(&str) -> Result<Package, PackageError>;

/// How images are embedded.
#[derive(Debug, Clone)]
pub struct ImageTower {
    /// The graph. The same file as the text tower's in a combined model.
    pub graph: Graph,
    /// All inputs of the graph; `pixels` or `patches` is among them, as `preparation` says.
    pub inputs: Inputs,
    /// The embedding.
    pub output: Output,
    /// From picture to pixel values.
    pub preparation: Preparation,
    /// Where that was read.
    pub preprocessing_file: PathBuf,
}

/// What a picture becomes for an image tower.
#[derive(Debug, Clone)]
pub enum Preparation {
    /// A tensor of the same size for all pictures.
    Tensor(Preprocessing),
    /// Patches of a picture in its own shape.
    Patches(Patching),
}

/// How text is embedded.
#[derive(Debug, Clone)]
pub struct TextTower {
    /// The graph. The same file as the image tower's in a combined model.
    pub graph: Graph,
    /// All inputs of the graph; token ids are among them.
    pub inputs: Inputs,
    /// The embedding, or what `modules` make it of.
    pub output: Output,
    /// What is done with each pooled vector, in this order.
    pub modules: Vec<Module>,
    /// The tokenizer file, as the package names it.
    pub tokenizer: PathBuf,
    /// The same without links.
    pub tokenizer_file: PathBuf,
    /// Most tokens of an input, special tokens included.
    pub max_length: usize,
    /// How short inputs are filled up.
    pub padding: Padding,
    /// Id of the token that fills up, if the files contain it.
    pub pad_id: Option<u32>,
    /// That token's text, looked up where its id is not told; without it the tokenizer's own.
    pub pad_token: Option<String>,
    /// Whether padding goes before the text.
    pub pad_left: bool,
    /// Whether the mask says that padding is padding. SigLIP was trained without a mask.
    pub mask_padding: bool,
    /// Text put before every input.
    pub prompt: String,
    /// Whether text is converted to lower case before tokenizing.
    pub lowercase: bool,
    /// Rows of the graph's token table, if the files contain them.
    pub vocab_size: Option<usize>,
    /// Width and height of the pictures of a combined graph, whose unwanted half gets one.
    pub picture_size: Option<(usize, usize)>,
}

impl ImageTower {
    /// How a picture becomes a tensor, unless it becomes patches.
    #[must_use]
    pub fn preprocessing(&self) -> Option<&Preprocessing> {
        match &self.preparation {
            Preparation::Tensor(preprocessing) => Some(preprocessing),
            Preparation::Patches(_) => None,
        }
    }

    /// How a picture becomes patches, unless it becomes a tensor of one size.
    #[must_use]
    pub fn patching(&self) -> Option<&Patching> {
        match &self.preparation {
            Preparation::Tensor(_) => None,
            Preparation::Patches(patching) => Some(patching),
        }
    }

    /// Width and height of the tensor of a picture, if all have the same.
    #[must_use]
    pub fn size(&self) -> Option<(usize, usize)> {
        let (height, width) = self.preprocessing()?.output_size();
        Some((width as usize, height as usize))
    }

    /// Values that a picture becomes.
    #[must_use]
    pub fn values_per_picture(&self) -> usize {
        match &self.preparation {
            Preparation::Tensor(preprocessing) => preprocessing.output_len(),
            Preparation::Patches(patching) => patching.patches() * patching.patch_len(),
        }
    }

    /// Pictures of a run, if the graph fixes them.
    #[must_use]
    pub fn batch(&self) -> Option<usize> {
        let of_patches = || self.inputs.patches.as_ref().and_then(|patches| patches.batch);
        self.inputs.pixels.as_ref().map_or_else(of_patches, |pixels| pixels.batch)
    }
}

impl TextTower {
    /// Dimensions of an embedding, if the files contain them.
    #[must_use]
    pub fn dim(&self) -> Option<usize> {
        Module::width_of(&self.modules).or(self.output.dim)
    }
}

/// How token sequences of a batch get equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// To the longest of the batch.
    Longest,
    /// Always to this many tokens.
    Fixed(usize),
}

impl Package {
    /// Reads the package in `dir`, named after the directory. Loads no graph and no tokenizer. All its
    /// files lie in `dir`: links that lead elsewhere are refused. A package that lends a tower lies beside it.
    ///
    /// # Errors
    /// [`PackageError`] says which file is missing, unreadable, malformed, or of a kind that is not
    /// supported.
    pub fn open(dir: &Path) -> Result<Package, PackageError> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = [dir.parent().unwrap_or(dir).to_owned()];
        let half = |half: &str| Self::find_lender(&beside, half);
        Self::open_named(dir, name, Bounds::of([dir]), Some(&half))
    }

    fn open_named(
        dir: &Path,
        name: String,
        bounds: Bounds,
        halves: Option<FindHalf<'_>>,
    ) -> Result<Package, PackageError> {
        if let Err(place::Refusal::Outside) = bounds.resolve(dir) {
            return Err(PackageError::Outside { path: dir.to_owned() });
        }
        describe::describe(PackageFiles::new(dir, bounds), name, halves)
    }

    /// Whether it embeds this kind of input.
    #[must_use]
    pub fn embeds(&self, modality: Modality) -> bool {
        self.modalities.contains(&modality)
    }

    /// Whether any file that decided this description has changed, appeared or vanished since. Costs
    /// a `stat` for about ten paths.
    #[must_use]
    pub fn changed_since_open(&self) -> bool {
        self.files.changed() || self.lenders().any(|(_, lender)| lender.changed_since_open())
    }

    /// The packages that lend a tower.
    pub fn lenders(&self) -> impl Iterator<Item = (Modality, &Package)> {
        let image = self.image_from.as_deref().map(|lender| (Modality::Image, lender));
        let text = self.text_from.as_deref().map(|lender| (Modality::Text, lender));
        image.into_iter().chain(text)
    }

    /// The package whose directory has a tower.
    #[must_use]
    pub fn owner_of(&self, modality: Modality) -> &Package {
        self.lenders().find(|(lent, _)| *lent == modality).map_or(self, |(_, lender)| lender)
    }

    /// The package whose directory has a graph of this one.
    pub(crate) fn owner_of_graph(&self, graph: &Graph) -> &Package {
        let has = |package: &&Package| package.graphs().iter().any(|own| own.path == graph.path);
        self.lenders().map(|(_, lender)| lender).find(has).unwrap_or(self)
    }

    /// The graphs that embedding inputs of a kind runs.
    #[must_use]
    pub fn graphs_of(&self, modality: Modality) -> Vec<&Graph> {
        let text = || self.text.as_ref().map(|tower| &tower.graph);
        match (modality, &self.joint) {
            (Modality::Text, _) => text().into_iter().collect(),
            (Modality::Image, Some(joint)) => std::iter::once(&joint.graph).chain(text()).collect(),
            (Modality::Image, None) => self.image.as_ref().map(|tower| &tower.graph).into_iter().collect(),
        }
    }

    /// The graph that answers questions.
    #[must_use]
    pub fn graph_of_answers(&self) -> Option<&Graph> {
        self.answers.as_ref().map(|model| &model.questions.graph)
    }

    /// What a tokenizer is needed for: text that is embedded, or questions.
    #[must_use]
    pub fn tokenized(&self) -> Option<&TextTower> {
        self.text.as_deref().or(self.answers.as_ref().map(|model| &model.questions))
    }

    /// The graphs, each once.
    #[must_use]
    pub fn graphs(&self) -> Vec<&Graph> {
        let image = self.image.as_ref().map(|tower| &tower.graph);
        let image = image.or(self.joint.as_ref().map(|joint| &joint.graph));
        let text = self.text.as_ref().map(|tower| &tower.graph);
        let text = text.filter(|text| image.is_none_or(|image| image.path != text.path));
        image.into_iter().chain(text).chain(self.graph_of_answers()).collect()
    }
}
