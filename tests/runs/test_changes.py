"""A resumed run with some of its recipe changed: what is allowed, what is refused and why, and that a run
which was lengthened is the run that was long from the start, bit for bit."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing
from test_run import everything, timeless

from forethought import cli, report
from forethought.core.errors import Asked, RecipeError, UserError
from forethought.look import evaluate, find
from forethought.recipe.load import load
from forethought.report.load import load as load_report
from forethought.runs import run
from forethought.runs.interrupts import Wish
from forethought.store import Store

OPTIM = {"optim": {"lr": 0.5, "warmup": 0}}
IMITATE = {"kind": "imitate", "until": {"steps": 6}, "batch": 4} | OPTIM
GATE = {"metric": "eval/act", "max_drop": 0.9}
PLAN = {"kind": "reinforce", "roles": ["plan"], "until": {"steps": 4}, "batch": 2, "gates": [GATE]} | OPTIM


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


def recipe_of(steps=(6, 4), **fields):
    first, second = ({**one, "until": {"steps": n}} for one, n in zip((IMITATE, PLAN), steps, strict=True))
    return desk_recipe(first | fields.pop("first", {}), second, **fields)


def stopped(out, at: int, recipe=None):
    """A run that was told to stop after step `at`."""
    wish = Wish()
    with pytest.raises(Asked):
        run.train(
            recipe or recipe_of(),
            out,
            lambda event: wish.ask("enough") if event.kind in ("step", "eval") and event.step == at else None,
            fake_desk(),
            wish,
        )
    return out


class Killed(BaseException):
    """What nothing catches."""


def kill(event):
    if event.kind in ("step", "eval"):
        raise Killed


def resume(out, *overrides, observe=nothing):
    return run.resume(out, observe, fake_desk(), overrides=overrides)


def left(out) -> dict:
    """All but what tells of the change. What a gate has said depends on how often it is to look."""
    found = everything(out)
    state = {k: v for k, v in found["state"].items() if k != "recipe"}
    return found | {"state": state, "decisions": [d for d in found["decisions"] if d["kind"] != "gate"]}


# A longer run is the run that was long from the start -------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3, 5, 7, 9])
def test_lengthened_it_is_the_run_that_was_long_from_the_start(tmp_path, at):
    run.train(recipe_of((9, 7)), tmp_path / "long", nothing, fake_desk())
    changes = ["stage.1.until.steps=7"]
    if at < 6:
        changes.append("stage.0.until.steps=9")
        out = stopped(tmp_path / "run", at)
    else:  # the first stage has ended, so it had its length from the start
        out = stopped(tmp_path / "run", at + 3, recipe_of((9, 4)))
    assert resume(out, *changes).status == "done"
    assert left(out) == left(tmp_path / "long")
    assert timeless(newest_recipe(out)) == timeless(newest_recipe(tmp_path / "long"))
    assert load(out) == load(tmp_path / "long")


def newest_recipe(out):
    return Store.open(out).latest()[1]["recipe"]


def test_a_rate_that_falls_later_and_easy_levels_that_are_over_are_safe(tmp_path):
    """The past is the same in a longer stage, and so is the end."""
    fields = {"optim": {"lr": 0.5, "warmup": 0, "decay": 0.25}, "easy_first": 0.5, "easy_levels": [1]}
    run.train(recipe_of((8, 4), first=fields), tmp_path / "long", nothing, fake_desk())
    out = stopped(tmp_path / "run", 2, recipe_of((6, 4), first=fields))
    resume(out, "stage.0.until.steps=8")
    assert left(out) == left(tmp_path / "long")


# What it leaves ---------------------------------------------------------------------------------------------


def test_what_was_changed_is_on_record_and_kept_by_a_later_resume(tmp_path):
    out = stopped(tmp_path / "run", 3)
    told, wish = [], Wish()

    def watch(event):
        told.append(event.text)
        if event.kind in ("step", "eval") and event.step == 5:
            wish.ask("enough")

    with pytest.raises(Asked):
        run.resume(out, watch, fake_desk(), wish, ["stage.0.until.steps=8", "save.every=3", "eval.every=4"])
    reasons = [d["reason"] for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "change"]
    assert reasons == [
        "eval.every: 2 before, 4 from step 3 on",
        "save.every: 2 before, 3 from step 3 on",
        "stage.0.until.steps: 6 before, 8 from step 3 on",
    ]
    assert reasons[2] in told
    said = json.loads((out / "recipe.json").read_text())
    assert said["changes"] == [
        {"step": 3, "set": {"eval.every": [2, 4], "save.every": [2, 3], "stage.0.until.steps": [6, 8]}}
    ]
    assert said["stage"][0]["until"]["steps"] == 8 and load(out).stage[0].steps == 8
    resume(out, "stage.1.until.steps=5")
    assert len(json.loads((out / "recipe.json").read_text())["changes"]) == 2
    assert lines_of(out / "metrics.jsonl")[-1]["step"] == 13
    assert evaluate(find(out), engine_of=fake_desk())["e2e"]["n"] == 4
    assert "changes" not in load_report(out).recipe
    again = run.train(load(out), tmp_path / "again", nothing, fake_desk())
    assert again.status == "done" and "changes" not in json.loads(
        (tmp_path / "again/recipe.json").read_text()
    )


def test_killed_before_its_first_checkpoint_the_change_is_kept(tmp_path):
    """The logs are cut back to a checkpoint from before the change; the decision is told again."""
    out = stopped(tmp_path / "run", 3)

    with pytest.raises(Killed):
        resume(out, "stage.0.until.steps=8", observe=kill)
    assert Store.open(out).steps()[-1] == 3
    resume(out)
    run.train(recipe_of((8, 4)), tmp_path / "long", nothing, fake_desk())
    assert left(out) == left(tmp_path / "long")
    changed = [d for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "change"]
    assert [d["reason"] for d in changed] == ["stage.0.until.steps: 6 before, 8 from step 3 on"]


def test_killed_while_the_change_is_written_the_run_has_one_recipe_or_the_other(tmp_path, monkeypatch):
    from forethought.runs import changes

    for name in ("write_resolved", "after"):
        out = stopped(tmp_path / name, 3)

        def killed(*args, **kwargs):
            raise OSError("killed")

        with monkeypatch.context() as patch:
            if name == "after":
                patch.setattr(Store, "write_start", killed)
            else:
                patch.setattr(changes, "write_resolved", killed)
            with pytest.raises(OSError, match="killed"):
                resume(out, "stage.0.until.steps=8")
        assert resume(out).status == "done"
        assert lines_of(out / "metrics.jsonl")[-1]["step"] == (12 if name == "after" else 10)


def test_a_recipe_that_was_changed_by_hand_is_still_refused(tmp_path):
    """Also while the newest checkpoint is from before the change, and only "changes" tells of that."""
    out = stopped(tmp_path / "run", 3)
    with pytest.raises(Killed):
        resume(out, "stage.0.until.steps=8", observe=kill)
    said = json.loads((out / "recipe.json").read_text())
    for edit in ({"seed": 3}, {"changes": []}, {"changes": [{"step": 3, "set": {"seed": [0, 1]}}]}):
        (out / "recipe.json").write_text(json.dumps(said | edit))
        with pytest.raises(UserError, match="is not the recipe that the run was trained with|of another run"):
            resume(out)
    (out / "recipe.json").write_text(json.dumps(said))
    assert resume(out).status == "done"


# What is refused --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return stopped(tmp_path_factory.mktemp("begun") / "run", 3)


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """In its second stage."""
    return stopped(tmp_path_factory.mktemp("later") / "run", 8)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("stage.0.until.steps=3", "3 of its steps are done, so it has at least 4"),
        ("stage.0.batch=8", r"stage 0 has begun with it \(step 3 of 6\)"),
        ("stage.0.optim.lr=0.1", "stage 0 has begun with it"),
        ("seed=1", "everything that was drawn came from it"),
        ("task.widgets=5", "what is done was learned from these tasks"),
        ("model.width=64", "the run began with this model"),
        ("layout=shared", "who holds which weights was decided at the start"),
        ("eval.tasks=9", "changes are measured against that"),
        ("probes.every=1", "what was probed so far was probed with it"),
        ("engine.device=cpu", "it changes the bits of what is computed"),
        ("name=other", "what is done depends on it"),
    ],
)
def test_what_would_touch_what_is_done_is_refused_by_key(begun, change, why):
    before = (begun / "recipe.json").read_bytes(), (begun / "decisions.jsonl").read_bytes()
    key = change.partition("=")[0]
    with pytest.raises(UserError, match=f"{key} cannot be changed in .*: .*{why}.*as a run of its own"):
        resume(begun, "save.every=9", change)
    assert before == ((begun / "recipe.json").read_bytes(), (begun / "decisions.jsonl").read_bytes())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("stage.0.until.steps=9", "stage 0 has ended"),
        ("stage.1.kind=imitate", "stage.1"),
        ("stage.1.gates=[]", "a stage has the gates that it began with"),
    ],
)
def test_of_stages_that_are_over_nothing_can_be_changed(later, change, why):
    with pytest.raises(UserError, match=why):
        resume(later, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stage.0.until.stps=9", "stage.0.until.stps: unknown key"),
        ("stage.5.until.steps=9", "stage.5: no such entry"),
        ("save.every=x", "save.every: expected a whole number"),
        ("save.every=0", "save.every"),
    ],
)
def test_a_change_that_no_recipe_can_have_is_a_mistake_of_the_recipe(begun, change, message):
    with pytest.raises(RecipeError, match=message):
        resume(begun, change)


def test_a_schedule_that_follows_the_length_is_refused_where_it_has_begun(tmp_path):
    falls = {"optim": {"lr": 0.5, "warmup": 0, "decay": 0.9}}
    with pytest.raises(UserError, match="optim.schedule follows the stage's length"):
        resume(stopped(tmp_path / "a", 3, recipe_of(first=falls)), "stage.0.until.steps=9")
    easy = {"easy_first": 0.5, "easy_levels": [1]}
    with pytest.raises(UserError, match="easy_first follows the stage's length"):
        resume(stopped(tmp_path / "b", 5, recipe_of(first=easy)), "stage.0.until.steps=9")


def test_a_finished_run_is_refused(tmp_path):
    run.train(recipe_of(), tmp_path / "run", nothing, fake_desk())
    with pytest.raises(UserError, match="stage.1.until.steps: .* is finished, and its optimizers are gone"):
        resume(tmp_path / "run", "stage.1.until.steps=9")


def test_what_a_stage_reads_later_can_be_changed(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    changes = (
        "stage.1.optim.lr=0.1",
        "stage.1.batch=4",
        "stage.1.gates.0.max_drop=0.5",
        "limits.max_failed=0.9",
        "trackers=[]",
    )
    assert resume(tmp_path / "run", *changes).status == "done"
    recipe = load(tmp_path / "run")
    assert (recipe.stage[1].batch, recipe.stage[1].gates[0].max_drop) == (4, 0.5)


def test_what_only_steps_read_can_be_changed_until_one_is_done(tmp_path):
    """The second stage has been prepared and measured, and has made no step."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run.train(recipe_of(), out, lambda event: kill(event) if event.step == 7 else None, fake_desk())
    assert Store(out).state(6)[1]["progress"]["begun"]
    with pytest.raises(UserError, match=r"stage 1 has begun with it \(step 0 of 4\)"):
        resume(out, "stage.1.optim.lr=0.1")
    assert resume(out, "stage.1.tree.plan=3", "stage.1.batch=4", "stage.1.until.steps=2").status == "done"
    assert load(out).stage[1].tree.counts["plan"] == 3 and lines_of(out / "metrics.jsonl")[-1]["step"] == 8


def test_nothing_is_changed_by_the_value_that_is_there(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    resume(tmp_path / "run", "stage.0.batch=4", "seed=0")
    assert "changes" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


def test_from_the_command_line(begun, tmp_path, monkeypatch, capsys):
    shutil.copytree(begun, tmp_path / "run")
    real = run.resume
    monkeypatch.setattr(run, "resume", lambda out, observe, **kw: real(out, observe, fake_desk(), **kw))
    argv = ["train", "--resume", str(tmp_path / "run"), "--plain", "--set"]
    assert cli.main([*argv, "seed=1"]) == 2
    assert "seed cannot be changed in" in capsys.readouterr().err
    assert cli.main([*argv, "stage.0.until.steps=7"]) == 0
    assert "stage.0.until.steps: 6 before, 7 from step 3 on" in capsys.readouterr().out
