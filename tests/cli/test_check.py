"""`forethought check`: a recipe that cannot train and a taskset that breaks a promise are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.cli import main

EXAMPLE = (Path(__file__).parents[2] / "examples" / "taskset.py").read_text()


def told(capsys) -> tuple[list[str], str]:
    out, err = capsys.readouterr()
    return [line for line in out.splitlines() if line.startswith("wrong")], err


@pytest.mark.parametrize("name", ["desk", "desk-shared", "desk-blink", "blocksworld"])
def test_shipped_recipes_are_fine(name, capsys):
    assert main(["check", name]) == 0
    assert capsys.readouterr().out.endswith(f"recipe {name}: nothing is wrong\n")


def test_a_good_taskset_is_fine(tmp_path, capsys):
    (tmp_path / "t.py").write_text(EXAMPLE)
    assert main(["check", str(tmp_path / "t.py")]) == 0
    assert main(["check", f"{tmp_path}/t.py:Sums"]) == 0
    assert capsys.readouterr().out.count("ok ") == 18


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('(split == "eval")', "False", "no task stands in both splits: "),
        ("[rng.randrange(self.base)", "[__import__('random').randrange(self.base)", "draw with the rng"),
        ("range(self.base)))", "range(self.base - 1)))", "'9', in the "),
        ("id=prompt", 'id="same"', "one id means one task: id 'same' stands for"),
        ("level=level, context", "level=level + 1, context", "asked for level 2, it gave task"),
        (
            "        return [self.drawn",
            "        1 / 0\n        return [self.drawn",
            "task: ZeroDivisionError",
        ),
        ('[*task.state, "</plan>"]', "[*task.state]", "does not end with its stop '</plan>'"),
        ('{"plan": 5, "act": 2}', '{"plan": 2, "act": 2}', "has 3 words, its budget is 2"),
        ('f"{task.state[-1]} </act>"}', 'f"{task.state[0]} </act>"}', "no success (no reason given)"),
        ("success=action == right", "success=True", "acting with '' on"),
        ("success=action == right", "success=action[0] == right", "environment: IndexError"),
    ],
)
def test_a_broken_promise_is_said(tmp_path, capsys, old, new, said):
    assert EXAMPLE.count(old) >= 1
    (tmp_path / "t.py").write_text(EXAMPLE.replace(old, new))
    assert main(["check", str(tmp_path / "t.py")]) == 2
    wrong, err = told(capsys)
    assert any(said in line for line in wrong), wrong
    assert "promises are not kept" in err and len(err.splitlines()) == 1


def test_a_judge_that_refuses_the_oracle_is_said(tmp_path, capsys):
    judge = '\n    def judge_plan(self, task, text):\n        return Verdict(score=0.0, reason="never")\n'
    source = EXAMPLE.replace("Outcome, Task, Turn", "Outcome, Task, Turn, Verdict") + judge
    (tmp_path / "t.py").write_text(source)
    assert main(["check", str(tmp_path / "t.py")]) == 2
    assert any("judge_plan gives" in line and "0.0: never" in line for line in told(capsys)[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "has no class that derives from Taskset. check tries tasksets and recipes"),
        (EXAMPLE + "\nclass Other(Sums): pass\n", "has 2 tasksets (Sums, Other)"),
        ("raise ValueError('no')", "raised ValueError: no"),
        (EXAMPLE.replace('name, levels, budgets = "sums"', 'name, levels, other = "sums"'), "has no budgets"),
        (EXAMPLE.replace("levels=(), base=10", "base, levels=()"), "needs base: task = {"),
        (EXAMPLE.replace("self.base = base", "raise OSError('no file')"), "task: OSError: no file"),
    ],
)
def test_a_file_that_holds_no_taskset_is_said(tmp_path, capsys, text, said):
    (tmp_path / "t.py").write_text(text)
    assert main(["check", str(tmp_path / "t.py")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[stage]]\nkind = "reinforce"\ncredit = { name = "c.py:f" }', "stage.0.credit.name: "),
        ("[[stage]]\nlevels = [99]", "stage.0.levels: desk has no level 99"),
        ('task = { name = "desk", slipp = 1 }\n[[stage]]', "task.slipp: unknown option"),
        ('trackers = ["t.py:Absent"]\n[[stage]]', "trackers.0: "),
        ("[[stage]]\noptim = { lr = -1 }", "stage.0.optim.lr: "),
        ('[under.react]\n"stage.0.tre" = 1\n[[stage]]', "under.react: stage.0.tre: "),
    ],
)
def test_a_recipe_that_cannot_train_is_said(tmp_path, capsys, text, said):
    (tmp_path / "r.toml").write_text(text)
    assert main(["check", str(tmp_path / "r.toml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"forethought: {said}")


def test_what_the_recipe_loads_is_said(tmp_path, capsys):
    (tmp_path / "t.py").write_text(EXAMPLE)
    (tmp_path / "r.toml").write_text('task = { name = "t.py:Sums", base = 4 }\n[[stage]]\n')
    assert main(["check", str(tmp_path / "r.toml"), "--set", "task.base=5"]) == 0
    assert f"loaded    task.name: {tmp_path}/t.py:Sums" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "t.py"), "--set", "seed=1"]) == 2
    assert main(["check", str(tmp_path / "absent.toml")]) == 2


def test_a_file_of_rewards_is_pointed_to_the_recipe_that_names_it(tmp_path, capsys):
    (tmp_path / "rewards.py").write_text("def short(completions, **kwargs):\n    return []\n")
    assert main(["check", str(tmp_path / "rewards.py")]) == 2
    said = capsys.readouterr().err
    assert "no class that derives from Taskset" in said and "forethought check RECIPE.toml" in said
