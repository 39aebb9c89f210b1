"""The embedded engine: models of `transformers` on torch. Both are imported here, before any module of this room asks for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """What is made inside is made to stay: the garbage collector does not look at it, and counts it among the oldest afterwards.

    Importing both libraries makes hundreds of thousands of objects. The collector would walk through them again and again while they
    come, a fifth of the time that a process needs to its first step, and merely switched on again it would take all for young ones.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what somebody has frozen stays frozen
            gc.freeze()
            gc.unfreeze()
        if collects:
            gc.enable()


with collector_paused():
    import torch  # noqa: F401
    import transformers.modeling_utils  # noqa: F401
