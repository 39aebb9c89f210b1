"""Where in the user's code something happened: a file and a line outside the standard library and outside
this library."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

_OURS = str(Path(__file__).parents[1]) + os.sep
_PYTHONS = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")
DEEPEST = 200  # coroutines that wait for one another, and frames of a thread, that are looked at


def is_users(file: str) -> bool:
    """Whether code in this file is the user's, or of a package that the user has installed."""
    if file.startswith(_OURS) or file.startswith(("<frozen", "<string>")):
        return False
    return not file.startswith(_PYTHONS) or any(name in file for name in _INSTALLED)


def raised_at(trace: TracebackType | None, without: Collection[str] = ()) -> str:
    """file:line of the user's innermost frame; of a traceback that has none, of the innermost one whose file
    is not in `without`, or ""."""
    users = other = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            users = f"{file}:{trace.tb_lineno}"
        elif file not in without:
            other = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return users or other


def waits_at(task: asyncio.Task[Any]) -> str:
    """file:line of the user's innermost coroutine in which the task waits, or ""."""
    return _innermost((frame.f_code, frame.f_lineno) for frame in _awaiting(task.get_coro()))


def runs_at(thread: threading.Thread) -> str:
    """file:line of the user's innermost frame on the thread now, or ""."""
    frame = sys._current_frames().get(thread.ident or 0)
    frames: list[FrameType] = []
    while frame is not None and len(frames) < DEEPEST:
        frames.append(frame)
        frame = frame.f_back
    return _innermost((frame.f_code, frame.f_lineno) for frame in reversed(frames))


def source_of(function: Callable[..., Any]) -> tuple[str, str]:
    """(the class whose object the method is called on, or "", and file:line of the function); both "" where
    the code is not the user's, or cannot be found."""
    try:
        while isinstance(function, partial):
            function = function.func
        owner = getattr(function, "__self__", None)
        found = inspect.unwrap(function)
        code = getattr(found, "__code__", None) or getattr(type(found).__call__, "__code__", None)
        if not isinstance(code, CodeType) or not is_users(code.co_filename):
            return "", ""
        kind = owner if inspect.isclass(owner) else type(owner)
        name = "" if owner is None or inspect.ismodule(owner) else kind.__name__
        return name if name.isprintable() else ascii(name), f"{code.co_filename}:{code.co_firstlineno}"
    except Exception:  # of an object that answers for itself
        return "", ""


def _innermost(places: Iterable[tuple[CodeType, int | None]]) -> str:
    users = [f"{code.co_filename}:{line}" for code, line in places if is_users(code.co_filename)]
    return users[-1] if users else ""


def _awaiting(waiting: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it waits for, the outermost one first."""
    for _ in range(DEEPEST):
        for kind in ("cr", "gi", "ag"):
            if (frame := getattr(waiting, f"{kind}_frame", None)) is not None:
                yield frame
        waiting = next(
            (
                inner
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (inner := getattr(waiting, name, None)) is not None
            ),
            None,
        )
        if waiting is None:
            return
