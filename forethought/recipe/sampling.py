"""How a model that is measured is sampled: greedy, or several times with published settings."""

from __future__ import annotations

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
    from forethought.recipe.schema import TreeSpec  # the command line's help needs the numbers alone

    usual = SAMPLED if samples > 1 else {"temperature": 0.0, "top_p": 1.0}
    heat = usual["temperature"] if temperature is None else temperature
    given = {"--top-p": top_p, "--top-k": top_k, "--min-p": min_p}
    if heat == 0 and (idle := [name for name, value in given.items() if value is not None]):
        raise UserError(
            f"{idle[0]} says nothing at temperature 0, which is greedy; give a --temperature too, or leave "
            "it out"
        )
    return TreeSpec(
        temperature=heat,
        top_p=usual["top_p"] if top_p is None else top_p,
        top_k=top_k or 0,
        min_p=min_p or 0.0,
    )
