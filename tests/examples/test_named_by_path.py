"""Workflow, role and taskset of one's own, named in a recipe by path: such runs train, and every verb knows
them from any working directory."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path

import pytest
from conftest import lines_of, nothing

from forethought import report
from forethought.cli import main
from forethought.engines.fake.engine import FakeEngine
from forethought.envs.pool import play
from forethought.look import samples, source
from forethought.recipe.load import load
from forethought.recipe.roles import roles_in
from forethought.runs import run
from forethought.tasks import families

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "eval = { tasks = 2, every = 2 }\nsave = { every = 2, trees_every = 1, trees = 2 }\n"
DESK = 'task = { name = "desk", levels = [1], widgets = 4 }\n'
STAGE = '[[stage]]\nkind = "reinforce"\nbatch = 2\nuntil = { steps = 2 }\n'
RECIPES = {
    "workflow_think_twice": 'workflow = { name = "workflow_think_twice.py:think_twice", again = 2 }\n'
    + DESK
    + STAGE
    + "tree = { think = 2 }\nreward = { act = { outcome = 1.0 } }\n",
    "role_of_its_own": 'workflow = "role_of_its_own.py:criticised"\n'
    'roles = { critic = { budget = 3, policy = "plan" } }\n'
    + DESK
    + '[[stage]]\nkind = "imitate"\nbatch = 2\nuntil = { steps = 1 }\n'
    + STAGE
    + "tree = { plan = 2, critic = 2 }\nreward = { act = { outcome = 1.0 } }\n",
    "taskset": 'task = { name = "taskset.py:Sums", levels = [2, 3], base = 5 }\n'
    + '[[stage]]\nkind = "imitate"\nbatch = 2\nuntil = { steps = 1 }\n'
    + STAGE
    + "tree = { plan = 2, act = 2 }\n",
}
ROLES = {
    "workflow_think_twice": ("think", "act"),
    "role_of_its_own": ("plan", "critic", "act"),
    "taskset": ("plan", "act"),
}


def engine(recipe, taskset):
    roles = roles_in({"workflow": {"name": recipe.workflow.name, "roles": recipe.workflow.roles}})
    return FakeEngine(taskset.words(roles), {role: taskset.stop(role) for role in roles})


def begun(name: str, folder: Path, monkeypatch) -> Path:
    """A run of the example `name`, whose recipe lies beside it; the working directory is then another one."""
    (folder / "mine").mkdir()
    shutil.copy(EXAMPLES / f"{name}.py", folder / "mine")
    (folder / "mine" / "r.toml").write_text(f'name = "r"\nlayout = "adapters"\n{SMALL}{RECIPES[name]}')
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    run.train(load(Path("../mine/r.toml")), folder / "run", nothing, engine)
    return folder / "run"


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_that_names_code_is_known_from_anywhere(name, tmp_path, monkeypatch, capsys):
    out = begun(name, tmp_path, monkeypatch)
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 40
    recipe = load(out)
    written = recipe.workflow.roles or ("plan", "act")
    assert written == ROLES[name] and recipe.stage[0].roles == ROLES[name]
    steps = [line for line in lines_of(out / "metrics.jsonl") if "tokens/sampled" in line]
    assert steps and steps[-1]["tokens/sampled"] > 0 and steps[-1].get(f"failed/{written[-1]}", 0) == 0
    trees = [json.loads(line) for path in (out / "trees").glob("step-*.gz") for line in gzip.open(path)]
    paths = {tuple(dict.fromkeys(n["role"] for n in tree["nodes"] if n["role"])) for tree in trees}
    assert ROLES[name] in paths or ROLES[name][:-1] in paths
    rows = samples.sample(source.find(out), n=1, engine_of=engine)
    assert rows and main(["train", str(out), "--print-recipe"]) == 0
    assert f"{tmp_path}/mine/{name}.py:" in capsys.readouterr().out
    other = shutil.copytree(out, tmp_path / "other")
    (tmp_path / "mine" / f"{name}.py").unlink()  # who reads the records needs no code
    assert report.write(out).is_file() and main(["traces", str(out)]) == 0
    assert main(["compare", str(out), str(other), "--out", str(tmp_path / "both.html")]) == 0


def test_an_environment_is_named_by_path(tmp_path, monkeypatch, capsys):
    shutil.copy(EXAMPLES / "environment.py", tmp_path)
    (tmp_path / "r.toml").write_text(
        'workflow = "act_only"\n[task]\nname = "environment"\nenvironment = "environment.py:HotAndCold"\n'
        'plan = "none"\nlevels = [15]\n[[stage]]\nkind = "reinforce"\ntree = { act = 4 }\n'
    )
    monkeypatch.chdir(tmp_path.parent)
    assert main(["check", str(tmp_path / "r.toml")]) == 0 and "nothing is wrong" in capsys.readouterr().out
    recipe = load(tmp_path / "r.toml")
    assert recipe.task.options["environment"] == f"{tmp_path}/environment.py:HotAndCold"
    taskset = families.build(recipe.task)
    [task] = taskset.family(random.Random(0), [15], "train")
    first, *answers = play(taskset.environment(task, False), task, [str(n) for n in range(1, 16)], seed=0)
    assert "from 1 to 15" in task.prompt and 1 <= len(answers) <= 8 and answers[-1].done


def test_a_run_that_names_code_is_resumed(tmp_path, monkeypatch):
    out = begun("workflow_think_twice", tmp_path, monkeypatch)
    longer = load(out, ["stage.0.until.steps=4"])
    run.train(longer, tmp_path / "straight", nothing, engine)
    shutil.copytree(tmp_path / "straight", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-000004")
    (tmp_path / "cut" / "summary.json").unlink()
    run.resume(tmp_path / "cut", nothing, engine)
    last = [lines_of(tmp_path / name / "metrics.jsonl")[-1] for name in ("straight", "cut")]
    assert last[0]["step"] == last[1]["step"] == 4
    assert {k: v for k, v in last[0].items() if "second" not in k and not k.startswith("memory/")} == {
        k: v for k, v in last[1].items() if "second" not in k and not k.startswith("memory/")
    }


def test_arms_of_such_recipes_are_declared(tmp_path, monkeypatch, capsys):
    shutil.copy(EXAMPLES / "taskset.py", tmp_path)
    (tmp_path / "r.toml").write_text(f'name = "r"\n{SMALL}{RECIPES["taskset"]}')
    (tmp_path / "arms.toml").write_text(
        'name = "a"\nseeds = [0]\n[group.g]\nrecipe = "r.toml"\nmetrics = ["eval/act"]\n'
        '[[arm]]\nname = "one"\ngroup = "g"\n[[arm]]\nname = "two"\ngroup = "g"\nset = ["task.base=4"]\n'
    )
    monkeypatch.chdir(tmp_path.parent)
    assert main(["arms", str(tmp_path / "arms.toml"), "--dry-run"]) == 0
    assert "two" in capsys.readouterr().out
