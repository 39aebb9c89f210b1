"""How a run ends when something else goes wrong: its page, its terminal, its weights, its machine; and what
the next command finds."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import desk_choices, desk_recipe, fake_desk, lines_of, nothing

from forethought import cli, report
from forethought.core.errors import Diverged, Interrupted, UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.report.load import load as load_run
from forethought.runs import run
from forethought.store import Store, verify
from forethought.store import files as store_files

SGD = {"lr": 0.5}
IMITATE = {"kind": "imitate", "until": {"steps": 4}, "batch": 2, "optim": SGD}
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 3},
    "batch": 2,
    "tree": {"plan": 3, "act": 1},
    "optim": SGD,
}
QUIET = {"save": {"every": 1, "keep": 2, "trees_every": 1, "trees": 1}, "eval": {"tasks": 1, "every": 0}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_files, "sync", lambda path: None)


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


def summary(out: Path) -> dict:
    return Store(out).read_summary()[0]


def at_step(step: int, act):
    done = []

    def observe(event):
        if event.kind in ("step", "eval") and event.step == step and not done:
            done.append(act())

    return observe


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Killed(BaseException):
    pass


def kill() -> None:
    raise Killed


# the page ---------------------------------------------------------------------------------------------------


def test_a_run_that_ended_well_does_not_fail_at_its_page(tmp_path, monkeypatch):
    def broken(out):
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    notes = []
    with monkeypatch.context() as patch:
        patch.setattr(report, "write", broken)
        result = run.train(
            desk_recipe(IMITATE), tmp_path / "a run", lambda e: notes.append(e.text), fake_desk()
        )
    assert (
        result.status == "done" and result.exit_code == 0 and summary(tmp_path / "a run")["status"] == "done"
    )
    assert [
        n
        for n in notes
        if "there is no report.html (UnicodeEncodeError: " in n
        and f"forethought report '{tmp_path / 'a run'}'" in n
    ]
    left = tmp_path / "a run" / ".report.html.x1"
    left.write_text("half a page")
    told = []
    # writes the missing page
    again = run.resume(tmp_path / "a run", lambda e: told.append(e.text), fake_desk())
    assert (
        again.exit_code == 0
        and again.values == result.values
        and "its report was missing and is written" in told[0]
    )
    assert (tmp_path / "a run" / "report.html").stat().st_size > 10_000 and not left.exists()
    with pytest.raises(UserError, match="is finished; there is nothing to resume"):
        run.resume(tmp_path / "a run", nothing, fake_desk())


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, no_report):
    from forethought.report.page import write_page
    from forethought.store.locks import mark_in_use

    (tmp_path / ".report.html.dead").write_text("half")
    with open(tmp_path / ".report.html.alive", "w") as file:
        mark_in_use(file.fileno())
        write_page(tmp_path / "report.html", "whole")
        assert sorted(p.name for p in tmp_path.iterdir()) == [".report.html.alive", "report.html"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "cycle"])
def test_ctrl_c_says_where_it_stopped_whatever_old_trees_have_become(tmp_path, damage):
    def spoil():
        path = tmp_path / "a run" / "trees" / "step-000005.jsonl.gz"
        data = path.read_bytes()
        tree = {
            "step": 5,
            "nodes": [{"id": 0, "parent": None}, {"id": 1, "parent": 0}, {"id": 0, "parent": 1}],
        }
        path.write_bytes(
            {
                "cut": data[: len(data) // 2],
                "flipped": data[:40] + bytes([data[40] ^ 8]) + data[41:],
                "text": b"x",
                "cycle": gzip.compress(json.dumps(tree).encode() + b"\n"),
            }[damage]
        )
        interrupt()

    recipe = desk_recipe(IMITATE, PLAN, **QUIET)
    with pytest.raises(Interrupted) as caught:
        run.train(recipe, tmp_path / "a run", at_step(6, spoil), fake_desk())
    assert caught.value.exit_code == 130
    assert str(caught.value) == (
        f"interrupted at step 6, everything is saved; continue with: forethought "
        f"train --resume '{tmp_path / 'a run'}'"
    )
    page = (tmp_path / "a run" / "report.html").read_text()
    assert "trees/step-000005.jsonl.gz " in page
    assert summary(tmp_path / "a run")["status"] == "interrupted"


def test_a_page_of_a_run_that_goes_on_reads_and_writes_only_itself(tmp_path):
    out = tmp_path / "run"

    def look():
        # another thread's
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}
        page = report.write(out)
        after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}
        assert {p for p in after if after[p] != before.get(p)} == {page}

    run.train(desk_recipe(IMITATE, PLAN, **QUIET), out, at_step(5, look), fake_desk())


def test_a_report_tells_of_logs_that_are_not_what_was_written(tmp_path):
    run.train(desk_recipe(IMITATE, **QUIET), tmp_path / "run", nothing, fake_desk())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    assert "metrics.jsonl is damaged: it has " in report.write(tmp_path / "run").read_text()


# signals ----------------------------------------------------------------------------------------------------


def test_a_closed_terminal_saves_and_leaves(tmp_path, no_report):
    """SIGHUP comes, and every write to the terminal fails from then on."""
    out, told = tmp_path / "run", []

    def observe(event):
        if told and told[-1] == 6:
            raise OSError(errno.EIO, "Input/output error")
        told.append(event.step)
        if event.step == 6:
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    try:
        with pytest.raises(Interrupted) as caught:
            run.train(desk_recipe(IMITATE, PLAN, **QUIET), out, observe, fake_desk())
        assert (
            caught.value.exit_code == 129
            and Store.open(out).latest()[1]["step"] == 6
            and summary(out)["status"] == "interrupted"
        )
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_under_nohup_a_run_outlives_its_terminal(tmp_path, no_report):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hang_up = at_step(2, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert run.train(desk_recipe(IMITATE), tmp_path / "run", hang_up, fake_desk()).status == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


# weights ----------------------------------------------------------------------------------------------------


def poisoned(step: int, value: float):
    """An engine whose base has one weight that is not a finite number, from its n-th update on."""

    class Poisoned(FakeEngine):
        def optim_step(self, policy, lr_scale=1.0):
            found = super().optim_step(policy, lr_scale)
            if self.steps == step:
                next(iter(self.weights[policy].values()))[0] = value
            return found

    return lambda recipe, taskset: Poisoned(taskset.vocabulary(), taskset.stops, choices=desk_choices)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_never_saved_over_those_that_are(tmp_path, no_report, value):
    out = tmp_path / "run"
    with pytest.raises(Diverged) as caught:
        run.train(desk_recipe(IMITATE | {"until": {"steps": 6}}, **QUIET), out, nothing, poisoned(4, value))
    assert str(caught.value) == (
        f"weights have diverged at step 4: NaN or inf in the logits of plan in policy 'base'; lower "
        f"stage.0.optim.lr from 0.5 to 0.0003 and check "
        f"the rewards: forethought train {out} --set stage.0.optim.lr=0.0003 --out NEW; the weights of step "
        f"3 are intact in {out / 'checkpoints'}"
    )
    assert caught.value.exit_code == 2 and summary(out)["status"] == "stopped"
    assert Store.open(out).steps() == [0, 2, 3] and verify(out / "checkpoints" / "step-000003") == ""
    assert not list((out / "checkpoints").glob(".*"))


def test_a_sampler_that_meets_no_numbers_names_the_rate_too(tmp_path, no_report):
    class Lost(FakeEngine):
        def sample(self, requests):
            if any(request.policy == "plan" for request in requests):
                raise Diverged("policy 'plan' gives logits that are not finite")
            return super().sample(requests)

    with pytest.raises(
        Diverged,
        match=r"weights have diverged at step 4: policy 'plan' gives logits .* "
        r"lower stage.0.optim.lr from 0.001 to 0.0001 ",
    ):
        run.train(
            desk_recipe(IMITATE | {"optim": {"lr": 0.001}}, PLAN, **QUIET),
            tmp_path / "run",
            nothing,
            lambda recipe, taskset: Lost(taskset.vocabulary(), taskset.stops, choices=desk_choices),
        )
    assert summary(tmp_path / "run")["status"] == "stopped"


def test_metrics_that_are_not_finite_do_not_end_a_run(tmp_path):
    """They are in the log, on the page, and in the event files."""
    from forethought.core.metrics import Last

    class Loud(FakeEngine):
        def optim_step(self, policy, lr_scale=1.0):
            return super().optim_step(policy, lr_scale) | {"gap": Last(math.inf), "away": Last(math.nan)}

    run.train(
        desk_recipe(IMITATE),
        tmp_path / "run",
        nothing,
        lambda recipe, taskset: Loud(taskset.vocabulary(), taskset.stops, choices=desk_choices),
    )
    line = lines_of(tmp_path / "run" / "metrics.jsonl")[1]
    assert (line["gap"], line["away"]) == ("Infinity", "NaN")
    assert (
        load_run(tmp_path / "run").lines[1]["gap"] == math.inf
        and "4 values of gap" in (tmp_path / "run" / "report.html").read_text()
    )


# the machine ------------------------------------------------------------------------------------------------


def on(asked: list, **facts):
    """An engine that says these facts, and leaves the recipe that it was made for in `asked`."""

    class Told(FakeEngine):
        def facts(self):
            return {
                **super().facts(),
                "threads": 1,
                "kernels": "c",
                "precision": "bf16",
                "torch": "2.9",
            } | facts

        def chosen(self):
            return {"device": "cpu"} | {
                k: v for k, v in self.facts().items() if k in ("threads", "kernels", "precision", "torch")
            }

    def engine_of(recipe, taskset):
        asked.append(recipe.engine)
        return Told(taskset.vocabulary(), taskset.stops, choices=desk_choices)

    return engine_of


def test_another_machine_is_said_and_both_are_kept(tmp_path, no_report):
    out, asked, notes = tmp_path / "run", [], []
    with pytest.raises(Killed):
        run.train(desk_recipe(IMITATE, **QUIET), out, at_step(2, kill), on(asked))
    summary_file = out / "summary.json"
    # what decides stands in the checkpoint
    summary_file.write_text(summary_file.read_text().replace('"threads": 1', '"threads": 2'))
    run.resume(
        out,
        lambda e: notes.append(e.text) if e.kind == "note" else None,
        on(asked, kernels="torch", torch="2.10"),
    )
    assert (asked[-1].threads, asked[-1].precision) == (1, "bf16")
    told = (
        "from step 1 on this run is not, bit for bit, the one that was never stopped: kernels: c before, "
        "torch now; "
        "torch: 2.9 before, 2.10 now"
    )
    assert told in notes and [
        d["reason"] for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "elsewhere"
    ] == [told]
    assert [(m["step"], m["kernels"]) for m in summary(out)["machines"]] == [(0, "c"), (1, "torch")]


def test_the_same_machine_is_not_worth_a_word(tmp_path, no_report):
    out, notes = tmp_path / "run", []
    with pytest.raises(Killed):
        run.train(desk_recipe(IMITATE, **QUIET), out, at_step(2, kill), on([]))
    run.resume(out, lambda e: notes.append(e.text) if e.kind == "note" else None, on([]))
    assert notes == [] and "machines" not in summary(out)


# what else lies there ---------------------------------------------------------------------------------------


def test_a_run_made_before_records_were_checked_goes_on_with_a_note(tmp_path, no_report):
    out, notes = tmp_path / "run", []
    recipe = desk_recipe(IMITATE, PLAN, **QUIET)
    run.train(recipe, tmp_path / "straight", nothing, fake_desk())
    with pytest.raises(Killed):
        run.train(recipe, out, at_step(6, kill), fake_desk())
    for checkpoint in (out / "checkpoints").iterdir():  # as they were
        state = json.loads((checkpoint / "state.json").read_text())
        state["logs"] = {name: state["logs"][name][0] for name in ("metrics.jsonl", "decisions.jsonl")}
        del state["recipe"], state["progress"]["machines"]
        (checkpoint / "state.json").write_text(json.dumps(state))
        files = {
            str(p.relative_to(checkpoint)): [p.stat().st_size, store_files.digest(p)]
            for p in checkpoint.rglob("*")
            if p.is_file()
        }
        files.pop("manifest.json")
        (checkpoint / "manifest.json").write_text(json.dumps(files))
    for name in ("files.jsonl", "run.json", ".lock"):
        (out / name).unlink()
    run.resume(out, lambda e: notes.append(e.text) if e.kind == "note" else None, fake_desk())
    assert len(notes) == 1 and notes[0].startswith(f"{out} was made before records were checked")
    same = lambda out: (Store.open(out).latest()[0] / "engine" / "fake.json").read_text()  # noqa: E731
    assert same(out) == same(tmp_path / "straight")
    assert (
        lines_of(out / "files.jsonl") == lines_of(tmp_path / "straight" / "files.jsonl")
        and Store(out).has_its_recipe()
    )


def test_a_checkpoint_too_many_goes_when_the_run_goes_on(tmp_path, no_report):
    """A run that was killed between its newest checkpoint and the end of the oldest."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run.train(desk_recipe(IMITATE, **QUIET), out, at_step(4, kill), fake_desk())
    assert Store(out).steps() == [0, 2, 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "prune", lambda *args: None)
        with pytest.raises(Killed):
            run.train(desk_recipe(IMITATE, **QUIET), tmp_path / "more", at_step(4, kill), fake_desk())
    assert Store(tmp_path / "more").steps() == [0, 1, 2, 3]
    with pytest.raises(Killed):
        run.resume(tmp_path / "more", lambda e: kill() if e.kind == "start" else None, fake_desk())
    assert Store(tmp_path / "more").steps() == [0, 2, 3]


def test_nothing_behind_a_link_is_deleted(tmp_path, no_report):
    """While the run goes on, somebody has moved a checkpoint to another disk and left a link."""
    out = tmp_path / "run"

    def move():
        shutil.move(out / "checkpoints" / "step-000001", tmp_path / "elsewhere")
        (out / "checkpoints" / "step-000001").symlink_to(tmp_path / "elsewhere")

    assert run.train(desk_recipe(IMITATE, **QUIET), out, at_step(2, move), fake_desk()).status == "done"
    assert verify(tmp_path / "elsewhere") != "" and (tmp_path / "elsewhere" / "engine" / "fake.json").exists()
    assert (out / "checkpoints" / "step-000001").is_symlink() and Store(out).steps() == [3, 4]


def test_a_changed_recipe_that_nothing_was_trained_with_is_refused(tmp_path, no_report):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run.train(desk_recipe(IMITATE), out, lambda e: kill(), fake_desk())
    assert Store(out).steps() == []
    said = json.loads((out / "recipe.json").read_text())
    (out / "recipe.json").write_text(json.dumps(said | {"seed": 3}))
    with pytest.raises(
        UserError,
        match="recipe.json is not the recipe that the run was trained with.*Nothing was trained yet",
    ):
        run.resume(out, nothing, fake_desk())
    (out / "recipe.json").write_text(json.dumps(said))
    assert run.resume(out, nothing, fake_desk()).status == "done"


def test_two_runs_of_one_recipe_are_equal_files(tmp_path, no_report):
    """All but what a clock wrote: seconds in the logs, the summary and the loop's state, and so their digests
    and the manifest's; event files have the time, the host and the process in their names."""
    recipe = desk_recipe(IMITATE, PLAN, **QUIET)
    for name in ("a", "b"):
        run.train(recipe, tmp_path / name, nothing, fake_desk())
    files = {
        name: {
            str(p.relative_to(tmp_path / name)): p
            for p in (tmp_path / name).rglob("*")
            if p.is_file() and p.parent.name != "tensorboard"
        }
        for name in ("a", "b")
    }
    assert files["a"].keys() == files["b"].keys()
    other = {
        name.split("/")[-1]
        for name in files["a"]
        if files["a"][name].read_bytes() != files["b"][name].read_bytes()
    }
    assert other <= {
        "metrics.jsonl",
        "decisions.jsonl",
        "summary.json",
        "state.json",
        "manifest.json",
        ".lock",
    }

    def timeless(value):
        if isinstance(value, dict):
            clocks = ("tokens_per_second", "logs", "digest", "state.json")
            return {
                k: timeless(v)
                for k, v in value.items()
                if not k.startswith(("seconds", "memory/")) and k not in clocks
            }
        return [timeless(v) for v in value] if isinstance(value, list) else value

    for name, path in files["a"].items():
        if name.split("/")[-1] in other - {".lock"}:
            read = lines_of if name.endswith("jsonl") else lambda p: [json.loads(p.read_text())]
            assert timeless(read(path)) == timeless(read(files["b"][name])), name


# the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Exception("No space left on device (os error 28)"), "No space left on device; free some space"),
        (RuntimeError("tokenizers: Disk quota exceeded"), "Disk quota exceeded; free some space"),
        (
            ValueError("could not open x: Too many open files"),
            "Too many open files; allow more open files (ulimit -n)",
        ),
        (
            RuntimeError("can't start new thread"),
            "Cannot allocate memory; allow more memory, or take a smaller model or batch",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "Cannot allocate memory; allow more memory, or take a smaller model or batch",
        ),
        (
            ImportError("libtorch_python.so: failed to map segment from shared object"),
            "Cannot allocate memory; allow more memory, or take a smaller model or batch",
        ),
        (
            OSError("libgomp.so.1: failed to map segment from shared object"),
            "Cannot allocate memory; allow more memory, or take a smaller model or batch",
        ),
        (MemoryError(), "Cannot allocate memory; allow more memory, or take a smaller model or batch"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_a_library_says_of_the_machine_is_no_bug_and_hints_can_be_pasted(
    tmp_path, capsys, error, message
):
    from forethought.cli.faults import explain

    (tmp_path / "part mit leer" / "checkpoints").mkdir(parents=True)
    assert explain(error, tmp_path / "part mit leer") == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert (
        capsys.readouterr().err == f"forethought: {message}; continue with: forethought train --resume "
        f"'{tmp_path / 'part mit leer'}'\n"
    )


@pytest.mark.parametrize("text", ['{"step": [1]}', "[]", "", '{"layout": 5}', "[" * 100_000])
def test_a_resume_names_the_recipe_of_the_run_that_holds_none(tmp_path, capsys, text):
    from forethought.cli import main

    (tmp_path / "recipe.json").write_text(text)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert str(tmp_path / "recipe.json") in capsys.readouterr().err


def test_ctrl_c_is_answered_from_the_first_line_on_and_a_second_one_changes_nothing(monkeypatch, capsys):
    from forethought.cli import faults

    def interrupted() -> None:
        raise KeyboardInterrupt

    def answer(error, run_dir):
        os.kill(os.getpid(), signal.SIGINT)
        return faults.explain(error, run_dir)

    monkeypatch.setattr(cli, "_parser", interrupted)  # Ctrl-C while the command line is read
    monkeypatch.setattr(cli, "explain", answer)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["report", "x"]) == 130 and capsys.readouterr().err == "forethought: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fault_of_a_closed_terminal_is_not_what_is_told(capsys):
    from forethought.cli.faults import explain

    try:
        try:
            raise Interrupted("interrupted at step 3", 1)
        finally:
            raise OSError(errno.EIO, "Input/output error")
    except OSError as error:
        assert explain(error, None) == 129
    assert capsys.readouterr().err == "forethought: interrupted at step 3\n"


def test_a_folder_that_is_not_empty_is_named_as_a_shell_takes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a run").mkdir()
    Path("a run", "recipe.json").touch()
    assert cli.main(["train", "desk", "--out", "a run"]) == 2
    assert (
        capsys.readouterr().err
        == "forethought: a run is not empty; continue that run with --resume 'a run', or choose another "
        "--out\n"
    )
