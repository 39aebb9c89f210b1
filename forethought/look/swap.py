"""`forethought swap`: every source's planner with every source's actor (decomposer and solver apart, arXiv
2402.15000).

    planner \\ actor     one     other
    one                  e2e     e2e        on the tasks of one; the same again on those of the other
    other                e2e     e2e
    oracle               act     act

The planner speaks every role before the last, the actor the last one: with blink, think and link a row of the
table blinks and thinks, and a column links. One model is in memory at a time: all plan first, then all act
under all plans. What was planned travels as text and is encoded again by the tokenizer of who acts, so the
models may have different tokenizers; only a model's own plan keeps its token ids.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from forethought.core.errors import UserError
from forethought.core.metrics import avg_at_k, wilson
from forethought.core.paired import paired_difference
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Tree, Undrawn
from forethought.look.chosen import oracle_plans, to_measure
from forethought.look.records import Tell, response
from forethought.look.source import Source
from forethought.recipe.ranges import listed
from forethought.recipe.roles import once
from forethought.recipe.schema import TreeSpec
from forethought.recipe.speaking import roles_of
from forethought.runs.run import EngineOf, rollouts_of, torch_engine
from forethought.tasks import families
from forethought.tasks.base import Taskset
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import workflow_of

ORACLE = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The turns before the last role's, on their way from who wrote them to who acts under them."""

    texts: tuple[str, ...]  # as they were decoded; in free text with the white space around them
    token_ids: tuple[tuple[int, ...], ...]  # of the tokenizer of who wrote them; () for the oracle's
    valid: float  # of the last of them
    accepted: bool  # what the interface refuses is not executed
    failed: bool = False  # the family broke over it: nothing is known of it


@dataclass(slots=True, kw_only=True)
class Ground:
    """Tasks on which all are measured, and what was measured on them. `home`: the first source whose own
    tasks they are."""

    home: str
    taskset: Taskset
    roles: tuple[str, ...]
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
    """One table for each different task of the sources: {"home", "task", "n", "levels", "exact", "planner":
    roles before the last, "actor": the last, "valid": {planner: cell}, "e2e": {planner: {actor: cell}},
    "tokens": {planner: mean tokens of its turns}}. The planner "oracle" is there where the tasks have its
    plans.

    A cell is {"value", "low", "high"} (Wilson, 95 %), and, but for the one where both roles are the home's
    own, {"change", "change_low", "change_high"}: to that one, task by task. "valid" has the verdicts of the
    exact executor ("exact": whether there is one; else they are on the form alone), each compared with those
    on the home planner. Everything is greedy.

    UserError for fewer than two sources or one twice, for roles that cannot change places, and for tasks that
    a source's tokenizer cannot write or its context cannot hold.
    """
    if len(sources) < 2:
        raise UserError("swap needs at least two runs or models, whose planners and actors change places")
    named = dict(zip(labels(sources), sources, strict=True))
    _check_roles(named)
    grounds = _grounds(named, tasks)
    with ExitStack() as held:
        for ground in grounds:
            held.callback(ground.taskset.close)
        return _visited(named, grounds, engine_of, tell)


def _check_roles(named: dict[str, Source]) -> None:
    """UserError where there is nothing to exchange, or not the same in all."""
    spoken = {name: roles_of(source.recipe) for name, source in named.items() if not source.guest}
    (first, roles), *others = spoken.items()
    if other := next((name for name, found in others if found != roles), None):
        raise UserError(
            f"{first} speaks {listed(roles)} and {other} {listed(spoken[other])}; swap exchanges the same "
            "roles"
        )
    if len(roles) == 1:
        raise UserError(
            f"{first} speaks {roles[0]} alone; swap exchanges the roles before the last with the last"
        )
    workflow = workflow_of(named[first].recipe.workflow.name)
    if again := [role for role in roles[:-1] if role in workflow.each_turn]:
        raise UserError(
            f"{again[0]} speaks again before every answer of the environment (workflow {workflow.name}), so "
            f"its turns cannot be written before {roles[-1]} speaks; swap takes workflows where they can"
        )


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
        taskset = families.build(recipe.task, to_measure=True, limits=recipe.limits)
        grounds.append(
            Ground(
                home=name,
                taskset=taskset,
                roles=roles_of(recipe),
                tasks=to_measure(taskset, recipe.eval, tasks=tasks),
                seed=seed_of(recipe.eval.seed, "eval"),
                noise=recipe.eval.noise,
            )
        )
    return grounds


def _on(source: Source, grounds: Sequence[Ground], engine_of: EngineOf) -> Iterator[tuple[Rollouts, Ground]]:
    engine = source.open(grounds[0].taskset, engine_of)
    for ground in grounds:
        rollouts = rollouts_of(engine, ground.taskset, source.recipe)
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
                TreeSpec(counts={**once(ground.roles).counts, ground.roles[-1]: 0}, temperature=0.0),
                source.policies,
                ground.seed,
                noise=ground.noise,
                first=start,
            )
            plans += [_travelling(rollouts, tree) for tree in trees]


def _oracles(rollouts: Rollouts, task: Task) -> Plan:
    if isinstance(task.state, Undrawn):
        return Plan(texts=(), token_ids=(), valid=0.0, accepted=False, failed=True)
    said = [rollouts.oracle(task, role) for role in rollouts.roles[:-1]]
    failed = any(turn.fault for turn in said)
    texts = tuple(turn.text for turn in said)
    return Plan(texts=texts, token_ids=(), valid=1.0, accepted=not failed, failed=failed)


def _travelling(rollouts: Rollouts, tree: Tree) -> Plan:
    nodes = [node for node in tree.nodes if node.role is not None]
    prepares = rollouts.roles[:-1]
    whole = tuple(node.role for node in nodes) == prepares
    spaced = rollouts.words.spaced
    return Plan(
        texts=tuple(node.text if spaced else rollouts.engine.decode(node.token_ids) for node in nodes),
        token_ids=tuple(node.token_ids for node in nodes),
        valid=nodes[-1].reward_parts.get("valid", 0.0) if whole else 0.0,
        accepted=whole and all(node.status == "finished" for node in nodes),
        failed=any(node.status == "failed" for node in nodes),
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
        given.append([_turns(rollouts, plan, own) for own, plan in plans])
    tree = once(rollouts.roles, temperature=0.0)
    trees = rollouts.execute(tasks, given, tree, policy, ground.seed, noise=ground.noise, first=start)
    for i, (planners, tree) in enumerate(zip(accepted, trees, strict=True), start):
        for planner, plan in zip(planners, tree.children(0), strict=True):
            said = response(ground.taskset, tree, plan, rollouts.roles[-1])
            ground.scores[planner, actor][i] = None if said.failed else said.success


def _turns(rollouts: Rollouts, plan: Plan, own: bool) -> list[tuple[str, tuple[int, ...]]]:
    """(text, ids) of each turn; the ids of one's own are those that were sampled."""
    if own:
        return list(zip(plan.texts, plan.token_ids, strict=True))
    roles = rollouts.roles[:-1]
    return [(text, rollouts.words.turn(r, text)) for r, text in zip(roles, plan.texts, strict=True)]


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
        "task": ground.taskset.name,
        "n": len(ground.tasks),
        "levels": sorted({task.level for task in ground.tasks}),
        "exact": ground.taskset.executes_plans,
        "planner": list(ground.roles[:-1]),
        "actor": ground.roles[-1],
        "valid": {
            planner: _cell(valid[planner], valid[ground.home], planner == ground.home) for planner in planners
        },
        "e2e": e2e,
        "tokens": {
            planner: avg_at_k([sum(map(len, plan.token_ids)) for plan in ground.plans[planner]])
            for planner in names
        },
    }


def _cell(scores: Sequence[float | None], home: Sequence[float | None], is_home: bool) -> dict:
    there = [score for score in scores if score is not None]
    if not there:
        raise UserError(
            f"all {len(scores)} tasks failed for a planner and an actor; see `forethought eval` for what "
            "broke"
        )
    low, high = wilson(sum(there), len(there))
    cell = {"value": sum(there) / len(there), "low": low, "high": high}
    if len(there) < len(scores):
        cell["failed"] = len(scores) - len(there)
    if is_home:
        return cell
    change, change_low, change_high = paired_difference(list(home), list(scores))
    return cell | {"change": change, "change_low": change_low, "change_high": change_high}
