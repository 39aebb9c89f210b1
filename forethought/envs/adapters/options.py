"""The options of an environment: each adapter asks for its own, and what nobody asked for is unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import load_named
from forethought.core.places import described


class Options:
    """A table whose values are checked when they are asked for. Each method gives the default where the key
    is absent, and raises RecipeError with the address for a value of another type."""

    def __init__(self, table: Mapping[str, Any], where: str = "task"):
        self.table, self.where = dict(table), where
        self._asked: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        return self._typed(name, default, str, "a text")

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        return self._typed(name, default, bool, "true or false")

    def whole(self, name: str, default: int, least: int = 0) -> int:
        """A whole number from `least`."""
        value = self._get(name, default)
        if type(value) is not int or value < least:
            self.refuse(name, f"expected a whole number from {least}, found {value!r}")
        return value

    def number(self, name: str, default: float | None) -> float | None:
        """A number."""
        value = self._get(name, default)
        if value is not default and (isinstance(value, bool) or not isinstance(value, int | float)):
            self.refuse(name, f"expected a number, found {value!r}")
        return value

    def chosen(self, name: str, default: str, known: tuple[str, ...]) -> str:
        """One of `known`."""
        value = self._get(name, default)
        if value not in known:
            self.refuse(name, unknown("value", value, known))
        return str(value)

    def names(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of different texts, none of them empty."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
            self.refuse(name, f"expected a list of texts, found {value!r:.80}")
        if len(set(value)) < len(value):
            self.refuse(name, f"a text stands twice: {value!r:.80}")
        return tuple(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """A table, {} where it is absent."""
        value = self._get(name, {})
        if not isinstance(value, Mapping):
            self.refuse(name, f"expected a table, found {value!r:.80}")
        return dict(value)

    def call(self, name: str) -> tuple[str, dict[str, Any]]:
        """A tool and the arguments that it is always called with: its name, or { tool = ..., arguments = ...
        }; ("", {}) where the key is absent."""
        value = self._get(name, "")
        if not isinstance(value, Mapping):
            return self.text(name), {}
        inner = Options(value, self.address(name))
        tool, arguments = inner.text("tool"), inner.mapping("arguments")
        if not tool:
            inner.refuse("tool", "names no tool")
        inner.need_known()
        return tool, arguments

    def function(self, name: str) -> Callable[..., Any] | None:
        """What `file.py:name` or `package.module:name` names; None where the key is absent."""
        text = self.text(name)
        if not text:
            return None
        found = load_named(text, Path.cwd(), self.address(name))
        if not callable(found):
            self.refuse(name, f"{text} is no function, but {described(found)}")
        return found

    def address(self, name: str) -> str:
        """Of a key in the recipe."""
        return f"{self.where}.{name}"

    def refuse(self, name: str, message: str) -> None:
        """Raises RecipeError at the key's address."""
        raise RecipeError(self.address(name), message)

    def need_known(self) -> None:
        """RecipeError for the first key that nobody has asked for."""
        for name in self.table:
            if name not in self._asked:
                self.refuse(name, unknown("option of this environment", name, self._asked))

    def _get(self, name: str, default: Any) -> Any:
        self._asked.add(name)
        return self.table.get(name, default)

    def _typed(self, name: str, default: Any, kind: type, expected: str) -> Any:
        value = self._get(name, default)
        if not isinstance(value, kind):
            self.refuse(name, f"expected {expected}, found {value!r:.80}")
        return value
