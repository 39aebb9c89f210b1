"""The embedded engine: models of `transformers` on torch. Both are imported here, before any module of this
room asks for them."""

from __future__ import annotations

import gc
import sys
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
    from transformers.utils import logging

# Bars of loading and of writing shards break into lines, tables and pictures. That switches off those of
# downloads too, which may take minutes: they stay for a person at a terminal.
logging.disable_progress_bar()
if sys.stderr.isatty():
    from huggingface_hub.utils import enable_progress_bars

    enable_progress_bars()
