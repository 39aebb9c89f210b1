"""Code of the user's that broke, was mended, and goes on: what is refused, accepted and written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

import forethought as ft
from forethought.cli import main
from forethought.core.errors import FaultStop, RecipeError, UserError
from forethought.estimate.tokens import Assumptions, lengths_of, work_of
from forethought.recipe.check import check
from forethought.recipe.load import load
from forethought.runs import run, rundata

STAGE = {"kind": "reinforce", "batch": 2, "tree": {"plan": 2, "act": 2}, "until": {"steps": 4}}
BROKEN = "def short(task, path):\n    raise KeyError('no such word')\n"
MENDED = "def short(task, path):\n    return 1.0\n"


def timeless(row: dict) -> dict:
    """A line of metrics without what depends on the clock."""
    return {k: v for k, v in row.items() if not k.startswith(("seconds", "tokens_per_second", "memory/"))}


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def stopped(tmp_path, monkeypatch) -> tuple[Path, str]:
    """A run that a reward function has stopped, and what it said."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "rewards.py").write_text(BROKEN)
    (tmp_path / "other.py").write_text("def long(task, path): return 0.0\n")
    reward = {f"{tmp_path}/rewards.py:short": 1.0, f"{tmp_path}/other.py:long": 1.0}
    recipe = desk_recipe(
        STAGE | {"reward": {"act": reward, "plan": {"outcome": 1.0}}},
        layout="shared",
        probes={"every": 0, "conflict_every": 0},
        eval={"tasks": 2, "every": 0},
        limits={"window": 2},
    )
    with pytest.raises(FaultStop) as error:
        run.train(recipe, tmp_path / "run", nothing, fake_desk())
    return tmp_path / "run", str(error.value)


def test_the_advice_at_the_stop_is_the_command_that_goes_on(stopped, tmp_path):
    out, said = stopped
    assert said.endswith(f"Mend it, then continue with: forethought train --resume {out} --changed-code")
    with pytest.raises(FaultStop):  # nothing was changed: the flag is no harm
        run.resume(out, nothing, fake_desk(), changed_code=True)
    assert rundata.accepted(out) == []
    (tmp_path / "rewards.py").write_text(MENDED)
    done = ft.train(resume=out, changed_code=True, progress=False, engine_of=fake_desk())
    assert done.summary["status"] == "done"


def test_changed_code_is_refused_with_the_way_on_and_accepted_by_it(stopped, tmp_path, capsys):
    out, _ = stopped
    (tmp_path / "rewards.py").write_text(MENDED)
    assert main(["train", "--resume", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/rewards.py has changed since the run began" in line and "--changed-code" in line
    with pytest.raises(UserError, match="changed_code=True"):
        run.resume(out, nothing, fake_desk())
    assert run.resume(out, nothing, fake_desk(), changed_code=True).status == "done"
    [told] = [d for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "changed code"]
    assert told["step"] == 2 and f"{tmp_path}/rewards.py" in told["reason"]
    assert digest_of(BROKEN)[:16] in told["reason"] and digest_of(MENDED)[:16] in told["reason"]
    data = json.loads((out / "data.json").read_text())
    [entry] = [one for one in data.values() if "rewards.py" in one["file"]] if data.pop("digest") else []
    assert entry["sha256"] == digest_of(MENDED) and entry["bytes"] == len(MENDED)
    assert entry["before"] == [{"until": 2, "sha256": digest_of(BROKEN)}]
    assert rundata.changed(out, load(out)) == []  # the new digest, and the record's own, hold


def test_a_decision_that_a_later_cut_takes_away_is_written_again(stopped, tmp_path):
    out, _ = stopped
    (tmp_path / "rewards.py").write_text(BROKEN + "# another try\n")
    with pytest.raises(FaultStop):
        run.resume(out, nothing, fake_desk(), changed_code=True)
    (tmp_path / "rewards.py").write_text(MENDED)
    (tmp_path / "other.py").write_text("def long(task, path): return 0.5\n")
    assert run.resume(out, nothing, fake_desk(), changed_code=True).status == "done"
    told = [d for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "changed code"]
    assert [d["step"] for d in told] == [2, 4, 4]
    assert len({d["reason"] for d in told}) == 3


def test_code_that_is_gone_stays_refused(stopped, tmp_path):
    out, _ = stopped
    (tmp_path / "rewards.py").unlink()
    with pytest.raises(UserError, match=r"rewards\.py: no such file.*Put the file back as it was, or start"):
        run.resume(out, nothing, fake_desk(), changed_code=True)


def test_data_are_no_code(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    tables = {"name": "math", "train": str(tmp_path / "rows.jsonl"), "eval": str(tmp_path / "rows.jsonl")}
    recipe = desk_recipe(STAGE, task=tables)
    rundata.record(recipe, tmp_path)
    (tmp_path / "rows.jsonl").write_text("[]\n")
    assert rundata.way_on(tmp_path, recipe) == f"forethought train --resume {tmp_path}"
    with pytest.raises(UserError, match="Put the file back as it was, or start a new run"):
        rundata.refuse_changed(tmp_path, recipe, changed_code=True)


@pytest.mark.parametrize("before", [5, [5], [{}], [{"until": "x", "sha256": "y"}], [{"until": 1}]])
def test_a_record_that_no_run_wrote_is_refused(stopped, before):
    out, _ = stopped
    data = json.loads((out / "data.json").read_text())
    del data["digest"]
    next(iter(data.values()))["before"] = before
    (out / "data.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="data.json is not what was written"):
        run.resume(out, nothing, fake_desk(), changed_code=True)


def test_code_that_never_ran_here_still_asks_for_consent(stopped, tmp_path, monkeypatch):
    out, _ = stopped
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    (tmp_path / "rewards.py").write_text(MENDED)
    with pytest.raises(UserError, match="has not run here before.*--trust-code"):
        run.resume(out, nothing, fake_desk(), changed_code=True)


def test_the_flag_is_for_a_resume(capsys):
    assert main(["train", "desk", "--changed-code"]) == 2
    assert "--changed-code is for --resume" in capsys.readouterr().err
    with pytest.raises(UserError, match="changed_code is for resume"):
        ft.train("desk", changed_code=True)


CREDIT = """
def row(trees, spec, state):
    state["calls"] = state.get("calls", 0) + 1
    if state["calls"] == 3:
        {does}
    return [{{n.id: float(n.reward) for n in t.nodes if n.reward is not None and n.policy}} for t in trees]
"""
WRONG = {
    "raise ValueError('no peers')": ("raised ValueError: no peers", 5),
    "return [{1: float('nan')} for _ in trees]": ("must be a finite number, found nan", 2),
    "return [{999: 1.0} for _ in trees]": ("no policy wrote such a node", 2),
    "return []": ("must give one table for each of 2 trees", 2),
}


@pytest.mark.parametrize("does", WRONG)
def test_a_credit_row_that_breaks_leaves_a_run_that_goes_on(does, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    said, line = WRONG[does]
    file, out = tmp_path / "rows.py", tmp_path / "run"

    def recipe_of(text: str):
        file.write_text(text)
        return desk_recipe(
            STAGE | {"roles": ["act"], "credit": {"name": f"{file}:row"}, "skip_zero": False},
            layout="shared",
            probes={"every": 0, "conflict_every": 0},
            eval={"tasks": 2, "every": 0},
        )

    with pytest.raises(FaultStop) as stopped:
        run.train(recipe_of(CREDIT.format(does=does)), out, nothing, fake_desk())
    text = str(stopped.value)
    assert text.startswith(f"stopped at step 2: stage.0.credit: {file}:row") and said in text
    assert f"({file}:{line})" in text
    assert text.endswith(
        f"; everything is saved. Mend it, then continue with: forethought train --resume {out} --changed-code"
    )
    assert (out / "checkpoints" / "step-000002").is_dir()
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    mended = recipe_of(CREDIT.format(does="pass"))
    assert run.resume(out, nothing, fake_desk(), changed_code=True).status == "done"
    run.train(mended, tmp_path / "straight", nothing, fake_desk())  # the broken call has left nothing behind
    state = "checkpoints/step-000004/state.json"
    ended = [json.loads((one / state).read_text())["progress"] for one in (out, tmp_path / "straight")]
    assert ended[0]["credit"] == ended[1]["credit"]
    straight = lines_of(tmp_path / "straight" / "metrics.jsonl")
    assert [timeless(row) for row in lines_of(out / "metrics.jsonl")] == [timeless(row) for row in straight]


LOSS = """
from forethought.learn.losses.row import Loss

calls = 0

def mine(t):
    global calls
    calls += 1
    if calls == {nth}:
        {does}
    return -(t.logp - t.old).exp() * t.advantage, {{}}

MINE = Loss(per_token=mine, needs={{"advantage", "old"}})
"""
KIND = """
from dataclasses import dataclass
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.stages import reinforce

@dataclass(frozen=True, slots=True, kw_only=True)
class Mine(Reinforce):
    def step(self, stage, k, conflict):
        if k == {nth} - 1:
            {does}
        return reinforce.step(stage, k, conflict)
"""
BREAKS = {
    "loss": (
        LOSS,
        "loss",
        "MINE",
        "raise RuntimeError('no\\nsuch shape')",
        "raised RuntimeError: no such shape",
    ),
    "kind": (KIND, "kind", "Mine", "raise StopIteration", "step of {name} raised StopIteration"),
    "no step": (KIND, "kind", "Mine", "return None", "must return a stages.outcome.Step, gave None"),
    "no metrics": (
        KIND,
        "kind",
        "Mine",
        "from forethought.stages.outcome import Step; return Step({{'x': 5.0}})",
        "metric 'x' of {name} must be one of core.metrics (Mean, Sum, ...), found 5.0",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_loss_or_a_kind_that_breaks_leaves_a_run_that_goes_on(case, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code, key, attribute, does, said = BREAKS[case]
    file, out = tmp_path / "mine.py", tmp_path / "run"
    name = f"{file}:{attribute}"

    def recipe_of(does: str, nth: int):
        file.write_text(code.format(does=does.replace("{{", "{").replace("}}", "}"), nth=nth))
        reward = {"act": {"format": 1.0, "follows": 1.0}}
        return desk_recipe(
            STAGE | {"roles": ["act"], "reward": reward, "skip_zero": False, key: name},
            layout="shared",
            probes={"every": 0, "conflict_every": 0},
            eval={"tasks": 2, "every": 0},
        )

    with pytest.raises(FaultStop) as stopped:
        run.train(recipe_of(does, 3), out, nothing, fake_desk())
    text = str(stopped.value)
    assert text.startswith(f"stopped at step 2: stage.0.{key}: ") and said.format(name=name) in text
    assert f"({file}:" in text and "\n" not in text
    assert text.endswith(
        f"; everything is saved. Mend it, then continue with: forethought train --resume {out} --changed-code"
    )
    recipe_of("pass", 3)
    assert run.resume(out, nothing, fake_desk(), changed_code=True).status == "done"
    assert len([row for row in lines_of(out / "metrics.jsonl") if "tokens/sampled" in row]) == 4


def test_weights_that_moved_in_the_step_are_not_saved(tmp_path, monkeypatch):
    """The second of two updates breaks: the step is not half done, it is done again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file, out = tmp_path / "mine.py", tmp_path / "run"
    stage = STAGE | {
        "roles": ["plan"],
        "reward": {"plan": {"valid": 1.0, "format": 1.0}},
        "loss": f"{file}:MINE",
        "updates": 2,
        "skip_zero": False,
    }
    tables = {
        "layout": "shared",
        "probes": {"every": 0, "conflict_every": 0},
        "eval": {"tasks": 2, "every": 0},
    }
    file.write_text(LOSS.format(does="raise ValueError('mine')", nth=4))
    with pytest.raises(FaultStop, match="stopped at step 1: .*; it goes on from step 0. Mend it"):
        run.train(desk_recipe(stage, **tables), out, nothing, fake_desk())
    file.write_text(LOSS.format(does="pass", nth=4))
    run.resume(out, nothing, fake_desk(), changed_code=True)
    run.train(desk_recipe(stage, **tables), tmp_path / "straight", nothing, fake_desk())
    both = [lines_of(one / "metrics.jsonl") for one in (out, tmp_path / "straight")]
    assert [timeless(row) for row in both[0]] == [timeless(row) for row in both[1]]


def test_a_kind_whose_check_or_work_raises_is_the_users_to_mend(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from forethought.recipe.kinds.reinforce import Reinforce\n"
        "@dataclass(frozen=True, slots=True, kw_only=True)\nclass Checks(Reinforce):\n"
        "    def check(self, where, recipe):\n        1 / 0\n"
        "    def step(self, stage, k, conflict):\n        pass\n"
        "@dataclass(frozen=True, slots=True, kw_only=True)\nclass Works(Reinforce):\n"
        "    def work(self, n, used, recipe):\n        1 / 0\n"
        "    def step(self, stage, k, conflict):\n        pass\n"
    )
    said = r"^stage\.0\.kind: .*:{} raised ZeroDivisionError: division by zero \(.*mine\.py:{}\)$"
    with pytest.raises(RecipeError, match=said.format("Checks", 6)):
        check(desk_recipe(STAGE | {"kind": f"{file}:Checks"}))
    recipe = desk_recipe(STAGE | {"kind": f"{file}:Works"})
    with pytest.raises(RecipeError, match=said.format("Works", 12)):
        work_of(recipe.stage[0], recipe, lengths_of(recipe, Assumptions()), Assumptions())


def test_a_role_that_the_run_lacks_ends_it_with_the_command_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file, out, told = tmp_path / "flow.py", tmp_path / "run", []
    code = (
        "from forethought.workflows import workflow\n"
        "@workflow(roles=('plan', 'act'))\nasync def mine(t, task, n):\n"
        "    for plan in await t.fork('plan', n['plan']):\n        await plan.generate('{}')\n"
    )
    file.write_text(code.format("critic"))
    recipe = desk_recipe(STAGE, workflow=f"{file}:mine", layout="shared", eval={"tasks": 2, "every": 0})
    with pytest.raises(FaultStop) as stopped:
        run.train(recipe, out, lambda event: told.append(event.text), fake_desk())
    said = "mine speaks a role that this run lacks: unknown role 'critic' (known: act, plan)"
    assert f"stopped at step 0: workflow: {file}:{said} ({file}:5); nothing was trained" in str(stopped.value)
    assert str(stopped.value).endswith(f"--resume {out} --changed-code")
    assert not [text for text in told if "report.html" in text]  # there is nothing to report yet
