"""What training asks of a picture's place among the texts, for the teacher's head and the student alike."""

import argparse

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

import corpus
import progress
import text


class Targets:
    """The texts of the corpus as vectors, and two questions about a picture's vector: which of all texts is true of it,
    and which class of its own source it belongs to. Held-out terms are not among the texts."""

    def __init__(self, arguments: argparse.Namespace, labels: corpus.Labels) -> None:
        self.bank = corpus.text_bank(labels)
        table = np.load(corpus.cache_path(arguments, "text.npz"))["table"]
        tokenizer = Tokenizer.from_file(str(corpus.cache_path(arguments, "tokenizer.json")))
        device = progress.device()
        self.vectors = torch.from_numpy(text.encode(tokenizer, table, self.bank.texts).astype(np.float32)).to(device)
        emoji = labels.is_emoji()
        photo_texts = np.zeros(len(self.bank.texts), bool)
        for row in np.flatnonzero(~emoji):
            photo_texts[self.bank.own[row]] = True
        # Which texts may stand as wrong answers: for photos only texts of photo classes, as "puppy face" is no error.
        self.wrong = torch.from_numpy((self.bank.truth == 0) & (photo_texts[None] | emoji[:, None])).to(device)
        sources = np.array([entry["src"] for entry in labels.classes])
        self.source = torch.from_numpy(np.unique(sources, return_inverse=True)[1]).to(device)
        self.names = torch.from_numpy(np.array([own[0] for own in self.bank.own])).to(device)
        self.photo = torch.from_numpy(~emoji).to(device)
        # A class as one point: half its name, half the middle of all its texts, so that a picture is near both
        # "golden retriever" and "dog".
        middles = torch.stack([F.normalize(self.vectors[torch.from_numpy(own).to(device)].mean(0), dim=0) for own in self.bank.own])
        self.points = F.normalize(self.vectors[self.names] + middles, dim=1)

    def draw(self, classes: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        """One true text per picture: the name, or with some chance another."""
        drawn = [own[0] if generator.random() < 0.6 else own[generator.integers(len(own))] for own in (self.bank.own[c] for c in classes)]
        return torch.from_numpy(np.array(drawn)).to(self.vectors.device)

    def among_texts(self, similarity: torch.Tensor, classes: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Cross entropy of `answer` among all texts that are wrong of the picture; `similarity` `[n, texts]` is scaled."""
        barred = ~self.wrong[classes]
        barred[torch.arange(len(answer), device=barred.device), answer] = False
        return F.cross_entropy(similarity.masked_fill(barred, -1e4), answer)

    def within_source(self, similarity: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the class's name among those of its source, photos only; `similarity` `[n, texts]` is scaled."""
        photos = self.photo[classes]
        similarity, classes = similarity[photos][:, self.names], classes[photos]
        other_source = self.source[classes][:, None] != self.source[None]
        # Of two classes with one name only the picture's own counts.
        twin = (self.names[None] == self.names[classes][:, None]) & (torch.arange(len(self.names), device=classes.device)[None] != classes[:, None])
        return F.cross_entropy(similarity.masked_fill(other_source | twin, -1e4), classes)


class Guesses:
    """What the teacher takes a picture for among its own classes, whose names are texts of the joint space too. Names that are held
    out are left out, and so is a class that has no other."""

    def __init__(self, arguments: argparse.Namespace, labels: corpus.Labels) -> None:
        stored = np.load(corpus.cache_path(arguments, "classes.npz"))
        table = np.load(corpus.cache_path(arguments, "text.npz"))["table"]
        tokenizer = Tokenizer.from_file(str(corpus.cache_path(arguments, "tokenizer.json")))
        held, rows, places = {term.lower() for term in labels.held_out}, [], []
        for row, line in enumerate(stored["names"].tolist()):
            names = [name.strip() for name in line.split(",")]
            names = [name for name in names if not held & {name.lower(), *name.lower().split()}]
            if names:
                vectors = text.encode(tokenizer, table, names)
                rows.append(row)
                places.append(vectors.mean(0) + vectors[0])  # near every synonym, nearest to the first
        device = progress.device()
        self.places = F.normalize(torch.from_numpy(np.stack(places).astype(np.float32)), dim=1).to(device)
        self.weight, self.bias = (torch.from_numpy(stored[part][rows]).to(device) for part in ("weight", "bias"))

    def distance(self, similarity: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """How far `similarity` `[n, classes]` to the names, scaled, is from the teacher's guess by its `features`, for each picture."""
        guess = torch.softmax(features @ self.weight.T + self.bias, 1)
        return F.kl_div(F.log_softmax(similarity, 1), guess, reduction="none").sum(1)
