"""Any roles, looked at: a run of blink, think and link, and a model under a workflow whose first role nobody
judges."""

from __future__ import annotations

import io

import pytest
from conftest import desk_recipe, lines_of, nothing
from three_roles import IMITATE, REINFORCE, ROLES, TASK, choices, engine_of

from forethought.core.errors import UserError
from forethought.display.show import samples
from forethought.display.tables import evaluation_table, swap_tables
from forethought.engines.fake.engine import FakeEngine
from forethought.look import evaluate, find, find_all, sample, swap
from forethought.recipe.schema import TreeSpec
from forethought.runs import run

RIGHT, WRONG = 1, 0


def saying(blink: int, think: int, link: int):
    """An engine whose roles say that one of their `choices`, whatever they have learned."""
    said = dict(zip(ROLES, (blink, think, link), strict=True))

    def say(policy, text, i, seed):
        role = next(role for role in reversed(ROLES) if f"</{role}>" not in text and role_begun(text, role))
        return choices(text, role)[said[role]]

    return lambda recipe, taskset: engine_of(recipe, taskset, script=say)


def role_begun(text: str, role: str) -> bool:
    return role == ROLES[0] or f"</{ROLES[ROLES.index(role) - 1]}>" in text


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of three roles; the second took no step of reinforcement."""
    folder = tmp_path_factory.mktemp("roles")
    for name, stages in (("one", (IMITATE, REINFORCE)), ("other", (IMITATE,))):
        recipe = desk_recipe(*stages, workflow="blink_think_link", task=TASK)
        assert run.train(recipe, folder / name, nothing, engine_of).status == "done"
    return [folder / "one", folder / "other"]


def test_a_run_of_three_roles_is_measured_as_it_measured_itself(runs):
    found = evaluate(find(runs[0]), engine_of=engine_of)
    line = [line for line in lines_of(runs[0] / "metrics.jsonl") if "eval/blink" in line][-1]
    for name in (*ROLES, "e2e"):
        assert found[name]["value"] == line[f"eval/{name}"], name
    assert set(found["tokens"]) == set(found["truncated"]) == set(ROLES)
    assert all(name in evaluation_table(found) for name in (*ROLES, "e2e"))


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ((RIGHT, RIGHT, RIGHT), (1.0, 1.0, 1.0, 1.0)),
        ((WRONG, RIGHT, RIGHT), (0.0, 1.0, 1.0, 1.0)),  # the thought of this engine does not need the look
        # at level 1, half of the tasks, a goal that is clicked twice is reached all the same
        ((RIGHT, WRONG, RIGHT), (1.0, 0.0, 1.0, 0.5)),
        ((RIGHT, RIGHT, WRONG), (1.0, 1.0, 0.0, 0.0)),
        ((2, RIGHT, RIGHT), (0.0, 1.0, 1.0, 0.0)),  # a refused look is not thought about
    ],
)
def test_each_role_alone_and_all_together_by_hand(runs, said, values):
    found = evaluate(find(runs[0]), engine_of=saying(*said))
    assert tuple(found[name]["value"] for name in (*ROLES, "e2e")) == values
    several = evaluate(find(runs[0]), samples=2, tree=TreeSpec(temperature=1.0), engine_of=saying(*said))
    assert tuple(several[name]["value"] for name in (*ROLES, "avg@2")) == values


def test_the_turns_of_every_role_are_shown(runs):
    rows = sample(find(runs[0]), n=2, level=2, engine_of=saying(RIGHT, WRONG, RIGHT))
    for row in rows:
        assert [(turn["role"], turn["valid"]) for turn in row["turns"]] == [
            ("blink", 1.0),
            ("think", 0.0),
            ("link", None),
        ]
        assert list(row["oracle"]) == ["blink", "think"] and row["success"] is False
    out = io.StringIO()
    samples(rows[:1], out)
    assert [line.split()[0] for line in out.getvalue().splitlines()[3:8]] == [
        "oracle",
        "oracle",
        "blink",
        "think",
        "link",
    ]
    (refused,) = sample(find(runs[0]), n=1, engine_of=saying(RIGHT, 2, RIGHT))
    assert refused["reason"] == "the think was refused, nothing was executed"


def test_the_roles_before_the_last_change_places_with_the_last(runs):
    """`one` looks and thinks rightly and links wrongly, `other` the other way round."""

    def skilled(recipe, taskset):
        return saying(*((RIGHT, RIGHT, WRONG) if recipe.stage[1:] else (RIGHT, WRONG, RIGHT)))(
            recipe, taskset
        )

    (table,) = swap(find_all(runs), engine_of=skilled)
    assert {p: {a: cell["value"] for a, cell in row.items()} for p, row in table["e2e"].items()} == {
        "one": {"one": 0.0, "other": 1.0},
        "other": {"one": 0.0, "other": 0.5},  # level 1, as above
        "oracle": {"one": 0.0, "other": 1.0},
    }
    assert {p: cell["value"] for p, cell in table["valid"].items()} == {
        "one": 1.0,
        "other": 0.0,
        "oracle": 1.0,
    }
    assert (table["planner"], table["actor"]) == (["blink", "think"], "link")
    lines = swap_tables([table]).splitlines()
    assert lines[0].endswith("; a row says blink and think, a column link")
    assert lines[2].split()[:4] == ["planner", "/", "actor", "think"]


def test_a_refused_thought_is_linked_by_nobody(runs):
    (table,) = swap(find_all(runs), engine_of=saying(RIGHT, 2, RIGHT))
    assert table["e2e"]["one"]["other"]["value"] == 0.0 and table["e2e"]["oracle"]["one"]["value"] == 1.0


@pytest.fixture
def models(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    return [tmp_path / "a", tmp_path / "b"]


def test_a_bare_model_speaks_the_workflow_of_the_recipe_that_it_is_looked_at_with(models):
    source = find(models[0], "desk-blink", ["eval.tasks=2", "task.levels=[1]"])
    assert source.policies == dict.fromkeys(ROLES, "base") and source.recipe.roles["blink"].budget == 5
    found = evaluate(source, engine_of=saying(RIGHT, RIGHT, RIGHT))
    assert found["think"]["value"] == found["e2e"]["value"] == 1.0


def test_a_role_that_nobody_judges_has_no_number(models):
    """Thoughts of react: of them nothing is known but what they lead to."""
    source = find(models[0], "desk", ["workflow=react", "task.levels=[1]", "eval.tasks=2"])
    roles = ("think", "act")

    def engine_of(recipe, taskset):
        return FakeEngine(taskset.words(roles), {role: taskset.stop(role) for role in roles})

    found = evaluate(source, engine_of=engine_of)
    assert "think" not in found and {"act", "e2e"} <= set(found)


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("act_only", "a speaks act alone; swap exchanges the roles before the last with the last"),
        ("react", "think speaks again before every answer of the environment .workflow react"),
    ],
)
def test_roles_that_cannot_change_places_are_named(models, workflow, message):
    sources = find_all(models, "desk", [f"workflow={workflow}"])
    with pytest.raises(UserError, match=message):
        swap(sources)


def test_runs_of_other_roles_cannot_be_exchanged(runs, tmp_path):
    recipe = desk_recipe({"kind": "imitate", "until": {"steps": 1}, "batch": 2})

    def two(recipe, taskset):
        return FakeEngine(taskset.vocabulary(), taskset.stops)

    run.train(recipe, tmp_path / "two", nothing, two)
    with pytest.raises(UserError, match="one speaks blink, think and link and two plan and act"):
        swap(find_all([runs[0], tmp_path / "two"]))
