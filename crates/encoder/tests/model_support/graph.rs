//! ONNX graphs written by hand, for tests that need one of a certain size, shape or fault.
//!
//! A protobuf message is a sequence of fields; each is a key, which holds the field's number and how
//! its value is coded, and the value. Two codings are enough here: a number of variable length, and
//! bytes after their length. Field numbers are those of `onnx.proto3`.

/// Element types by their ONNX numbers.
pub const F32: u64 = 1;
pub const I64: u64 = 7;
pub const STRING: u64 = 8;

#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }
}

/// A graph under construction.
#[derive(Default, Clone)]
pub struct GraphBuilder {
    body: Message,
}

impl GraphBuilder {
    pub fn new() -> Self {
        GraphBuilder { body: Message::default().bytes(2, b"test") }
    }

    /// An input; a size below zero is free.
    pub fn input(self, name: &str, element: u64, shape: &[i64]) -> Self {
        GraphBuilder { body: self.body.bytes(11, &value(name, element, shape)) }
    }

    pub fn output(self, name: &str, element: u64, shape: &[i64]) -> Self {
        GraphBuilder { body: self.body.bytes(12, &value(name, element, shape)) }
    }

    pub fn node(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.node_with(operator, inputs, output, &[])
    }

    /// A node with integer attributes; a name in capitals takes a list.
    pub fn node_with(
        self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, &[i64])],
    ) -> Self {
        let mut node = Message::default();
        for input in inputs {
            node = node.bytes(1, input.as_bytes());
        }
        node = node.bytes(2, output.as_bytes()).bytes(4, operator.as_bytes());
        for (name, values) in attributes {
            let mut attribute = Message::default().bytes(1, name.as_bytes());
            if *name == "axes" || *name == "perm" {
                for value in *values {
                    attribute = attribute.number(8, *value as u64);
                }
                attribute = attribute.number(20, 7);
            } else {
                attribute = attribute.number(3, values[0] as u64).number(20, 2);
            }
            node = node.bytes(5, &attribute.0);
        }
        GraphBuilder { body: self.body.bytes(1, &node.0) }
    }

    pub fn floats(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.weight(name, F32, shape, &raw)
    }

    pub fn integers(self, name: &str, shape: &[u64], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.weight(name, I64, shape, &raw)
    }

    fn weight(self, name: &str, element: u64, shape: &[u64], raw: &[u8]) -> Self {
        let mut tensor = Message::default();
        for size in shape {
            tensor = tensor.number(1, *size);
        }
        tensor = tensor.number(2, element).bytes(8, name.as_bytes()).bytes(9, raw);
        GraphBuilder { body: self.body.bytes(5, &tensor.0) }
    }

    /// A weight of 32-bit floats in another file.
    pub fn external(self, name: &str, shape: &[u64], location: &str, length: u64) -> Self {
        let entry =
            |key: &str, value: &str| Message::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes()).0;
        let mut tensor = Message::default();
        for size in shape {
            tensor = tensor.number(1, *size);
        }
        tensor = tensor
            .number(2, F32)
            .bytes(8, name.as_bytes())
            .bytes(13, &entry("location", location))
            .bytes(13, &entry("offset", "0"))
            .bytes(13, &entry("length", &length.to_string()))
            .number(14, 1);
        GraphBuilder { body: self.body.bytes(5, &tensor.0) }
    }

    /// Fields of a `GraphProto`, as they are.
    pub fn raw(mut self, fields: &[u8]) -> Self {
        self.body.0.extend(fields);
        self
    }

    /// The bytes of the file.
    pub fn finish(self) -> Vec<u8> {
        let opset = Message::default().number(2, 17);
        Message::default().number(1, 8).bytes(7, &self.body.0).bytes(8, &opset.0).0
    }
}

fn value(name: &str, element: u64, shape: &[i64]) -> Vec<u8> {
    let mut dims = Message::default();
    for (axis, &size) in shape.iter().enumerate() {
        // Axes of one label have one size, which only the first ones of inputs and outputs do.
        let label = if axis == 0 { "free".to_owned() } else { format!("{name} {axis}") };
        let dim = Message::default();
        let dim = if size < 0 { dim.bytes(2, label.as_bytes()) } else { dim.number(1, size as u64) };
        dims = dims.bytes(1, &dim.0);
    }
    let tensor = Message::default().number(1, element).bytes(2, &dims.0);
    Message::default().bytes(1, name.as_bytes()).bytes(2, &Message::default().bytes(1, &tensor.0).0).0
}

/// A text tower that looks ids up in a table of `rows` vectors and averages over the tokens:
/// `input_ids [batch, tokens]` to `text_embeds [batch, dim]`. `between` adds nodes from `looked_up`
/// to `worked`.
pub fn text_tower(
    rows: usize,
    dim: usize,
    values: impl Fn(usize) -> f32,
    between: impl FnOnce(GraphBuilder) -> GraphBuilder,
) -> Vec<u8> {
    let table: Vec<f32> = (0..rows * dim).map(values).collect();
    let graph = GraphBuilder::new()
        .input("input_ids", I64, &[-1, -1])
        .output("text_embeds", F32, &[-1, dim as i64])
        .floats("table", &[rows as u64, dim as u64], &table)
        .node("Gather", &["table", "input_ids"], "looked_up");
    between(graph)
        .node_with("ReduceMean", &["worked"], "text_embeds", &[("axes", &[1]), ("keepdims", &[0])])
        .finish()
}

/// `tokenizer.json` of whole words, with the ids of their places.
pub fn word_tokenizer(words: &[&str]) -> String {
    let vocab: serde_json::Map<String, serde_json::Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]},
    })
    .to_string()
}
