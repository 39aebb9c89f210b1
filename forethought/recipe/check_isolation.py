"""What isolation, adaptive isolation, probes and a gate's follow-up need from the rest of a recipe, and
why."""

from __future__ import annotations

import re

from forethought.core.errors import RecipeError
from forethought.recipe.layout import shares, starts_shared, weights_of
from forethought.recipe.ranges import above, at_least, listed, within
from forethought.recipe.roles import frozen_in, trains_all
from forethought.recipe.schema import AdaptiveSpec, GateSpec, IsolationSpec, Recipe, TrainingSpec


def check_isolation(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    """Raise RecipeError for the first thing in `isolation` or `adaptive` of the stage at `where` that cannot
    work."""
    _check_ranges(f"{where}.isolation", stage.isolation)
    used = methods(stage.isolation)
    others = frozen_in(recipe, stage)
    if used and not _shares(recipe, stage, used[0]):
        raise RecipeError(
            f"{where}.isolation.{used[0]}",
            f"{listed(stage.roles)} trains weights of its own here, so nothing else can move; isolation is "
            'for weights that roles share (layout = "shared" or "adapter", or one policy)',
        )
    for name in used:
        if name == "surgery" and others and not stage.isolation.replay:
            raise RecipeError(
                f"{where}.isolation.surgery",
                f"{listed(others)} has no objective in this stage to be reconciled with; give it one with "
                "isolation.replay, or train all roles",
            )
        if name != "surgery" and not others:
            raise RecipeError(
                f"{where}.isolation.{name}",
                "all roles train in this stage, so there is no other role to keep in place",
            )
    _check_adaptive(f"{where}.adaptive", stage, recipe)


def _shares(recipe: Recipe, stage: TrainingSpec, method: str) -> bool:
    """Whether what trains is spoken through by other roles too. Core isolation compares whole models."""
    whole = weights_of(recipe, stage) == "base"
    return shares(recipe, stage) and (whole or method not in ("core", "transplant", "slerp"))


def methods(isolation: IsolationSpec) -> list[str]:
    """Names of the methods that are on."""
    core = isolation.core != "none"
    on = {
        "replay": isolation.replay > 0,
        "keep_kl": isolation.keep_kl > 0,
        "surgery": isolation.surgery != "none",
        "core": core,
        "transplant": isolation.transplant,
        "slerp": isolation.slerp > 0,
    }
    return [name for name, used in on.items() if used]


def _check_ranges(where: str, isolation: IsolationSpec) -> None:
    above(f"{where}.demos", isolation.demos, 0)
    at_least(f"{where}.replay", isolation.replay, 0)
    at_least(f"{where}.keep_kl", isolation.keep_kl, 0)
    above(f"{where}.core_share", isolation.core_share, 0)
    within(f"{where}.core_share", isolation.core_share, 0, 1)
    at_least(f"{where}.core_steps", isolation.core_steps, 1)
    above(f"{where}.core_lr", isolation.core_lr, 0)
    above(f"{where}.group_above", isolation.group_above, 0)
    within(f"{where}.slerp", isolation.slerp, 0, 1)
    for name in ("transplant", "slerp"):
        if getattr(isolation, name) and isolation.core != "core":
            raise RecipeError(
                f"{where}.{name}", 'needs a core region and the model that showed it: core = "core"'
            )


def _check_adaptive(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    adaptive: AdaptiveSpec = stage.adaptive
    at_least(f"{where}.max_drop", adaptive.max_drop, 0)
    within(f"{where}.min_cosine", adaptive.min_cosine, -1, 1)
    at_least(f"{where}.window", adaptive.window, 1)
    if not 0 <= adaptive.confidence < 1:
        raise RecipeError(
            f"{where}.confidence", f"must be at least 0 and less than 1, found {adaptive.confidence}"
        )
    at_least(f"{where}.lr", adaptive.lr, 0)
    above(f"{where}.weight", adaptive.weight, 0)
    at_least(f"{where}.rejoin", adaptive.rejoin, 0)
    default, read = (
        AdaptiveSpec(),
        {"adapter": ("lr",), "replay": ("weight",), "keep_kl": ("weight",)}.get(adaptive.to, ()),
    )
    for key in (
        "lr",
        "weight",
        *(["max_drop", "min_cosine", "window", "confidence", "rejoin"] if adaptive.to == "off" else []),
    ):
        if (
            key not in read
            and getattr(adaptive, key) != getattr(default, key)
            and not _read_by_a_gate(key, stage)
        ):
            raise RecipeError(f"{where}.{key}", f'is not read with to = "{adaptive.to}"; take it out')
    if adaptive.to == "off":
        return
    if not starts_shared(recipe, stage):
        raise RecipeError(
            f"{where}.to",
            'a stage that becomes isolated starts shared: layout = "shared" (or "adapter"), '
            f'found "{recipe.layout}"',
        )
    _check_own(f"{where}.to", adaptive.to, recipe)
    if not recipe.probes.every:
        raise RecipeError("probes.every", f"0 leaves nothing for {where} to read")
    if adaptive.min_cosine > -1 and not recipe.probes.conflict_every:
        raise RecipeError("probes.conflict_every", f"0 leaves no cosine for {where}.min_cosine to read")
    if adaptive.to in ("replay", "keep_kl") and trains_all(recipe, stage):
        raise RecipeError(
            f"{where}.to",
            f"all roles train in this stage, so there is no other role for "
            f'"{adaptive.to}"; use "adapter" or "model"',
        )
    if getattr(stage.isolation, adaptive.to, 0):
        raise RecipeError(
            f"{where}.to", f"isolation.{adaptive.to} is on from the start, so there is nothing to switch on"
        )
    if adaptive.to in ("adapter", "model") and methods(stage.isolation):
        raise RecipeError(
            f"{where}.to",
            f"isolation.{methods(stage.isolation)[0]} belongs to shared "
            f"weights, which end at the switch; use one of the two",
        )


def _check_own(where: str, to: str, recipe: Recipe) -> None:
    if to == "model" and recipe.layout == "adapter":
        raise RecipeError(where, 'layout "adapter" has adapters, no models; use "adapter"')


def _read_by_a_gate(key: str, stage: TrainingSpec) -> bool:
    """A stage that a gate sends back isolated takes its adapter's rate, or its replay's weight, from
    `adaptive`."""
    wanted = {"lr": ("adapter",), "weight": ("replay", "keep_kl")}.get(key, ())
    return any(gate.then == "isolate" and gate.isolate in wanted for gate in stage.gates)


def check_after(where: str, gate: GateSpec, stage: TrainingSpec, recipe: Recipe) -> None:
    """What follows a roll back."""
    default = GateSpec()
    above(f"{where}.rate", gate.rate, 0)
    at_least(f"{where}.retries", gate.retries, 1)
    read = {"isolate": ("then", "isolate"), "lower_rate": ("then", "rate", "retries")}.get(
        gate.then, ("then",)
    )
    for key in ("then", "isolate", "rate", "retries"):
        if getattr(gate, key) == getattr(default, key):
            continue
        if gate.on_fail != "roll_back":
            raise RecipeError(
                f"{where}.{key}",
                f'is read after a roll back, and on_fail is "{gate.on_fail}"; set on_fail = "roll_back"',
            )
        if key not in read:
            why = (
                "the same seeds and settings would give the same run once more"
                if key == "retries"
                else "is not read"
            )
            raise RecipeError(f"{where}.{key}", f'{why} with then = "{gate.then}"; take it out')
    if gate.then == "lower_rate" and gate.rate >= 1:
        raise RecipeError(f"{where}.rate", f"a factor below 1 lowers the rate, found {gate.rate}")
    if gate.then == "isolate":
        if not starts_shared(recipe, stage):
            raise RecipeError(
                f"{where}.then",
                f'{listed(stage.roles)} trains weights of its own already (layout "{recipe.layout}"); '
                '"isolate" is for layout = "shared" or "adapter"',
            )
        _check_own(f"{where}.isolate", gate.isolate, recipe)
        if getattr(stage.isolation, gate.isolate, 0):
            raise RecipeError(
                f"{where}.isolate",
                f"isolation.{gate.isolate} is on from the start, so there is nothing to switch on",
            )
        if gate.isolate in ("replay", "keep_kl") and trains_all(recipe, stage):
            raise RecipeError(
                f"{where}.isolate", f'all roles train, so there is no other role for "{gate.isolate}"'
            )


def check_probes(recipe: Recipe) -> None:
    """RecipeError for numbers out of range, and for format patterns that do not compile."""
    probes = recipe.probes
    at_least("probes.tasks", probes.tasks, 1)
    at_least("probes.every", probes.every, 0)
    at_least("probes.conflict_every", probes.conflict_every, 0)
    at_least("probes.phase_window", probes.phase_window, 3)
    above("probes.collapse", probes.collapse, 0)
    within("probes.collapse", probes.collapse, 0, 1)
    for name, pattern in probes.formats.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise RecipeError(f"probes.formats.{name}", "names a metric: use letters, digits, '_' and '-'")
        try:
            re.compile(pattern)
        # the last two: a count or a nesting without end
        except (re.error, OverflowError, RecursionError) as e:
            raise RecipeError(
                f"probes.formats.{name}", f"{pattern[:80]!r} is not a regular expression: {e}"
            ) from e
