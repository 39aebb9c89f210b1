"""The recipes of benchmarks/workflows.py can be trained, and its worlds be measured."""

from __future__ import annotations

import importlib.util
import random
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from forethought.core.errors import UserError
from forethought.recipe.convert import from_dict
from forethought.recipe.load import override
from forethought.tasks import families
from forethought.workflows.table import workflow_of

_spec = importlib.util.spec_from_file_location(
    "workflows", Path(__file__).parents[2] / "benchmarks" / "workflows.py"
)
workflows = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(workflows)
ROWS = [(table, name) for table, rows in workflows.TABLES.items() for name in rows["workflows"]]


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_a_recipe_of_the_tables_stands_and_its_worlds_differ(table, name):
    recipe = from_dict(workflows.recipe(table, name, 3))
    families.check_recipe(recipe)
    worlds = [override(recipe, sets) for sets in workflows.TABLES[table]["worlds"].values()]
    assert worlds and all(one != other for one, other in pairwise(worlds))
    for world in worlds:
        with closing(families.build(world.task)) as taskset:
            [task] = taskset.demonstrable(random.Random(0), [3])
            assert workflow_of(world.workflow.name).demonstration(taskset, task)


def test_what_perfect_roles_read_is_counted_by_hand():
    told = workflows.recipe("factored", "act_only", 1)
    told["task"] |= {"pages": "recorded"}
    with closing(families.build(from_dict(told).task)) as taskset:
        [task] = taskset.family(random.Random(0), [2], "eval")
        turns = [turn for turn in taskset.demonstrate(task) if turn.role != "plan"]
        success, read, said, calls = workflows._perfect(taskset, task, turns)
    words, prompt = [len(turn.text.split()) for turn in turns], len(task.prompt.split())
    acts = [i for i, turn in enumerate(turns) if turn.role]
    assert (success, calls, said) == (1.0, len(acts), sum(words[i] for i in acts))
    assert read == sum(prompt + sum(words[:i]) for i in acts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["desk", "--only", "reactt"], "--only: unknown workflow 'reactt'; did you mean 'react'"),
        (["costs", "--only", "react"], "costs has none to choose"),
        (["modulo"], "modulo needs RUN"),
        (["modulo", "no/where"], "no/where"),
        (["desk", "run"], "RUN is for modulo alone"),
        (["desk", "--seeds", "0"], "--seeds: expected a whole number of at least 1"),
        (["web", "--pages", "none"], "--pages: invalid choice: 'none'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(options, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        workflows.main(options)
    assert stopped.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]


def test_a_run_that_was_broken_off_goes_on_and_one_of_other_steps_is_not_taken_for_it(tmp_path, monkeypatch):
    done, run, recipe = [], tmp_path / "run", workflows.recipe("desk", "react", 4)
    monkeypatch.setattr(workflows.ft, "train", lambda *_, **given: done.append(given))
    monkeypatch.setattr(workflows.look, "find", lambda run: SimpleNamespace(recipe=from_dict(recipe)))
    workflows.trained(run, recipe, 0)
    (run / "checkpoints").mkdir(parents=True)
    workflows.trained(run, recipe, 0)
    (run / "summary.json").write_text("{}")
    workflows.trained(run, recipe, 0)
    assert [given.get("out", given.get("resume")) for given in done] == [run, run] and "resume" in done[1]
    with pytest.raises(UserError, match="was trained with --steps 4, not 5: give another --out"):
        workflows.trained(run, workflows.recipe("desk", "react", 5), 0)
