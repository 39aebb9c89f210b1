"""Functions in the tables of a recipe: rewards, credit, environments, trackers; what can be gone on with."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import desk_recipe, fake_desk, lines_of

import forethought as ft
from forethought.api.functions import with_names
from forethought.core import named
from forethought.core.errors import RecipeError
from forethought.recipe.convert import to_dict

STAGE = {"kind": "reinforce", "until": {"steps": 2}, "batch": 2, "tree": {"plan": 2, "act": 2}}


def short(completions, **kwargs):
    return [1.0 / (1 + len(text)) for text in completions]


def tables(**stage):
    found = to_dict(desk_recipe(STAGE))
    found["stage"][0] |= stage
    return found


def train(recipe=None, **settings):
    return ft.train(*([recipe] if recipe else []), progress=False, engine_of=fake_desk(), **settings)


@pytest.fixture
def no_process(monkeypatch):
    """As another process has it."""
    yield lambda: (sys.modules.pop(named.HERE, None), named._HELD.clear())
    sys.modules.pop(named.HERE, None)


def test_a_function_of_a_file_is_named_by_it(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "def brief(completions, **k):\n    return [0.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_rewards

    said = with_names({"stage": [{"reward": {"act": {own_rewards.brief: 1.0, json.dumps: 2.0}}}]})
    assert list(said["stage"][0]["reward"]["act"]) == [f"{tmp_path}/own_rewards.py:brief", "json:dumps"]


def test_what_no_file_holds_gets_a_name_and_two_of_one_name_numbers(no_process):
    def short(completions):
        return []

    one, other = (lambda completions: []), (lambda completions: [])
    said = with_names({"a": [short, one, other, one], "b": {3: "text", "c": None}})
    here = [f"in_this_process:{name}" for name in ("short", "function", "function_2", "function")]
    assert said == {"a": here, "b": {3: "text", "c": None}}
    assert sys.modules[named.HERE].short is short


def test_a_run_is_rewarded_by_a_function_and_says_once_what_it_cannot(tmp_path, no_process, capsys):
    def long(completions, **kwargs):
        return [float(len(text)) for text in completions]

    run = train(
        tables(reward={"act": {long: 1.0, lambda completions, **k: [0.5] * len(completions): 2.0}}),
        out=tmp_path / "run",
    )
    line = run.metrics()[1]
    assert line["reward/act.long"] > 1 and line["reward/act.function"] == 0.5
    said = [one["reason"] for one in run.decisions() if "ft.train(resume=RUN" in one["reason"]]
    assert said == [
        "long and function are known to this Python process alone: another one goes on with this run only "
        "from Python, ft.train(resume=RUN, functions=[long, function])"
    ]
    assert json.loads((run.path / "recipe.json").read_text())["stage"][0]["reward"]["act"] == {
        "in_this_process:long": 1.0,
        "in_this_process:function": 2.0,
    }


def test_another_process_goes_on_when_it_is_given_the_function_again(tmp_path, no_process):
    def long(completions, **kwargs):
        return [float(len(text)) for text in completions]

    recipe = tables(reward={"act": {long: 1.0}})
    whole = train(recipe, out=tmp_path / "whole")
    half = train(recipe, out=tmp_path / "half", callbacks=[lambda moment: moment.stop("enough")])
    assert half.status == "interrupted"
    no_process()
    with pytest.raises(ft.UserError, match=r"long was given to the Python process that began the run"):
        train(resume=half)
    assert train(resume=half, functions=[long]).status == "done"
    assert [r["reward/act"] for r in lines_of(tmp_path / "half" / "metrics.jsonl") if "reward/act" in r] == [
        r["reward/act"] for r in whole.metrics() if "reward/act" in r
    ]


def test_credit_and_trackers_may_be_given_too(tmp_path, no_process):
    def flat(trees, spec, state):
        return [{n.id: (1.0,) * len(n.token_ids) for n in tree.nodes if n.policy} for tree in trees]

    seen = []

    class Lines:
        def __init__(self, begun):
            pass

        def numbers(self, step, values):
            seen.append(step)

        def text(self, step, tag, text):
            pass

        def close(self, status):
            seen.append(status)

    recipe = tables(credit={"name": flat}) | {"trackers": [Lines]}
    assert train(recipe, out=tmp_path / "run").status == "done" and seen[-1] == "done"


def test_what_cannot_be_called_so_is_refused_as_ever(tmp_path, no_process):
    with pytest.raises(RecipeError, match=r"stage\.0\.reward\.act: .*unknown argument 'nothing'"):
        train(tables(reward={"act": {lambda nothing: []: 1.0}}), out=tmp_path / "run")


def test_the_script_that_runs_is_not_run_again(tmp_path):
    """A function of `__main__` is known by itself: to load it from its file would train once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "from forethought.api.functions import with_names\n"
        "def short(completions):\n    return []\n"
        "print(with_names({'a': short}))\n"
    )
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert said == "{'a': 'in_this_process:short'}\n"
