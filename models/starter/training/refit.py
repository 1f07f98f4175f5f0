"""Fits what is linear around the finished networks, in minutes: the pictures' space, where each text of the corpus lies in it, and which
directions of appearance count.

The meaning of training pictures, as the exported graph sees them, is whitened: pictures of one class, and copies of one picture,
then differ alike in all directions, so that pictures of a kind are nearer to each other than to others. Texts start where each is as near to every picture
as it was. Then the matrix that turns all texts, and the rows of the words in the corpus's texts, learn which text is right of a picture and which picture
of a text. Rows of held-out words stay, as no picture of training says anything about them.

Writes `refit.npz` (heads, and the table of the text tower). `--judge` keeps a quarter of the pictures out and judges by them; the networks have seen those,
so it flatters what was before.
"""

import argparse
import hashlib
import io
import time

import numpy as np
import onnxruntime as ort
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

import corpus
import export
import package
from network import APPEARANCE, FEATURES, INPUT, MEAN, MEANING, STD
from targets import Targets

MOST = {"tin": 24_000, "c100": 12_000}  # pictures of a source that are looked at; of others all
PICTURES = 20_480  # in all
BATCH, GROUPS = 384, 24  # half of a batch is of so many classes, eight pictures each
WEIGHTS = {"text": 0.5, "within": 0.7, "picture": 0.5, "words": 3.0, "rows": 20.0}
COPIED = 300  # training pictures whose copies tell what copying changes
MOVED = 0.6  # so much of their new places texts keep: words that no picture came with are found better than with all
COPIES_WEIGH, FLOOR = 10.0, 2.0  # in the whitening: of copies' differences against those within a class; of the mean variance, added to all


def session(path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(graph: ort.InferenceSession, pictures: np.ndarray) -> np.ndarray:
    pixels = (pictures.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return graph.run(None, {"pixel_values": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})[0]


def chosen(data: corpus.Split) -> np.ndarray:
    """Rows of the training pictures that are looked at."""
    order = np.random.default_rng(5).permutation(len(data.sources))
    kept = [order[data.sources[order] == source][: MOST.get(source)] for source in np.unique(data.sources)]
    return np.sort(np.concatenate(kept))[:PICTURES]


def seen(arguments: argparse.Namespace, weights: export.Weights, data: corpus.Split, rows: np.ndarray) -> np.ndarray:
    """Features of the pictures as the exported graph has them, float32 `[n, FEATURES]`; kept block by block."""
    graph = corpus.cache_path(arguments, "features.onnx")
    export.export_part(weights, graph, "features")
    network, parts = session(graph, arguments.threads), []
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()[:12]  # features of other weights or looks are others
    folder = corpus.cache_path(arguments, f"seen-{corpus.part_name(arguments, 'train')}-{digest}")
    folder.mkdir(exist_ok=True)
    started = time.time()
    for begin in range(0, len(rows), 2048):
        path = folder / f"{begin:06d}.npy"
        if not path.exists():
            mine = rows[begin : begin + 2048]
            made = np.concatenate([run(network, data.pixels[part]) for part in np.array_split(mine, -(-len(mine) // 32))])
            np.save(path.with_suffix(".tmp.npy"), made.astype(np.float16))
            path.with_suffix(".tmp.npy").rename(path)
            print(f"refit: looked at {begin + len(mine)} of {len(rows)} pictures, {time.time() - started:.0f} s", flush=True)
        parts.append(np.load(path).astype(np.float32))
    return np.concatenate(parts)


class Space(nn.Module):
    """A matrix for texts, and what each row of the corpus's words moves by."""

    def __init__(self, table: np.ndarray, encoded: list[np.ndarray], fixed: set[int], turn: np.ndarray) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.from_numpy(turn.astype(np.float32)))
        self.used = np.array(sorted({int(piece) for ids in encoded for piece in ids} - fixed))
        self.sums = torch.from_numpy(np.stack([table[ids].sum(0) for ids in encoded]).astype(np.float32))
        place = {piece: row for row, piece in enumerate(self.used)}
        entries = [(text, place[int(piece)]) for text, ids in enumerate(encoded) for piece in ids if int(piece) in place]
        self.pieces = torch.sparse_coo_tensor(torch.tensor(entries).T, torch.ones(len(entries)), (len(encoded), len(self.used))).coalesce()
        self.lengths = torch.from_numpy(np.linalg.norm(table[self.used], axis=1).astype(np.float32))[:, None].clamp(min=0.05)
        self.moved = nn.Parameter(torch.zeros(len(self.used), MEANING))

    def texts(self) -> torch.Tensor:
        return F.normalize((self.sums + torch.sparse.mm(self.pieces, self.moved * self.lengths)) @ self.turn.T, dim=1)

    def table(self, table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[self.used] += (self.moved * self.lengths).detach().numpy()
        return table @ self.turn.detach().numpy().T


class Texts:
    """The texts of photo classes, and which of them are true of which class: as `Targets`, without emoji."""

    def __init__(self, targets: Targets, labels: corpus.Labels) -> None:
        photo = [row for row, own in enumerate(targets.photo.tolist()) if own]
        self.rows = np.unique(np.concatenate([targets.bank.own[row] for row in photo]))
        place = {row: at for at, row in enumerate(self.rows)}
        self.texts = [targets.bank.texts[row] for row in self.rows]
        self.truth = torch.from_numpy(targets.bank.truth[:, self.rows])
        self.own = {row: [place[text] for text in targets.bank.own[row]] for row in photo}
        owners = np.array([entry["src"] for entry in labels.classes])
        # [classes, texts]: names of classes of the same source
        self.beside = torch.zeros(self.truth.shape, dtype=torch.bool)
        for source in np.unique(owners[photo]):
            mine = [row for row in photo if owners[row] == source]
            self.beside[np.ix_(mine, [self.own[row][0] for row in mine])] = True


def fit(arguments, space: Space, meaning: torch.Tensor, classes: np.ndarray, texts: Texts, sample: np.ndarray) -> None:
    """`meaning` (of unit length) and `classes` are of the pictures to learn from; `sample` are words whose likeness stays."""
    random, started = np.random.default_rng(2), time.time()
    torch.manual_seed(2)
    words = F.normalize(torch.from_numpy(sample.astype(np.float32)), dim=1)
    groups = [rows for rows in (np.flatnonzero(classes == each) for each in np.unique(classes)) if len(rows) >= 8]
    scale = nn.Parameter(torch.tensor([18.0, 18.0, 18.0]).log())
    rates = [([space.turn], 1e-3), ([space.moved], 2e-3), ([scale], 1e-2)]
    optimizer = torch.optim.Adam([{"params": part, "lr": rate, "top": rate} for part, rate in rates])
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * min(1, (step + 1) / 50) * (1 - step / arguments.steps)
        rows = batch_rows(classes, groups, random)
        mine = torch.from_numpy(classes[rows].astype(np.int64))
        vectors, scales = meaning[torch.from_numpy(rows)], scale.exp().clamp(max=50)
        similarity, truth = vectors @ space.texts().T, texts.truth[mine]
        drawn = torch.tensor([texts.own[each][0] if random.random() < 0.6 else random.choice(texts.own[each]) for each in mine.tolist()])
        names = torch.tensor([texts.own[each][0] for each in mine.tolist()])
        among = (scales[0] * similarity).masked_fill((truth != 0).scatter(1, drawn[:, None], False), -1e4)
        within = (scales[1] * similarity).masked_fill(~texts.beside[mine], -1e4)
        asked = (truth == 1).any(0)
        found = (scales[2] * similarity[:, asked]).masked_fill(truth[:, asked] == -1, -1e4).log_softmax(0)
        right = truth[:, asked] == 1
        some = words[torch.randint(0, len(words), (256,))]
        turned = F.normalize(some @ space.turn.T, dim=1)
        terms = {
            "text": F.cross_entropy(among, drawn),
            "within": F.cross_entropy(within, names),
            "picture": -((found * right).sum(0) / right.sum(0)).mean(),
            "words": (turned @ turned.T - some @ some.T).square().mean(),
            "rows": space.moved.square().sum(1).mean(),
        }
        loss = sum(WEIGHTS[name] * value for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"refit: step {step + 1},", " ".join(f"{name} {value.item():.3f}" for name, value in terms.items()),
                  f"scales {scales.tolist()}, {time.time() - started:.0f} s", flush=True)  # fmt: skip


def batch_rows(classes: np.ndarray, groups: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    some = [random.choice(groups[group], 8, replace=False) for group in random.choice(len(groups), GROUPS, replace=False)]
    rest = random.choice(len(classes), BATCH - 8 * GROUPS, replace=False)
    return np.unique(np.concatenate([rest, *some]))


def judged(vectors: np.ndarray, words: np.ndarray, classes: np.ndarray, sources: np.ndarray, texts: Texts) -> dict[str, float]:
    """The measures of `evaluate.py` that matter here, of pictures that were kept out."""
    reached, similarity = {}, vectors @ words.T
    names = np.array([texts.own[each][0] for each in classes])
    for source in ("c10", "c100", "tin", "cal", "sun", "dc"):
        mine = sources == source
        among = np.where(texts.beside[classes[mine]].numpy(), similarity[mine], -2)
        reached[source] = float((among.argmax(1) == names[mine]).mean())
    asked = np.unique(names)
    truth = texts.truth[classes][:, asked].numpy() == 1
    best = np.argsort(-similarity[:, asked], axis=0)[:10]
    reached["P@10"] = float(np.mean([truth[best[:, at], at][: min(10, truth[:, at].sum())].mean() for at in range(len(asked))]))
    for source in ("tin", "c100", "cal"):
        mine = sources == source
        alike = vectors[mine] @ vectors[mine].T
        np.fill_diagonal(alike, -2)
        same = classes[mine][:, None] == classes[mine]
        right = np.take_along_axis(same, np.argsort(-alike, axis=1)[:, :10], 1)
        counts = np.minimum(same.sum(1) - 1, 10)
        reached[f"like {source}"] = float(np.mean([row[:most].mean() for row, most in zip(right, counts) if most]))
    return reached


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def copied(arguments: argparse.Namespace, weights: export.Weights, data: corpus.Split) -> dict[str, list[np.ndarray]]:
    """Features and appearance of some training pictures, then of their copies of each kind."""
    from evaluate import COPIES

    rows = np.sort(np.random.default_rng(9).choice(len(data.pixels), min(COPIED, len(data.pixels)), replace=False))
    pictures = [Image.open(io.BytesIO(data.pixels.encoded[row])).convert("RGB") for row in rows]
    kinds = [np.stack([corpus.preprocess(alter(picture), INPUT) for picture in pictures]) for alter in [lambda picture: picture, *COPIES.values()]]
    made = {}
    for part in ("features", "appearance"):
        graph = corpus.cache_path(arguments, f"{part}.onnx")
        export.export_part(weights, graph, part)
        network = session(graph, arguments.threads)
        made[part] = [np.concatenate([run(network, each) for each in np.array_split(kind, -(-len(kind) // 32))]) for kind in kinds]
    return made


def covariance(differences: np.ndarray) -> np.ndarray:
    return differences.T @ differences / len(differences)


def whitening(meaning: np.ndarray, classes: np.ndarray, copies: list[np.ndarray]) -> np.ndarray:
    """A symmetric matrix that evens out how pictures of one class differ, and how copies do from their original (the first of `copies`)."""
    _, own = np.unique(classes, return_inverse=True)
    middles = np.zeros((own.max() + 1, meaning.shape[1]))
    np.add.at(middles, own, meaning)
    spread = covariance(meaning - (middles / np.bincount(own)[:, None])[own])
    spread += COPIES_WEIGH * covariance(np.concatenate([copy - copies[0] for copy in copies[1:]]))
    values, axes = np.linalg.eigh(spread)
    return (axes / np.sqrt(values / values.mean() + FLOOR)) @ axes.T


def kept_directions(copies: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A matrix `[sketched, APPEARANCE]` and the mean to take off first: the directions of appearance that differ most between pictures and
    least between a picture and its copies, of nearly equal spread, those that copying changes weighing less."""
    originals, mean = copies[0], copies[0].mean(0)
    size = np.linalg.norm(originals - mean, axis=1, keepdims=True)
    values, axes = np.linalg.eigh(covariance((originals - mean) / size))
    whiten = axes / np.sqrt(values / values.mean() + 0.1)
    change = np.mean([covariance((copy - originals) / size) for copy in copies[1:]], 0)
    changes, turn = np.linalg.eigh(whiten.T @ change @ whiten)  # small first
    return (whiten @ turn)[:, :APPEARANCE] / np.sqrt(1 + changes[:APPEARANCE] / changes.mean()), mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    export.add_weights_argument(parser)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--judge", action="store_true", help="keep a tenth of the pictures out, judge by them, and write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights, labels = export.trained(arguments), corpus.load_labels(arguments)
    if arguments.weights_from:
        package.unpack_text(arguments.weights_from, arguments)
    table = np.load(corpus.cache_path(arguments, "text.npz"))["table"]
    tokenizer = Tokenizer.from_file(str(corpus.cache_path(arguments, "tokenizer.json")))
    data, texts = corpus.load(arguments, "train", INPUT), Texts(Targets(arguments, labels), labels)
    rows = chosen(data)
    features = seen(arguments, weights, data, rows)
    photos = data.sources[rows] != "emo"
    features, classes, sources = features[photos], data.classes[rows[photos]], data.sources[rows[photos]]
    head, bias = weights["meaning"][0].reshape(MEANING, FEATURES), weights["meaning"][1]
    meaning = unit(features @ head.T + bias)
    copies = copied(arguments, weights, data)
    learned = np.ones(len(classes), bool)
    if arguments.judge:
        learned[np.random.default_rng(6).permutation(len(classes))[: len(classes) // 4]] = False
    # Texts are fitted to pictures without their mean, which tells them apart better. The package's pictures keep it: a picture of nothing in
    # particular, with which `answer_image` and thresholds compare, lies in its direction.
    length = np.linalg.norm(features[learned] @ head.T + bias, axis=1).mean()
    matrix = whitening(meaning[learned], classes[learned], [unit(each @ head.T + bias) for each in copies["features"]])
    mean = length * meaning[learned].mean(0)
    head, bias = matrix @ head, matrix @ bias
    white = torch.from_numpy(unit(features @ head.T + bias - matrix @ mean).astype(np.float32))
    encoded = [np.array(encoding.ids) for encoding in tokenizer.encode_batch(texts.texts)]
    held_out = {piece for encoding in tokenizer.encode_batch(sorted(labels.held_out)) for piece in encoding.ids}
    # Texts begin where each is as near to every picture as it was before the whitening.
    turn = np.linalg.inv(matrix)
    turn *= MEANING / np.trace(turn)
    space = Space(table, encoded, held_out | {0, 1, 2}, turn)
    told = lambda vectors: judged(vectors[~learned], space.texts().detach().numpy(), classes[~learned], sources[~learned], texts)  # noqa: E731
    show = lambda scores: " ".join(f"{name} {value:.3f}" for name, value in scores.items()) + f" | mean {np.mean(list(scores.values())):.4f}"  # noqa: E731
    if arguments.judge:
        print("refit: as it was", show(told(meaning)))
        print("refit: whitened", show(told(white.numpy())))
    fit(arguments, space, white[learned], classes[learned], texts, table[3:12_000])
    if arguments.judge:
        print("refit: refit", show(told(white.numpy())))
        return
    kept, middle = kept_directions(copies["appearance"])
    sketch, sketch_bias = weights["appearance"]
    # The graph adds the head's answers to a picture and to its mirror image, so each has half of the mean.
    np.savez(corpus.cache_path(arguments, "refit.npz"), **{"meaning": head[:, :, None, None].astype(np.float32), "meaning.bias": bias.astype(np.float32),
             "appearance": np.tensordot(kept.T, sketch, 1).astype(np.float32), "appearance.bias": (kept.T @ (sketch_bias - middle / 2)).astype(np.float32),
             "table": (1 - MOVED) * table @ turn.T + MOVED * space.table(table)})  # fmt: skip


if __name__ == "__main__":
    main()
