//! The modules that a sentence-transformers model applies to a text's vector after the pooling: dense layers and normalizations.
//!
//! `modules.json` lists the modules. Each has a directory with a `config.json` and its weights, in the format
//! safetensors. This module reads the headers of these files and compares them with the configuration. [`Weights::read`] reads the
//! numbers with the first text.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::error::{FileRole, MalformedFile, PackageError, Unsupported};
use super::files::PackageFiles;
use super::open_regular;
use crate::interrupt::InterruptCheck;

/// The list of a package's modules.
const MODULES: &str = "modules.json";
/// Most modules after the pooling. Published models have three at most.
const MAX_MODULES: usize = 16;
/// Most numbers that go into a module or come out of it.
const MAX_WIDTH: usize = 1 << 16;
/// Longest header of a file of weights that is read, in bytes. A module has two tensors.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Most weights of a module, in numbers: 1 GiB as they are held.
const MAX_WEIGHTS: usize = 1 << 28;
/// Bytes of a header's length, before it.
const LENGTH: u64 = 8;

/// A step after the pooling.
#[derive(Debug, Clone)]
pub enum Module {
    /// `activation(weight x + bias)`
    Dense(Dense),
    /// Mean 0 and deviation 1, then `weight x + bias` by element.
    LayerNorm(LayerNorm),
    /// Unit length.
    Normalize,
}

/// A fully connected layer.
#[derive(Debug, Clone)]
pub struct Dense {
    /// Numbers that go in.
    pub inputs: usize,
    /// Numbers that come out.
    pub outputs: usize,
    /// `[outputs, inputs]`, row-major.
    pub weight: Weights,
    /// `[outputs]`
    pub bias: Option<Weights>,
    /// What is done with each number that comes out.
    pub activation: Activation,
}

/// A layer normalization.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Numbers that go in and come out.
    pub dim: usize,
    /// `[dim]`
    pub weight: Weights,
    /// `[dim]`
    pub bias: Weights,
}

/// The function at the end of a dense layer, by torch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(0, x)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The file, as the package names it.
    pub path: PathBuf,
    /// The same without links.
    real: PathBuf,
    element: Float,
    /// Where the tensor begins in the file.
    offset: u64,
    /// Its numbers.
    pub count: usize,
}

#[derive(Debug, Clone, Copy)]
enum Float {
    F16,
    Bf16,
    F32,
}

impl Float {
    fn bytes(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
        }
    }
}

impl Module {
    /// Numbers that come out of `modules`, if that is known without what goes in.
    #[must_use]
    pub fn width_of(modules: &[Module]) -> Option<usize> {
        modules.iter().rev().find_map(Module::outputs)
    }

    fn inputs(&self) -> Option<usize> {
        match self {
            Module::Dense(dense) => Some(dense.inputs),
            Module::LayerNorm(norm) => Some(norm.dim),
            Module::Normalize => None,
        }
    }

    fn outputs(&self) -> Option<usize> {
        match self {
            Module::Dense(dense) => Some(dense.outputs),
            Module::LayerNorm(norm) => Some(norm.dim),
            Module::Normalize => None,
        }
    }

    /// The tensors of the module.
    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        let (weight, bias) = match self {
            Module::Dense(dense) => (Some(&dense.weight), dense.bias.as_ref()),
            Module::LayerNorm(norm) => (Some(&norm.weight), Some(&norm.bias)),
            Module::Normalize => (None, None),
        };
        weight.into_iter().chain(bias)
    }
}

impl Weights {
    /// The numbers, from the file as it is now; none if `interrupt` returned true. They take four bytes each.
    ///
    /// # Errors
    /// [`PackageError::Truncated`], [`PackageError::Unreadable`] or [`PackageError::Missing`] if the file was changed since.
    pub fn read(&self, interrupt: InterruptCheck) -> Result<Option<Vec<f32>>, PackageError> {
        let failed = |source| PackageError::from_io(self.path.clone(), FileRole::Weights, source);
        let (file, metadata) = open_regular(&self.real).map_err(failed)?;
        let size = self.element.bytes();
        let expected = self.offset + (self.count * size) as u64;
        if metadata.len() < expected {
            return Err(PackageError::Truncated { path: self.path.clone(), expected, found: metadata.len() });
        }
        // Piece by piece, so that the numbers are held once.
        const PIECE: usize = 1 << 16;
        let mut numbers = Vec::with_capacity(self.count);
        let mut bytes = vec![0; PIECE];
        let mut offset = self.offset;
        while numbers.len() < self.count {
            if interrupt() {
                return Ok(None);
            }
            let piece = &mut bytes[..PIECE.min((self.count - numbers.len()) * size)];
            file.read_exact_at(piece, offset).map_err(failed)?;
            offset += piece.len() as u64;
            match self.element {
                Float::F32 => {
                    numbers.extend(piece.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                }
                Float::F16 => {
                    numbers
                        .extend(piece.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()));
                }
                Float::Bf16 => {
                    numbers
                        .extend(piece.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()));
                }
            }
        }
        Ok(Some(numbers))
    }
}

/// The modules after the pooling. `dim` is the length of the pooled vector, if a file tells. The last step is never a
/// normalization: whether embeddings get unit length is a setting of the package.
pub(super) fn read(files: &mut PackageFiles, dim: Option<usize>) -> Result<Vec<Module>, PackageError> {
    let Some(Value::Array(list)) = files.json(Path::new(MODULES))? else { return Ok(Vec::new()) };
    let mut modules = Vec::new();
    let mut is_pooled = false;
    let mut width = dim;
    for entry in &list {
        let kind = entry["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        let dir = Path::new(entry["path"].as_str().unwrap_or_default());
        let module = match kind {
            "Transformer" if !is_pooled => continue,
            "Pooling" if !is_pooled => {
                is_pooled = true;
                continue;
            }
            // It does something in training alone.
            "Dropout" => continue,
            "Dense" if is_pooled => Module::Dense(dense(files, dir)?),
            "LayerNorm" if is_pooled => Module::LayerNorm(layer_norm(files, dir)?),
            "Normalize" => Module::Normalize,
            _ => {
                let feature = Unsupported::Module(kind.to_owned());
                return Err(PackageError::Unsupported { path: files.dir().join(MODULES), feature });
            }
        };
        if let (Some(width), Some(inputs)) = (width, module.inputs())
            && width != inputs
        {
            let path = files.dir().join(dir).join("config.json");
            return Err(PackageError::Malformed {
                path,
                source: MalformedFile::Width { expected: width, found: inputs },
            });
        }
        width = module.outputs().or(width);
        modules.push(module);
        if modules.len() > MAX_MODULES {
            let path = files.dir().join(MODULES);
            let source =
                MalformedFile::Setting { setting: "modules", expected: "a list of 16 modules at most" };
            return Err(PackageError::Malformed { path, source });
        }
    }
    while let Some(Module::Normalize) = modules.last() {
        modules.pop();
    }
    Ok(modules)
}

fn dense(files: &mut PackageFiles, dir: &Path) -> Result<Dense, PackageError> {
    let config = Config::read(files, dir)?;
    let inputs = config.width("in_features")?;
    let outputs = config.width("out_features")?;
    if inputs * outputs > MAX_WEIGHTS {
        return Err(config.malformed("out_features", "such that the layer has at most 2^28 weights"));
    }
    // A layer of token vectors belongs to a model that gives several vectors for a text.
    if let Some(name) =
        config.value["module_input_name"].as_str().filter(|name| *name != "sentence_embedding")
    {
        let feature = Unsupported::ModuleInput(name.to_owned());
        return Err(PackageError::Unsupported { path: config.path, feature });
    }
    let named = config.value["activation_function"].as_str();
    let activation = match named.map(|name| name.rsplit('.').next().unwrap_or_default()) {
        // The class's default.
        None | Some("Tanh") => Activation::Tanh,
        Some("Identity") => Activation::Identity,
        Some("ReLU") => Activation::Relu,
        Some("Sigmoid") => Activation::Sigmoid,
        Some(_) => {
            let feature = Unsupported::Activation(named.unwrap_or_default().to_owned());
            return Err(PackageError::Unsupported { path: config.path, feature });
        }
    };
    let has_bias = config.value["bias"].as_bool().unwrap_or(true);
    let file = Tensors::open(files, dir)?;
    Ok(Dense {
        inputs,
        outputs,
        weight: file.get("linear.weight", &[outputs, inputs])?,
        bias: has_bias.then(|| file.get("linear.bias", &[outputs])).transpose()?,
        activation,
    })
}

fn layer_norm(files: &mut PackageFiles, dir: &Path) -> Result<LayerNorm, PackageError> {
    let dim = Config::read(files, dir)?.width("dimension")?;
    let file = Tensors::open(files, dir)?;
    Ok(LayerNorm { dim, weight: file.get("norm.weight", &[dim])?, bias: file.get("norm.bias", &[dim])? })
}

/// A module's `config.json`.
struct Config {
    path: PathBuf,
    value: Value,
}

impl Config {
    fn read(files: &mut PackageFiles, dir: &Path) -> Result<Config, PackageError> {
        let name = dir.join("config.json");
        let path = files.dir().join(&name);
        match files.json(&name)? {
            Some(value) => Ok(Config { path, value }),
            None => Err(PackageError::Missing { path, role: FileRole::Config }),
        }
    }

    fn malformed(&self, setting: &'static str, expected: &'static str) -> PackageError {
        let source = MalformedFile::Setting { setting, expected };
        PackageError::Malformed { path: self.path.clone(), source }
    }

    /// A number of inputs or outputs.
    fn width(&self, setting: &'static str) -> Result<usize, PackageError> {
        let told = self.value[setting].as_u64().and_then(|width| usize::try_from(width).ok());
        told.filter(|width| (1..=MAX_WIDTH).contains(width))
            .ok_or_else(|| self.malformed(setting, "a number from 1 to 65536"))
    }
}

/// The header of a module's file of weights.
struct Tensors {
    path: PathBuf,
    real: PathBuf,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl Tensors {
    fn open(files: &mut PackageFiles, dir: &Path) -> Result<Tensors, PackageError> {
        let name = dir.join("model.safetensors");
        if !files.exists(&name)? {
            let pickle = dir.join("pytorch_model.bin");
            if files.exists(&pickle)? {
                let path = files.dir().join(pickle);
                return Err(PackageError::Unsupported { path, feature: Unsupported::Pickle });
            }
        }
        let (mut file, size) = files.take(&name, FileRole::Weights)?;
        let path = files.dir().join(&name);
        let truncated = |expected| PackageError::Truncated { path: path.clone(), expected, found: size };
        let malformed = |source| PackageError::Malformed { path: path.clone(), source };
        let failed = |source| PackageError::from_io(path.clone(), FileRole::Weights, source);
        if size < LENGTH {
            return Err(truncated(LENGTH));
        }
        let mut length = [0; LENGTH as usize];
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(malformed(MalformedFile::Weights(
                "the length of its header is that of no such file".to_owned(),
            )));
        }
        let start = LENGTH + length;
        if size < start {
            return Err(truncated(start));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| malformed(MalformedFile::Weights(error.to_string())))?;
        let end = start.saturating_add(metadata.data_len() as u64);
        if size < end {
            return Err(truncated(end));
        }
        let real = files.real(&name, FileRole::Weights)?;
        Ok(Tensors { path, real, metadata, start })
    }

    fn malformed(&self, reason: String) -> PackageError {
        PackageError::Malformed { path: self.path.clone(), source: MalformedFile::Weights(reason) }
    }

    /// The tensor called `name`, which must have this shape.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Weights, PackageError> {
        let info = self.metadata.info(name);
        let info: &TensorInfo = info.ok_or_else(|| self.malformed(format!("it has no tensor \"{name}\"")))?;
        if info.shape != shape {
            let reason = format!("its tensor \"{name}\" has the shape {:?} instead of {shape:?}", info.shape);
            return Err(self.malformed(reason));
        }
        let known = [(Dtype::F32, Float::F32), (Dtype::F16, Float::F16), (Dtype::BF16, Float::Bf16)];
        let Some((_, element)) = known.into_iter().find(|(dtype, _)| *dtype == info.dtype) else {
            return Err(self.malformed(format!("its tensor \"{name}\" has the type {}", info.dtype)));
        };
        // The header was proved: the offsets fit type and shape.
        let offset = self.start + info.data_offsets.0 as u64;
        let (path, real) = (self.path.clone(), self.real.clone());
        Ok(Weights { path, real, element, offset, count: shape.iter().product() })
    }
}
