"""Vectors of phrases without a model: what `--embed words` takes. Ours; the paper uses a pre-trained sentence
transformer.

Each word of a phrase, and each run of three letters in it, points in one of `WIDTH` directions, by its hash,
and weighs more the fewer phrases hold it (inverse document frequency). Phrases are near if they share rare
words or stems; synonyms are as far apart as any two words, so its clusters are of wording, not of meaning,
and phrases of frequent words alone gather in a few large ones.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

WIDTH = 512
LETTERS = 0.3  # weight of a run of letters, beside 1 of a word


def word_vectors(texts: Sequence[str]) -> np.ndarray:
    """[N, WIDTH] float32, rows of length 1; the same texts give the same vectors on every machine."""
    features = [_features(text) for text in texts]
    held = Counter(name for row in features for name in row)
    places = {name: _place(name) for name in held}
    out_ND = np.zeros((len(texts), WIDTH), dtype=np.float32)
    for i, row in enumerate(features):
        for name, weight in row.items():
            column, sign = places[name]
            out_ND[i, column] += sign * weight * math.log((1 + len(texts)) / held[name])
    length_N1 = np.linalg.norm(out_ND, axis=1, keepdims=True)
    return out_ND / np.maximum(length_N1, 1e-12)


def _features(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for word in text.split():
        found[word] += 1.0
        padded = f"^{word}$"
        for i in range(len(padded) - 2):
            found["..." + padded[i : i + 3]] += LETTERS
    return found


def _place(name: str) -> tuple[int, float]:
    code = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    return code % WIDTH, 1.0 if code >> 63 else -1.0
