"""How a model that is measured is sampled: greedy, or several times with published settings."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING

from forethought.core.errors import UserError

if TYPE_CHECKING:
    from forethought.recipe.schema import TreeSpec

# how PTA-GRPO (arXiv 2510.01833) validates, with 64 samples per problem
SAMPLED = {"temperature": 0.6, "top_p": 0.95}


def measured_with(
    samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
) -> TreeSpec:
    """Greedy, or several samples at the settings of SAMPLED where no others are given. UserError for what
    narrows a distribution without a temperature."""
    usual = SAMPLED if samples > 1 else {"temperature": 0.0, "top_p": 1.0}
    heat = usual["temperature"] if temperature is None else temperature
    refuse_idle(heat, {"--top-p": top_p, "--top-k": top_k or None, "--min-p": min_p or None})
    return drawn_with(heat, usual["top_p"] if top_p is None else top_p, top_k or 0, min_p or 0.0)


def refuse_idle(temperature: float, given: Mapping[str, float | None]) -> None:
    """UserError for what narrows a distribution without a temperature: `given` by option, None where it is
    not."""
    if temperature == 0 and (idle := [name for name, value in given.items() if value is not None]):
        raise UserError(
            f"{idle[0]} says nothing at temperature 0, which is greedy; give a --temperature too, or leave "
            "it out"
        )


def drawn_with(temperature: float, top_p: float, top_k: int, min_p: float) -> TreeSpec:
    """UserError for a value that none of them can have: the command line's arguments are checked as they are
    read, those of Python here."""
    from forethought.recipe.schema import TreeSpec  # the command line's help needs the numbers alone

    for name, value, kind, fits, wanted in (
        ("temperature", temperature, Real, lambda x: 0 <= x < inf, "a number from 0"),
        ("top_p", top_p, Real, lambda x: 0 < x <= 1, "a share above 0 and at most 1"),
        ("top_k", top_k, Integral, lambda x: x >= 0, "a whole number from 0"),
        ("min_p", min_p, Real, lambda x: 0 <= x <= 1, "a share from 0 to 1"),
    ):
        if isinstance(value, bool) or not isinstance(value, kind) or not fits(value):
            raise UserError(f"{name} must be {wanted}, found {value!r:.60}")
    return TreeSpec(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
