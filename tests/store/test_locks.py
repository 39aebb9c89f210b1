"""One writer for a run directory: who comes second is told who holds it, and a lock goes with its process."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought import report
from forethought.core.errors import Busy
from forethought.runs import run
from forethought.store import Store, locks
from forethought.store.locks import abandoned, mark_in_use, unwritten, writing

RECIPE = desk_recipe(
    {"kind": "imitate", "until": {"steps": 4}, "batch": 2},
    {"kind": "imitate", "until": {"steps": 2}, "batch": 2},
)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


def test_the_second_is_told_who_holds_it(tmp_path):
    with writing(tmp_path) as note:
        assert note == ""
        said = json.loads((tmp_path / ".lock").read_text())
        assert (said["process"], said["host"]) == (os.getpid(), socket.gethostname())
        with pytest.raises(Busy) as caught, writing(tmp_path):
            pass
        assert str(caught.value) == (
            f"{tmp_path} is being written by process {os.getpid()} on "
            f"{socket.gethostname()} since {said['since']}; "
            "wait for it to end, or stop it"
        )
        assert caught.value.exit_code == 2
    with writing(tmp_path):  # it is free again, whatever its file says
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": "x", "host": 1, "since": 2}', "[" * 50_000])
def test_a_lock_whose_file_says_nothing_is_held_all_the_same(tmp_path, text):
    with writing(tmp_path):
        (tmp_path / ".lock").write_text(text)
        with pytest.raises(Busy, match="is being written by another process;"), writing(tmp_path):
            pass


def test_it_dies_with_its_process(tmp_path):
    code = (
        f"import sys, time\nfrom pathlib import Path\nfrom forethought.store.locks import writing\nwith "
        f"writing(Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(Busy, match=f"process {process.pid} on"), writing(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with writing(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_hold_it_longer(tmp_path):
    """A worker that a library has forked may outlive the run."""
    ours, theirs = multiprocessing.Pipe()

    def wait() -> None:
        theirs.send("up")
        theirs.recv()

    with writing(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=wait)
        child.start()
        assert ours.recv() == "up"
        os.close(locks._held.pop())  # what the kernel does for a process that was killed
    with writing(tmp_path):
        assert child.is_alive()
    ours.send("end")
    child.join()


def test_where_there_are_no_locks_a_note_says_so(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with writing(tmp_path) as note:
        assert (
            note
            == f"there are no locks on this file system: nothing keeps a second process from writing into "
            f"{tmp_path}"
        )
    notes = []
    run.train(
        RECIPE, tmp_path / "run", lambda e: notes.append(e.text) if e.kind == "note" else None, fake_desk()
    )
    assert notes == [note.replace(str(tmp_path), str(tmp_path / "run"))]
    assert any(
        d["outcome"] == "note" and "no locks" in d["reason"]
        for d in lines_of(tmp_path / "run" / "decisions.jsonl")
    )


def test_readers_may_be_many_while_nobody_writes(tmp_path):
    with unwritten(tmp_path):  # nobody has ever written here
        pass
    with writing(tmp_path), pytest.raises(Busy, match="is being written by process"), unwritten(tmp_path):
        pass
    with unwritten(tmp_path), unwritten(tmp_path), pytest.raises(Busy), writing(tmp_path):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(Exception, match=".lock cannot be opened"), writing(tmp_path / "run"):
        pass
    assert (tmp_path / "outside").read_text() == "mine"


# the verbs that write ---------------------------------------------------------------------------------------


def content(out: Path) -> dict[str, bytes]:
    """But for the event files, which another thread writes."""
    return {str(p): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}


def test_a_live_run_is_resumed_by_nobody_else_and_ends_as_ever(tmp_path):
    run.train(RECIPE, tmp_path / "alone", nothing, fake_desk())
    refused = []

    def meddle(event):
        if event.kind in ("step", "eval") and event.step in (0, 2, 4):
            before = content(tmp_path / "run")
            for attempt in (
                lambda: run.resume(tmp_path / "run", nothing, fake_desk()),
                lambda: run.extend(RECIPE, tmp_path / "run", tmp_path / "longer", nothing, fake_desk()),
            ):
                with pytest.raises(Busy, match="is being written by process"):
                    attempt()
                refused.append(event.step)
            assert content(tmp_path / "run") == before

    run.train(RECIPE, tmp_path / "run", meddle, fake_desk())
    assert len(refused) >= 6 and not (tmp_path / "longer").exists()
    clocks = ("seconds", "tokens_per_second", "memory/")
    numbers = lambda out: [  # noqa: E731
        {k: v for k, v in row.items() if not k.startswith(clocks)} for row in lines_of(out / "metrics.jsonl")
    ]
    assert numbers(tmp_path / "run") == numbers(tmp_path / "alone")


def test_two_that_begin_in_one_folder(tmp_path):
    """Both have found it empty; the one that comes second is refused, whether the first is still there or
    not."""
    out = tmp_path / "run"
    out.mkdir()
    with writing(out), pytest.raises(Busy):
        run.train(RECIPE, out, nothing, fake_desk())
    assert run.train(RECIPE, out, nothing, fake_desk()).status == "done"  # a lock that is left is not a run


def test_a_prefix_is_copied_by_many_at_once(tmp_path):
    """Arms extend the same shared stages in several processes."""
    import dataclasses

    short = dataclasses.replace(RECIPE, stage=RECIPE.stage[:1])
    run.train(short, tmp_path / "short", nothing, fake_desk())
    with unwritten(tmp_path / "short"):
        assert (
            run.extend(RECIPE, tmp_path / "short", tmp_path / "longer", nothing, fake_desk()).status == "done"
        )
    assert Store.open(tmp_path / "longer").has_its_recipe()


def test_arms_leave_a_run_alone_that_somebody_else_writes(tmp_path):
    """Its job did not end well, but what is there is not thrown away: the same command goes on with it
    later."""
    from forethought.arms.jobs import Job
    from forethought.arms.state import forget
    from forethought.arms.worker import attempt

    job = Job(name="g/a", recipe=RECIPE, out=tmp_path / "run")
    run.train(RECIPE, job.out, nothing, fake_desk())
    with writing(job.out):
        status, reason = attempt(job, "resume", nothing, {"engine_of": fake_desk()})
        assert status == "killed" and "is being written by process" in reason
        with pytest.raises(Busy):
            forget(job)
    assert (job.out / "recipe.json").exists()
    forget(job)
    assert not job.out.exists()


# files that somebody is writing -----------------------------------------------------------------------------


def test_a_file_is_abandoned_when_nobody_writes_it(tmp_path):
    path = tmp_path / "x"
    with open(path, "w") as file:
        mark_in_use(file.fileno())
        assert not abandoned(path)
    assert abandoned(path)
    (tmp_path / "link").symlink_to(path)
    assert not abandoned(tmp_path / "link") and not abandoned(tmp_path / "nothing")
