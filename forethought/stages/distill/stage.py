"""A stage that distils: the training problems of a task family, their worked solutions summarised to plans,
and the family told."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from forethought.core.errors import UserError
from forethought.engines.base import Engine
from forethought.recipe.kinds.distill import DistillSpec
from forethought.recipe.schema import ModelSpec
from forethought.stages.distill import files, rules
from forethought.stages.distill.cache import Cached
from forethought.stages.distill.check import endpoint_of
from forethought.stages.distill.endpoint import Endpoint, Judge
from forethought.stages.distill.filter import REASONS, FilterSpec, judge
from forethought.stages.distill.pipeline import distill
from forethought.stages.distill.policy import Policy
from forethought.stages.distill.prompts import Prompt, with_examples
from forethought.stages.distill.records import (
    Drop,
    Failure,
    Guided,
    Item,
    Provenance,
    Summariser,
    Summary,
    task_of,
)
from forethought.stages.distill.solvers import Acting, Exact, Solver
from forethought.tasks.base import Worked
from forethought.workflows.rollout import Rollouts

EXAMPLES = 3  # worked ones that a model is shown where plans have a language of their own

Load = Callable[[ModelSpec], Engine]
"""An engine around another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a run lends to its distillation."""

    rollouts: Rollouts
    policies: Mapping[str, str]  # role -> policy
    model: str  # path of the run's own model; "" for one from scratch
    load: Load | None = None  # for summariser = "model"


def guide(
    spec: DistillSpec, tools: Tools, folder: Path, tell: Callable[[str], None] = lambda text: None
) -> Provenance:
    """The data set in `folder` is made if it is not there or has no plans, and given to the taskset. What was
    paid for is kept in `folder`'s cache, so an interrupted stage pays nothing twice. UserError where nothing
    is left to show."""
    taskset = tools.rollouts.taskset
    items = [item_of(worked) for worked in taskset.worked(spec.problems)]
    rows, provenance = files.read(folder) if (folder / files.PROVENANCE).is_file() else ([], None)
    if provenance is None or not rows:
        if not any(item.chain for item in items):
            raise UserError(
                f"no training problem of {taskset.name} has a worked solution to distil a plan from"
            )
        rows, provenance = _make(spec, tools, items, folder, tell)
        gc.collect()  # an engine is a cycle: the model that summarised is gone before training goes on
    if not rows:
        raise UserError(
            f"all {provenance.items} plans were dropped ({provenance.dropped()}); examples stand in "
            f"{folder / files.PROVENANCE}"
        )
    taskset.guide({row.id: (row.plan, row.chain) for row in rows})
    return provenance


def account(provenance: Provenance) -> tuple[str, dict[str, float]]:
    """What a run's decisions and summary say of a data set: a sentence, and the numbers in it."""
    paid, before = provenance.paid + provenance.tried, provenance.paid_before
    numbers = {
        "kept": float(provenance.kept),
        "items": float(provenance.items),
        **{f"dropped: {reason}": float(n) for reason, n in provenance.drops.items()},
    }
    if paid.requests or before.requests:
        whole = paid + before
        numbers |= {
            "requests": float(whole.requests),
            "prompt_tokens": float(whole.prompt_tokens),
            "completion_tokens": float(whole.completion_tokens),
            "cost": whole.cost,
        }
    sentence = (
        f"{provenance.kept} of {provenance.items} demonstrations have a plan now, by "
        f"{provenance.summariser} ({provenance.model})"
    )
    return sentence + (f"; dropped: {provenance.dropped()}" if provenance.drops else ""), numbers


def item_of(worked: Worked) -> Item:
    """A worked problem as an item to summarise."""
    return Item(**{f.name: getattr(worked, f.name) for f in fields(Worked)})


def _make(
    spec: DistillSpec, tools: Tools, items: list[Item], folder: Path, tell: Callable[[str], None]
) -> tuple[list[Guided], Provenance]:
    """In a function of its own, so that nothing holds the summariser's model when it is done."""
    limits = FilterSpec(most_chars=spec.most_chars, most_numbers=spec.most_numbers)
    solver, refuse = _solver(spec, tools), _interface(tools.rollouts)

    def judged(item: Item, result: Summary | Failure) -> str | Drop:
        """As the filter will, but for the tries of a policy, which are made at the end."""
        plan = judge(item, result, limits, refuse)
        if isinstance(plan, Drop) or not isinstance(solver, Exact) or solver([(item, plan)])[0]:
            return plan
        return Drop(id=item.id, reason="unsolved", detail=REASONS["unsolved"], text=plan)

    with Cached(_summariser(spec, tools, judged), folder / "cache.jsonl", tell) as summariser:
        rows, provenance = distill(items, summariser, limits, solver=solver, refuse=refuse, tell=tell)
    files.write(folder, rows, provenance, spec.format)
    return rows, provenance


def _summariser(spec: DistillSpec, tools: Tools, judged: Judge) -> Summariser:
    taskset = tools.rollouts.taskset
    drawn = taskset.drawn
    if spec.summariser == "rules":
        return rules.oracle(taskset) if drawn else rules.gsm8k()
    prompt = Prompt()
    if drawn:
        shown = [item_of(worked) for worked in taskset.worked(spec.problems + EXAMPLES)[-EXAMPLES:]]
        prompt = with_examples(prompt, [(item, rules.oracle(taskset).plan(item) or "") for item in shown])
    if spec.summariser == "endpoint":
        return Endpoint(endpoint_of("distill.endpoint", spec), prompt, judge=judged)
    if spec.summariser == "policy":
        return Policy(
            tools.rollouts.engine,
            tools.model or "small",
            policy=tools.policies[tools.rollouts.roles[0]],
            prompt=prompt,
            max_tokens=spec.plan_tokens,
        )
    if tools.load is None:
        raise ValueError('summariser = "model" needs Tools.load, which makes an engine around it')
    return Policy(
        tools.load(spec.model), spec.model.path, name="model", prompt=prompt, max_tokens=spec.plan_tokens
    )


def _solver(spec: DistillSpec, tools: Tools) -> Solver | None:
    if spec.solver == "none":
        return None
    if spec.solver == "exact":
        return Exact(tools.rollouts.taskset)
    return Acting(
        tools.rollouts,
        tools.policies[tools.rollouts.roles[-1]],
        tries=spec.tries,
        share=spec.solved,
        temperature=spec.try_temperature,
    )


def _interface(rollouts: Rollouts) -> Callable[[Item, str], str]:
    """(Item, plan) -> why imitation could not show it, or "": the family's interface refuses it, or it is
    longer than the context."""

    def refuse(item: Item, plan: str) -> str:
        try:
            turns = rollouts.taskset.with_plan(task_of(item), plan, item.chain)
        except UserError as error:
            return str(error)
        tokens = len(rollouts.words.root_ids(task_of(item))) + sum(
            len(rollouts.words.turn(turn.role, turn.text))
            for turn in turns
            if turn.role is None or turn.role in rollouts.roles  # one that acts alone is shown no plan
        )
        most = rollouts.engine.context
        return (
            f"{tokens} tokens with question, plan and chain, more than the model's context of {most}"
            if tokens > most
            else ""
        )

    return refuse
