"""Blocksworld with one act a turn, from a recipe to its numbers, under each workflow: on the fake engine, and
with a tiny model."""

from __future__ import annotations

import pytest
from conftest import desk_recipe, lines_of, nothing

from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.recipe.speaking import SPEAKING
from forethought.runs import run
from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.problem import FREE, Problem
from forethought.tasks.blocksworld.taskset import Blocksworld

WORKFLOWS = ["plan_then_act", "act_only", "react", "plan_steps", "replan"]


def task_in(text: str):
    """The problem that a prompt tells."""
    told, _, rest = text.partition(f" {words.GOAL} ")
    towers = [tower.split() for tower in told.removeprefix(words.INIT).split(words.TOWER) if tower.strip()]
    asked = [tower.split() for tower in rest.partition("<")[0].split(words.TOWER) if tower.strip()]
    for act in words.PRIMITIVES:  # without a plan, acts follow the goal at once
        asked = [tower[: tower.index(act)] if act in tower else tower for tower in asked]
    names = tuple(name for tower in towers for name in tower)
    below, goal = [FREE] * len(names), [FREE] * len(names)
    for chains, found in ((towers, below), (asked, goal)):
        for chain in chains:
            for under, name in zip(chain, chain[1:], strict=False):
                found[names.index(name)] = names.index(under)
    problem = Problem(names=names, below=tuple(below), goal=tuple(goal))
    return Blocksworld(stepwise=True)._task("told", problem, 2, problem.goal_towers())


def choices(text: str, role: str) -> list[str]:
    """One that gives up, and what the oracle says next."""
    steps, end = Blocksworld((2,), stepwise=True), f"</{role}>"
    said = steps.demonstrate(task_in(text))
    if role == "plan":
        return ["</plan>", said[0].text]
    acts = [turn.text for turn in said if turn.role == "act"]
    right = acts[min(text.count("<obs>"), len(acts) - 1)]
    return [end, right if role == "act" else f"clear {task_in(text).state.names[0]} {end}"]


def recipe_of(name: str, **fields):
    workflow = {"name": "plan_then_act", "replan_after": 1} if name == "replan" else name
    roles = SPEAKING["plan_then_act" if name == "replan" else name].roles
    first, last = roles[0], roles[-1]
    reinforce = {
        "kind": "reinforce",
        "until": {"steps": 2},
        "batch": 2,
        "tree": {role: 4 if role == first else 1 for role in roles},
        "roles": [first],
        "reward": {first: {"outcome": 1} if first != "think" else {"format": 1}},
    }
    assert last == "act"
    task = {"name": "blocksworld", "levels": [2], "stepwise": True, "retry": name == "replan"}
    imitate = {"kind": "imitate", "until": {"steps": 2}, "batch": 2, "roles": list(roles)}
    return desk_recipe(imitate, reinforce, workflow=workflow, task=task, **fields)


def engine_of(recipe, taskset) -> FakeEngine:
    roles = SPEAKING[recipe.workflow.name].roles
    return FakeEngine(taskset.words(roles), {role: taskset.stop(role) for role in roles}, choices=choices)


def trained(recipe, out, *engine):
    check(recipe)
    assert run.train(recipe, out, nothing, *engine).status == "done"
    lines = lines_of(out / "metrics.jsonl")
    assert [line["step"] for line in lines if "eval/e2e" in line][-1] == 4
    assert not any(key.startswith("failed/") and line[key] for line in lines for key in line)
    return lines


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_recipe_runs_on_the_fake_engine(name, tmp_path):
    lines = trained(recipe_of(name), tmp_path / "run", engine_of)
    assert 0 < max(line.get("reward/" + role, 0) for line in lines for role in ("plan", "act", "think"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_recipe_runs_with_a_tiny_model(name, tmp_path):
    pytest.importorskip("torch")
    model = {"width": 32, "layers": 2, "heads": 4}
    lines = trained(recipe_of(name, model=model, engine={"device": "cpu"}), tmp_path / "run")
    assert any(line.get("loss/sft", 0) > 0 for line in lines)
