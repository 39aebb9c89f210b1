"""What a row of a data set asks: a template over its columns, or the messages of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from forethought.core.datafiles import Exact, field, half
from forethought.core.errors import RecipeError, UserError, unknown

SPEAKERS = ("system", "user", "assistant")
Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Template:
    """`"{question} Options: {choices.0}, {choices.1}"`: text, and columns in braces; `{{` is a brace. A
    column inside a column, or a place in a list, is written with a dot."""

    parts: tuple[tuple[str, str | None], ...]  # (text, the column after it)

    @classmethod
    def read(cls, text: str, where: str) -> Template:
        """RecipeError for a brace that stands alone, and for anything but a column's name between braces."""
        if not text:
            raise RecipeError(where, "is empty; write a column in braces, such as {question}")
        try:
            found = [
                (said, name, spec, conversion) for said, name, spec, conversion in Formatter().parse(text)
            ]
        except ValueError as error:
            raise RecipeError(
                where, f"{text!r:.80}: {error}; a brace that is text is written twice"
            ) from None
        for _, name, spec, conversion in found:
            if name is not None and (not name.strip() or spec or conversion or "[" in name):
                raise RecipeError(
                    where,
                    f"{text!r:.80}: between braces stands the name of a column, found {name!r}; a brace "
                    "that is text is written twice",
                )
        return cls(tuple((said, name) for said, name, *_ in found))

    @property
    def columns(self) -> list[str]:
        """The columns that it names, in order."""
        return list(dict.fromkeys(name for _, name in self.parts if name is not None))

    def fill(self, row: Mapping[str, Any], where: str) -> str:
        """The text of a row. UserError where a column is not there, is null, or holds no text."""
        said = [
            text + ("" if name is None else text_of(value_of(row, name, where), name, where))
            for text, name in self.parts
        ]
        return "".join(said)


def value_of(row: Mapping[str, Any], name: str, where: str) -> Any:
    """What a row has in a column. UserError names the columns that there are."""
    found, value = field(row, name)
    if not found:
        raise UserError(f"{where}: {unknown('column', name, row)}")
    return value


def text_of(value: Any, name: str, where: str) -> str:
    """A text or a number as text, as the file writes it. UserError for null, an image, and any other type."""
    if isinstance(value, str):
        if (broken := half(value)) is not None:
            raise UserError(f"{where}: column {name!r}: {broken}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: column {name!r} holds {_kind(value)}; {_advice(value)}")
    return value.said if isinstance(value, Exact) else str(value)


def messages_of(value: Any, name: str, where: str) -> Messages:
    """A conversation that ends with what the model answers. UserError for a list of another shape."""
    if not isinstance(value, list | tuple) or not value:
        raise UserError(
            f"{where}: column {name!r} holds {_kind(value)}; expected a list of messages, "
            '[{"role": "user", "content": "..."}]'
        )
    said = []
    for i, message in enumerate(value):
        here = f"{where}: message {i + 1} of column {name!r}"
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UserError(f'{here} is {_kind(message)}; expected {{"role": ..., "content": ...}}')
        if message["role"] not in SPEAKERS:
            raise UserError(f"{here}: {unknown('role', str(message['role']), SPEAKERS)}")
        said.append({"role": message["role"], "content": text_of(message["content"], "content", here)})
    if said[-1]["role"] == "assistant":
        raise UserError(
            f"{where}: column {name!r} ends with the assistant's message, and the model is to write it; "
            "leave it out, or keep it in a column of its own as the answer"
        )
    if any(message["role"] == "system" for message in said[1:]):
        raise UserError(f"{where}: a system message of column {name!r} does not stand first")
    return tuple(said)


def _kind(value: Any) -> str:
    if _is_image(value):
        return "an image"
    names = {
        type(None): "null",
        bool: f"the truth value {str(value).lower()}",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _is_image(value: Any) -> bool:
    """Bytes, an image object, or how `datasets` and chat formats write one."""
    if isinstance(value, bytes) or type(value).__module__.startswith("PIL."):
        return True
    if isinstance(value, list):
        return any(isinstance(one, Mapping) and "image" in str(one.get("type", "")) for one in value)
    return isinstance(value, Mapping) and ("bytes" in value or "image" in str(value.get("type", "")))


def _advice(value: Any) -> str:
    if _is_image(value):
        return "the models here read text alone: leave the row or the column out"
    if value is None:
        return "fill it, or leave the row out"
    if isinstance(value, Mapping | list):
        return "name what is inside with a dot, such as {column.0} or {column.name}"
    return "write it as text"
