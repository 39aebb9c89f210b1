"""Spaces of Gymnasium in words: how an observation is told, and how an action is written and read.

Spaces are known by the names of their classes and of those that they derive from, so that nothing is imported
here.

| space | an action is | an observation is |
|---|---|---|
| Discrete | one of `actions`, or a number | a number |
| MultiDiscrete, MultiBinary, Box (one dimension) | numbers with spaces between | numbers with commas |
| Text | the text itself | the text itself |
| Dict of these | a JSON object | a line `key: value` for each key; of `text` alone, the text |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from forethought.core.errors import UserError
from forethought.interface.jsons import Value, read_value
from forethought.interface.result import Parsed, Refusal, Refused, alternatives, quoted_text
from forethought.interface.schema import check, fields

MOST_NUMBERS = 64  # of an action
MOST_SEEN = 512  # numbers of an observation


def kind_of(space: Any) -> str:
    """The name of the first class of Gymnasium that the space is one of."""
    own = [kind.__name__ for kind in type(space).__mro__ if kind.__module__.startswith("gymnasium.spaces")]
    return own[0] if own else type(space).__name__


class Acts:
    """Reads the actions of a space. `names`: those of a Discrete space, in order; without, they are numbers.
    UserError for a space whose actions cannot be written, and for names that do not fit."""

    def __init__(self, space: Any, names: Sequence[str] = ()):
        self.space, self.kind, self.names = space, kind_of(space), tuple(names)
        if self.names and self.kind != "Discrete":
            raise UserError(f"names are for a Discrete space, and this is {space}")
        if self.names and len(self.names) != int(space.n):
            raise UserError(f"{len(self.names)} names for {int(space.n)} actions")
        if self.kind == "Discrete":
            start = int(space.start)
            listed = self.names or tuple(str(start + i) for i in range(int(space.n)))
            self.names = tuple(listed)
        self.schema = _schema(space)

    def told(self) -> str:
        """How an action is written, in words."""
        if self.kind == "Discrete":
            return f"one of: {', '.join(self.names)}"
        if self.kind == "Text":
            return f"a text of {self.space.min_length} to {self.space.max_length} characters"
        if self.kind == "Dict":
            return f"a JSON object {{{fields(self.schema)}}}"
        count = _count(self.space)
        return f"{count} number{'s' * (count > 1)} with spaces between them: {_told_bounds(self.space)}"

    def read(self, text: str) -> Parsed | Refusal:
        """The action that `env.step` takes. White space around it is nothing."""
        said = text.strip()
        try:
            if self.kind == "Discrete":
                if said not in self.names:
                    return Refusal(
                        position=1,
                        reason=f"found {quoted_text(said)}, expected {alternatives(list(self.names[:20]))}",
                    )
                return Parsed(int(self.space.start) + self.names.index(said))
            if self.kind == "Text":
                return Parsed(_text(self.space, said))
            value = read_value(said) if self.kind == "Dict" else _numbers(said)
            return Parsed(_native(self.space, check(self.schema, value)))
        except Refused as refused:
            return refused.refusal


def told(observation: Any, decimals: int) -> str:
    """An observation in words. UserError for one that holds too many numbers, or something else."""
    return _told(plain(observation), decimals)


def plain(observation: Any) -> Any:
    """Arrays as lists, numbers as Python's, tuples as lists: what a template can be filled with. UserError
    for what is none of these, and for more numbers than anybody reads."""
    if observation is None or isinstance(observation, str | bool | int | float):
        return observation
    if isinstance(observation, Mapping):
        return {str(key): plain(value) for key, value in observation.items()}
    if isinstance(observation, list | tuple):
        return [plain(value) for value in observation]
    if hasattr(observation, "tolist"):
        if (size := getattr(observation, "size", 1)) > MOST_SEEN:
            raise UserError(
                f"an observation of {size:,} numbers, more than {MOST_SEEN}: say what the model reads of it "
                'with observe = "file.py:function"'
            )
        return observation.tolist()
    raise UserError(
        f"an observation of type {type(observation).__name__}: say what the model reads of it with "
        'observe = "file.py:function"'
    )


def _told(value: Any, decimals: int) -> str:
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    if isinstance(value, dict):
        if value.keys() == {"text"}:
            return _told(value["text"], decimals)
        return "\n".join(f"{key}: {_told(one, decimals)}" for key, one in value.items())
    if isinstance(value, list):
        nested = any(isinstance(one, list | dict) for one in value)
        return ("\n" if nested else ", ").join(_told(one, decimals) for one in value)
    return str(value)


# ---- an action ---------------------------------------------------------------------------------------------


def _schema(space: Any) -> dict[str, Any]:
    """The JSON Schema of an action. UserError for a space that has none here."""
    kind = kind_of(space)
    if kind == "Discrete":
        return {"type": "integer", "minimum": int(space.start), "maximum": int(space.start + space.n) - 1}
    if kind == "Text":
        return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length}
    if kind in ("MultiDiscrete", "MultiBinary", "Box"):
        count = _count(space)
        item = {"type": "number" if _is_real(space) else "integer"}
        return {"type": "array", "items": item, "minItems": count, "maxItems": count}
    if kind == "Dict":
        inner = {str(key): _schema(one) for key, one in space.spaces.items()}
        return {"type": "object", "properties": inner, "required": list(inner)}
    raise UserError(f"an action of {space} cannot be written as text; wrap it in one of Discrete, Box, Text")


def _is_real(space: Any) -> bool:
    return kind_of(space) == "Box" and getattr(space.dtype, "kind", "f") == "f"


def _count(space: Any) -> int:
    shape = tuple(space.shape)
    count = math.prod(shape)
    if len(shape) > 1 or not 1 <= count <= MOST_NUMBERS:
        raise UserError(
            f"an action of shape {shape} cannot be written as text: one dimension of at most "
            f"{MOST_NUMBERS} numbers can"
        )
    return count


def _bounds(space: Any) -> list[tuple[float, float]]:
    kind, count = kind_of(space), _count(space)
    if kind == "MultiBinary":
        return [(0, 1)] * count
    if kind == "MultiDiscrete":
        starts = getattr(space, "start", None)
        low = [int(s) for s in starts.tolist()] if starts is not None else [0] * count
        return [(a, a + int(n) - 1) for a, n in zip(low, space.nvec.tolist(), strict=True)]
    lows, highs = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
    return list(zip(lows, highs, strict=True))


def _told_bounds(space: Any) -> str:
    shown = [f"{low:g} to {high:g}" for low, high in _bounds(space)]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def _numbers(text: str) -> Value:
    """Numbers with white space between them, as a list."""
    found, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found.append(read_value(word, at + 1))
        at += len(word)
    return Value(found, 1)


def _native(space: Any, value: Any) -> Any:
    """What the space itself takes. Raises Refused for what lies outside of it."""
    kind = kind_of(space)
    if kind == "Text":
        return _text(space, value)
    if kind == "Discrete":
        return int(value)
    if kind == "Dict":
        return {key: _native(one, value[str(key)]) for key, one in space.spaces.items()}
    for i, (number, (low, high)) in enumerate(zip(value, _bounds(space), strict=True), 1):
        if not low <= number <= high:
            _refuse(i, f"{number} is not within {low:g} to {high:g}")
    import numpy

    return numpy.asarray(value, dtype=space.dtype).reshape(space.shape)


def _text(space: Any, said: str) -> str:
    if not space.min_length <= len(said) <= space.max_length:
        _refuse(1, f"{len(said)} characters, expected {space.min_length} to {space.max_length}")
    at = next((i for i, character in enumerate(said) if character not in space.character_set), None)
    if at is not None:
        _refuse(at + 1, f"{said[at]!r} is none of the characters that may stand here", "character")
    return said


def _refuse(at: int, reason: str, unit: Literal["word", "character"] = "word") -> NoReturn:
    raise Refused(Refusal(position=at, reason=reason, unit=unit))
