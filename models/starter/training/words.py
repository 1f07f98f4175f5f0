"""Completes the text table with what its fit cannot give: a dictionary's kin, plurals, compounds, misspellings and colors.

- A noun that names no class leans to what the pictures know: to the classes that are kinds of it ("feline": cats, lions), or to
  the class that it is a kind of ("hound": dog), as WordNet says.
- A plural points where its singular does; a phrase written as one word ("sportscar") where the phrase does; a misspelling ("elefant") where
  the word does. These are rows of their own: misspellings that occur in wordfreq's list, and those that are likely of the labels' words.
- Numbers weigh little: the pictures' vectors say nothing of counts.
- Words for colors point, beside their meaning, to the dimensions in which a picture's colors are.

Writes `words.npz` (the table, `[pieces, MEANING + COLORS]`) and `words.json`, its tokenizer.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import colors
import corpus
import text
from network import COLORS, MEANING

SAME, KINDS, ABOVE = 0.7, 0.5, 0.35  # the classes' share in the vector of a noun: one meaning with a class, classes are kinds of it, it is a kind of a class
FEW, MANY = 40, 120  # classes below a noun: up to so many count in full, beyond so many not at all ("object")
PLURAL = 0.8  # the singular's share
NUMBERS = "one two three four five six seven eight nine ten dozen several many few pair couple".split()
NUMBER_WEIGHT = 0.3
COLOR = 1.6  # length of a color's own part, in lengths of an average word of the labels
ROWS = 9500  # added at most
# Spellings that sound alike, those that are mixed up most first.
SWAPS = [("ph", "f"), ("ie", "ei"), ("ei", "ie"), ("ck", "k"), ("le", "el"), ("er", "or"), ("or", "er"), ("ar", "er"), ("ea", "ee"), ("ee", "ea"), ("y", "i"), ("ant", "ent"),
         ("ou", "u"), ("qu", "kw"), ("a", "e"), ("e", "a"), ("e", "i"), ("i", "e"), ("c", "k"), ("o", "u"), ("tch", "ch"), ("s", "z"), ("z", "s"), ("ui", "iu")]  # fmt: skip


class Lexicon:
    """The pieces of a tokenizer with their vectors, and rows that are added."""

    def __init__(self, tokenizer: Tokenizer, table: np.ndarray) -> None:
        self.tokenizer, self.table, self.added = tokenizer, table.astype(np.float32).copy(), {}
        self.vocabulary = tokenizer.get_vocab()

    def sum_of(self, phrase: str) -> np.ndarray:
        """Without the first piece, which is of every text."""
        return self.table[self.tokenizer.encode(phrase).ids[1:]].sum(0)

    def direction(self, phrase: str) -> np.ndarray:
        vector = self.sum_of(phrase)
        return vector / max(np.linalg.norm(vector), 1e-9)

    def lean(self, word: str, vector: np.ndarray, share: float) -> None:
        """Turns a word toward a unit vector; its length stays."""
        row = self.table[self.vocabulary[word]]
        length = np.linalg.norm(row)
        mixed = (1 - share) * row / max(length, 1e-9) + share * vector
        self.table[self.vocabulary[word]] = length * mixed / np.linalg.norm(mixed)

    def add(self, word: str, phrase: str) -> None:
        """A row for `word` that says what `phrase` says."""
        if word not in self.vocabulary and word not in self.added and len(self.added) < ROWS and re.fullmatch("[a-z]{4,24}", word):
            self.added[word] = phrase

    def finished(self) -> tuple[np.ndarray, Tokenizer]:
        rows = [self.sum_of(phrase) for phrase in self.added.values()]
        described = json.loads(self.tokenizer.to_str())
        described["model"]["vocab"] |= {word: len(self.table) + number for number, word in enumerate(self.added)}
        return np.concatenate([self.table, np.array(rows, np.float32).reshape(len(rows), self.table.shape[1])]), Tokenizer.from_str(json.dumps(described))


def class_senses(labels: corpus.Labels, dictionary: text.Dictionary) -> dict[str, list[str]]:
    """The names of photo classes by their sense."""
    own, senses = text.label_senses(labels, dictionary), defaultdict(list)
    for entry in labels.classes:
        if entry["src"] != "emo":
            name = entry["name"].lower()
            known = own.get(name) or sorted(dictionary.senses_of(name), key=lambda sense: dictionary.files[sense] not in text.VISIBLE)
            if known and name not in senses[known[0]]:
                senses[known[0]].append(name)
    return dict(senses)


def above(dictionary: text.Dictionary, sense: str) -> list[list[str]]:
    """What a sense is a kind of, step by step."""
    steps, seen = [[sense]], {sense}
    while steps[-1] and len(steps) < 14:
        steps.append([parent for child in steps[-1] for parent in dictionary.parents[child] if parent not in seen and not seen.add(parent)])
    return steps[1:]


def kin(lexicon: Lexicon, labels: corpus.Labels, dictionary: text.Dictionary, known: set[str]) -> int:
    """Nouns that are no text of the corpus lean to the classes that are their kin; returns how many do."""
    senses = class_senses(labels, dictionary)
    below = defaultdict(set)
    for sense, names in senses.items():
        for step in above(dictionary, sense):
            for parent in step:
                below[parent] |= set(names)
    middle = lambda names: np.mean([lexicon.direction(name) for name in sorted(names)], 0)  # noqa: E731

    def concept(sense: str) -> tuple[np.ndarray, float] | None:
        if sense in senses:
            return middle(senses[sense]), SAME
        if 0 < len(below[sense]) <= MANY:
            return middle(below[sense]), KINDS * min(1, FEW / len(below[sense]))
        for parent in dictionary.parents[sense]:
            if parent in senses:
                return middle(senses[parent]), ABOVE
        return None

    leaning = {}
    for word in lexicon.vocabulary:
        if word.isalpha() and len(word) > 2 and word not in known:
            mine = dictionary.senses_of(word)
            found = [(weight, concept(sense)) for weight, sense in zip(text.SENSES, mine)]
            found = [(weight, *each) for weight, each in found if each]
            if found:
                total = sum(weight for weight, _, _ in found)
                vector = sum(weight * vector / np.linalg.norm(vector) for weight, vector, _ in found)
                share = sum(weight * share for weight, _, share in found) / total * min(1, total / sum(text.SENSES[: len(mine)]) + 0.2)
                leaning[word] = vector / np.linalg.norm(vector), share
    for word, (vector, share) in leaning.items():
        lexicon.lean(word, vector, share)
    return len(leaning)


def singular_of(word: str, dictionary: text.Dictionary, irregular: dict[str, str]) -> str | None:
    """Of a plural that is no noun by itself."""
    if word in dictionary.senses or not word.isalpha():
        return None
    forms = [irregular.get(word), *(word[: -len(end)] + rest for end, rest in [("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")] if word.endswith(end))]
    return next((form for form in forms if form and len(form) > 2 and form in dictionary.senses), None)


def plural_of(word: str) -> str:
    if re.search("(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"


def slips(word: str) -> list[str]:
    """How a word may be misspelled, its first letter kept as a rule; the likelier first."""
    found = [word[:i] + word[i + 1 :] for i in range(2, len(word)) if word[i] == word[i - 1]]
    found += [word[: match.start()] + new + word[match.end() :] for old, new in SWAPS[:14] for match in re.finditer(old, word) if match.start() > 0 or old == "ph"]
    found += [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    found += [word[: i + 1] + word[i] + word[i + 1 :] for i in range(2, len(word) - 1) if word[i] in "bdfglmnprst" and word[i] not in (word[i - 1], word[i + 1])]
    found += [word[:i] + word[i + 1 :] for i in range(2, len(word) - 1)]
    found += [word[: match.start()] + new + word[match.end() :] for old, new in SWAPS[14:] for match in re.finditer(old, word) if match.start() > 0]
    return list(dict.fromkeys(slip for slip in found if slip != word and len(slip) > 3))


def misspellings(lexicon: Lexicon, first: list[str], others: list[str], real: set[str], frequency: dict[str, float]) -> None:
    """Rows for slips that are no words: those of `first` and `others` that occur, then the likeliest of `first`."""
    proper = lambda slip: slip in real or any(slip.removesuffix(end) in real for end in ("s", "es", "ed", "d", "ing", "er", "ly"))  # noqa: E731
    meant = {}
    for word in sorted([*first, *(word for word in others if len(word) > 6)], key=lambda word: -frequency.get(word, 0)):
        for slip in slips(word):
            # Names and words of other languages are near English words, too, but are more frequent than slips are.
            if len(slip) > 4 and slip not in meant and not proper(slip) and 0 < frequency.get(slip, 0) < min(4e-7, frequency.get(word, 0) / 8):
                meant[slip] = word
    for slip in sorted(meant, key=lambda slip: (meant[slip] not in first, -frequency[slip])):
        lexicon.add(slip, meant[slip])
    for place in range(16):
        for word in first:
            likely = [slip for slip in slips(word) if not proper(slip) and not frequency.get(slip)]
            if place < len(likely):
                lexicon.add(likely[place], word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="directory of WordNet 3.0")
    arguments = parser.parse_args()
    from wordfreq import get_frequency_dict

    labels, dictionary = corpus.load_labels(arguments), text.Dictionary(arguments.wordnet)
    lexicon = Lexicon(Tokenizer.from_file(str(corpus.cache_path(arguments, "tokenizer.json"))), np.load(corpus.cache_path(arguments, "refit.npz"))["table"])
    frequency = get_frequency_dict("en", "large")
    irregular = dict(line.split()[:2] for line in (arguments.wordnet / "noun.exc").read_text().splitlines() if len(line.split()) >= 2)
    other = [line.split()[0] for part in ("verb", "adj", "adv") for line in (arguments.wordnet / f"index.{part}").read_text().splitlines() if line[0] != " "]
    real = {*dictionary.nouns(), *other, *lexicon.vocabulary, *irregular}
    bank = corpus.text_bank(labels)
    known = {bank.texts[row].lower() for entry, own in zip(labels.classes, bank.own) if entry["src"] != "emo" for row in own}

    leaning = kin(lexicon, labels, dictionary, known)
    plurals = [(word, single) for word in lexicon.vocabulary if word not in known and (single := singular_of(word, dictionary, irregular)) in lexicon.vocabulary]
    for word, single in plurals:
        lexicon.lean(word, lexicon.direction(single), PLURAL)
    photo, _ = text.label_texts(labels)
    label_words = list(dict.fromkeys(word for phrase in photo for word in re.findall("[a-z]+", phrase)))
    nouns = [word for word in sorted(lexicon.vocabulary, key=lambda word: -frequency.get(word, 0)) if word in dictionary.senses and word.isalpha() and len(word) > 4 and word not in label_words
             and any(dictionary.files[sense] in text.VISIBLE for sense in dictionary.senses[word][:2]) and frequency.get(word, 0) > 1e-6]  # fmt: skip
    named = {word for entry in labels.classes if entry["src"] != "emo" for name in [entry["name"], *entry["names"]] for word in re.findall("[a-z]+", name.lower())}
    label_nouns = [word for word in label_words if word in named and word in dictionary.senses and len(word) > 3 and frequency.get(word, 0) > 3e-7]
    for word in [*label_nouns, *nouns[:2500]]:
        lexicon.add(plural_of(word), word)
    phrases = [(phrase, True) for phrase in photo] + [
        (phrase, False) for phrase, senses in dictionary.senses.items() if dictionary.files[senses[0]] in text.VISIBLE and len(re.split("[ -]", phrase)) == 2]  # fmt: skip
    for phrase, label in phrases:
        joined = re.sub("[ '-]", "", phrase)
        if joined != phrase and joined not in real and (label or frequency.get(joined, 0) > 0):
            lexicon.add(joined, phrase)
    compounds = len(lexicon.added)
    misspellings(lexicon, sorted((word for word in label_nouns if len(word) > 4), key=lambda word: -frequency[word]), nouns, real, frequency)

    for word in NUMBERS:
        lexicon.table[lexicon.vocabulary[word]] *= NUMBER_WEIGHT
    length = np.median([np.linalg.norm(lexicon.table[lexicon.vocabulary[word]]) for word in label_nouns if word in lexicon.vocabulary])
    table, tokenizer = lexicon.finished()
    table = np.concatenate([table, np.zeros((len(table), COLORS), np.float32)], 1)
    for row, words in enumerate(colors.WORDS.values()):
        for word in words.split():
            if (piece := tokenizer.token_to_id(word)) is not None:
                table[piece, MEANING + row] = COLOR * length
    print(f"words: {leaning} nouns lean to their kin, {len(plurals)} plurals to their singulars; added {compounds} plurals and compounds and "
          f"{len(lexicon.added) - compounds} misspellings; length of a label's word {length:.2f}")  # fmt: skip
    np.savez(corpus.cache_path(arguments, "words.npz"), table=table)
    tokenizer.save(str(corpus.cache_path(arguments, "words.json")), pretty=False)


if __name__ == "__main__":
    main()
