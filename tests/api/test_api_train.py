"""`ft.train` with the fake engine: what it takes, what callbacks hear, how they stop a run, what is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of

import forethought as ft
from forethought.api.given import beside_a_loop
from forethought.recipe.convert import to_dict

IMITATE = {"kind": "imitate", "until": {"steps": 4}, "batch": 4, "optim": {"lr": 1.0, "warmup": 0}}


def tables(*stages: dict, **fields) -> dict:
    return to_dict(desk_recipe(*(stages or (IMITATE,)), **fields))


def train(recipe=None, **settings) -> ft.Run:
    settings = {"progress": False, "engine_of": fake_desk()} | settings
    return ft.train(*([] if "resume" in settings else [tables() if recipe is None else recipe]), **settings)


class Heard(ft.Callback):
    def __init__(self):
        self.moments: list[ft.Moment] = []

    def on_step(self, moment):
        self.moments.append(moment)

    on_evaluation = on_gate = on_checkpoint = on_end = on_step

    def kinds(self) -> list[tuple[str, int]]:
        return [(one.kind, one.step) for one in self.moments]


# What it takes ----------------------------------------------------------------------------------------------


def test_a_name_tables_a_file_a_recipe_and_a_run_are_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(tables()))
    runs = [
        train(tables(), out=tmp_path / "a"),
        train(tmp_path / "recipe.json", out="b"),
        train(desk_recipe(IMITATE), out=tmp_path / "c"),
        train(tmp_path / "a"),  # a run's, into runs/made-1
    ]
    assert runs[3].path == Path("runs/made-1")
    assert len({(run.path / "recipe.json").read_text() for run in runs}) == 1
    small = {"stage.0.until.steps": 1, "stage.1.until.steps": 1, "eval.tasks": 1, "eval.noise": True}
    changed = train("desk-shared", out=tmp_path / "d", overrides=small | {"name": "short"}, seed=7)
    assert (changed.recipe.name, changed.recipe.seed, changed.recipe.stage[0].steps) == ("short", 7, 1)
    assert changed.recipe.eval.noise and changed.recipe.stage[1].gates


def test_without_gates(tmp_path):
    gate = {"metric": "eval/act", "max_drop": 0.1}
    stage = IMITATE | {"gates": [gate]}
    assert train(tables(stage), out=tmp_path / "a", gates=False).recipe.stage[0].gates == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "dsk"}, "did you mean 'desk'"),
        ({"overrides": {"stage.0.until.stps": 3}}, "stage.0.until.stps: unknown key"),
        ({"overrides": "seed=1"}, "overrides: give a list or a dict, such as .'seed=1'."),
        ({"overrides": {"eval.tasks": object()}}, "overrides: eval.tasks takes a number"),
        ({"callbacks": [3]}, "callbacks: int has no method on_step, on_evaluation, on_gate"),
        ({"callbacks": [Heard]}, "callbacks: Heard is a class; give an object of it"),
        ({"resume": "nowhere"}, "nowhere is not a run"),
        ({"resume": "x", "out": "y", "seed": 3}, "so it takes no out, seed"),
    ],
)
def test_a_mistake_is_a_user_error_before_anything_is_written(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ft.UserError, match=message):
        train(**settings)
    assert list(tmp_path.iterdir()) == []


def test_a_moment_that_no_run_has_is_named(tmp_path):
    class Typo:
        def on_stp(self, moment):
            pass

    async def later(moment):
        pass

    with pytest.raises(ft.UserError, match="Typo has unknown moment 'stp'; did you mean 'step'"):
        train(out=tmp_path / "a", callbacks=[Typo()])
    with pytest.raises(ft.UserError, match="on_step of later is async; a run calls plain functions"):
        train(out=tmp_path / "a", callbacks=[later])


def test_a_directory_that_holds_something_is_refused(tmp_path):
    train(out=tmp_path / "a")
    with pytest.raises(ft.UserError, match=r"not empty; continue that run with ft.train\(resume="):
        train(out=tmp_path / "a")


def test_it_prints_plain_lines_or_nothing(tmp_path, capfd):
    train(out=tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    train(out=tmp_path / "told", progress=True)
    out, err = capfd.readouterr()
    assert out.startswith(f"start {tmp_path / 'told'}: stages 1, steps 4\n") and err == ""


# Callbacks --------------------------------------------------------------------------------------------------


def test_callbacks_hear_every_moment_in_order(tmp_path):
    heard, steps = Heard(), []
    gate = {"metric": "eval/act", "max_drop": 0.9}
    recipe = tables(IMITATE | {"gates": [gate]})
    run = train(recipe, out=tmp_path / "run", callbacks=[heard, lambda moment: steps.append(moment.step)])
    assert steps == [1, 2, 3, 4]
    assert heard.kinds() == [
        *[("evaluation", 0), ("checkpoint", 0)],
        ("step", 1),
        *[("step", 2), ("evaluation", 2), ("gate", 2), ("checkpoint", 2)],
        ("step", 3),
        *[("step", 4), ("evaluation", 4), ("gate", 4), ("checkpoint", 4)],
        ("end", 4),
    ]
    by = {(one.kind, one.step): one for one in heard.moments}
    lines = {line["step"]: line for line in run.metrics()}
    assert by["step", 3].values["loss/sft"] == lines[3]["loss/sft"]
    assert (
        by["evaluation", 4].values["eval/plan"] == lines[4]["eval/plan"] == by["end", 4].values["eval/plan"]
    )
    assert (by["gate", 2].outcome, by["gate", 2].reason.split(":")[0]) == ("vacuous", "eval/act")
    assert by["checkpoint", 2].checkpoint == run.path / "checkpoints" / "step-000002"
    assert by["end", 4].status == "done" == run.status


def test_watching_changes_no_bit(tmp_path):
    seen, unseen = train(out=tmp_path / "a", callbacks=[Heard()]), train(out=tmp_path / "b")
    names = [f"checkpoints/step-000004/{name}" for name in ("engine",)]
    files = sorted(p.relative_to(seen.path) for p in (seen.path / names[0]).rglob("*") if p.is_file())
    assert files and all((seen.path / f).read_bytes() == (unseen.path / f).read_bytes() for f in files)


def bits(run: ft.Run) -> dict[str, bytes]:
    last = run.checkpoints()[-1].path / "engine"
    return {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.rglob("*")) if p.is_file()}


def test_a_callback_stops_the_run_which_goes_on_to_the_same_end(tmp_path):
    heard = Heard()
    stop = lambda moment: moment.step == 3 and moment.stop("enough")  # noqa: E731
    run = train(out=tmp_path / "run", callbacks=[stop, heard])
    assert (run.status, run.summary["step"]) == ("interrupted", 3)
    assert [one.step for one in run.checkpoints()][-1] == 3
    assert (run.decisions()[-1]["outcome"], run.decisions()[-1]["reason"]) == ("interrupt", "enough")
    assert (heard.moments[-1].kind, heard.moments[-1].status) == ("end", "interrupted")
    assert train(resume=run).status == "done"
    assert bits(run) == bits(train(out=tmp_path / "straight"))


def test_a_callback_that_raises_loses_nothing(tmp_path):
    heard = Heard()

    def broken(moment):
        if moment.step == 3:
            raise ValueError("no such\nkey")

    with pytest.raises(ft.CallbackError) as caught:
        train(out=tmp_path / "run", callbacks=[broken, heard])
    line = broken.__code__.co_firstlineno + 2
    assert str(caught.value) == (
        f"broken.on_step raised ValueError: no such key ({__file__}:{line}) at step 3; everything is saved "
        f"in {tmp_path / 'run'}; continue with: forethought train --resume {tmp_path / 'run'}"
    )
    assert isinstance(caught.value.__cause__, ValueError) and caught.value.exit_code == 2
    run = ft.open(tmp_path / "run")
    assert (run.status, run.summary["step"]) == ("interrupted", 3)
    assert ("end", 3) not in heard.kinds()  # none is called after a fault
    assert train(resume=tmp_path / "run").status == "done"
    assert bits(run) == bits(train(out=tmp_path / "straight"))


def test_a_callback_that_leaves_the_program_loses_nothing(tmp_path):
    with pytest.raises(ft.CallbackError, match=r"on_step raised SystemExit: 3 .*everything is saved"):
        train(out=tmp_path / "run", callbacks=[lambda moment: moment.step == 1 and sys.exit(3)])
    assert ft.open(tmp_path / "run").summary["step"] == 1


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint", "gate", "end"])
def test_wherever_it_raises(tmp_path, kind):
    def broken(moment):
        raise RuntimeError(kind)

    callback = type("Mine", (ft.Callback,), {f"on_{kind}": lambda self, moment: broken(moment)})()
    recipe = tables(IMITATE | {"gates": [{"metric": "eval/act", "max_drop": 0.9}]})
    with pytest.raises(
        ft.CallbackError, match=f"Mine.on_{kind} raised RuntimeError: {kind} .*everything is saved"
    ):
        train(recipe, out=tmp_path / "run", callbacks=[callback])
    run = ft.open(tmp_path / "run")
    if run.status != "done":  # on_end is called when all is done
        assert train(resume=run).status == "done"
    assert bits(run) == bits(train(recipe, out=tmp_path / "straight"))


def test_a_gate_that_stops_the_run_is_raised_and_told(tmp_path):
    heard = Heard()
    gate = {"metric": "eval/act", "at_most": 0.1, "on_fail": "stop"}
    with pytest.raises(ft.GateStop):
        train(
            tables(IMITATE | {"gates": [gate]}),
            out=tmp_path / "run",
            callbacks=[heard],
        )
    assert (heard.moments[-1].kind, heard.moments[-1].status) == ("end", "stopped")
    assert ft.open(tmp_path / "run").status == "stopped"


# Where it runs ----------------------------------------------------------------------------------------------


def test_in_a_notebook_an_event_loop_runs_already(tmp_path):
    async def cell():
        run = train(tables(workflow="plan_then_act"), out=tmp_path / "run")
        return run, run.evaluate(engine_of=fake_desk())

    run, found = asyncio.run(cell())
    assert run.status == "done" and found["e2e"]["n"] == 4

    async def inner():  # what workflows of free order and environments of `async def` do
        return beside_a_loop(lambda: asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, "x")))

    assert asyncio.run(inner()) == "x"


def test_beside_the_main_thread_no_signal_handler_is_set(tmp_path):
    before, runs = signal.getsignal(signal.SIGINT), []
    seen = []
    watch = lambda moment: seen.append(signal.getsignal(signal.SIGINT))  # noqa: E731
    thread = threading.Thread(target=lambda: runs.append(train(out=tmp_path / "run", callbacks=[watch])))
    thread.start()
    thread.join()
    assert runs[0].status == "done" and set(seen) == {before} == {signal.getsignal(signal.SIGINT)}


def test_ctrl_c_saves_and_puts_the_handler_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    press = lambda moment: moment.step == 2 and os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    with pytest.raises(ft.Interrupted, match="interrupted at step 2, everything is saved"):
        train(out=tmp_path / "run", callbacks=[press])
    assert signal.getsignal(signal.SIGINT) is before
    assert train(resume=tmp_path / "run").status == "done"
    assert [line["step"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_ctrl_c_in_a_notebook(tmp_path):
    def press(moment):
        if moment.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.2)  # the main thread hears of it

    async def cell():
        train(out=tmp_path / "run", callbacks=[press])

    with pytest.raises((ft.Interrupted, KeyboardInterrupt)):
        asyncio.run(cell())
    assert ft.open(tmp_path / "run").status == "interrupted"
    assert train(resume=tmp_path / "run").status == "done"
