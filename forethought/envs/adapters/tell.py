"""What the model reads of an observation that is no text yet.

Options: `template` (its fields: `observation`, and the keys of an observation that is a table), `observe` (a
function of the observation that gives the text: "file.py:function"), `decimals` of real numbers (2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.spaces import plain, told
from forethought.envs.values import WrongType, need


class Teller:
    """Tells observations. `hide`: keys of a table that are left out."""

    def __init__(self, options: Options, hide: Sequence[str] = ()):
        self._options, self._hide = options, frozenset(hide)
        self._template, self._observe = options.text("template"), options.function("observe")
        self._decimals = options.whole("decimals", 2)

    def tell(self, observation: Any) -> str:
        """The text of an observation. Raises WrongType where it cannot be told."""
        try:
            return self._told(observation)
        except UserError as error:
            raise WrongType(f"gave {error}") from None

    def check(self, sample: Any, where: str) -> None:
        """RecipeError where an observation such as this one cannot be told. The user's own function is asked
        when there is a real one."""
        if self._observe is None:
            try:
                self._told(sample)
            except UserError as error:
                where = self._options.address("template") if self._template else where
                raise RecipeError(where, str(error)) from None

    def _told(self, observation: Any) -> str:
        if self._observe is not None:
            said = self._observe(observation)
            need(isinstance(said, str), said, "text", "observe")
            return said
        found = plain(observation)
        table = {k: v for k, v in found.items() if k not in self._hide} if isinstance(found, Mapping) else {}
        if not self._template:
            shown = table if isinstance(found, Mapping) else found
            return told(shown, self._decimals)
        try:
            return self._template.format(**{"observation": found, **table})
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            known = ", ".join(["observation", *table])
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self._template!r} cannot be filled ({reason}); it has {known}") from None
