"""The rows of learning-rate schedules by hand-computed values, and those of the user's own."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from forethought.core.errors import RecipeError
from forethought.learn.schedule import lr_scale
from forethought.recipe.check import check
from forethought.recipe.load import load
from forethought.recipe.schedules import SCHEDULES
from forethought.recipe.schema import OptimSpec


def scales(steps: int, **optim) -> list[float]:
    return [lr_scale(OptimSpec(**optim), step, steps) for step in range(steps)]


def test_each_row_by_hand():
    assert scales(4, warmup=0, schedule="constant") == [1, 1, 1, 1]
    assert scales(4, warmup=0, schedule="linear") == [1, 0.75, 0.5, 0.25]
    half = 0.5 * (1 + math.sqrt(0.5))  # cos(pi / 4) = sqrt(1 / 2)
    assert scales(4, warmup=0, schedule="cosine") == pytest.approx([1, half, 0.5, 1 - half])
    assert scales(5, warmup=0, schedule="wsd", decay=0.4) == pytest.approx([1, 1, 1, 1, 0.5])


def test_after_the_warm_up_the_fall_begins_at_the_whole_rate():
    assert scales(6, warmup=2, schedule="linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert scales(6, warmup=2, schedule="cosine")[2] == 1
    assert scales(2, warmup=4, schedule="cosine") == [0.25, 0.5]  # a stage that ends in its warm-up


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_what_falls_ends_at_its_least(name):
    decay = {"decay": 1.0} if name == "wsd" else {}
    found = scales(1000, warmup=0, schedule=name, least=0.1, **decay)
    assert found == sorted(found, reverse=True)
    assert found[0] == 1
    assert found[-1] == pytest.approx(0.1, abs=1e-3)
    assert min(found) >= 0.1


def test_without_a_word_of_a_schedule_the_rate_is_what_it_was():
    assert scales(10, warmup=2, decay=0.5) == scales(10, warmup=2, decay=0.5, schedule="wsd")
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "wsd"}


def with_optim(**keys):
    recipe = load("desk")
    stage = replace(recipe.stage[1], optim=replace(recipe.stage[1].optim, **keys))
    return replace(recipe, stage=(recipe.stage[0], stage))


@pytest.mark.parametrize(
    ("keys", "where", "said"),
    [
        ({"schedule": "cosin"}, "stage.1.optim.schedule", "did you mean 'cosine'"),
        ({"schedule": "cosine", "decay": 0.4}, "stage.1.optim.decay", "set decay = 0"),
        ({"schedule": "constant", "least": 0.1}, "stage.1.optim.least", "set least = 0"),
        ({"schedule": "linear", "least": 1.5}, "stage.1.optim.least", "between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_address(keys, where, said):
    with pytest.raises(RecipeError, match=said) as caught:
        check(with_optim(**keys))
    assert caught.value.where == where


OWN = """
def steps_down(step, steps):
    return 1.0 if step < steps // 2 else 0.1

def negative(step, steps):
    return 1.0 - step

def breaks(step, steps):
    return 1 / abs(step - 3)

three = 3
"""


def test_one_of_your_own_beside_the_recipe(tmp_path):
    (tmp_path / "rates.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(
        '[[stage]]\nuntil = { steps = 4 }\noptim = { warmup = 0, schedule = "rates.py:steps_down" }\n'
    )
    recipe = load(tmp_path / "own.toml")
    check(recipe)
    optim = recipe.stage[0].optim
    assert optim.schedule == f"{tmp_path}/rates.py:steps_down"
    assert [lr_scale(optim, step, 4) for step in range(4)] == [1, 1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("negative", "gives -1.0 after 2"),
        ("breaks", "fails after 3 updates: ZeroDivision"),
        ("three", "no function"),
    ],
)
def test_what_is_wrong_with_your_own_is_found_before_the_run(tmp_path, name, said):
    (tmp_path / "rates.py").write_text(OWN)
    with pytest.raises(RecipeError, match=said):
        check(with_optim(schedule=f"{tmp_path}/rates.py:{name}"))


def test_the_table_of_the_page_is_what_the_rows_give():
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:[.\d]+ \| ){11}[.\d]+) \|$", page, re.M)
    assert [name for name, _ in rows] == ["constant", "linear", "cosine", "wsd"]
    for name, said in rows:
        least = {} if name == "constant" else {"least": 0.1}
        found = scales(12, warmup=3, schedule=name, decay=0.5 if name == "wsd" else 0.0, **least)
        assert [float(text) for text in said.split(" | ")] == pytest.approx(found, abs=0.0051)


def test_the_code_of_the_page_is_a_schedule(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "rates.py").write_text(code)
    optim = OptimSpec(warmup=0, schedule=f"{tmp_path}/rates.py:halves")
    assert [lr_scale(optim, step, 4) for step in range(4)] == [1, 0.5, 0.25, 0.125]
