//! A look at whether the compact form and the library agree, before the former is kept.

use tokenizers::Tokenizer;

use super::CompactTokenizer;

/// Tokens of the vocabulary that are looked at.
const TOKENS: usize = 4_096;

/// Texts of many scripts, with blanks, digits, controls, marks and what no vocabulary has.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "a photo of a dog",
    "  Two   blanks, a\ttab\nand a line; 1,234.56 % (e-mail@example.org)",
    "DON'T you're I'LL",
    "Größe, café, naïve, cafe\u{301}, Ångström \u{212b}",
    "Съешь ещё этих мягких французских булок",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "素早い茶色の狐がのろまな犬を飛び越える カタカナ ｶﾅ",
    "我能吞下玻璃而不伤身体",
    "나는 유리를 먹을 수 있어요",
    "أنا قادر على أكل الزجاج و هذا لا يؤلمني",
    "אני יכול לאכול זכוכית",
    "मैं काँच खा सकता हूँ",
    "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ",
    "எனக்கு கண்ணாடி சாப்பிட",
    "ღვინო მინა, հայերեն, አማርኛ, ខ្មែរ",
    "\u{1f600}\u{1f469}\u{200d}\u{1f52c}\u{1f1e9}\u{1f1ea} \u{2764}\u{fe0f}",
    "ﬁ ½ ² ™ … — « » \u{a0}\u{2009}\u{feff}\u{200b}",
    "\u{1}\u{7f}\u{85}\u{10ffff}\u{e000}\u{fffd}",
    "<s></s><pad><unk>[CLS][SEP]<|endoftext|><start_of_turn><0x41>",
    "##ing Ġthe ▁the \u{2581}\u{2581}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "{\"json\": [1, 2.5e-3, null]} SELECT * FROM t; fn main() { println!(\"{}\", 1); }",
];

/// Texts to compare by: those above, and tokens of the vocabulary, alone and run together.
pub(super) fn samples(tokens: &[String]) -> impl Iterator<Item = String> {
    let step = (tokens.len() / TOKENS).max(1);
    let alone = tokens.iter().step_by(step).cloned();
    let together = tokens.chunks(step * 5).map(move |chunk| {
        chunk.iter().step_by(step).map(|token| token.replace(['\u{2581}', '\u{120}'], " ")).collect()
    });
    TEXTS.iter().map(|text| (*text).to_owned()).chain(alone).chain(together)
}

/// Whether both give the same ids, or an error, for all samples, with special tokens as text and as themselves.
pub(super) fn agree(reference: &Tokenizer, compact: &CompactTokenizer, tokens: &[String]) -> bool {
    samples(tokens).all(|text| {
        let expected = reference.encode_fast(text.as_str(), true).map(|encoding| encoding.get_ids().to_vec());
        let found = compact.encode_fast(text.as_str(), true).map(|encoding| encoding.get_ids().to_vec());
        match (expected, found) {
            (Ok(expected), Ok(found)) => expected == found,
            (Err(_), Err(_)) => true,
            _ => false,
        }
    })
}
