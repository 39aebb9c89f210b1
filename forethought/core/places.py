"""Where in the user's code something happened: a file and a line outside the standard library and outside
this library."""

from __future__ import annotations

import inspect
import linecache
import os
import re
import sys
import sysconfig
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_OURS = str(Path(__file__).parents[1]) + os.sep
_PYTHONS = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_PLACE = "place"
_INSTALLED = ("site-packages", "dist-packages")
MOST_DECORATED = 100  # lines of decorators above a function
DEEPEST = 200  # coroutines that wait for one another, and frames of a thread, that are looked at


def is_users(file: str) -> bool:
    """Whether code in this file is the user's, or of a package that the user has installed."""
    if file.startswith(_OURS) or file.startswith(("<frozen", "<string>")):
        return False
    return not file.startswith(_PYTHONS) or any(name in file for name in _INSTALLED)


def placed(error: Exception, place: str) -> Exception:
    """The error, of which `place` (file:line) says more than where it was raised."""
    vars(error)[_PLACE] = place
    return error


def place_of(error: BaseException) -> str:
    """Where `placed` put it, or file:line of the user's innermost frame, or ""."""
    said = vars(error).get(_PLACE)
    return said if isinstance(said, str) and said else raised_at(error.__traceback__, None)


def said_of(name: str, error: BaseException) -> str:
    """What code of the user's called `name` raised, in a clause with the line."""
    said, place = " ".join(str(error).split()), raised_at(error.__traceback__, None)
    return (
        f"{name} raised {type(error).__name__}{f': {said}' if said else ''}{f' ({place})' if place else ''}"
    )


def raised_at(trace: TracebackType | None, without: Collection[str] | None) -> str:
    """file:line of the user's innermost frame; of a traceback that has none, of the innermost one whose file
    is not in `without`, or "" (None: in any case)."""
    users = other = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            users = f"{file}:{trace.tb_lineno}"
        elif without is not None and file not in without:
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


def described(value: object) -> str:
    """What somebody named, for an error message: "the function sync", "the class Sums", "the module os", or
    the value itself, shortened."""
    name = getattr(value, "__name__", None)
    for kind, word in (
        (inspect.isclass, "class"),
        (inspect.ismodule, "module"),
        (inspect.iscoroutinefunction, "async function"),
        (inspect.isroutine, "function"),
    ):
        if kind(value) and isinstance(name, str):
            return f"the {word} {name}"
    return f"{value!r:.60}"


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


def defined_at(function: Callable[..., Any]) -> str:
    """file:line of its `def`, below what decorates it; "" where it cannot be found."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return ""
    first = code.co_firstlineno
    for line in range(first, first + MOST_DECORATED):
        if re.match(rf"\s*(async\s+)?def\s+{code.co_name}\b", linecache.getline(code.co_filename, line)):
            return f"{code.co_filename}:{line}"
    return f"{code.co_filename}:{first}"


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
