//! The compact form gives what the library gives, on many texts of many scripts, for each kind of tokenizer in use.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokenizers::{ModelWrapper, Tokenizer};

use super::check::samples;
use super::{CompactTokenizer, TokenizerOf, format, open, write};

/// Numbers that look random and are the same in every run (SplitMix64; Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Small numbers more often than large ones.
    fn skewed(&mut self, bound: usize) -> usize {
        let most = self.below(bound) + 1;
        let less = self.below(most) + 1;
        self.below(less)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// First and last character of scripts and other blocks.
const SCRIPTS: [(u32, u32); 22] = [
    (0x20, 0x7e),
    (0x61, 0x7a),
    (0xa0, 0x17f),
    (0x300, 0x36f),
    (0x370, 0x3ff),
    (0x400, 0x4ff),
    (0x530, 0x58f),
    (0x590, 0x5ff),
    (0x600, 0x6ff),
    (0x900, 0x97f),
    (0xb80, 0xbff),
    (0xe00, 0xe7f),
    (0x10a0, 0x10ff),
    (0x1200, 0x137f),
    (0x1780, 0x17ff),
    (0x2000, 0x206f),
    (0x3040, 0x30ff),
    (0x4e00, 0x9fff),
    (0xac00, 0xd7a3),
    (0xff00, 0xffef),
    (0x1f300, 0x1f64f),
    (0x0, 0x1f),
];

fn letter(random: &mut Random) -> char {
    let (first, last) = *random.pick(&SCRIPTS);
    char::from_u32(first + random.below((last - first + 1) as usize) as u32).unwrap_or('x')
}

/// A word of one script, now and then of several.
fn word(random: &mut Random) -> String {
    let (first, last) = *random.pick(&SCRIPTS);
    let length = 1 + random.skewed(12);
    (0..length)
        .map(|_| {
            let letter = letter(random);
            if random.below(20) == 0 {
                return letter;
            }
            // Few letters of a script are most of its text.
            char::from_u32(first + random.skewed((last - first + 1) as usize) as u32).unwrap_or(letter)
        })
        .collect()
}

/// A text of words, tokens of the vocabulary, blanks and what users type by mistake.
fn text(random: &mut Random, tokens: &[String]) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(8) {
        match random.below(6) {
            0 | 1 => text.push_str(&word(random)),
            2..=4 => {
                text.push_str(&random.pick(tokens).replace(['\u{2581}', '\u{120}'], " ").replace("</w>", ""))
            }
            _ => text.push_str(random.pick::<&str>(&[
                "  ",
                "\t",
                "\n",
                "</s>",
                "<|endoftext|>",
                "[SEP]",
                "1,234",
                "..",
                "\u{fffd}",
                "<0x41>",
            ])),
        }
        if random.below(3) > 0 {
            text.push(' ');
        }
    }
    text
}

/// The 256 characters that byte-level tokenizers have for bytes (Radford et al. 2019).
fn byte_letters() -> Vec<String> {
    let plain: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let others = (0..256_u32).filter(|byte| !plain.contains(byte)).zip(256..).map(|(_, letter)| letter);
    plain.iter().copied().chain(others).filter_map(char::from_u32).map(String::from).collect()
}

/// Merges of `base` tokens up to `size` tokens: neighbors in words that `words` gives, so that texts use them.
fn merges(base: Vec<String>, size: usize, random: &mut Random) -> (Vec<String>, Vec<(String, String)>) {
    let mut tokens = base;
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();
    let mut merges = BTreeSet::new();
    let mut list = Vec::new();
    while tokens.len() < size {
        let (left, right) = (random.skewed(tokens.len()), random.skewed(tokens.len()));
        let (left, right) = (tokens[left].clone(), tokens[right].clone());
        let merged = format!("{left}{right}");
        if merged.chars().count() > 12 || left.starts_with("<0x") || right.starts_with("<0x") {
            continue;
        }
        // A token may come about in several ways.
        if known.insert(merged.clone()) {
            tokens.push(merged);
        }
        if merges.insert((left.clone(), right.clone())) {
            list.push((left, right));
        }
    }
    (tokens, list)
}

fn vocabulary(tokens: &[String]) -> Value {
    let ids: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    Value::Object(ids)
}

fn special(id: usize, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

fn file(parts: Value, model: Value, added: Vec<Value>) -> Vec<u8> {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model,
    });
    for (key, value) in parts.as_object().unwrap() {
        file[key] = value.clone();
    }
    serde_json::to_vec(&file).unwrap()
}

/// As Gemma's and SigLIP 2's: blanks become a letter, no words, bytes for what is unknown.
fn gemma(size: usize, lines: bool) -> Vec<u8> {
    let mut random = Random(1);
    let mut base: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}"].map(str::to_owned).into();
    base.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let mut letters = BTreeSet::new();
    for _ in 0..size / 8 {
        letters.insert(letter(&mut random));
    }
    letters.retain(|letter| *letter != ' ');
    base.extend(letters.iter().map(|letter| letter.to_string()));
    let (tokens, merges) = merges(base, size, &mut random);
    let merges: Value = if lines {
        merges.iter().map(|(left, right)| format!("{left} {right}")).collect::<Vec<_>>().into()
    } else {
        merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>().into()
    };
    let added = ["<pad>", "<eos>", "<bos>", "<unk>"].iter().enumerate().map(|(id, token)| special(id, token));
    file(
        json!({
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
            "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}}},
        }),
        json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
               "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
               "vocab": vocabulary(&tokens), "merges": merges}),
        added.collect(),
    )
}

/// As CLIP's: bytes, and an end of the word that belongs to its last letter.
fn clip(size: usize) -> Vec<u8> {
    let mut random = Random(2);
    let mut base = byte_letters();
    base.extend(byte_letters().iter().map(|letter| format!("{letter}</w>")));
    let (mut tokens, merges) = merges_of_words(base, size, &mut random);
    let id = tokens.len();
    tokens.push("<|startoftext|>".into());
    tokens.push("<|endoftext|>".into());
    file(
        json!({
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
            "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", id + 1], "cls": ["<|startoftext|>", id],
                "trim_offsets": false, "add_prefix_space": false},
        }),
        json!({"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
               "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
               "vocab": vocabulary(&tokens),
               "merges": merges.iter().map(|(left, right)| format!("{left} {right}")).collect::<Vec<_>>()}),
        vec![special(id, "<|startoftext|>"), special(id + 1, "<|endoftext|>")],
    )
}

/// Merges in which nothing follows the end of a word.
fn merges_of_words(
    base: Vec<String>,
    size: usize,
    random: &mut Random,
) -> (Vec<String>, Vec<(String, String)>) {
    let (inner, ends): (Vec<String>, Vec<String>) =
        base.into_iter().partition(|token| !token.ends_with("</w>"));
    let (inner, mut list) = merges(inner, size / 2, random);
    let mut tokens = inner.clone();
    tokens.extend(ends.iter().cloned());
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();
    let mut ends = ends;
    while tokens.len() < size {
        let (left, right) = (random.skewed(inner.len()), random.skewed(ends.len()));
        let (left, right) = (inner[left].clone(), ends[right].clone());
        let merged = format!("{left}{right}");
        if known.insert(merged.clone()) {
            tokens.push(merged.clone());
            ends.push(merged);
            list.push((left, right));
        }
    }
    (tokens, list)
}

/// As GPT-2's and its heirs': bytes, and whole words first.
fn byte_level(size: usize, ignore_merges: bool) -> Vec<u8> {
    let (tokens, merges) = merges(byte_letters(), size, &mut Random(3));
    file(
        json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}}),
        json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
               "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
               "vocab": vocabulary(&tokens), "merges": merges}),
        vec![special(tokens.len(), "<|endoftext|>")],
    )
}

/// As SigLIP's and XLM-R's: probabilities.
fn unigram(size: usize, byte_fallback: bool) -> Vec<u8> {
    let mut random = Random(4);
    let mut tokens: Vec<String> = ["<s>", "<pad>", "</s>", "<unk>", "\u{2581}"].map(str::to_owned).into();
    if byte_fallback {
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    }
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();
    while tokens.len() < size {
        let mut token = word(&mut random).replace(' ', "");
        if random.below(2) == 0 {
            token.insert(0, '\u{2581}');
        }
        if !token.is_empty() && known.insert(token.clone()) {
            tokens.push(token);
        }
    }
    // Equal scores occur, and decide by the order in which they are met.
    let vocab: Vec<Value> =
        tokens.iter().map(|token| json!([token, -((random.below(600) + 50) as f64) / 50.0])).collect();
    file(
        json!({
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        }),
        json!({"type": "Unigram", "unk_id": 3, "byte_fallback": byte_fallback, "vocab": vocab}),
        vec![special(0, "<s>"), special(1, "<pad>"), special(2, "</s>"), special(3, "<unk>")],
    )
}

/// As BERT's: the longest beginning.
fn word_piece(size: usize) -> Vec<u8> {
    word_piece_after(
        json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
        size,
    )
}

fn word_piece_after(normalizer: Value, size: usize) -> Vec<u8> {
    let mut random = Random(5);
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into();
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();
    while tokens.len() < size {
        let mut token = word(&mut random).to_lowercase().replace(' ', "");
        if random.below(2) == 0 {
            token.insert_str(0, "##");
        }
        if known.insert(token.clone()) {
            tokens.push(token);
        }
    }
    file(
        json!({
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
        }),
        json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100, "vocab": vocabulary(&tokens)}),
        (0..5).map(|id| special(id, &tokens[id])).collect(),
    )
}

fn both(json: &[u8]) -> (Tokenizer, CompactTokenizer, Vec<u8>) {
    let mut reference = Tokenizer::from_bytes(json).unwrap();
    let bytes = write(json, &reference).expect("the compact form covers this tokenizer");
    let mut compact = open(Box::new(bytes.clone())).unwrap();
    reference.set_encode_special_tokens(true);
    compact.set_encode_special_tokens(true);
    (reference, compact, bytes)
}

fn assert_equal(what: &str, json: &[u8], texts: usize) {
    let (reference, compact, _) = both(json);
    let tokens: Vec<String> =
        reference.get_vocab(false).into_keys().collect::<BTreeSet<_>>().into_iter().collect();
    let mut random = Random(99);
    let mut count = 0;
    for _ in 0..texts {
        let text = text(&mut random, &tokens);
        let expected = reference.encode(text.as_str(), true).unwrap();
        let found = compact.encode(text.as_str(), true).unwrap();
        assert_eq!(found.get_ids(), expected.get_ids(), "{what}: {text:?}");
        assert_eq!(found.get_tokens(), expected.get_tokens(), "{what}: {text:?}");
        assert_eq!(found.get_offsets(), expected.get_offsets(), "{what}: {text:?}");
        count += expected.get_ids().len();
    }
    // Texts are no row of unknown characters, and no row of single ones.
    assert!(count > texts * 4, "{what}: {count} tokens of {texts} texts");
    // One long word without a blank.
    let long: String = (0..20_000).map(|_| letter(&mut random)).collect();
    let expected = reference.encode_fast(long.as_str(), true).unwrap();
    assert_eq!(compact.encode_fast(long.as_str(), true).unwrap().get_ids(), expected.get_ids(), "{what}");
    for id in 0..300 {
        assert_eq!(compact.id_to_token(id), reference.id_to_token(id), "{what}");
    }
    assert_eq!(compact.get_vocab_size(true), reference.get_vocab_size(true), "{what}");
}

#[test]
fn tokenizers_of_every_kind_give_what_the_library_gives() {
    assert_equal("gemma", &gemma(30_000, false), 20_000);
    assert_equal("gemma, merges as lines", &gemma(2_000, true), 2_000);
    assert_equal("clip", &clip(20_000), 20_000);
    assert_equal("byte level", &byte_level(20_000, false), 10_000);
    assert_equal("byte level, words first", &byte_level(20_000, true), 10_000);
    assert_equal("unigram", &unigram(30_000, false), 20_000);
    assert_equal("unigram with bytes", &unigram(30_000, true), 10_000);
    assert_equal("word piece", &word_piece(30_000), 20_000);
}

/// Our way to BERT's words, beside the library's, for all settings and in both forms.
#[test]
fn words_of_bert_are_those_of_the_library() {
    for clean in [true, false] {
        for lower in [true, false] {
            for (chinese, accents) in [(true, json!(null)), (false, json!(true)), (true, json!(false))] {
                let normalizer = json!({"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese,
                                        "strip_accents": accents, "lowercase": lower});
                let json = word_piece_after(normalizer.clone(), 2_000);
                assert_equal(&format!("{normalizer}"), &json, 1_000);
                let (reference, _, _) = both(&json);
                let mut own: TokenizerOf<ModelWrapper> = serde_json::from_slice(&json).unwrap();
                own.set_encode_special_tokens(true);
                let mut random = Random(7);
                let tokens: Vec<String> =
                    reference.get_vocab(false).into_keys().collect::<BTreeSet<_>>().into_iter().collect();
                let plain = (0..1_000).map(|_| {
                    (0..random.below(60))
                        .map(|_| char::from(b' ' + random.below(96) as u8))
                        .collect::<String>()
                });
                let plain: Vec<String> = plain.collect();
                for text in samples(&tokens).chain(plain) {
                    let expected = reference.encode(text.as_str(), true).unwrap();
                    let found = own.encode(text.as_str(), true).unwrap();
                    assert_eq!(found.get_ids(), expected.get_ids(), "{normalizer}: {text:?}");
                    assert_eq!(found.get_offsets(), expected.get_offsets(), "{normalizer}: {text:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_covered_is_left_to_the_library() {
    let small = gemma(1_000, false);
    let refuses = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&small).unwrap();
        change(&mut value);
        let json = serde_json::to_vec(&value).unwrap();
        write(&json, &Tokenizer::from_bytes(&json).unwrap()).is_none()
    };
    assert!(!refuses(&|_| ()));
    assert!(refuses(&|file| file["model"]["dropout"] = json!(0.1)));
    // An id that is not there, and one that two tokens have.
    assert!(refuses(&|file| file["model"]["vocab"]["<pad>"] = json!(5_000)));
    assert!(refuses(&|file| file["model"]["vocab"]["<pad>"] = json!(1)));
    assert!(refuses(&|file| {
        file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"});
        file["post_processor"] = Value::Null;
    }));
}

#[test]
fn damage_is_told_and_never_a_panic() {
    for json in [gemma(1_000, false), unigram(1_000, true), word_piece(1_000)] {
        let (_, _, bytes) = both(&json);
        let mut random = Random(6);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            let place = random.below(damaged.len());
            damaged[place] ^= 1 << random.below(8);
            assert!(open(Box::new(damaged)).is_err(), "byte {place}");
            assert!(open(Box::new(bytes[..random.below(bytes.len())].to_vec())).is_err());
        }
        // Wrong bytes under a right checksum: errors or other tokens, and an end in every case.
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(64) {
                let place = 48 + random.below(damaged.len() - 48);
                damaged[place] = random.next() as u8;
            }
            let hash = *blake3::hash(&damaged[48..]).as_bytes();
            damaged[16..48].copy_from_slice(&hash);
            if let Ok(tokenizer) = open(Box::new(damaged)) {
                let _ = tokenizer.encode_fast("a photo of a dog, größe 素早い \u{1f600}", true);
            }
        }
    }
}

/// The bytes of version 1 for a small tokenizer. Another hash is another version.
#[test]
fn the_format_is_frozen() {
    let tokens = json!({"a": 0, "b": 1, "ab": 2, "<unk>": 3});
    let model = json!({"type": "BPE", "unk_token": "<unk>", "vocab": tokens, "merges": [["a", "b"]]});
    let (_, _, bytes) = both(&file(json!({}), model, vec![]));
    let tables = format::Tables::open(Box::new(bytes)).unwrap();
    let sections: BTreeMap<usize, String> =
        (1..6).map(|section| (section, hex(tables.section(section)))).collect();
    let expected = [
        (1, "616261623c756e6b3e"),
        (2, "0000000001000000020000000400000009000000"),
        (3, KNOWN_HASHES),
        (4, "0000000001000000010000000100000001000000"),
        (5, "010000000000000002000000"),
    ];
    assert_eq!(sections, expected.map(|(section, bytes)| (section, bytes.to_owned())).into());
}

const KNOWN_HASHES: &str = "0300000004000000000000000200000001000000000000000000000000000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a second process pays for a tokenizer of 256,000 tokens, and what the library's own form costs. Run by hand:
/// it measures.
#[test]
#[ignore = "measures time and memory: cargo test --release -p imgvec-encoder --lib -- --ignored --nocapture measure_a_tokenizer"]
fn measure_a_tokenizer_of_256_000_tokens() {
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    };
    let path = std::env::temp_dir().join("imgvec-measure-tokenizer");
    if std::env::var_os("IMGVEC_MEASURE_WRITE").is_some() {
        let json = gemma(256_000, false);
        std::fs::write(path.with_extension("json"), &json).unwrap();
        let begun = std::time::Instant::now();
        let reference = Tokenizer::from_bytes(&json).unwrap();
        println!("library: {:?}, {} MB resident, file {} MB", begun.elapsed(), resident(), json.len() >> 20);
        let begun = std::time::Instant::now();
        let bytes = write(&json, &reference).unwrap();
        println!("making: {:?}, {} MB", begun.elapsed(), bytes.len() >> 20);
        std::fs::write(&path, bytes).unwrap();
        return;
    }
    let before = resident();
    let begun = std::time::Instant::now();
    let compact = open(Box::new(std::fs::read(&path).unwrap())).unwrap();
    println!("compact, read instead of mapped: {:?}, {} MB", begun.elapsed(), resident() - before);
    println!("{:?}", compact.encode_fast("a photo of a dog", true).unwrap().get_ids());
}
