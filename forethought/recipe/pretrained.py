"""What a recipe that was written for a model from scratch says instead where it is given one that has been
trained before (`forethought train desk --model PATH`).

A model from scratch learns everything from the stage: whole weights, high rates, Muon, hundreds of large
steps, many evaluations that cost nothing beside them, prompts of bare words. A language model brings what
it can do and has to keep it: LoRA, rates of 1e-4, a warm-up and a fall, steps of a thousand tokens,
prompts by its chat template. All of that stands here, in `instead`, and nowhere else.

Keys that the user has written, in a recipe of his own or with --set, stay as he has them. A recipe that names
its model itself is not touched: it was written for that one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from forethought.recipe.convert import from_dict, to_dict, to_text
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.layout import weights_of
from forethought.recipe.schema import Recipe, TrainingSpec

WHOLE = {"demonstrations": 1e-5, "trees": 1e-6}  # rates of whole weights, by what a stage learns from
LORA = {"demonstrations": 2e-4, "trees": 1e-4}  # of adapters, whose rates lie a factor of ten and more above
SCHEDULE = {"demonstrations": "cosine", "trees": "linear"}
LEAST = 0.1  # of the rate, at a stage's end
WARM = 0.05  # of the stage's steps
STEPS = {"demonstrations": 100, "trees": 50}  # at most: a model that can read needs fewer
BATCH = 8  # demonstrations drawn at a time, and tasks of which trees are grown
TOKENS = 1024  # of a step of imitation: `desk-llm` learns from fewer
PROBES = 25  # steps between probes, which cost a forward pass of the whole model


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One key: what the recipe says, and what it says for this model."""

    key: str
    before: Any
    now: Any


def fitted(recipe: Recipe, written: Collection[str]) -> tuple[Recipe, tuple[Changed, ...]]:
    """The recipe for a model that was trained before, and what is other in it. `written`: addresses that the
    user has set; a table that he has written holds all of its keys."""
    done: list[Changed] = []
    for key, now in instead(recipe):
        before = _at(to_dict(recipe), key)
        if before == now or any(key == own or key.startswith(f"{own}.") for own in written):
            continue
        done.append(Changed(key=key, before=before, now=now))
    changed = _with(recipe, done)
    rates = [
        Changed(key=key, before=_at(to_dict(changed), key), now=now)
        for key, now in _rates(changed)
        if key not in written and key.rpartition(".")[0] not in written and _at(to_dict(changed), key) != now
    ]
    return _with(changed, rates), (*done, *rates)


def instead(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Address and value of everything but the rates, which depend on the weights that then train."""
    if recipe.layout == "shared":
        yield "layout", "adapter"  # one LoRA adapter that all roles speak through
    if recipe.task.name in ("desk", "blocksworld"):
        yield "task.told", True
    if recipe.task.name == "blocksworld" and not recipe.task.options.get("stepwise"):
        yield "task.wording", "language"
    if recipe.task.options.get("system") == "":  # a model from scratch is told nothing
        yield "task.system", None
    yield "probes.every", PROBES if recipe.probes.every else 0
    for i, stage in enumerate(recipe.stage):
        if not isinstance(stage, TrainingSpec):
            continue
        at = f"stage.{i}"
        yield f"{at}.weights", "auto"
        steps = min(stage.steps, STEPS.get(stage.learns_from, stage.steps))
        if isinstance(stage, WebRL):
            steps = stage.phases * max(1, steps // stage.phases)
            yield from ((f"{at}.{who}.lr", LORA["trees"]) for who in ("critic", "outcome"))
        yield f"{at}.until.steps", steps
        if stage.batch > BATCH:
            yield f"{at}.share", next(n for n in (8, 4, 2, 1) if n <= stage.share)
            yield f"{at}.batch", BATCH
        if isinstance(stage, Imitate):
            yield f"{at}.batch_tokens", TOKENS
        yield f"{at}.optim.name", "adamw"
        yield f"{at}.optim.schedule", SCHEDULE.get(stage.learns_from, "linear")
        yield f"{at}.optim.decay", 0.0
        yield f"{at}.optim.least", LEAST
        yield f"{at}.optim.warmup", max(1, round(WARM * steps))


def _rates(recipe: Recipe) -> Iterator[tuple[str, float]]:
    for i, stage in enumerate(recipe.stage):
        if isinstance(stage, TrainingSpec):
            by = LORA if weights_of(recipe, stage) == "adapter" else WHOLE
            yield f"stage.{i}.optim.lr", by.get(stage.learns_from, by["trees"])


def _at(data: Any, key: str) -> Any:
    """What stands at an address of resolved tables; None for a key that does not stand there."""
    for part in key.split("."):
        data = data[int(part)] if isinstance(data, list) else data.get(part)
    return data


def _with(recipe: Recipe, changes: Collection[Changed]) -> Recipe:
    data = to_dict(recipe)
    for change in changes:
        *above, last = change.key.split(".")
        node: Any = data
        for part in above:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if change.now is None:
            node.pop(last, None)
        else:
            node[last] = change.now
    return replace(from_dict(data), under=recipe.under) if changes else recipe


def told(changes: Collection[Changed]) -> str:
    """One line that says what is other, and how to keep the recipe as it is written; "" for nothing."""
    if not changes:
        return ""
    said = [
        f"{change.key} = {'its default' if change.now is None else to_text(change.now)} "
        f"({'none' if change.before is None else to_text(change.before)})"
        for change in changes
    ]
    return (
        "the recipe was written for a model from scratch; for one that was trained before (in brackets what "
        f"the recipe says): {', '.join(said)}. What you --set stays; --as-written keeps the recipe"
    )
