"""The run directory under everything that can happen to a disk: full, killed in the middle, damaged, somebody
else's."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import shutil
from pathlib import Path

import pytest
from conftest import lines_of, tree_of

from forethought.core.errors import CheckpointError, UserError
from forethought.core.jsonl import number
from forethought.core.types import Decision
from forethought.learn.rewards import reward
from forethought.store import LOGS, Store, checkpoints, verify
from forethought.store import files as module
from forethought.store.files import hasher, hex_of


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store.create(tmp_path / "run")
    (store.out / "recipe.json").write_text("{}")
    return store


def save(store: Store, step: int, text: str = "weights", interim: bool = False) -> Path:
    def write(folder: Path) -> None:
        (folder / "engine").mkdir()
        (folder / "engine" / "base.bin").write_text(f"{text} {step}")

    return store.save(step, {"progress": {"step": step, "text": text}}, write, interim)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# checkpoints ------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_went(store):
    save(store, 3)
    folder = save(store, 12)
    assert store.steps() == [3, 12] and store.latest() == store.state(12)
    found, state = store.latest()
    assert found == folder == store.checkpoints / "step-000012"
    assert state == {
        "progress": {"step": 12, "text": "weights"},
        "step": 12,
        "logs": dict.fromkeys(LOGS, [0, hex_of(hasher())]),
    }
    assert (found / "engine" / "base.bin").read_text() == "weights 12" and verify(found) == ""


def test_a_folder_is_removed_with_one_file_open_at_a_time_and_no_link_is_followed(tmp_path):
    """Where files are short, an old checkpoint must not stay for want of them."""
    import resource

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    folder = tmp_path / "old"
    for depth in range(12):
        inner = folder.joinpath(*map(str, range(depth + 1)))
        inner.mkdir(parents=True)
        (inner / "file").write_text("x")
    (folder / "link").symlink_to(tmp_path / "kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(tmp_path, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, hard))
    try:
        module.remove(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not folder.exists() and (tmp_path / "kept" / "file").exists()


def test_a_new_run_has_none(store):
    assert store.steps() == [] and store.latest() is None


def test_the_same_step_again_replaces_it(store):
    save(store, 5, "old")
    save(store, 5, "new")
    assert store.steps() == [5] and store.latest()[1]["progress"]["text"] == "new"
    assert [p.name for p in store.checkpoints.iterdir()] == ["step-000005"]


def test_everything_is_on_the_disk_before_it_has_its_name(store, monkeypatch):
    store.log(1, {"x": 1.0})
    calls: list[str] = []
    sync, rename = module.sync, os.rename
    monkeypatch.setattr(module, "sync", lambda path: (calls.append(f"sync {path.name}"), sync(path)))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append(f"rename {Path(b).name}"), rename(a, b)))
    save(store, 1)
    named = calls.index("rename step-000001")
    assert {
        "sync metrics.jsonl",
        "sync engine",
        "sync base.bin",
        "sync state.json",
        "sync manifest.json",
        "sync .step-000001.tmp",
    } == {*calls[:named]}
    assert calls[named + 1 :] == ["sync checkpoints"]


def test_a_half_written_one_is_never_picked_up(store):
    save(store, 1)
    shutil.copytree(store.checkpoints / "step-000001", store.checkpoints / ".step-000002.tmp")
    assert store.steps() == [1] and store.latest()[1]["step"] == 1
    store.cut_back(store.latest()[1])
    assert [p.name for p in store.checkpoints.iterdir()] == ["step-000001"]
    shutil.copytree(store.checkpoints / "step-000001", store.checkpoints / ".step-000002.tmp")
    save(store, 2)  # what a killed run left lying does not get into the new one
    assert set(content(store.checkpoints / "step-000002")) == {
        "engine/base.bin",
        "manifest.json",
        "state.json",
    }


def test_folders_with_other_names_are_none_of_ours(store):
    save(store, 7)
    for name in ("step-000009.bad", "step-old", "step-000009-copy", "notes"):
        shutil.copytree(store.checkpoints / "step-000007", store.checkpoints / name)
    assert store.steps() == [7] and store.latest()[0].name == "step-000007"


class Killed(BaseException):
    """What no `except OSError` sees, as SIGKILL would be."""


def faults(store, monkeypatch, attempt, error):
    """Do `attempt` again and again, and let its 1st, 2nd, ... touch of the disk fail, until one goes through.

    A failing write leaves the first half of its text. Yields after each failure.
    """
    real = {"write": Path.write_text, "mkdir": Path.mkdir, "rename": os.rename, "sync": module.sync}
    for failing in range(100):
        count = iter(range(10**6))

        def spoil() -> bool:
            return next(count) == failing

        def write(path, text, **kwargs):
            bad = spoil()
            real["write"](path, text[: len(text) // 2] if bad else text, **kwargs)
            if bad:
                raise error

        def plain(name):
            def call(*args, **kwargs):
                if spoil():
                    raise error
                return real[name](*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", write)
            patch.setattr(Path, "mkdir", plain("mkdir"))
            patch.setattr(os, "rename", plain("rename"))
            patch.setattr(module, "sync", plain("sync"))
            try:
                attempt()
                assert failing > 8  # else nothing was tried
                return
            except type(error):
                pass
        yield failing


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_earlier_ones_intact_and_no_trace(store, monkeypatch):
    save(store, 1)
    save(store, 2)
    before = content(store.checkpoints)
    for failing in faults(store, monkeypatch, lambda: save(store, 3), FULL):
        names = sorted(p.name for p in store.checkpoints.iterdir())
        # only the sync of its new name failed: it is whole
        if names == ["step-000001", "step-000002", "step-000003"]:
            assert verify(store.checkpoints / "step-000003") == ""
            shutil.rmtree(store.checkpoints / "step-000003")
        assert content(store.checkpoints) == before, failing
        assert store.latest()[1]["step"] == 2
    assert store.latest()[1]["step"] == 3


def test_a_full_disk_while_replacing_leaves_the_old_or_the_new(store, monkeypatch):
    save(store, 1, "first")
    before = content(save(store, 2, "old"))
    for failing in faults(store, monkeypatch, lambda: save(store, 2, "new"), FULL):
        found = store.latest()
        assert found[1]["step"] == 2 and store.steps() == [1, 2], failing
        if found[1]["progress"]["text"] == "old":
            assert content(found[0]) == before
        else:
            shutil.rmtree(found[0])
            save(store, 2, "old")
    assert store.latest()[1]["progress"]["text"] == "new"


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(store, monkeypatch):
    save(store, 1, "first")
    save(store, 2, "old")
    monkeypatch.setattr(checkpoints, "undo", lambda *paths: None)  # a killed process clears nothing away
    for failing in faults(store, monkeypatch, lambda: save(store, 2, "new"), Killed()):
        again = Store.open(store.out)
        again.mend()
        assert again.latest()[1]["step"] == 2, failing
        again.cut_back(again.latest()[1])
        assert sorted(p.name for p in store.checkpoints.iterdir()) == ["step-000001", "step-000002"]
        shutil.rmtree(store.checkpoints / "step-000002")
        save(store, 2, "old")
    assert store.latest()[1]["progress"]["text"] == "new"


def test_a_reader_mends_nothing(store):
    """`forethought eval` may look while the run replaces a checkpoint; giving it its name back would make the
    run fail."""
    save(store, 1)
    os.rename(store.checkpoints / "step-000001", store.checkpoints / ".step-000001.old")
    assert Store.open(store.out).steps() == []
    assert (store.checkpoints / ".step-000001.old").exists()


def spoilt(name: str, how) -> object:
    return pytest.param(name, how, id=f"{name}-{how.__name__}")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "how", "problem"),
    [
        ("engine/base.bin", flipped, "engine/base.bin is not what was written"),
        ("engine/base.bin", cut, "engine/base.bin has 9 bytes, 10 were written"),
        ("engine/base.bin", gone, "engine/base.bin is missing"),
        ("state.json", flipped, "state.json is not what was written"),
        ("manifest.json", cut, "its manifest is missing or unreadable"),
        ("manifest.json", gone, "its manifest is missing or unreadable"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_the_one_before_is_offered(store, name, how, problem):
    save(store, 10)
    folder = save(store, 20)
    how(folder / name)
    with pytest.raises(CheckpointError) as caught:
        store.latest()
    assert str(caught.value) == (
        f"checkpoint {folder} is damaged ({problem}); the one before it is whole: delete {folder} and resume "
        f"from step 10"
    )
    assert caught.value.exit_code == 2
    shutil.rmtree(folder)  # what the message says
    assert store.latest()[1]["step"] == 10


def test_only_a_whole_one_is_offered(store):
    for step in (10, 20, 30):
        save(store, step)
    for step in (20, 30):
        flipped(store.checkpoints / f"step-{step:06d}" / "engine" / "base.bin")
    with pytest.raises(CheckpointError, match=r"step-000030 is damaged .* resume from step 10$"):
        store.latest()
    flipped(store.checkpoints / "step-000010" / "state.json")
    with pytest.raises(CheckpointError, match="there is no whole one before it; start a new run"):
        store.latest()


def test_pruning_keeps_the_newest_and_the_anchor(store):
    for step in range(6):
        save(store, step)
    store.prune(2, [1])
    assert store.steps() == [1, 4, 5]
    store.prune(2, [])
    assert store.steps() == [4, 5]
    store.prune(5, [])
    assert store.steps() == [4, 5]


def test_a_checkpoint_of_an_interrupt_goes_with_the_next_and_pushes_none_out(store):
    for step, interim in ((3, False), (6, False), (7, True)):
        save(store, step, interim=interim)
        store.prune(2, [])
    assert store.steps() == [3, 6, 7]  # a resume takes 7
    save(store, 9)
    store.prune(2, [])
    assert store.steps() == [6, 9]
    save(store, 9, interim=True)  # the same step again stays a regular one
    save(store, 12)
    store.prune(2, [])
    assert store.steps() == [9, 12]


# logs -------------------------------------------------------------------------------------------------------


def decide(store: Store, step: int) -> None:
    store.decide(
        Decision(
            step=step,
            stage=0,
            kind="gate",
            name="eval/act",
            outcome="pass",
            reason="fine",
            numbers={"value": 0.5},
        )
    )


def test_a_resumed_run_cuts_its_logs_back_to_the_checkpoint(store):
    trees = [tree_of([[1]])]
    for step in (1, 2, 3, 4):
        store.log(step, {"x": step / 3, "name": "ü"})
        decide(store, step)
        store.save_trees(step, 0, trees, [{}], lambda task: "p")
        if step == 2:
            save(store, 2)
    store.cut_back(store.latest()[1])
    assert lines_of(store.out / "metrics.jsonl") == [
        {"step": 1, "x": 1 / 3, "name": "ü"},
        {"step": 2, "x": 2 / 3, "name": "ü"},
    ]
    assert [d["step"] for d in lines_of(store.out / "decisions.jsonl")] == [1, 2]
    assert sorted(p.name for p in (store.out / "trees").iterdir()) == [
        "step-000001.jsonl.gz",
        "step-000002.jsonl.gz",
    ]
    store.log(3, {"x": 1.0})
    assert [line["step"] for line in lines_of(store.out / "metrics.jsonl")] == [1, 2, 3]


def test_a_line_that_was_half_written_goes_too(store):
    store.log(1, {"x": 1.0})
    save(store, 1)
    with open(store.out / "metrics.jsonl", "a") as f:
        f.write('{"step": 2, "x')
    store.cut_back(store.latest()[1])
    assert lines_of(store.out / "metrics.jsonl") == [{"step": 1, "x": 1.0}]


def test_cutting_back_never_makes_a_log_longer(store):
    """A crash of the machine can lose the end of a log that the checkpoint has seen; zeros in its place would
    be no JSON."""
    store.log(1, {"x": 1.0})
    store.log(2, {"x": 2.0})
    save(store, 2)
    first = (store.out / "metrics.jsonl").read_bytes().splitlines(keepends=True)[0]
    (store.out / "metrics.jsonl").write_bytes(first)
    store.cut_back(store.latest()[1])
    assert (store.out / "metrics.jsonl").read_bytes() == first


def test_a_number_that_json_does_not_have_is_a_text_and_comes_back(store):
    store.log(1, {"x": float("inf"), "y": float("-inf"), "z": float("nan"), "w": 0.5})
    [line] = lines_of(store.out / "metrics.jsonl")
    assert line == {"step": 1, "x": "Infinity", "y": "-Infinity", "z": "NaN", "w": 0.5}
    x, y, z, w = (number(line[key]) for key in "xyzw")
    assert (x, y, w) == (math.inf, -math.inf, 0.5) and math.isnan(z)


def test_a_decision_keeps_its_numbers(store):
    decide(store, 4)
    assert lines_of(store.out / "decisions.jsonl") == [
        {
            "step": 4,
            "stage": 0,
            "kind": "gate",
            "name": "eval/act",
            "outcome": "pass",
            "reason": "fine",
            "numbers": {"value": 0.5},
        }
    ]


def test_saved_trees_hold_every_node_and_are_the_same_bytes_again(store):
    tree = reward(tree_of([[1], None]), {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}})
    for step in (1, 2):
        store.save_trees(
            step,
            1,
            [tree],
            [{1: (0.5, 0.7), 2: (1.0,) * 3, 3: (-1.0, -1.0)}],
            lambda task: f"oracle of {task.id}",
        )
    first, second = (store.out / "trees" / f"step-{step:06d}.jsonl.gz" for step in (1, 2))
    [record], [again] = ([json.loads(line) for line in gzip.open(p, "rt")] for p in (first, second))
    assert {k: v for k, v in record.items() if k != "nodes"} == {
        "step": 1,
        "stage": 1,
        "free_text": False,
        "task": "t",
        "domain": "made",
        "level": 3,
        "context": "",
        "prompt": "GOAL",
        "oracle_plan": "oracle of t",
    }
    assert [
        (n["id"], n["parent"], n["role"], n["status"], n["reward"], n["advantage"], n["tokens"], n["logprob"])
        for n in record["nodes"]
    ] == [
        (0, None, None, "given", None, None, 1, None),
        (1, 0, "plan", "finished", 1.0, pytest.approx(0.6), 2, -1.0),
        (2, 1, "act", "finished", 1.0, 1.0, 3, -1.0),
        (3, 0, "plan", "refused", 0.0, -1.0, 2, -1.0),
    ]
    assert record["nodes"][1]["reward_parts"] == {"format": 1.0, "valid": 1.0, "outcome": 1.0}
    assert again["nodes"] == record["nodes"]
    store.save_trees(2, 1, [], [], str)
    store.save_trees(
        2, 1, [tree], [{1: (0.5, 0.7), 2: (1.0,) * 3, 3: (-1.0, -1.0)}], lambda task: f"oracle of {task.id}"
    )
    once = second.read_bytes()
    store.save_trees(
        2, 1, [tree], [{1: (0.5, 0.7), 2: (1.0,) * 3, 3: (-1.0, -1.0)}], lambda task: f"oracle of {task.id}"
    )
    assert second.read_bytes() == once
    with pytest.raises(ValueError):
        store.save_trees(3, 1, [tree, tree], [{}], str)


def test_a_json_file_is_replaced_whole_or_not_at_all(store, monkeypatch):
    assert store.read_json("summary.json") == {}
    store.write_json("summary.json", {"status": "running"})
    monkeypatch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(FULL))
    with pytest.raises(OSError):
        store.write_json("summary.json", {"status": "done"})
    assert store.read_json("summary.json") == {"status": "running"}


# directories ------------------------------------------------------------------------------------------------


def test_create_takes_a_new_folder_or_an_empty_one(tmp_path):
    assert Store.create(tmp_path / "a" / "b").out.is_dir()
    assert Store.create(tmp_path / "a" / "b").steps() == []


def test_create_refuses_what_belongs_to_others(tmp_path, store):
    with pytest.raises(UserError) as caught:
        Store.create(store.out)
    assert (
        str(caught.value)
        == f"{store.out} already holds another run; choose a new --out, or continue with --resume {store.out}"
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x").touch()
    with pytest.raises(UserError) as caught:
        Store.create(tmp_path / "notes")
    assert str(caught.value) == f"{tmp_path / 'notes'} already holds files; choose a new --out"
    with pytest.raises(UserError, match="is a file; give a folder that is new or empty"):
        Store.create(tmp_path / "notes" / "x")
    with pytest.raises(UserError, match="cannot make the folder .*: Not a directory"):
        Store.create(tmp_path / "notes" / "x" / "y")


def test_open_wants_a_run(tmp_path):
    with pytest.raises(UserError, match="is not a run: it has no recipe.json"):
        Store.open(tmp_path)


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a name in UTF-8; choose another --out"):
        Store.create(tmp_path / "d\udced\udca0x")
