"""A run, looked at: factored evaluation of its newest weights, and its plans and actions to read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forethought.errors import UserError
from forethought.evaluate import SIDES, held_out, play, score, success, summary
from forethought.recipe.load import load as load_recipe
from forethought.recipe.schema import Recipe, TreeSpec
from forethought.rollout import Rollouts, seed_of
from forethought.run import build
from forethought.store import Store
from forethought.types import Task, Tree


def open_run(source: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Rollouts, dict[str, str]]:
    """A run's newest weights, ready to sample: (its recipe, rollouts, role -> policy)."""
    store = Store.open(source)
    recipe = load_recipe(source / "recipe.json", list(overrides))
    latest = store.latest()
    if latest is None:
        raise UserError(f"{source} has no checkpoint yet; wait for its first or resume it")
    engine, rollouts = build(recipe)
    engine.load(latest[0] / "engine")
    return recipe, rollouts, latest[1]["progress"]["policies"]


def evaluate(source: Path, overrides: Sequence[str] = (), problems: Path | None = None, tasks: int | None = None,
             levels: Sequence[int] | None = None) -> dict:
    """{"plan": {"value", "low", "high", "n", "by_level"}, "act": ..., "e2e": ...} of a run on its held-out tasks.

    `problems`: a file of published problems that the domain can read instead (blocksworld: lines of {"id", "pddl"}); then also
    "executable" and "goal" of the model's own actions, and how many of the solved are of optimal length ("optimal").
    """
    recipe, rollouts, policies = open_run(source, overrides)
    domain = rollouts.domain
    if problems is not None:
        if not hasattr(domain, "problems"):
            raise UserError(f"--problems: {domain.name} reads no problem files")
        chosen = domain.problems(problems)
    else:
        spec = replace(recipe.eval, tasks=tasks or recipe.eval.tasks)
        wanted = tuple(levels or spec.levels or domain.levels)
        if wrong := [level for level in wanted if level not in domain.levels]:
            raise UserError(f"--levels: {domain.name} has no level {wrong[0]} in this run; its levels are {list(domain.levels)}")
        chosen = held_out(domain, spec, wanted)
    own, oracle = play(rollouts, chosen, policies, noise=recipe.eval.noise, seed=seed_of(recipe.eval.seed, "eval"))
    scores = score(own, oracle)
    if problems is not None:
        scores |= _by_level("executable", own, lambda t: float(_acts(domain, t).get("executable", False)))
        scores |= _by_level("goal", own, success)
        scores |= _by_level("optimal", own, lambda t: float(success(t) and _acts(domain, t).get("optimal", False)))
    names = [*SIDES, *(["executable", "goal", "optimal"] if problems is not None else [])]
    flat = summary(scores)
    return {name: _entry(flat, name, sorted({t.level for t in chosen})) for name in names}


def _entry(flat: dict[str, float], name: str, levels: Sequence[int]) -> dict:
    def one(key: str) -> dict:
        return {"value": flat[f"eval/{key}"], "low": flat[f"eval_low/{key}"], "high": flat[f"eval_high/{key}"],
                "n": int(flat[f"eval_n/{key}"])}

    return one(name) | {"by_level": {str(level): one(f"{name}@{level}") for level in levels}}


def _by_level(name: str, trees: Sequence[Tree], of) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for tree in trees:
        value = of(tree)
        for key in (f"eval/{name}", f"eval/{name}@{tree.task.level}"):
            scores.setdefault(key, []).append(value)
    return scores


def _acts(domain, tree: Tree) -> dict:
    text = next((n.text for n in tree.nodes if n.role == "act"), None)
    return domain.judge_acts(tree.task, text) if text is not None else {}


def sample(source: Path, n: int, level: int | None, temperature: float, seed: int) -> list[dict]:
    """`n` held-out tasks with the model's plan and acts, and what the verifiers say of them."""
    recipe, rollouts, policies = open_run(source)
    domain = rollouts.domain
    if level is not None and level not in domain.levels:
        raise UserError(f"--level: {domain.name} has no level {level} in this run; its levels are {list(domain.levels)}")
    rng = random.Random(seed_of(seed, "sample"))
    tasks: list[Task] = [domain.family(rng, [level if level is not None else rng.choice(domain.levels)], "eval")[0] for _ in range(n)]
    trees = rollouts.grow(tasks, TreeSpec(plans=1, acts=1, temperature=temperature), policies, seed_of(seed, "trees"),
                          noise=recipe.eval.noise)
    return [_shown(domain, tree) for tree in trees]


def _shown(domain, tree: Tree) -> dict:
    plan = next(n for n in tree.nodes if n.role == "plan")
    turns = [n for n in tree.nodes if n.id > plan.id]
    return {"task": tree.task.id, "level": tree.task.level, "context": tree.task.context, "prompt": tree.task.prompt,
            "oracle_plan": domain.oracle_plan(tree.task), "plan": plan.text, "plan_verdict": bool(plan.reward_parts["valid"]),
            "plan_status": plan.status, "plan_reason": plan.reason, "acts": [n.text for n in turns],
            "success": bool(success(tree)), "reason": turns[-1].reason if turns else "the plan was refused, nothing was executed"}
