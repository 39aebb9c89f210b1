"""Planners and actors exchanged: hand-made success of every pair, who is home, what travels between
tokenizers, and what is refused."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
from conftest import RIGHT, WRONG, Listening, desk_choices, desk_recipe, fake_desk, nothing

from forethought.core.errors import UserError
from forethought.core.paired import paired_difference
from forethought.display.tables import swap_tables
from forethought.look import evaluate, find, find_all, swap
from forethought.look.swap import labels
from forethought.runs import run

SMALL = ["task.widgets=4", "task.levels=[1, 2]", "eval.tasks=4"]
# (plans, acts)
SKILLS = {"planner": (RIGHT, WRONG), "actor": (WRONG, RIGHT), "both": (RIGHT, RIGHT), "refused": (2, RIGHT)}


@pytest.fixture
def models(tmp_path):
    """Names of SKILLS -> folders."""

    def make(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text("{}")
        return [tmp_path / name for name in names]

    return make


def skilled(recipe, taskset, words=lambda words: words):
    """An engine that plans and acts as SKILLS says of its folder; `words` gives it a vocabulary in another
    order."""
    plan, act = SKILLS[Path(recipe.model.path).name]

    def say(policy, text, i, seed):
        role = "plan" if text.endswith("<plan>") else "act"
        return desk_choices(text, role)[plan if role == "plan" else act]

    return Listening(words(taskset.vocabulary()), taskset.stops, choices=desk_choices, script=say)


def values(table: dict) -> dict:
    return {
        planner: {actor: cell["value"] for actor, cell in row.items()}
        for planner, row in table["e2e"].items()
    }


def test_every_planner_with_every_actor(models):
    """Alone neither of the two reaches a goal; together, planner with actor, they reach all."""
    (table,) = swap(find_all(models("planner", "actor"), "desk", SMALL), engine_of=skilled)
    assert values(table) == {
        "planner": {"planner": 0.0, "actor": 1.0},
        "actor": {"planner": 0.0, "actor": 0.0},
        "oracle": {"planner": 0.0, "actor": 1.0},
    }
    assert {planner: cell["value"] for planner, cell in table["valid"].items()} == {
        "planner": 1.0,
        "actor": 0.0,
        "oracle": 1.0,
    }
    assert (table["home"], table["n"], table["levels"], table["exact"]) == ("planner", 8, [1, 2], True)
    swapped = table["e2e"]["planner"]["actor"]
    assert (swapped["change"], swapped["change_low"], swapped["change_high"]) == paired_difference(
        [0.0] * 8, [1.0] * 8
    )
    assert "change" not in table["e2e"]["planner"]["planner"] and "change" not in table["valid"]["planner"]
    assert table["valid"]["actor"]["change"] == -1.0


def test_the_diagonal_and_the_oracles_row_are_what_eval_says(models):
    sources = find_all(models("both", "refused"), "desk", SMALL)
    (table,) = swap(sources, engine_of=skilled)
    for source in sources:
        found = evaluate(source, engine_of=skilled)
        name = source.path.name
        assert (
            table["e2e"][name][name]["value"] == found["e2e"]["value"]
            and table["valid"][name]["value"] == found["plan"]["value"]
        )
        assert table["e2e"]["oracle"][name]["value"] == found["act"]["value"] == 1.0
        assert table["tokens"][name] == found["tokens"]["plan"]
    assert table["e2e"]["refused"]["both"]["value"] == 0.0  # a refused plan is executed by nobody


def test_models_with_other_tokenizers_read_each_others_plans(models):
    """The same words have other ids: what travels is text."""

    def reversing(recipe, taskset):
        return skilled(
            recipe,
            taskset,
            (lambda words: words[::-1]) if Path(recipe.model.path).name == "actor" else (lambda words: words),
        )

    (table,) = swap(find_all(models("planner", "actor"), "desk", SMALL), engine_of=reversing)
    assert values(table)["planner"]["actor"] == 1.0


def test_runs_are_measured_on_the_tasks_of_each(tmp_path, models):
    """Two runs on two variants, and a bare model between them as a guest: two tables, each with its own
    home."""
    for name, widgets in (("four", 4), ("five", 5)):
        task = {"name": "desk", "levels": [1, 2], "widgets": widgets}
        recipe = desk_recipe({"kind": "imitate", "until": {"steps": 1}, "batch": 2}, task=task)
        run.train(recipe, tmp_path / name, nothing, fake_desk())
    guest = models("both")
    tables = swap(find_all([*guest, tmp_path / "four", tmp_path / "five"]), tasks=2, engine_of=fake_desk())
    assert [(table["home"], table["n"], list(table["e2e"])) for table in tables] == [
        ("four", 4, ["both", "four", "five", "oracle"]),
        ("five", 4, ["both", "four", "five", "oracle"]),
    ]
    assert json.loads(json.dumps(tables)) == tables


def test_one_model_is_in_memory_at_a_time(models):
    alive, most = weakref.WeakSet(), []

    def counting(recipe, taskset):
        gc.collect()
        engine = skilled(recipe, taskset)
        alive.add(engine)
        most.append(len(alive))
        return engine

    seen = []
    swap(
        find_all(models("planner", "actor", "both"), "desk", SMALL),
        engine_of=counting,
        tell=lambda done, n: seen.append((done, n)),
    )
    assert most == [1] * 6 and seen == [(i, 6) for i in range(1, 7)]


def test_parts_of_the_tasks_make_no_difference(models):
    folders = models("both", "actor")
    whole, parts = (
        swap(find_all(folders, "desk", [*SMALL, f"engine.sample_rows={rows}"]), engine_of=skilled)
        for rows in (1024, 1)
    )
    assert whole == parts


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["planner"], "swap needs at least two"),
        (["planner", "planner"], "planner is there twice"),
    ],
)
def test_what_cannot_be_swapped(models, names, message):
    (folder,) = models("planner")
    with pytest.raises(UserError, match=message):
        swap([find(folder, "desk", SMALL)] * len(names), engine_of=skilled)


def test_tasks_that_one_of_them_cannot_write(models):
    def narrow(recipe, taskset):
        return skilled(
            recipe,
            taskset,
            (lambda words: words[3:]) if Path(recipe.model.path).name == "actor" else (lambda words: words),
        )

    with pytest.raises(UserError, match="vocabulary lacks GOAL"):
        swap(find_all(models("planner", "actor"), "desk", SMALL), engine_of=narrow)


def test_names_are_as_short_as_they_can_be_told_apart(tmp_path):
    folders = [tmp_path / part for part in ("a/one", "b/one", "b/oracle")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    assert labels(find_all(folders, "desk")) == ["a/one", "b/one", "b/oracle"]
    # "oracle" is a planner of its own
    assert labels(find_all(folders[1:2] + folders[2:], "desk")) == ["b/one", "b/oracle"]
    assert labels(find_all([Path("org/one"), folders[1]], "desk")) == ["org/one", "b/one"]


def test_the_table_fits_a_terminal(models):
    text = swap_tables(swap(find_all(models("planner", "actor", "both"), "desk", SMALL), engine_of=skilled))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "tasks of planner: desk, 8 tasks, levels 1 2; a row says plan, a column act"
    assert lines[2].split() == ["planner", "/", "actor", "plan", "planner", "actor"]
    assert lines[3:5] == [
        "planner          1.000 [0.676, 1.000]       0.000 [0.000, 0.324]       1.000 [0.676, 1.000]",
        "                 home                       home                      +1.000 [+0.195, +1.000]",
    ]
    assert [line.split() for line in lines if line.startswith("planner / actor")][1] == [
        "planner",
        "/",
        "actor",
        "both",
    ]
