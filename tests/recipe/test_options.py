"""The options of shipped tasksets, adapters, losses and workflows are told as they are read."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from test_about import wrong

import forethought
from forethought.cli import main
from forethought.learn.credit import CREDITS, OVER_BATCH
from forethought.learn.losses import LOSSES
from forethought.recipe import about, options, reference
from forethought.recipe.check import TRACKERS
from forethought.recipe.check_reinforce import ACTS, OF_ENVIRONMENTS, PREPARES
from forethought.recipe.options import environments, named
from forethought.recipe.speaking import SPEAKING
from forethought.tasks import families
from forethought.tasks.math.options import read_options as read_math
from forethought.tasks.text.graders import GRADERS
from forethought.tasks.text.options import read_options as read_text

ROOT = Path(forethought.__file__).parent


def test_every_option_says_what_it_means():
    assert [key.where for key in about.options() if not key.about.endswith(".")] == []
    assert len({(key.where, key.reader) for key in about.options()}) == len(about.options()) > 90


def test_the_words_are_those_of_the_tables():
    assert set(named.TASKSETS) == set(families.TASKSETS) == set(options.TASKSETS) == set(options.PATHS)
    assert set(named.WORKFLOWS) == set(SPEAKING)
    assert set(named.GRADERS) == set(GRADERS)
    assert set(named.CREDITS) == {*CREDITS, *OVER_BATCH}
    assert set(named.LOSSES) == set(LOSSES) - {"k3", "kl"}  # terms, which no stage names as its loss
    assert set(named.TRACKERS) == set(TRACKERS)
    assert set(named.PARTS) == {*PREPARES, *ACTS, *OF_ENVIRONMENTS}
    assert all(
        key.split(".N")[0] in {one.where.split(".N")[0] for one in about.keys()} | {"task.grader"}
        for key in named.NAMED
    )


def same(one, other):
    """Whether two records say the same, but for what was compiled."""
    return [
        f.name for f in dataclasses.fields(one) if repr(getattr(one, f.name)) != repr(getattr(other, f.name))
    ]


def given(kind, need):
    """The needed options, with every other that has a default of its own."""
    return need | {
        key: value
        for key, value in options.defaults(kind).items()
        if value is not None and value is not dataclasses.MISSING and key not in need
    }


def test_defaults_are_those_that_the_tasksets_take():
    text, math = {"train": "a.jsonl"}, {"train": "a.jsonl", "eval": "b.jsonl"}
    assert same(read_text(text), read_text(given(options.TASKSETS["text"], text))) == []
    assert same(read_math(math), read_math(given(options.TASKSETS["math"], math))) == []
    blocks = options.defaults(options.TASKSETS["blocksworld"])
    made = families.TASKSETS["blocksworld"]((2,), **{k: v for k, v in blocks.items() if v is not None})
    assert (made.blocks, made.stepwise, made.retry, made.slip, made.flip) == ((4, 5), False, False, 0, 0)


def asked(path):
    """Option -> (method, default) of the calls `options.METHOD("name", default)` in a file."""
    found = {}
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        if owner in ("options", "said", "table") and node.func.attr in METHODS:
            name, *rest = [ast.unparse(one) for one in node.args]
            found[ast.literal_eval(name)] = (node.func.attr, *rest[:1])
    return found


METHODS = ("text", "flag", "whole", "number", "chosen", "names", "mapping", "function", "call")
TELLER, TOOLS = "envs/adapters/tell.py", "envs/adapters/tools.py"
READ = [
    (environments.Environment, "tasks/environment/taskset.py", ()),
    (environments.Own, "envs/adapters/own.py", ()),
    (environments.Gym, "envs/adapters/gym.py", (TELLER,)),
    (environments.Trl, "envs/adapters/trl.py", (TOOLS,)),
    (environments.Mcp, "envs/adapters/mcp.py", (TOOLS,)),
    (environments.OpenEnv, "envs/adapters/openenv.py", (TELLER, TOOLS)),
    (environments.Verifiers, "envs/adapters/verifiers.py", ()),
]


@pytest.mark.parametrize(("kind", "path", "more"), READ, ids=lambda one: getattr(one, "__name__", ""))
def test_options_of_an_adapter_are_those_that_it_asks_for(kind, path, more):
    read = asked(path)
    for other in more:
        read |= asked(other)
    told = options.defaults(kind)
    assert set(read) == set(told) | ({"ids", "words"} if TOOLS in more else set())
    for name, (method, *default) in read.items():
        if default and name in told and default[0] != "None":
            assert told[name] == ast.literal_eval(default[0]), name
        elif method == "names" and name in told:
            assert told[name] == ()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("text", ["task.name = 'text'", "task.prompt", "task.repeats"]),
        ("number", ["task.grader = 'number'"]),
        ("rloo", ["stage.N.credit.name = 'rloo'", "2402.14740"]),
        ("dapo", ["stage.N.loss.name = 'dapo'", "stage.N.loss.clip_high"]),
        ("mcp", ["options of the taskset environment, mcp:", "task.score", "task.hide"]),
        ("plan_then_act", ["workflow.name = 'plan_then_act'", "workflow.replan_after"]),
        ("task.train", ["an option of the taskset text", "an option of the taskset math", "must be given"]),
        ("task.grader", ["contains   ", 'one of "auto", "exact", "math-verify"']),
        ("task.seam.ids", ["an option of the taskset environment, mcp:", '"startTarget"']),
        ("trackers", ["tensorboard   ", "mlflow   "]),
        ("tree.act", ["stage.N.tree.ROLE", "a whole number"]),
        ("loss.clip_high", ["default 0.28", "default 4.0"]),
    ],
)
def test_a_word_and_an_option_are_explained(word, said, capsys):
    assert main(["explain", word]) == 0
    out = capsys.readouterr().out
    assert [text for text in said if text not in out] == [], out


def test_a_slip_in_an_option_is_said(capsys):
    assert main(["explain", "task.promt"]) == 2
    assert "did you mean task.prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "fits"),
    [
        ({"name": "text", "train": "a.jsonl", "prompt": "{q}", "shots": 3, "eval": ["b.jsonl"]}, True),
        ({"name": "text", "train": "a.jsonl", "promt": "{q}"}, False),
        ({"name": "text", "prompt": "{q}"}, False),  # nothing to train on
        ({"name": "desk", "slip": 0.1}, True),
        ({"levels": [1, 2]}, True),
        ({"levels": [1, 2], "slip": "much"}, False),
        ({"name": "mine.py:Sums", "most": 20}, True),
        ({"name": "environment", "environment": "gym:X", "actions": ["a"], "seam": {"ids": ["x"]}}, True),
        ({"name": "environment", "environment": "gym:X", "action": ["a"]}, False),
    ],
)
def test_the_schema_knows_the_options(task, fits):
    assert (wrong(reference.schema(), {"task": task}) == []) == fits


def test_the_page_lists_every_option():
    page = (Path(__file__).parents[2] / "docs" / reference.PAGE).read_text()
    for key in about.options():
        assert f"| `{key.where}` |" in page
        assert f": {key.reader}\n" in page
    assert json.loads(reference.schema_text()) == reference.schema()
