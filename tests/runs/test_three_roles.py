"""A run of three roles from its recipe to its report, on the fake engine."""

from __future__ import annotations

import gzip
import json
import random
import re

import pytest
from conftest import desk_recipe, lines_of, nothing
from three_roles import IMITATE, REINFORCE, ROLES, TASK, engine_of

from forethought import report
from forethought.cli import main
from forethought.core.errors import RecipeError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.recipe.load import load
from forethought.runs import run


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    out = tmp_path_factory.mktemp("three") / "run"
    recipe = desk_recipe(
        IMITATE, REINFORCE, workflow="blink_think_link", task=TASK, probes={"every": 1, "conflict_every": 1}
    )
    check(recipe)
    assert run.train(recipe, out, nothing, engine_of).status == "done"
    return out


def test_each_role_is_measured_watched_and_trained(three):
    lines = lines_of(three / "metrics.jsonl")
    first, last = lines[0], lines[-1]
    for role in ROLES:
        assert f"eval/{role}" in first and f"probe/success_{role}" in first and f"tokens/{role}" in last
    assert "eval/e2e" in first
    steps = [line for line in lines if line["kind"] == "step" or line.get("stage_step")]
    pairs = {
        key.split("/")[1]
        for line in steps
        for key in line
        if key.startswith("conflict/") and key.count("/") == 2
    }
    assert pairs == {"blink-think", "blink-link", "think-link"}
    summary = json.loads((three / "summary.json").read_text())
    assert [stage["roles"] for stage in summary["stages"]] == [list(ROLES)] * 2


def test_its_trees_have_a_branch_for_each_role(three):
    trees = []
    for path in sorted((three / "trees").glob("*.gz")):
        with gzip.open(path, "rt") as file:
            trees += [json.loads(line) for line in file]
    assert {node.get("role") for tree in trees for node in tree["nodes"]} >= {*ROLES}


def test_its_report_names_every_role(three):
    page = report.write(three).read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["sides"] == [*ROLES, "e2e"] and set(data["big"]) == {*ROLES, "e2e"}
    assert [stage["roles"] for stage in data["stages"]] == [list(ROLES)] * 2
    assert "blink" in data["headline"] and "link" in data["headline"]
    labels = {name: label for name, label, _ in data["trees"]["signs"]}
    assert labels["wrong"] == "blink or think wrong" and labels["valid_failed"].endswith("each link failed")
    assert not [
        said for sign in data["trees"]["signs"] for said in sign if re.search(r"\b(plan|act)s?\b", said)
    ]


def test_its_traces_are_told_in_its_own_roles(three, capsys):
    assert main(["traces", str(three), "--n", "0"]) == 0
    out = capsys.readouterr().out
    assert "blink or think wrong" in out and "link 1" in out
    words = set(re.findall(r"[a-z]+", out)) - {"desk"}
    assert not words & {"plan", "plans", "act", "acts"}


def test_a_taskset_that_knows_no_look_is_refused_by_name():
    blocks = desk_recipe(IMITATE, workflow="blink_think_link", task={"name": "blocksworld", "levels": [2]})
    _, rollouts = run.build(blocks, lambda recipe, taskset: FakeEngine(taskset.words(ROLES), {}))
    [task] = rollouts.taskset.family(random.Random(0), [2], "train")
    with pytest.raises(RecipeError, match="blink_think_link asks for a look, and blocksworld knows none"):
        rollouts.turns(task)


def test_the_shipped_recipe_of_three_roles_is_whole():
    recipe = load("desk-blink")
    check(recipe)
    assert recipe.stage[-1].roles == ROLES and recipe.workflow.name == "blink_think_link"
