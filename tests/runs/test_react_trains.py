"""Two roles on one branch train together: a thought and the act that goes on with it have the same peers."""

from __future__ import annotations

import json

import pytest
from conftest import RIGHT, desk_choices, desk_recipe, lines_of, nothing

from forethought import report
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.runs import run

ROLES = ("think", "act")


def choices(text: str, role: str) -> list[str]:
    """Thoughts: two that are whole. Acts: of the oracle's plan, with the wrong value and exactly."""
    if role == "think":
        return ["desk </think>", "GOAL </think>"]
    before = text.partition(" <think>")[0]
    plan = desk_choices(f"{before} <plan>", "plan")[RIGHT]
    return desk_choices(f"{before} <plan> {plan}", "act")[:2]


@pytest.mark.parametrize("credit", ["role_baseline", "turn_level"])
def test_a_thought_and_the_act_after_it_are_compared_together(tmp_path, credit):
    recipe = desk_recipe(
        {
            "kind": "reinforce",
            "until": {"steps": 6},
            "batch": 4,
            "tree": {"think": 4, "act": 1},
            "credit": {"name": credit},
            "reward": {"think": {"format": 1}, "act": {"outcome": 1}},
            "optim": {"lr": 2.0, "warmup": 0},
        },
        workflow="react",
    )
    check(recipe)

    def engine_of(recipe, taskset) -> FakeEngine:
        return FakeEngine(taskset.words(ROLES), {role: taskset.stop(role) for role in ROLES}, choices=choices)

    assert run.train(recipe, tmp_path / "run", nothing, engine_of).status == "done"
    steps = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "reward/act" in line]
    assert steps[0]["reward/act"] < 0.75 < steps[-1]["reward/act"]


def test_the_report_names_the_roles_that_were_measured(tmp_path):
    """Nothing judges a thought, so there is no number of it to show."""
    recipe = desk_recipe({"kind": "imitate", "until": {"steps": 2}, "batch": 2}, workflow="react")

    def engine_of(recipe, domain) -> FakeEngine:
        return FakeEngine(domain.words(ROLES), {role: domain.stop(role) for role in ROLES}, choices=choices)

    run.train(recipe, tmp_path / "run", nothing, engine_of)
    page = report.write(tmp_path / "run").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["sides"] == ["act", "e2e"] and set(data["big"]) == {"act", "e2e"}
    assert data["stages"][0]["roles"] == ["think", "act"]
