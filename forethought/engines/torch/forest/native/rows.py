"""Rows in the making: what the sampler keeps of them, and how the kernels read it."""

from __future__ import annotations

import ctypes
from typing import NamedTuple, Protocol

import numpy as np

from forethought.engines.torch.forest.native.library import address


class Settings(NamedTuple):
    """What each row draws from (`Request`), an array [rows] of each setting."""

    temperature: np.ndarray  # float32; 0: the mode alone
    top_p: np.ndarray  # float32; 1: all
    min_p: np.ndarray  # float32; 0: all
    top_k: np.ndarray  # int64; 0: all


class Rows(Protocol):
    """Rows in the making, a line each."""

    tokens: np.ndarray  # int64 [lines, most]
    length: np.ndarray  # int64, tokens drawn so far
    logps: np.ndarray  # float32 [lines, most]
    drawn_logps: np.ndarray
    noise: np.ndarray  # float64 [lines, most]
    settings: Settings
    most: np.ndarray  # int64, of each row
    context: np.ndarray  # int64, tokens of its context
    kind: np.ndarray  # int64
    ends_KV: np.ndarray  # bool [kinds, vocabulary]: whether a token ends a row of this kind
    done: np.ndarray  # bool
    finished: np.ndarray  # bool
    drawn: np.ndarray  # int32: words that a row says only where they stand in its context; [0]: none
    absent: np.ndarray  # bool [lines, drawn words]: those that do not


class _Rows(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("rows", "most", "kinds", "vocabulary", "words")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "path_from",
                "path",
                "tail",
                "first",
                "row",
                "token",
                "length",
                "logp",
                "drawn_logp",
                "uniform",
                "temperature",
                "top_p",
                "min_p",
                "top_k",
                "limit",
                "context",
                "kind",
                "ends",
                "done",
                "finished",
                "left",
                "drawn",
                "absent",
            )
        ),
    ]


def read_by_kernels(
    rows: Rows,
    live: np.ndarray,
    starts: np.ndarray,
    pairs: np.ndarray,
    tail: np.ndarray,
    first: np.ndarray,
    left: np.ndarray,
) -> _Rows:
    """What `ft_run` reads and writes of these rows (`live`: their lines): it stays as long as `rows` and the
    other arrays do. See `Rows` in decode.c."""
    arrays = (
        *(starts, pairs, tail, first, live),
        *(rows.tokens, rows.length, rows.logps, rows.drawn_logps, rows.noise),
        *rows.settings,
        *(rows.most, rows.context, rows.kind, rows.ends_KV, rows.done, rows.finished, left),
        *(rows.drawn, rows.absent),
    )
    sizes = len(live), rows.tokens.shape[1], *rows.ends_KV.shape, len(rows.drawn)
    return _Rows(*sizes, *map(address, arrays))
