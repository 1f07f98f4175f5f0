//! The outline of an ONNX file: inputs, outputs, the position of the weights, and whether the file is complete.
//!
//! A model file is a protobuf message whose weights are length-delimited fields. This reader walks
//! the fields and seeks over the weights, so a 350 MB file costs about as many reads as it has
//! nodes. It answers what a package must know before ONNX Runtime is loaded: the graph's inputs and
//! outputs, the other files that belong to it, and whether a copy stopped
//! half-way. Field numbers are those of `onnx.proto3` (ONNX IR version 3 and later).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path};

use thiserror::Error;

/// Longest name, shape label or node that is read into memory, in bytes.
const MAX_NAME_BYTES: u64 = 64 * 1024;
/// Most bytes of names that are read of one file.
const MAX_NAMES_BYTES: u64 = 64 << 20;
/// Most external files, and the longest name of one in bytes: the system's limit of a path.
const MAX_EXTERNAL: usize = 4096;
const MAX_LOCATION_BYTES: usize = 4095;
/// Most entries that say where one tensor's data lie; four are in use.
const MAX_ENTRIES: usize = 16;
/// Deepest nesting of graphs inside nodes.
const MAX_DEPTH: usize = 16;
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
    #[error("the bytes at offset {offset} are not an ONNX model")]
    NotOnnx {
        /// Where the first contradiction was met.
        offset: u64,
    },
    /// The file is a Git LFS pointer: the real file was never fetched.
    #[error("the file is a Git LFS pointer, not the model itself")]
    LfsPointer,
    /// External data is named by an absolute path or one that leaves the directory.
    #[error("external data file \"{}\" lies outside the model's directory", location.escape_debug())]
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

    /// Its name, as NumPy and the exporters' documentation have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "float32",
            Element::F16 => "float16",
            Element::I64 => "int64",
            Element::I32 => "int32",
            Element::Other(0) => "no declared type",
            Element::Other(2) => "uint8",
            Element::Other(3) => "int8",
            Element::Other(4) => "uint16",
            Element::Other(5) => "int16",
            Element::Other(8) => "string",
            Element::Other(9) => "bool",
            Element::Other(11) => "float64",
            Element::Other(12) => "uint32",
            Element::Other(13) => "uint64",
            Element::Other(14) => "complex64",
            Element::Other(15) => "complex128",
            Element::Other(16) => "bfloat16",
            Element::Other(17..=20) => "float8",
            Element::Other(_) => "another type",
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
    /// Number of nodes, those of graphs and functions within it too.
    pub nodes: u64,
}

impl Outline {
    /// Reads the outline of an ONNX file of `length` bytes.
    ///
    /// # Errors
    /// [`OnnxError`] if the file cannot be read, is incomplete, or is no ONNX model.
    pub fn read(file: impl Read + Seek, length: u64) -> Result<Outline, OnnxError> {
        let reader = BufReader::with_capacity(32 * 1024, file);
        let mut walker = Walker { reader, position: 0, length, names: 0 };
        walker.refuse_pointer()?;

        let mut reading = Reading::default();
        let mut found = false;
        walker.fields(length, |walker, field| match (field.number, field.wire) {
            // A graph in several pieces is one graph.
            (7, Wire::Bytes(length)) => {
                found = true;
                reading.graph(walker, length, 0)
            }
            (25, Wire::Bytes(length)) => reading.function(walker, length),
            // ModelProto's other fields; anything beyond is another format.
            (1..=31, _) => walker.skip(&field),
            _ => Err(walker.contradiction()),
        })?;
        let Reading { mut outline, weights } = reading;
        // Before IR version 4 weights were declared as inputs too.
        outline.inputs.retain(|input| !weights.contains(&input.name));
        if found { Ok(outline) } else { Err(OnnxError::NotOnnx { offset: 0 }) }
    }
}

/// An outline in the making.
#[derive(Default)]
struct Reading {
    outline: Outline,
    /// Names of the main graph's weights.
    weights: BTreeSet<String>,
}

impl Reading {
    /// Reads a `GraphProto`; `depth` is 0 for the main graph, whose inputs and outputs are kept.
    fn graph<R: Read + Seek>(
        &mut self,
        walker: &mut Walker<R>,
        length: u64,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| {
            let Wire::Bytes(length) = field.wire else { return walker.skip(&field) };
            match field.number {
                1 => self.node(walker, length, depth)?,
                5 => self.weight(walker, length, depth)?,
                11 if depth == 0 && self.outline.inputs.len() < MAX_VALUES => {
                    self.outline.inputs.push(read_value(walker, length)?);
                }
                12 if depth == 0 && self.outline.outputs.len() < MAX_VALUES => {
                    self.outline.outputs.push(read_value(walker, length)?);
                }
                15 => self.sparse(walker, length, depth)?,
                _ => walker.skip(&field)?,
            }
            Ok(())
        })
    }

    /// Reads a `FunctionProto`, whose nodes may hold weights too.
    fn function<R: Read + Seek>(&mut self, walker: &mut Walker<R>, length: u64) -> Result<(), OnnxError> {
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| match (field.number, field.wire) {
            (7, Wire::Bytes(length)) => self.node(walker, length, 1),
            _ => walker.skip(&field),
        })
    }

    /// Reads a `NodeProto`: whether it quantizes activations at run time, and the weights in it.
    fn node<R: Read + Seek>(
        &mut self,
        walker: &mut Walker<R>,
        length: u64,
        depth: usize,
    ) -> Result<(), OnnxError> {
        self.outline.nodes = self.outline.nodes.saturating_add(1);
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| match (field.number, field.wire) {
            (4, Wire::Bytes(length)) => {
                let operator = walker.string(length)?;
                self.outline.dynamic_quantization |=
                    operator.starts_with("DynamicQuantize") || operator == "QAttention";
                Ok(())
            }
            (5, Wire::Bytes(length)) => self.attribute(walker, length, depth),
            _ => walker.skip(&field),
        })
    }

    /// Reads an `AttributeProto`: the tensors and graphs in it.
    fn attribute<R: Read + Seek>(
        &mut self,
        walker: &mut Walker<R>,
        length: u64,
        depth: usize,
    ) -> Result<(), OnnxError> {
        if depth >= MAX_DEPTH {
            return Err(walker.contradiction());
        }
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| match (field.number, field.wire) {
            (5 | 10, Wire::Bytes(length)) => self.weight(walker, length, depth + 1),
            (6 | 11, Wire::Bytes(length)) => self.graph(walker, length, depth + 1),
            (22 | 23, Wire::Bytes(length)) => self.sparse(walker, length, depth + 1),
            _ => walker.skip(&field),
        })
    }

    /// Reads a `SparseTensorProto`: its values and indices.
    fn sparse<R: Read + Seek>(
        &mut self,
        walker: &mut Walker<R>,
        length: u64,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| match (field.number, field.wire) {
            (1 | 2, Wire::Bytes(length)) => self.weight(walker, length, depth),
            _ => walker.skip(&field),
        })
    }

    /// Reads name and external location of a `TensorProto`, skipping its bytes.
    fn weight<R: Read + Seek>(
        &mut self,
        walker: &mut Walker<R>,
        length: u64,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let mut entries: Vec<(String, String)> = Vec::new();
        let end = walker.end_of(length)?;
        walker.fields(end, |walker, field| match (field.number, field.wire) {
            (8, Wire::Bytes(length)) => {
                let name = walker.string(length)?;
                if depth == 0 {
                    self.weights.insert(name);
                }
                Ok(())
            }
            (13, Wire::Bytes(length)) => {
                if entries.len() >= MAX_ENTRIES {
                    return Err(walker.contradiction());
                }
                entries.push(read_entry(walker, length)?);
                Ok(())
            }
            _ => walker.skip(&field),
        })?;
        let number = |wanted: &str| {
            let mut values = entries.iter().filter(|(key, _)| key == wanted);
            values.find_map(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let bytes = number("offset").saturating_add(number("length"));
        // ONNX Runtime takes the last of several locations; each must be one that is allowed.
        for (_, location) in entries.iter().filter(|(key, _)| key == "location") {
            if !is_inside(location) {
                return Err(OnnxError::ExternalDataEscapes { location: location.clone() });
            }
            let external = &mut self.outline.external;
            if external.len() >= MAX_EXTERNAL && !external.contains_key(location) {
                return Err(walker.contradiction());
            }
            let needed = external.entry(location.clone()).or_default();
            *needed = (*needed).max(bytes);
        }
        Ok(())
    }
}

/// Whether a location of external data names a file in or below the graph's directory.
fn is_inside(location: &str) -> bool {
    (1..=MAX_LOCATION_BYTES).contains(&location.len())
        && !location.contains(char::is_control)
        && Path::new(location).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Reads a `StringStringEntryProto`.
fn read_entry<R: Read + Seek>(walker: &mut Walker<R>, length: u64) -> Result<(String, String), OnnxError> {
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
fn read_value<R: Read + Seek>(walker: &mut Walker<R>, length: u64) -> Result<GraphValue, OnnxError> {
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
fn read_type<R: Read + Seek>(
    walker: &mut Walker<R>,
    length: u64,
    value: &mut GraphValue,
) -> Result<(), OnnxError> {
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
fn read_shape<R: Read + Seek>(walker: &mut Walker<R>, length: u64) -> Result<Vec<Extent>, OnnxError> {
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

struct Walker<R> {
    reader: BufReader<R>,
    position: u64,
    length: u64,
    /// Bytes of names that were read.
    names: u64,
}

impl<R: Read + Seek> Walker<R> {
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
        mut visit: impl FnMut(&mut Self, Field) -> Result<(), OnnxError>,
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
        self.names = self.names.saturating_add(length);
        if length > MAX_NAME_BYTES || self.names > MAX_NAMES_BYTES {
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
