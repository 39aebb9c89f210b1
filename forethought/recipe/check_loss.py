"""The loss that a stage names, and its options."""

from __future__ import annotations

from forethought.core.errors import RecipeError, unknown
from forethought.learn.losses import row
from forethought.recipe.ranges import above
from forethought.recipe.schema import TrainingSpec


def check_loss(where: str, stage: TrainingSpec) -> None:
    """RecipeError for a loss that does not exist, that the stage has not the numbers for, or an option out of
    its range."""
    here, name = f"{where}.loss", stage.loss_name
    needs = row(name, here, again=True).needs
    if "distributions" in needs:
        raise RecipeError(
            here,
            f'"{name}" compares a policy with a reference over the whole vocabulary and learns nothing by '
            "itself; isolation.keep_kl says where it runs",
        )
    credited = "advantage" in row(stage.default_loss).needs
    if needs and not credited:
        reads = f"{stage.kind} reads {stage.learns_from}" if stage.learns_from else f"{stage.kind} has none"
        raise RecipeError(
            here, f'"{name}" needs advantages, and {reads}; use kind = "reinforce", or "{stage.default_loss}"'
        )
    if credited and "advantage" not in needs:
        raise RecipeError(
            here, f'"{name}" reads no advantages, so nothing would be learned from rewards; use "grpo"'
        )
    _check_options(here, name, stage)


def _check_options(here: str, name: str, stage: TrainingSpec) -> None:
    own = row(name, here)
    known = own.options()
    for key, value in stage.loss.options.items():
        address = f"{here}.{key}"
        if key not in known:
            raise RecipeError(address, unknown(f"option of the loss {name}", key, known))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecipeError(address, f"expected a number, found {value!r}")
        low, most = own.bounds_of(key)
        above(address, value, low)
        if value > most:
            raise RecipeError(address, f"must be at most {most}, found {value}")
