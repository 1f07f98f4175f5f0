//! Questions about a picture as phrases that a picture is compared with.
//!
//! No text is generated here: whoever asks gives the answers as well. Of a question and an answer come noun phrases, which go
//! into a model's prompt templates as a label does. "What color is the ball?" with "red" is "red ball"; "Is there a dog?" is "dog", which
//! is there or not. The rules are for English; of other questions their words go beside the answer.

/// Most bytes of a question.
pub const MAX_BYTES: usize = 1000;

/// What a question asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether something is there or so, as a phrase.
    Whether(String),
    /// Which of the answers is right.
    Which(Frame),
}

/// How an answer becomes phrases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The answer names it.
    Bare,
    /// The answer is said of something: "red" of "ball".
    Of(String),
    /// The question's words may help, or not.
    Beside(String),
}

/// Words that say nothing of a picture.
const FILLERS: &[&str] = &[
    "a",
    "an",
    "the",
    "this",
    "that",
    "these",
    "those",
    "it",
    "its",
    "there",
    "here",
    "any",
    "some",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "do",
    "does",
    "did",
    "has",
    "have",
    "had",
    "can",
    "could",
    "will",
    "you",
    "we",
    "i",
    "one",
    "see",
    "show",
    "shows",
    "shown",
    "seen",
    "visible",
    "find",
    "tell",
    "me",
    "what",
    "which",
    "who",
    "whose",
    "how",
    "where",
    "when",
    "why",
    "of",
    "in",
    "on",
    "to",
    "picture",
    "photo",
    "image",
    "photograph",
    "screenshot",
    "they",
    "he",
    "s",
];
/// Words that begin a question which is answered by yes or no.
const AUXILIARIES: [&str; 14] =
    ["is", "are", "was", "were", "does", "do", "did", "has", "have", "had", "can", "could", "will", "am"];
/// What some questions ask for, as in "what color is the ball": the answer is said of the rest.
const QUALITIES: [&str; 9] =
    ["color", "colour", "material", "shape", "size", "pattern", "breed", "style", "brand"];

impl Question {
    /// Understands a question whose answers are these.
    #[must_use]
    pub fn read(question: &str, answers: &[&str]) -> Question {
        let words: Vec<String> = question
            .split(|c: char| {
                c.is_whitespace() || matches!(c, '?' | '!' | '.' | ',' | ';' | ':' | '"' | '\'' | '’')
            })
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let content = |words: &[String]| {
            let kept = words.iter().map(String::as_str).filter(|word| !FILLERS.contains(word));
            kept.collect::<Vec<_>>().join(" ")
        };
        let subject = content(&words);
        let first = words.first().map_or("", String::as_str);
        let is_yes_or_no = !answers.is_empty() && answers.iter().all(|answer| truth(answer).is_some());
        if is_yes_or_no && AUXILIARIES.contains(&first) && !subject.is_empty() {
            return Question::Whether(subject);
        }
        let second = words.get(1).map_or("", String::as_str);
        let frame = match first {
            _ if subject.is_empty() => Frame::Bare,
            "what" | "which" if QUALITIES.contains(&second) => match content(&words[2..]) {
                thing if thing.is_empty() => Frame::Bare,
                thing => Frame::Of(thing),
            },
            "how" if second == "many" => Frame::Of(content(&words[2..])),
            _ => Frame::Beside(subject),
        };
        Question::Which(frame)
    }
}

impl Frame {
    /// Phrases for an answer; the mean of their vectors stands for it.
    #[must_use]
    pub fn phrases(&self, answer: &str) -> Vec<String> {
        match self {
            Frame::Bare => vec![answer.to_owned()],
            Frame::Of(thing) => vec![format!("{answer} {thing}")],
            Frame::Beside(words) => vec![answer.to_owned(), format!("{answer} {words}")],
        }
    }
}

/// Whether an answer is a yes or a no, if it is either.
#[must_use]
pub fn truth(answer: &str) -> Option<bool> {
    match answer.trim().trim_end_matches('.').to_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_become_phrases() {
        let which = |question: &str| match Question::read(question, &["red", "blue"]) {
            Question::Which(frame) => frame.phrases("red"),
            Question::Whether(phrase) => panic!("{question}: {phrase}"),
        };
        for (question, phrases) in [
            ("What is this?", &["red"][..]),
            ("", &["red"]),
            ("???", &["red"]),
            ("what's this", &["red"]),
            ("What color is the ball?", &["red ball"]),
            ("What colour is it?", &["red"]),
            ("How many dogs are there?", &["red dogs"]),
            ("Which animal is in the picture?", &["red", "red animal"]),
            ("Is the ball red or blue?", &["red", "red ball red or blue"]),
            ("Hva er det?", &["red", "red hva er det"]),
        ] {
            assert_eq!(which(question), phrases, "{question}");
        }
        let whether = |question: &str, answers: &[&str]| Question::read(question, answers);
        let dog = Question::Whether("dog".to_owned());
        assert_eq!(whether("Is there a dog in this picture?", &["yes", "no"]), dog);
        assert_eq!(whether("Can you see any dog?", &["No.", " TRUE "]), dog);
        assert_eq!(whether("is this a dog", &["no"]), dog);
        assert_eq!(
            whether("Is there a dog?", &["yes", "perhaps"]),
            Question::Which(Frame::Beside("dog".to_owned()))
        );
        assert_eq!(whether("Is it?", &["yes", "no"]), Question::Which(Frame::Bare));
        assert_eq!(whether("Is it?", &[]), Question::Which(Frame::Bare));
    }
}
