"""What an environment and a verifier must answer: everything else is a `WrongType` that says what was found
and where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from inspect import isawaitable, iscoroutine
from numbers import Real
from typing import Any

from forethought.core.types import Outcome, Verdict
from forethought.envs.base import Environment, Observation

MOST = 1e100  # of a reward, or less than none: credit squares differences, which a float has to hold
MOST_TEXT = 1_000_000  # characters of an observation: more fit no model, and every tree would hold them
MOST_IMAGES = 16  # of one observation
MOST_BYTES = 16 * 2**20  # of one image
KINDS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpg",
}  # how a file of an image begins -> its extension


class WrongType(TypeError):
    """A value that the protocol does not have: the message says which one, and where."""


def amount(n: int, what: str) -> str:
    """1 number, 2 numbers."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def environment(value: Any) -> Environment:
    """With a `step`; a `reset` or `close` that is there can be called."""
    need(callable(getattr(value, "step", None)), value, "an environment with a step")
    for name in ("reset", "close"):
        if not callable(method := getattr(value, name, environment)):
            need(False, method, "a method", f"an environment whose {name} is")
    return value


def observation(value: Any) -> Observation:
    """What a reset shows; None is an empty one."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return Observation(text=_seen(value, "reset's text"))
    need(isinstance(value, Observation), value, "an Observation, text or None")
    _seen(value.text, "Observation.text")
    _images(value.images, "Observation.images")
    need(isinstance(value.info, Mapping), value.info, "a table", "Observation.info")
    return value


NOTHING = Observation()


def nothing(value: Any) -> None:
    """Of a close, whose answer nobody reads; but one to be awaited, nobody has run."""
    need(not isawaitable(value), value, "None")


def outcome(value: Any) -> Outcome:
    """The value as an `Outcome`, every field checked; `parts` become finite floats."""
    if not isinstance(value, Outcome):
        need(False, value, "an Outcome")
    if not type(value.done) is type(value.success) is type(value.timed_out) is type(value.replan) is bool:
        for name in ("done", "success", "timed_out", "replan"):
            flag = getattr(value, name)
            none = name == "success" and flag is None
            need(none or type(flag) is bool, flag, "True or False", f"Outcome.{name}")
    if value.score is not None:
        need(_is_finite(value.score), value.score, f"a finite number of at most {MOST:g}", "Outcome.score")
    if value.observation is not None:
        _seen(value.observation, "Outcome.observation")
    if type(value.reason) is not str or value.reason:
        text(value.reason, "Outcome.reason")
    if value.images != ():
        _images(value.images, "Outcome.images")
    return value if value.parts == {} else replace(value, parts=_parts(value.parts))


def verdict(value: Any) -> Verdict:
    """With a score from 0 to 1: what a reward is made of."""
    if not isinstance(value, Verdict):
        need(False, value, "a Verdict")
    score = value.score
    if not ((type(score) is float or isinstance(score, Real)) and 0.0 <= float(score) <= 1.0):  # nan: nowhere
        need(False, score, "a number from 0 to 1", "Verdict.score")
    if type(value.reason) is not str or value.reason:
        text(value.reason, "Verdict.reason")
    return value if type(score) is float else replace(value, score=float(score))


def text(value: Any, field: str = "") -> str:
    """The value as text that can be written as UTF-8."""
    if not isinstance(value, str):
        need(False, value, "text", field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            need(False, value, "text that can be written as UTF-8", field)
    return value


def kind_of(image: bytes) -> str:
    """The extension of an image's file, "" where it is none of `KINDS`."""
    return next((kind for begins, kind in KINDS.items() if image.startswith(begins)), "")


def _seen(value: Any, field: str) -> str:
    if not (type(value) is str and value.isascii()):
        text(value, field)
    if len(value) > MOST_TEXT:
        raise WrongType(f"gave {field} {len(value):,} characters, more than {MOST_TEXT:,}")
    return value


def _images(value: Any, field: str) -> None:
    need(isinstance(value, tuple), value, "a tuple of images", field)
    if len(value) > MOST_IMAGES:
        raise WrongType(f"gave {field} {len(value):,} images, more than {MOST_IMAGES}")
    for i, image in enumerate(value):
        where = f"{field}[{i}]"
        need(isinstance(image, bytes), image, "the bytes of an image", where)
        if len(image) > MOST_BYTES:
            raise WrongType(f"gave {where} {len(image):,} bytes, more than {MOST_BYTES:,}")
        if not kind_of(image):
            raise WrongType(f"gave {where} {image[:8]!r}..., which begins no PNG or JPEG file")


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and _fits(value)


def _fits(value: Any) -> bool:
    size: Any = abs(value) if isinstance(value, Real) else math.inf
    return bool(size <= MOST)


def too_large(value: Any) -> bool:
    """Whether it is a finite number that no reward can be."""
    return isinstance(value, int | float) and MOST < abs(value) < math.inf


def _parts(value: Any) -> Mapping[str, float]:
    need(isinstance(value, Mapping), value, "a table of numbers by name", "Outcome.parts")
    for name, part in value.items():
        text(name, "a name in Outcome.parts")
        if not _fits(part):
            need(False, part, f"a finite number of at most {MOST:g}", f"Outcome.parts[{name[:60]!r}]")
    return {name: float(part) for name, part in value.items()}


def need(fits: bool, value: Any, wanted: str, field: str = "") -> None:
    """Do nothing where `fits`; else raise WrongType that names what was found and what was wanted."""
    if fits:
        return
    if iscoroutine(value):
        value.close()  # it will not be awaited
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    found = (
        f"a {type(value).__name__}{f', {shown[:60]}' if shown and value is not None else ''}"
        if value is not None
        else "None"
    )
    raise WrongType(f"gave {field + ' ' if field else ''}{found}, not {wanted}")
