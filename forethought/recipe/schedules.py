"""How a learning rate moves after its warm-up: a table of rows, each a factor from the number of finished
updates.

    constant  1
    linear    falls in a straight line over all that is left of the stage
    cosine    falls along half a cosine (arXiv 1608.03983, without restarts)
    wsd       stays at 1, and falls in a straight line over the last `optim.decay` of the stage: warm-up,
              stable, decay (arXiv 2404.06395; the fall there is exponential, a straight one is arXiv
              2405.18392's). With `decay` = 0 the same as `constant`

What falls ends at `optim.least`. One of your own is a function of (finished updates, updates of the stage).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from forethought.core.errors import RecipeError
from forethought.core.named import find

if TYPE_CHECKING:
    from forethought.recipe.schema import OptimSpec, TrainingSpec

Row = Callable[["OptimSpec", int, int], float]
"""(optimizer, finished updates, updates of the stage) -> factor on the rate, without warm-up."""


def constant(optim: OptimSpec, step: int, steps: int) -> float:
    """1 throughout."""
    return 1.0


def linear(optim: OptimSpec, step: int, steps: int) -> float:
    """From 1 after the warm-up to `least` at the stage's end."""
    return _fallen(optim, 1 - _share(optim, step, steps))


def cosine(optim: OptimSpec, step: int, steps: int) -> float:
    """Half a cosine from 1 after the warm-up to `least` at the stage's end."""
    return _fallen(optim, 0.5 * (1 + math.cos(math.pi * _share(optim, step, steps))))


def wsd(optim: OptimSpec, step: int, steps: int) -> float:
    """1, and over the last `decay` of the stage's steps a straight line to `least`."""
    return _fallen(optim, min(1.0, (steps - step) / (optim.decay * steps))) if optim.decay else 1.0


def _share(optim: OptimSpec, step: int, steps: int) -> float:
    """Of the updates after the warm-up, the share that is done."""
    return min(1.0, max(0, step - optim.warmup) / max(1, steps - optim.warmup))


def _fallen(optim: OptimSpec, left: float) -> float:
    return optim.least + (1 - optim.least) * left


SCHEDULES: dict[str, Row] = {"constant": constant, "linear": linear, "cosine": cosine, "wsd": wsd}


def factor(optim: OptimSpec, step: int, steps: int, where: str = "optim.schedule") -> float:
    """What the schedule makes of the rate, without warm-up. RecipeError at the address `where` for one that
    is not there, and for a factor that is no finite number from 0."""
    row: Any = find("schedules", optim.schedule, SCHEDULES, where, "schedule")
    if optim.schedule in SCHEDULES:
        return row(optim, step, steps)
    try:
        found = row(step, steps)
    except Exception as error:  # somebody else's code
        raise RecipeError(
            where, f"{optim.schedule} fails after {step} updates: {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise RecipeError(
            where,
            f"{optim.schedule} gives {found!r} after {step} of {steps} updates; a factor is a finite number "
            "from 0",
        )
    return float(found)


def check_schedule(where: str, stage: TrainingSpec) -> None:
    """RecipeError for a schedule that is not there, for a key that it does not read, and for one of the
    user's own that gives no factor at some step."""
    optim, here = stage.optim, f"{where}.schedule"
    row = find("schedules", optim.schedule, SCHEDULES, here, "schedule", again=True)
    if not callable(row):
        raise RecipeError(here, f"{optim.schedule} is no function, but {row!r:.60}")
    if optim.decay and optim.schedule != "wsd":
        raise RecipeError(
            f"{where}.decay",
            f'is the last share of the steps, in which the rate of the schedule "wsd" falls; '
            f'"{optim.schedule}" reads none: set decay = 0',
        )
    if optim.least and optim.schedule not in ("linear", "cosine", "wsd"):
        raise RecipeError(
            f"{where}.least",
            f'is where a rate that falls ends, and "{optim.schedule}" reads none: set least = 0',
        )
    if optim.schedule not in SCHEDULES:
        for step in range(min(stage.steps, 10_000)):
            factor(optim, step, stage.steps, here)
