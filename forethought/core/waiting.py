"""How far long work below is. Who waits for it hears of it inside `hearing`; who does it tells. In one
process one waits at a time; nothing that is computed depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Hear = Callable[[int, int], None]
"""(tokens that are done, tokens that there are to do at most)"""
_HEARS: list[Hear] = []


@contextmanager
def hearing(hear: Hear) -> Iterator[None]:
    """Inside, `hear` is told."""
    _HEARS.append(hear)
    try:
        yield
    finally:
        _HEARS.pop()


def now_and_then(hear: Hear, seconds: float = 0.5) -> Hear:
    """`hear`, at most once in so many seconds."""
    last = 0.0

    def seldom(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            hear(done, of)

    return seldom


def heard() -> bool:
    """Whether somebody waits: where telling costs something, ask first."""
    return bool(_HEARS)


def tell(done: int, of: int) -> None:
    """So much of the work is done; whoever waits hears it."""
    if _HEARS:
        _HEARS[-1](done, of)
