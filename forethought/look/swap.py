"""`forethought swap`: every source's planner with every source's actor (decomposer and solver apart, arXiv
2402.15000).

    planner \\ actor     one     other
    one                  e2e     e2e        on the tasks of one; the same again on those of the other
    other                e2e     e2e
    oracle               act     act

One model is in memory at a time: all write their plans first, then all act under all plans. A plan travels as
text and is encoded again by the tokenizer of who acts, so the models may have different tokenizers; only a
model's own plan keeps its token ids.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from forethought.core.errors import UserError
from forethought.core.metrics import avg_at_k, paired_difference, wilson
from forethought.core.seeds import seed_of
from forethought.core.types import Node, Task
from forethought.look.chosen import oracle_plans, to_measure
from forethought.look.records import Tell, response
from forethought.look.source import Source
from forethought.recipe.schema import TreeSpec
from forethought.runs.run import EngineOf, rollouts_of, torch_engine
from forethought.tasks import families
from forethought.tasks.base import Taskset
from forethought.workflows.rollout import Rollouts

ORACLE = "oracle"
PLAN = TreeSpec(counts={"plan": 1, "act": 0}, temperature=0.0)
ACT = TreeSpec(counts={"plan": 1, "act": 1}, temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan on its way from who wrote it to who acts under it."""

    text: str  # as it was decoded; in free text with the white space around it
    token_ids: tuple[int, ...]  # of the tokenizer of who wrote it; () for the oracle's
    valid: float
    accepted: bool  # what the interface refuses is not executed
    failed: bool = False  # the family broke over it: nothing is known of it


@dataclass(slots=True, kw_only=True)
class Ground:
    """Tasks on which all are measured, and what was measured on them. `home`: the first source whose own
    tasks they are."""

    home: str
    domain: Taskset
    tasks: list[Task]
    seed: int
    noise: bool
    plans: dict[str, list[Plan]] = field(default_factory=dict)  # planner -> one per task
    # (planner, actor) -> success at each task
    scores: dict[tuple[str, str], list[float | None]] = field(default_factory=dict)


def swap(
    sources: Sequence[Source],
    *,
    tasks: int | None = None,
    engine_of: EngineOf = torch_engine,
    tell: Tell = lambda done, n: None,
) -> list[dict]:
    """One table for each different task of the sources: {"home", "task", "n", "levels", "exact", "plan":
    {planner: cell}, "e2e": {planner: {actor: cell}}, "tokens": {planner: mean tokens of a plan}}. The planner
    "oracle" is there where the tasks have its plans.

    A cell is {"value", "low", "high"} (Wilson, 95 %), and, but for the one where both roles are the home's
    own, {"change", "change_low", "change_high"}: to that one, task by task. "plan" has the verdicts of the
    exact executor ("exact": whether there is one; else they are on the form alone), each compared with those
    on the home planner. Everything is greedy.

    UserError for fewer than two sources or one twice, and for tasks that a source's tokenizer cannot write or
    its context cannot hold.
    """
    if len(sources) < 2:
        raise UserError("swap needs at least two runs or models, whose planners and actors change places")
    named = dict(zip(labels(sources), sources, strict=True))
    grounds = _grounds(named, tasks)
    with ExitStack() as held:
        for ground in grounds:
            held.callback(ground.domain.close)
        return _visited(named, grounds, engine_of, tell)


def _visited(named: dict[str, Source], grounds: list[Ground], engine_of: EngineOf, tell: Tell) -> list[dict]:
    visits = [(visit, name) for visit in (_plan, _act) for name in named]
    for done, (visit, name) in enumerate(visits, 1):
        visit(name, named[name], grounds, engine_of)
        gc.collect()  # a model is full of cycles: it goes before the next one is loaded
        tell(done, len(visits))
    return [_table(ground, list(named)) for ground in grounds]


def labels(sources: Sequence[Source]) -> list[str]:
    """A short name each: the last part of the path, or as much of it as tells them apart. The same path twice
    is a UserError."""
    paths = [
        source.path.absolute().parts if source.path.exists() else source.path.parts for source in sources
    ]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise UserError(f"{sources[i].path} is there twice; swap needs different runs or models")
    names: list[str] = []
    for n in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-n:]) for path in paths]
        if len({*names, ORACLE}) > len(names):
            break
    return names


def _grounds(named: dict[str, Source], tasks: int | None) -> list[Ground]:
    grounds, seen = [], []
    for name, source in named.items():
        recipe = source.recipe
        if source.guest or recipe.task in seen:
            continue
        seen.append(recipe.task)
        domain = families.build(recipe.task, to_measure=True, limits=recipe.limits)
        grounds.append(
            Ground(
                home=name,
                domain=domain,
                tasks=to_measure(domain, recipe.eval, tasks=tasks),
                seed=seed_of(recipe.eval.seed, "eval"),
                noise=recipe.eval.noise,
            )
        )
    return grounds


def _on(source: Source, grounds: Sequence[Ground], engine_of: EngineOf) -> Iterator[tuple[Rollouts, Ground]]:
    engine = source.open(grounds[0].domain, engine_of)
    for ground in grounds:
        rollouts = rollouts_of(engine, ground.domain, source.recipe)
        rollouts.check_room(ground.tasks)
        yield rollouts, ground


def _plan(name: str, source: Source, grounds: Sequence[Ground], engine_of: EngineOf) -> None:
    """The source's plans for all tasks; the oracle's with those of the first one."""
    for rollouts, ground in _on(source, grounds, engine_of):
        if ORACLE not in ground.plans and oracle_plans(rollouts, ground.tasks):
            ground.plans[ORACLE] = [_oracles(rollouts, task) for task in ground.tasks]
        size = source.recipe.engine.rows
        plans = ground.plans[name] = []
        for start in range(0, len(ground.tasks), size):
            trees = rollouts.grow(
                ground.tasks[start : start + size],
                PLAN,
                source.policies,
                ground.seed,
                noise=ground.noise,
                first=start,
            )
            plans += [_travelling(rollouts, tree.children(0)[0]) for tree in trees]


def _oracles(rollouts: Rollouts, task: Task) -> Plan:
    text = rollouts.oracle_plan(task)
    return Plan(text=text, token_ids=(), valid=1.0, accepted=bool(text), failed=not text)


def _travelling(rollouts: Rollouts, node: Node) -> Plan:
    text = node.text if rollouts.words.spaced else rollouts.engine.decode(node.token_ids)
    return Plan(
        text=text,
        token_ids=node.token_ids,
        valid=node.reward_parts.get("valid", 0.0),
        accepted=node.status == "finished",
        failed=node.status == "failed",
    )


def _act(name: str, source: Source, grounds: Sequence[Ground], engine_of: EngineOf) -> None:
    """The source's executions of everybody's accepted plans; those of one task together, so that its prompt
    is computed once."""
    for rollouts, ground in _on(source, grounds, engine_of):
        for planner in ground.plans:
            ground.scores[planner, name] = [None if plan.failed else 0.0 for plan in ground.plans[planner]]
        size = max(1, source.recipe.engine.rows // len(ground.plans))
        for start in range(0, len(ground.tasks), size):
            _execute(rollouts, ground, name, source.policies[rollouts.roles[-1]], start, size)


def _execute(rollouts: Rollouts, ground: Ground, actor: str, policy: str, start: int, size: int) -> None:
    """`ground.scores` of the actor at tasks start to start + size."""
    tasks = ground.tasks[start : start + size]
    accepted = [
        [planner for planner, plans in ground.plans.items() if plans[i].accepted]
        for i in range(start, start + len(tasks))
    ]
    given = []
    for i, planners in enumerate(accepted, start):
        plans = [(planner == actor, ground.plans[planner][i]) for planner in planners]
        given.append(
            [
                (plan.text, plan.token_ids if own else rollouts.words.turn(rollouts.roles[0], plan.text))
                for own, plan in plans
            ]
        )
    trees = rollouts.execute(tasks, given, ACT, policy, ground.seed, noise=ground.noise, first=start)
    for i, (planners, tree) in enumerate(zip(accepted, trees, strict=True), start):
        for planner, plan in zip(planners, tree.children(0), strict=True):
            said = response(ground.domain, tree, plan, rollouts.roles[-1])
            ground.scores[planner, actor][i] = None if said.failed else said.success


def _table(ground: Ground, names: Sequence[str]) -> dict:
    planners = [*names, *([ORACLE] if ORACLE in ground.plans else [])]
    valid = {
        planner: [None if plan.failed else plan.valid for plan in ground.plans[planner]]
        for planner in planners
    }
    own = (ground.home, ground.home)
    e2e = {
        planner: {
            actor: _cell(ground.scores[planner, actor], ground.scores[own], (planner, actor) == own)
            for actor in names
        }
        for planner in planners
    }
    return {
        "home": ground.home,
        "task": ground.domain.name,
        "n": len(ground.tasks),
        "levels": sorted({task.level for task in ground.tasks}),
        "exact": ground.domain.executes_plans,
        "plan": {
            planner: _cell(valid[planner], valid[ground.home], planner == ground.home) for planner in planners
        },
        "e2e": e2e,
        "tokens": {
            planner: avg_at_k([len(plan.token_ids) for plan in ground.plans[planner]]) for planner in names
        },
    }


def _cell(scores: Sequence[float | None], home: Sequence[float | None], is_home: bool) -> dict:
    there = [score for score in scores if score is not None]
    if not there:
        raise UserError(
            f"all {len(scores)} tasks failed for a planner and an actor; see `forethought eval` "
            f"for what broke"
        )
    low, high = wilson(sum(there), len(there))
    cell = {"value": sum(there) / len(there), "low": low, "high": high}
    if len(there) < len(scores):
        cell["failed"] = len(scores) - len(there)
    if is_home:
        return cell
    change, change_low, change_high = paired_difference(list(home), list(scores))
    return cell | {"change": change, "change_low": change_low, "change_high": change_high}
