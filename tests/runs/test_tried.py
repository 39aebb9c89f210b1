"""`forethought check` asks every reward function once, about completions that are made up."""

from __future__ import annotations

import json

import pytest

from forethought.cli import main

RECIPE = """
model = {{ layers = 2, heads = 4, width = 32, mlp = 32, vocabulary = 300 }}
task = {{ name = "text", train = "data.jsonl", plan = "{plan}", {more} }}
[[stage]]
kind = "reinforce"
{reward}
"""
CODE = """
import asyncio, sys
import numpy as np
async def right(completions, answer, **kwargs):
    assert len(answer) == len(completions) == 4
    return [float(gold in text) for gold, text in zip(answer, completions)]
def chatty(completions, **kwargs): return [float(said[0]["role"] == "assistant") for said in completions]
def array(completions): return np.array([len(c) > 3 for c in completions], dtype=np.float32)
def unsure(completions, **kwargs): return [None, 1.0, None, 0.5]
def planned(completions, plans, **kwargs): return [float(len(p) > 0) for p in plans]
def each(task, path): return float(path[-1].text == "yes")
def few(completions, **kwargs): return [1.0]
def words(completions, **kwargs): return ["good"] * len(completions)
def text(completions, **kwargs): return "good"
def nan(completions, **kwargs): return [float("nan")] * len(completions)
def dies(completions, **kwargs): raise KeyError("boom")
def empty(completions, **kwargs): return [1 / len(text) for text in completions]
def quits(completions, **kwargs): sys.exit(3)
def nothing(completions, **kwargs): return None
def lost(task, path): return None
"""
LINE = {
    line.partition("(")[0].split()[-1]: i for i, line in enumerate(CODE.splitlines(), 1) if "def " in line
}
ASKED = 'prompt = "{question}", answer = "answer"'
ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "plan": "add"} for i in range(30)]


@pytest.fixture
def checked(tmp_path, capsys):
    def check(reward: str, plan: str = "none", more: str = ASKED, rows=ROWS) -> tuple[int, str, str]:
        (tmp_path / "r.py").write_text(CODE)
        (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        (tmp_path / "x.toml").write_text(RECIPE.format(plan=plan, more=more, reward=reward))
        code = main(["check", str(tmp_path / "x.toml")])
        out, err = capsys.readouterr()
        return code, out, err

    return check


@pytest.mark.parametrize(
    ("name", "gave"),
    [
        ("right", "1, 0, 1, 0"),  # what the data show is right
        ("array", "0, 0, 0, 1"),
        ("unsure", "None, 1, None, 0.5"),
        ("each", "0, 0, 0, 0"),
    ],
)
def test_what_a_function_gave_is_said(checked, name, gave):
    code, out, _ = checked(f'reward = {{ act = {{ "r.py:{name}" = 1.0 }} }}')
    assert code == 0
    assert f"ok        stage.0.reward.act: r.py:{name} gave {gave} for 4 made-up completions\n" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("few", "few gave 1 number for 4 completions"),
        ("words", "words must give a finite number for each completion or None, gave 'good'"),
        ("text", "'good', not a list with a number for each completion"),
        ("nan", "gave nan"),
        ("dies", "KeyError: 'boom'"),
        ("empty", "ZeroDivisionError: "),
        ("quits", "SystemExit: 3"),
        ("nothing", "nothing gave None, not a list with a number for each completion"),
        ("lost", "must give a finite number, or one for each turn, gave None"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_with_its_line(checked, name, said):
    code, out, err = checked(f'reward = {{ act = {{ "r.py:{name}" = 1.0 }} }}')
    [line] = [line for line in out.splitlines() if line.startswith("wrong")]
    assert code == 2 and "of 7 promises are not kept" in err
    assert f"stage.0.reward.act: r.py:{name}, asked about 4 made-up completions, one of them empty: " in line
    assert said in line and f"r.py:{LINE[name]})" in line


def test_plans_conversations_and_named_parts_are_given_as_in_training(checked):
    reward = 'reward = { plan = { "r.py:unsure" = 1.0 }, act = { "r.py:planned" = 1.0, odd = 0.5 } }\n'
    code, out, _ = checked(reward + 'parts = { odd = "r.py:each" }', plan="tags")
    assert code == 0
    assert "stage.0.reward.plan: r.py:unsure gave None, 1, None, 0.5 for" in out
    assert "stage.0.reward.act: r.py:planned gave 1, 0, 1, 1 for" in out
    assert "stage.0.reward.act: r.py:each gave " in out
    rows = [{"messages": [{"role": "user", "content": f"What is {i}?"}], "answer": "1"} for i in range(30)]
    code, out, _ = checked('reward = { act = { "r.py:chatty" = 1.0 } }', more='answer = "answer"', rows=rows)
    assert code == 0 and "r.py:chatty gave 1, 1, 1, 1 for 4 made-up completions" in out
