"""The embedded engine: models of `transformers` on torch. Both are imported here, before any module of this
room asks for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """What is made inside is made to stay: the garbage collector does not look at it, then or later
    (`gc.freeze`).

    Importing both libraries makes hundreds of thousands of objects. The collector would walk through them
    again and again: while they come, for a fifth of the time that a process needs to its first step, and in
    every full pass afterwards, for a twentieth of a small model's step.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


with collector_paused():
    import torch  # noqa: F401
    import transformers.modeling_utils  # noqa: F401
