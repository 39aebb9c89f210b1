"""What the functions of the API are given, and where they work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from forethought.core.errors import Asked, Interrupted, UserError
from forethought.runs.interrupts import Interrupts, Wish

LOOK = 0.1  # seconds between two looks for a Ctrl-C
Overrides = Mapping[str, object] | Iterable[str]
"""{"stage.0.until.steps": 50}, or ["stage.0.until.steps=50"] as the command line's --set has them."""


class Located(Protocol):
    """A `Run` or a `Checkpoint`."""

    @property
    def path(self) -> Path:
        """Its folder."""


Source = str | PathLike[str] | Located
"""A run, its directory, a checkpoint in one, a model's folder, or a model's name on the hub."""


def path_of(source: Source) -> Path:
    """Where a source lies."""
    path = source if isinstance(source, str | PathLike) else getattr(source, "path", None)
    if not isinstance(path, str | PathLike):
        raise UserError(f"give a run, a folder or a model's name, not a {type(source).__name__}")
    return Path(path)


def written(overrides: Overrides) -> list[str]:
    """As the command line writes them: address=value."""
    if isinstance(overrides, str):
        raise UserError(f"overrides: give a list or a dict, such as [{overrides!r}]")
    if not isinstance(overrides, Mapping):
        return [str(text) for text in overrides]
    return [f"{address}={_value(address, value)}" for address, value in overrides.items()]


def _value(address: str, value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"overrides: {address} takes a number, a text, a truth value or a list of them"
        ) from None


def beside_a_loop(work: Callable[[], Any], wish: Wish | None = None) -> Any:
    """What `work()` gives. Where an event loop runs on this thread (a notebook) it works on a thread of its
    own: workflows run on loops, and a thread has one at a time. Ctrl-C ends a run after its step, as it does
    elsewhere; an evaluation goes on to its end."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with Interrupts() as pressed, ThreadPoolExecutor(1, thread_name_prefix="forethought") as pool:
        future = pool.submit(copy_context().run, work)
        while not future.done():
            wait([future], timeout=LOOK)
            if pressed.caught and wish is not None:
                wish.ask(f"signal {pressed.caught}")
        try:
            return future.result()
        except Asked as error:
            if not pressed.caught:
                raise
            raise Interrupted(str(error), pressed.caught) from None
