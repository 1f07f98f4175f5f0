//! The outline of an ONNX file: inputs, outputs, where the weights lie, whether it is whole.
//!
//! A model file is a protobuf message whose weights are length-delimited fields. This reader walks
//! the fields and seeks over the weights, so a 350 MB file costs about as many reads as it has
//! nodes. It answers what a package must know before ONNX Runtime is loaded: which inputs the graph
//! wants, which outputs it gives, which other files belong to it, and whether a copy stopped
//! half-way. Field numbers are those of `onnx.proto3` (ONNX IR version 3 and later).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use thiserror::Error;

/// Longest name, shape label or node that is read into memory, in bytes.
const MAX_NAME_BYTES: u64 = 64 * 1024;
/// Most inputs, outputs and dimensions that are kept. A text encoder has three inputs; exports with
/// cached keys have a few hundred.
const MAX_VALUES: usize = 4096;

/// Why a file is not a usable ONNX graph.
#[derive(Debug, Error)]
pub enum OnnxError {
    /// The file could not be read.
    #[error("could not read the file")]
    Io(#[from] io::Error),
    /// A message says it is longer than the file: the copy is incomplete.
    #[error("the file ends at byte {found}, but its content needs {expected}")]
    Truncated {
        /// Bytes that the outermost unfinished message needs.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The bytes are no ONNX model.
    #[error("the bytes at offset {offset} are no ONNX model")]
    NotOnnx {
        /// Where the first contradiction was met.
        offset: u64,
    },
    /// The file is a Git LFS pointer: the real file was never fetched.
    #[error("the file is a Git LFS pointer, not the model itself")]
    LfsPointer,
    /// External data is named by an absolute path or one that leaves the directory.
    #[error("external data file \"{location}\" lies outside the model's directory")]
    ExternalDataEscapes {
        /// The location as the graph names it.
        location: String,
    },
}

/// Element type of a graph input or output, by its number in `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE half).
    F16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Anything that we neither feed nor read, by its ONNX number.
    Other(u64),
}

impl Element {
    fn from_onnx(number: u64) -> Self {
        match number {
            1 => Element::F32,
            10 => Element::F16,
            7 => Element::I64,
            6 => Element::I32,
            other => Element::Other(other),
        }
    }

    /// Whether the type is a float that we can feed and read.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Element::F32 | Element::F16)
    }

    /// Whether the type is an integer that we can feed.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self, Element::I64 | Element::I32)
    }
}

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Known in advance.
    Fixed(usize),
    /// Free, with the exporter's label ("batch", possibly empty).
    Free(String),
}

impl Extent {
    /// The size, if it is known in advance.
    #[must_use]
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Extent::Fixed(size) => Some(*size),
            Extent::Free(_) => None,
        }
    }
}

/// A declared graph input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphValue {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Declared shape, `None` when the exporter left even the rank open.
    pub shape: Option<Vec<Extent>>,
}

impl GraphValue {
    /// Number of dimensions, if declared.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Size of dimension `axis`, if declared and fixed.
    #[must_use]
    pub fn extent(&self, axis: usize) -> Option<usize> {
        self.shape.as_ref()?.get(axis)?.fixed()
    }
}

/// What a package needs to know of a graph.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// Inputs that a caller must feed: declared inputs without those that are weights.
    pub inputs: Vec<GraphValue>,
    /// Outputs in the graph's order.
    pub outputs: Vec<GraphValue>,
    /// External data files by location, relative to the graph's directory, with the bytes that the
    /// graph needs of each.
    pub external: BTreeMap<String, u64>,
    /// Whether activations are quantized at run time, with a scale taken over the whole batch. Then
    /// an item's result depends on its neighbors in the batch.
    pub dynamic_quantization: bool,
}

impl Outline {
    /// Reads the outline of the ONNX file at `path`.
    ///
    /// # Errors
    /// [`OnnxError`] if the file cannot be read, is incomplete, or is no ONNX model.
    pub fn read(path: &Path) -> Result<Outline, OnnxError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut walker = Walker { reader: BufReader::with_capacity(32 * 1024, file), position: 0, length };
        walker.refuse_pointer()?;

        let mut outline = None;
        walker.fields(length, |walker, field| match (field.number, field.wire) {
            (7, Wire::Bytes(length)) => {
                outline = Some(read_graph(walker, length)?);
                Ok(())
            }
            // ModelProto's other fields; anything beyond is another format.
            (1..=31, _) => walker.skip(&field),
            _ => Err(walker.contradiction()),
        })?;
        outline.ok_or(OnnxError::NotOnnx { offset: 0 })
    }
}

fn read_graph(walker: &mut Walker, length: u64) -> Result<Outline, OnnxError> {
    let mut outline = Outline::default();
    let mut weights = BTreeSet::new();
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| {
        let Wire::Bytes(length) = field.wire else { return walker.skip(&field) };
        match field.number {
            1 => outline.dynamic_quantization |= read_is_dynamic(walker, length)?,
            5 => read_weight(walker, length, &mut weights, &mut outline.external)?,
            11 if outline.inputs.len() < MAX_VALUES => outline.inputs.push(read_value(walker, length)?),
            12 if outline.outputs.len() < MAX_VALUES => outline.outputs.push(read_value(walker, length)?),
            _ => walker.skip(&field)?,
        }
        Ok(())
    })?;
    // Before IR version 4 weights were declared as inputs too.
    outline.inputs.retain(|input| !weights.contains(&input.name));
    Ok(outline)
}

/// Whether a `NodeProto` is one of the operators that quantize activations at run time.
fn read_is_dynamic(walker: &mut Walker, length: u64) -> Result<bool, OnnxError> {
    let mut dynamic = false;
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| match (field.number, field.wire) {
        (4, Wire::Bytes(length)) => {
            let operator = walker.string(length)?;
            dynamic |= operator.starts_with("DynamicQuantize") || operator == "QAttention";
            Ok(())
        }
        _ => walker.skip(&field),
    })?;
    Ok(dynamic)
}

/// Reads name and external location of a `TensorProto`, skipping its bytes.
fn read_weight(
    walker: &mut Walker,
    length: u64,
    weights: &mut BTreeSet<String>,
    external: &mut BTreeMap<String, u64>,
) -> Result<(), OnnxError> {
    let mut entries: Vec<(String, String)> = Vec::new();
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| match (field.number, field.wire) {
        (8, Wire::Bytes(length)) => {
            weights.insert(walker.string(length)?);
            Ok(())
        }
        (13, Wire::Bytes(length)) if entries.len() < 16 => {
            entries.push(read_entry(walker, length)?);
            Ok(())
        }
        _ => walker.skip(&field),
    })?;
    let find = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    if let Some(location) = find("location") {
        let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || location.is_empty() {
            return Err(OnnxError::ExternalDataEscapes { location: location.to_owned() });
        }
        let number = |key| find(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        let needed = external.entry(location.to_owned()).or_default();
        *needed = (*needed).max(number("offset").saturating_add(number("length")));
    }
    Ok(())
}

/// Reads a `StringStringEntryProto`.
fn read_entry(walker: &mut Walker, length: u64) -> Result<(String, String), OnnxError> {
    let (mut key, mut value) = (String::new(), String::new());
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| {
        match (field.number, field.wire) {
            (1, Wire::Bytes(length)) => key = walker.string(length)?,
            (2, Wire::Bytes(length)) => value = walker.string(length)?,
            _ => walker.skip(&field)?,
        }
        Ok(())
    })?;
    Ok((key, value))
}

/// Reads a `ValueInfoProto`.
fn read_value(walker: &mut Walker, length: u64) -> Result<GraphValue, OnnxError> {
    let mut value = GraphValue { name: String::new(), element: Element::Other(0), shape: None };
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| match (field.number, field.wire) {
        (1, Wire::Bytes(length)) => {
            value.name = walker.string(length)?;
            Ok(())
        }
        (2, Wire::Bytes(length)) => read_type(walker, length, &mut value),
        _ => walker.skip(&field),
    })?;
    Ok(value)
}

/// Reads a `TypeProto`; only `tensor_type` (field 1) is kept.
fn read_type(walker: &mut Walker, length: u64, value: &mut GraphValue) -> Result<(), OnnxError> {
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| match (field.number, field.wire) {
        (1, Wire::Bytes(length)) => {
            let end = walker.end_of(length)?;
            walker.fields(end, |walker, field| match (field.number, field.wire) {
                (1, Wire::Number(number)) => {
                    value.element = Element::from_onnx(number);
                    Ok(())
                }
                (2, Wire::Bytes(length)) => {
                    value.shape = Some(read_shape(walker, length)?);
                    Ok(())
                }
                _ => walker.skip(&field),
            })
        }
        _ => walker.skip(&field),
    })
}

/// Reads a `TensorShapeProto`.
fn read_shape(walker: &mut Walker, length: u64) -> Result<Vec<Extent>, OnnxError> {
    let mut shape = Vec::new();
    let end = walker.end_of(length)?;
    walker.fields(end, |walker, field| {
        let (1, Wire::Bytes(length)) = (field.number, field.wire) else { return walker.skip(&field) };
        let mut extent = Extent::Free(String::new());
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| {
            match (field.number, field.wire) {
                // Some exporters write -1 or 0 for "free".
                (1, Wire::Number(size)) if size > 0 && size < u64::from(u32::MAX) => {
                    extent = Extent::Fixed(usize::try_from(size).unwrap_or(usize::MAX));
                }
                (2, Wire::Bytes(length)) => extent = Extent::Free(walker.string(length)?),
                _ => walker.skip(&field)?,
            }
            Ok(())
        })?;
        if shape.len() >= MAX_VALUES {
            return Err(walker.contradiction());
        }
        shape.push(extent);
        Ok(())
    })?;
    Ok(shape)
}

/// One protobuf field: its number, and its value or the length of its bytes, not yet read.
struct Field {
    number: u64,
    wire: Wire,
}

#[derive(Clone, Copy)]
enum Wire {
    Number(u64),
    Bytes(u64),
}

struct Walker {
    reader: BufReader<File>,
    position: u64,
    length: u64,
}

impl Walker {
    fn contradiction(&self) -> OnnxError {
        OnnxError::NotOnnx { offset: self.position }
    }

    /// Where a field of `length` bytes that starts here ends.
    fn end_of(&self, length: u64) -> Result<u64, OnnxError> {
        let end = self.position.checked_add(length).ok_or(OnnxError::NotOnnx { offset: self.position })?;
        if end > self.length {
            return Err(OnnxError::Truncated { expected: end, found: self.length });
        }
        Ok(end)
    }

    /// Calls `visit` for each field up to `end`; `visit` reads or skips the field's bytes.
    fn fields(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Walker, Field) -> Result<(), OnnxError>,
    ) -> Result<(), OnnxError> {
        while self.position < end {
            let key = self.varint()?;
            let wire = match key & 7 {
                0 => Wire::Number(self.varint()?),
                1 => Wire::Bytes(8),
                2 => Wire::Bytes(self.varint()?),
                5 => Wire::Bytes(4),
                _ => return Err(self.contradiction()),
            };
            visit(self, Field { number: key >> 3, wire })?;
            if self.position > end {
                return Err(self.contradiction());
            }
        }
        Ok(())
    }

    fn skip(&mut self, field: &Field) -> Result<(), OnnxError> {
        if let Wire::Bytes(length) = field.wire {
            let end = self.end_of(length)?;
            self.reader.seek_relative(i64::try_from(length).map_err(|_| self.contradiction())?)?;
            self.position = end;
        }
        Ok(())
    }

    fn string(&mut self, length: u64) -> Result<String, OnnxError> {
        let end = self.end_of(length)?;
        if length > MAX_NAME_BYTES {
            return Err(self.contradiction());
        }
        let mut bytes = vec![0; usize::try_from(length).expect("at most 64 kB")];
        self.reader.read_exact(&mut bytes)?;
        self.position = end;
        String::from_utf8(bytes).map_err(|_| self.contradiction())
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if self.position >= self.length {
                return Err(OnnxError::Truncated { expected: self.position + 1, found: self.length });
            }
            self.reader.read_exact(&mut byte)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.contradiction())
    }

    fn refuse_pointer(&mut self) -> Result<(), OnnxError> {
        const POINTER: &[u8] = b"version https://git-lfs";
        let mut head = [0; POINTER.len()];
        let mut filled = 0;
        while filled < head.len() {
            match self.reader.read(&mut head[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if head == POINTER {
            return Err(OnnxError::LfsPointer);
        }
        self.reader.seek_relative(-i64::try_from(filled).expect("a few bytes"))?;
        Ok(())
    }
}
