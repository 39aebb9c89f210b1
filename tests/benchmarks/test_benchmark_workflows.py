"""The recipes of benchmarks/workflows.py can be trained, and its worlds be measured."""

from __future__ import annotations

import importlib.util
import random
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

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
