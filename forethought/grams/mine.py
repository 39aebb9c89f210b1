"""Strategic grams from solutions that were right (HICRA, arXiv 2509.03646, section 2.1).

    1  all n-grams of 3 to 5 words
    2  embed each, and cluster the embeddings
    3  cluster document frequency: in how many solutions at least one n-gram of the cluster occurs
    4  the n-grams of the clusters in the top 20 % by it

Planning phrases are in nearly every solution, whatever it is about; a phrase of one kind of calculation is
often in few of them, and counting solutions instead of occurrences tells the two apart. The paper gives
neither the embedder nor the clustering nor their sizes; the defaults here are k-means with 100 clusters, as a
port of the method has it. Two settings are ours and keep 10,000 solutions a matter of minutes: an n-gram that
stands in one solution alone is not clustered (`least`), nor are more than `most`, the most widespread first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forethought.core.errors import UserError
from forethought.grams.kmeans import kmeans
from forethought.grams.listing import Cluster
from forethought.grams.words import words

Embed = Callable[[Sequence[str]], np.ndarray]
"""N texts -> [N, D] float32, rows of length 1."""

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class MineSpec:
    """UserError for settings that cannot work."""

    shortest: int = 3  # words of an n-gram
    longest: int = 5
    clusters: int = 100
    # share of the clusters that is kept, by document frequency; clusters level with the last of them are kept
    # too
    top: float = 0.2
    least: int = 2  # solutions that an n-gram must stand in
    most: int = 50_000  # n-grams that are embedded
    solutions: int = 10_000  # of a larger source, so many are drawn at random
    seed: int = 0

    def __post_init__(self):
        for name, low in (
            ("shortest", 1),
            ("longest", self.shortest),
            ("clusters", 2),
            ("least", 1),
            ("most", 1),
            ("solutions", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, found {getattr(self, name)}")
        if self.seed >= 1 << 32:  # scikit-learn's generator takes no more
            raise UserError(f"seed must be at most {(1 << 32) - 1}, found {self.seed}")
        if not 0 < self.top <= 1:
            raise UserError(f"top is a share of the clusters, greater than 0 and at most 1, found {self.top}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    clusters: tuple[Cluster, ...]  # kept, the most widespread first
    documents: int  # solutions that were read
    ngrams: int  # different ones in them
    considered: int  # of these, embedded and clustered
    threshold: float  # cluster document frequency from which a cluster was kept


def mine(texts: Sequence[str], embed: Embed, spec: MineSpec) -> Mined:
    """`texts`: different solutions. UserError where there are fewer n-grams than clusters."""
    if len(texts) > spec.solutions:
        texts = random.Random(spec.seed).sample(list(texts), spec.solutions)
    ngrams = NGrams(texts, spec)
    if len(ngrams.texts) < spec.clusters:
        raise UserError(
            f"{len(ngrams.texts)} n-grams of {spec.shortest} to {spec.longest} words stand in at least "
            f"{spec.least} of {len(texts)} solutions, too few for {spec.clusters} clusters; lower clusters "
            "or least, or give more solutions"
        )
    label_N = kmeans(embed(ngrams.texts), spec.clusters, spec.seed)
    frequency_C = ngrams.cluster_frequency(label_N, spec.clusters)
    threshold = float(np.percentile(frequency_C, 100 * (1 - spec.top)))
    kept = [c for c in np.argsort(-frequency_C, kind="stable") if frequency_C[c] >= threshold]
    return Mined(
        clusters=tuple(_cluster(ngrams, label_N, c, int(frequency_C[c])) for c in kept),
        documents=len(texts),
        ngrams=ngrams.found,
        considered=len(ngrams.texts),
        threshold=threshold,
    )


def _cluster(ngrams: NGrams, label_N: np.ndarray, c: int, documents: int) -> Cluster:
    grams = [(ngrams.texts[i], int(ngrams.documents_N[i])) for i in np.flatnonzero(label_N == c)]
    return Cluster(documents=documents, grams=tuple(sorted(grams, key=lambda g: (-g[1], g[0]))))


class NGrams:
    """The n-grams of a corpus that are worth clustering. N: n-grams that are kept; C: clusters.

    They are counted as 64-bit hashes, in arrays: written out, those of 10,000 long solutions would fill a
    memory.
    """

    def __init__(self, texts: Sequence[str], spec: MineSpec):
        self.spec = spec
        self._words: dict[str, int] = {}
        self._documents = [self._read(text) for text in texts]
        each = [
            np.unique(np.concatenate([hashes for _, hashes, _ in self._hashed(d)])) for d in range(len(texts))
        ]
        hash_A, count_A = np.unique(np.concatenate(each), return_counts=True)  # A: all n-grams
        self.found = len(hash_A)
        self._keep(hash_A, count_A)
        self._pairs = self._occurrences(each)
        self.texts = self._spelled()

    def cluster_frequency(self, label_N: np.ndarray, clusters: int) -> np.ndarray:
        """[C] in how many solutions at least one n-gram of each cluster occurs."""
        document, ngram = self._pairs
        pairs = np.unique(document * clusters + label_N[ngram])
        return np.bincount(pairs % clusters, minlength=clusters)

    def _read(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(word ids, how many words before each are its neighbours without a break), [W] each."""
        found = words(text)
        run, runs = 0, []
        for word in found:
            run = run + 1 if word.joined else 0
            runs.append(run)
        ids = [self._words.setdefault(word.form, len(self._words)) for word in found]
        return np.array(ids, dtype=np.uint64), np.array(runs, dtype=np.int64)

    def _hashed(self, d: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each n: (n, hashes of the document's n-grams, the places of their first words)."""
        ids, runs = self._documents[d]
        out = []
        for n in range(self.spec.shortest, self.spec.longest + 1):
            last = np.flatnonzero(runs >= n - 1)
            first = last - (n - 1)
            code = np.full(len(last), n, dtype=np.uint64)
            for k in range(n):  # the shift lets high bits reach low ones; without it words could cancel out
                code = (code ^ (ids[first + k] + np.uint64(1))) * _MIX
                code ^= code >> np.uint64(29)
            out.append((n, code, first))
        return out

    def _keep(self, hash_A: np.ndarray, count_A: np.ndarray) -> None:
        """The most widespread n-grams; which of those that are level at the end, is drawn."""
        enough = np.flatnonzero(count_A >= self.spec.least)
        drawn = np.random.default_rng(self.spec.seed).permutation(enough)
        chosen = np.sort(drawn[np.argsort(-count_A[drawn], kind="stable")][: self.spec.most])
        self._hash_N, self.documents_N = hash_A[chosen], count_A[chosen]

    def _occurrences(self, each: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(document, n-gram) of every pair where one holds the other."""
        held = [ngram for ngram, _ in map(self._known, each)]
        return np.repeat(np.arange(len(held)), [len(ngrams) for ngrams in held]), np.concatenate(held)

    def _spelled(self) -> list[str]:
        forms, texts = list(self._words), [""] * len(self._hash_N)
        missing_N = np.ones(len(texts), dtype=bool)
        for d, (ids, _) in enumerate(self._documents):
            for n, code, first in self._hashed(d):
                ngram, at = self._known(code)
                for i, place in zip(ngram[missing_N[ngram]], first[at[missing_N[ngram]]], strict=True):
                    texts[i] = " ".join(forms[int(w)] for w in ids[place : place + n])
                missing_N[ngram] = False
        return texts

    def _known(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kept n-grams, their places in `code`) of the hashes that are those of kept n-grams."""
        if not len(self._hash_N):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        ngram = np.minimum(np.searchsorted(self._hash_N, code), len(self._hash_N) - 1)
        at = np.flatnonzero(self._hash_N[ngram] == code)
        return ngram[at], at
