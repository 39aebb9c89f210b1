"""Every kind of damage to every kind of file of a run: refused by name, or a note, or without effect. Never
used in silence, never a crash.

One small run of two stages is stopped on its way and another ends; each damage is done to a copy, which is
then resumed (or reported). A damage has an effect where the resumed run ends otherwise than the run that
nobody stopped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought import report
from forethought.core.errors import UserError
from forethought.runs import run
from forethought.store import Store
from forethought.store import files as store_files

SGD = {"lr": 0.5}
RECIPE = desk_recipe(
    {"kind": "imitate", "until": {"steps": 3}, "batch": 2, "optim": SGD},
    {
        "kind": "reinforce",
        "roles": ["plan"],
        "until": {"steps": 4},
        "batch": 2,
        "tree": {"plan": 3, "act": 1},
        "optim": SGD,
    },
    save={"every": 1, "keep": 3, "trees_every": 1, "trees": 1},
    eval={"tasks": 1, "every": 0},
    probes={"every": 0},
)
STOP = 5  # the step at which the stopped run has left


class Stopped(BaseException):
    """As good as SIGKILL: nothing of the run catches it."""


def stop(event) -> None:
    if event.kind == "step" and event.step == STOP + 1:
        raise Stopped


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_files, "sync", lambda path: None)


@pytest.fixture(scope="module")
def runs():
    """{"straight", "stopped", "other" (another seed), "twin" (the same recipe once more, stopped)}: run
    directories, not to be changed."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(store_files, "sync", lambda path: None)
        patch.setattr(report, "write", lambda out: out / "report.html")
        out = {name: Path(folder) / name for name in ("straight", "stopped", "other", "twin")}
        run.train(RECIPE, out["straight"], nothing, fake_desk())
        for name, recipe in (("stopped", RECIPE), ("other", replace(RECIPE, seed=1)), ("twin", RECIPE)):
            with pytest.raises(Stopped):
                run.train(recipe, out[name], stop, fake_desk())
        yield out


@pytest.fixture
def copy(runs, monkeypatch):
    """The stopped run, to be damaged; without a page, which has its own tests."""
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")
    with tempfile.TemporaryDirectory(dir=runs["stopped"].parent) as folder:
        yield Path(shutil.copytree(runs["stopped"], Path(folder) / "run"))


def _clock(name: str) -> bool:
    return name.startswith(("seconds", "tokens_per_second", "memory/"))


def ending(out: Path) -> dict:
    """What a run has come to: its numbers without clocks, its weights, its decisions, its trees."""
    folder, state = Store.open(out).latest()
    return {
        "metrics": [
            {k: v for k, v in line.items() if not _clock(k)} for line in lines_of(out / "metrics.jsonl")
        ],
        "decisions": [d for d in lines_of(out / "decisions.jsonl") if d["kind"] != "run"],
        "step": state["step"],
        "engine": (folder / "engine" / "fake.json").read_text(),
        "files": lines_of(out / "files.jsonl"),
        "trees": {p.name: p.read_bytes() for p in (out / "trees").glob("step-*.jsonl.gz")},
    }


def resumed(out: Path) -> tuple[str, str]:
    """(refused, what was said) or (went on, notes). Any other exception is a crash, and fails the test."""
    notes: list[str] = []
    try:
        run.resume(out, lambda e: notes.append(e.text) if e.kind == "note" else None, fake_desk())
    except UserError as error:
        return "refused", str(error)
    return "went on", " | ".join(notes)


# what can be done to a file ---------------------------------------------------------------------------------


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def torn(path: Path) -> None:
    """A line that a killed run was writing."""
    path.write_bytes(path.read_bytes() + b'{"step": 99, "x')


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    write.__name__ = repr(content[:24])
    return write


BYTES = (half, last_byte, flip, delete, empty, append, zero, folder)
SHAPES = tuple(
    map(
        text,
        (
            "[]",
            "null",
            "{}",
            "1",
            '"x"',
            "[" * 50_000,
            '{"a": ' * 5_000,
            "1" * 5_000,
            '{"state.json": 1}',
            '{"state.json": [1]}',
            '{"state.json": [1, 2]}',
            '{"../../recipe.json": [1, "x"]}',
            '{"step": 5}',
            '{"progress": {}, "logs": [], "step": 5}',
        ),
    )
)
CHECKPOINT = f"checkpoints/step-{STOP:06d}"
TREE = "trees/step-000004.jsonl.gz"


def cases(names: tuple[str, ...], ways: tuple, outcome: str) -> list:
    return [
        pytest.param(name, way, outcome, id=f"{name.split('/')[-1]}-{getattr(way, '__name__', way)}")
        for name in names
        for way in ways
    ]


REFUSED, NOTED, HARMLESS = "refused", "noted", "harmless"
DAMAGES = [
    *cases(
        (f"{CHECKPOINT}/engine/fake.json", f"{CHECKPOINT}/state.json", f"{CHECKPOINT}/manifest.json"),
        BYTES,
        REFUSED,
    ),
    *cases((f"{CHECKPOINT}/manifest.json", f"{CHECKPOINT}/state.json"), SHAPES, REFUSED),
    *cases(
        ("metrics.jsonl", "decisions.jsonl", "files.jsonl"),
        (half, flip, delete, empty, zero, folder),
        REFUSED,
    ),
    *cases(("metrics.jsonl", "decisions.jsonl", "files.jsonl"), (append, torn), HARMLESS),
    *cases(("recipe.json",), (last_byte,), HARMLESS),  # a line's end
    *cases(("recipe.json",), (half, delete, empty, append, zero, folder, *SHAPES), REFUSED),
    *cases(
        (TREE, "trees/step-000005.jsonl.gz"),
        (half, last_byte, flip, delete, empty, append, zero, text("x"), text("[]")),
        NOTED,
    ),
    *cases(
        ("summary.json",),
        (
            half,
            last_byte,
            flip,
            empty,
            append,
            zero,
            *SHAPES[:8],
            text('{"status": "done"}'),
            text('{"machine": null}'),
            text('{"machine": {"threads": "x"}, "digest": 5}'),
            delete,
        ),
        "harmless or noted",
    ),
    *cases(("run.json",), (half, last_byte, delete, empty, append, zero, *SHAPES[:8]), "harmless or noted"),
]


@pytest.mark.parametrize(("name", "way", "outcome"), DAMAGES)
def test_damage_is_refused_or_said_or_changes_nothing(runs, copy, name, way, outcome):
    way(copy / name)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != ".lock"}
    what, said = resumed(copy)
    if outcome == REFUSED:
        assert what == "refused" and said.count("\n") == 0
        assert CHECKPOINT in said if name.startswith("checkpoints") else name in said, said
        # nothing was touched
        assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != ".lock"} == before
        return
    assert what == "went on", said
    found, straight = ending(copy), ending(runs["straight"])
    if outcome == NOTED:
        assert f"{name} " in said
        assert any(d["outcome"] == "note" and name in d["reason"] for d in lines_of(copy / "decisions.jsonl"))
        found["trees"], straight["trees"] = (
            {k: v for k, v in trees.items() if k not in name} for trees in (found["trees"], straight["trees"])
        )
    if outcome == "harmless or noted" and name == "run.json":
        assert "run.json" in said or json.loads((runs["stopped"] / "run.json").read_text()) == json.loads(
            (copy / "run.json").read_text()
        )
    assert found == straight
    assert json.loads((copy / "summary.json").read_text())["status"] == "done"


def edit_recipe(change: Callable[[dict], None]) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        said = json.loads((out / "recipe.json").read_text())
        change(said)
        (out / "recipe.json").write_text(json.dumps(said))

    return do


def reseal(checkpoint: Path) -> None:
    """Make a manifest that fits what is there: a damage that only what lies beyond the folder can tell."""
    files = {
        str(p.relative_to(checkpoint)): [p.stat().st_size, store_files.digest(p)]
        for p in checkpoint.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }
    (checkpoint / "manifest.json").write_text(json.dumps(files))


def edit_state(change: Callable[[dict], object]) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        state = json.loads((out / CHECKPOINT / "state.json").read_text())
        made = change(state)
        (out / CHECKPOINT / "state.json").write_text(json.dumps(state if made is None else made))
        reseal(out / CHECKPOINT)

    return do


def swap(name: str, whose: str) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        there, here = runs[whose] / name, out / name
        if there.is_dir():
            shutil.rmtree(here)
            shutil.copytree(there, here)
        else:
            shutil.copy(there, here)

    return do


def rename(old: str, new: str) -> Callable[[Path, dict], None]:
    return lambda out, runs: (out / old).rename(out / new)


def line(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        lines = (out / name).read_bytes().splitlines(keepends=True)
        (out / name).write_bytes(b"".join(change(lines)))

    return do


def add_file(name: str) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")

    return do


def other_kind(name: str):
    """A file where the run keeps a folder, a folder where it keeps a file."""

    def do(out: Path, runs) -> None:
        path = out / name
        if path.is_dir() or "." not in name:
            shutil.rmtree(path, ignore_errors=True)
            path.write_text("")
        else:
            path.unlink(missing_ok=True)
            path.mkdir()

    return do


def link(name: str) -> Callable[[Path, dict], None]:
    def do(out: Path, runs: dict) -> None:
        (out / name).rename(out.parent / "outside")
        (out / name).symlink_to(out.parent / "outside")

    return do


def edited(name: str) -> tuple:
    return (
        REFUSED,
        f"recipe.json is not the recipe that the run was trained with .*{name}.*forethought train .*run "
        f"--out NEW",
    )


CRAFTED = {
    "recipe: seed": (edit_recipe(lambda r: r.update(seed=1)), *edited("seed: 0 there, 1 in recipe.json")),
    "recipe: plans": (
        edit_recipe(lambda r: r["stage"][1]["tree"].update(plan=4)),
        *edited("stage.1.tree.plan: 3 there, 4"),
    ),
    "recipe: steps": (
        edit_recipe(lambda r: r["stage"][1]["until"].update(steps=9)),
        *edited("stage.1.until.steps: 4 there, 9"),
    ),
    "recipe: rate": (
        edit_recipe(lambda r: r["stage"][1]["optim"].update(lr=0.25)),
        *edited("stage.1.optim.lr: 0.5 there, 0.25"),
    ),
    "recipe: a gate more": (
        edit_recipe(lambda r: r["stage"][1].update(gates=[{"metric": "eval/act", "max_drop": 0.1}])),
        *edited("stage.1.gates"),
    ),
    "recipe: a stage less": (
        edit_recipe(lambda r: r["stage"].pop(0)),
        REFUSED,
        "recipe.json is not the recipe",
    ),
    "recipe: a stage more": (edit_recipe(lambda r: r["stage"].append(r["stage"][1])), *edited("stage.2")),
    "recipe: widgets": (
        edit_recipe(lambda r: r["task"].update(widgets=5)),
        *edited("task.widgets: 4 there, 5"),
    ),
    "recipe: of another run": (swap("recipe.json", "other"), *edited("seed: 0 there, 1")),
    "recipe: written in another way": (edit_recipe(lambda r: None), HARMLESS, ""),
    "checkpoint: of another run": (
        swap(CHECKPOINT, "other"),
        REFUSED,
        f"{CHECKPOINT} is of another run .seed: 1 there, 0.*resume from step 4",
    ),
    "checkpoint: of another step": (
        lambda out, runs: (
            shutil.rmtree(out / CHECKPOINT),
            shutil.copytree(out / "checkpoints/step-000004", out / CHECKPOINT),
        ),
        REFUSED,
        f"{CHECKPOINT} is damaged .state.json says step 4.; .*resume from step 4",
    ),
    "checkpoint: of the same recipe's other run": (
        swap(CHECKPOINT, "twin"),
        REFUSED,
        "metrics.jsonl is damaged.* is not what was written|has .* bytes",
    ),
    "checkpoint: another number": (
        rename(CHECKPOINT, "checkpoints/step-000099"),
        REFUSED,
        "step-000099 is damaged .state.json says step 5",
    ),
    "checkpoint: a file more": (
        add_file(f"{CHECKPOINT}/engine/extra.safetensors"),
        REFUSED,
        "engine/extra.safetensors is not among what was written",
    ),
    "checkpoint: a file swapped": (swap(f"{CHECKPOINT}/engine/fake.json", "other"), REFUSED, "fake.json"),
    "checkpoint: a link inside": (link(f"{CHECKPOINT}/engine"), REFUSED, f"{CHECKPOINT} is damaged"),
    "checkpoint: a link": (
        link(CHECKPOINT),
        HARMLESS,
        "step-000005 is a symbolic link, so it is passed over$",
    ),
    "checkpoints: all gone": (
        lambda out, runs: shutil.rmtree(out / "checkpoints"),
        REFUSED,
        "holds no checkpoint, and metrics.jsonl goes to step",
    ),
    "checkpoint: gone": (lambda out, runs: shutil.rmtree(out / CHECKPOINT), HARMLESS, ""),
    "checkpoint: no folder": (
        lambda out, runs: (shutil.rmtree(out / CHECKPOINT), (out / CHECKPOINT).write_text("x")),
        HARMLESS,
        "step-000005 is not a folder, so it is passed over$",
    ),
    "checkpoint: left half written": (
        lambda out, runs: shutil.copytree(out / CHECKPOINT, out / "checkpoints/.step-000006.tmp"),
        HARMLESS,
        "",
    ),
    "checkpoint: a name of ours with letters": (
        lambda out, runs: shutil.copytree(out / CHECKPOINT, out / "checkpoints/step-abc"),
        HARMLESS,
        "",
    ),
    "manifest: an entry less": (
        lambda out, runs: drop_entry(out / CHECKPOINT / "manifest.json"),
        REFUSED,
        "engine/fake.json is not among",
    ),
    "state: step as text": (edit_state(lambda s: s.update(step="5")), REFUSED, "state.json says step 5"),
    "state: no progress": (
        edit_state(lambda s: s.pop("progress") and None),
        REFUSED,
        "state.json has no progress",
    ),
    "state: progress is a list": (
        edit_state(lambda s: s.update(progress=[])),
        REFUSED,
        "state.json has no progress",
    ),
    "state: no logs": (edit_state(lambda s: s.pop("logs") and None), REFUSED, "state.json has no logs"),
    "state: no word of a log": (
        edit_state(lambda s: s["logs"].pop("metrics.jsonl") and None),
        REFUSED,
        "metrics.jsonl is damaged",
    ),
    "state: a log without a length": (
        edit_state(lambda s: s["logs"].update({"metrics.jsonl": "x"})),
        REFUSED,
        "metrics.jsonl is damaged",
    ),
    "state: a log of negative length": (
        edit_state(lambda s: s["logs"].update({"metrics.jsonl": [-1, ""]})),
        REFUSED,
        "metrics.jsonl is damaged",
    ),
    "state: an unknown key": (
        edit_state(lambda s: s["progress"].update(colour=1)),
        REFUSED,
        "says 'colour', which this version",
    ),
    "state: stage beyond the recipe": (
        edit_state(lambda s: s["progress"].update(stage=7)),
        REFUSED,
        "it is in stage 8",
    ),
    "state: stage negative": (
        edit_state(lambda s: s["progress"].update(stage=-1)),
        REFUSED,
        "something else than it should in 'stage'",
    ),
    "state: policies a list": (
        edit_state(lambda s: s["progress"].update(policies=[])),
        REFUSED,
        "in 'policies'",
    ),
    "state: records of numbers": (
        edit_state(lambda s: s["progress"].update(records=[1])),
        REFUSED,
        "in 'records'",
    ),
    "state: an evaluation without scores": (
        edit_state(lambda s: s["progress"].update(evaluations=[{}])),
        REFUSED,
        "an evaluation without",
    ),
    "state: finished is 1": (
        edit_state(lambda s: s["progress"].update(finished=1)),
        REFUSED,
        "in 'finished'",
    ),
    "state: another recipe": (
        edit_state(lambda s: s["recipe"].update(seed=4)),
        REFUSED,
        "is of another run .seed: 4 there, 0",
    ),
    "state: recipe a number": (edit_state(lambda s: s.update(recipe=4)), REFUSED, "is of another run"),
    "state: a list": (edit_state(lambda s: [s]), REFUSED, "state.json is not a JSON object"),
    **{
        f"{name}: the first line gone": (line(name, lambda lines: lines[1:]), REFUSED, f"{name} is damaged")
        for name in ("metrics.jsonl", "decisions.jsonl", "files.jsonl")
    },
    **{
        f"{name}: two lines swapped": (
            line(name, lambda lines: [lines[1], lines[0], *lines[2:]]),
            REFUSED,
            f"{name} is damaged: it is not what",
        )
        for name in ("metrics.jsonl", "decisions.jsonl", "files.jsonl")
    },
    **{
        f"{name}: a line twice": (line(name, lambda lines: [lines[0], *lines]), REFUSED, f"{name} is damaged")
        for name in ("metrics.jsonl", "decisions.jsonl", "files.jsonl")
    },
    **{
        f"{name}: of another run": (swap(name, "other"), REFUSED, f"{name} is damaged")
        for name in ("metrics.jsonl", "decisions.jsonl", "files.jsonl")
    },
    **{
        f"{name}: of the same recipe's other run": (swap(name, "twin"), REFUSED, f"{name} is damaged")
        for name in ("metrics.jsonl",)
    },
    **{
        f"{name}: a link": (link(name), REFUSED, f"{name} is a symbolic link")
        for name in (
            "metrics.jsonl",
            "decisions.jsonl",
            "files.jsonl",
            "recipe.json",
            "summary.json",
            "run.json",
            "trees",
            "checkpoints",
        )
    },
    **{
        f"{name}: a file": (other_kind(name), REFUSED, f"{name} is a file, and a run keeps a folder there")
        for name in ("trees", "checkpoints", "tensorboard", "guided", "grams")
    },
    **{
        f"{name}: a folder": (other_kind(name), REFUSED, f"{name} is a folder, and a run keeps a file there")
        for name in (
            "metrics.jsonl",
            "decisions.jsonl",
            "files.jsonl",
            "summary.json",
            "run.json",
            "data.json",
        )
    },
    "metrics.jsonl: a digit": (
        line("metrics.jsonl", lambda lines: [lines[0].replace(b"0", b"1", 1), *lines[1:]]),
        REFUSED,
        "metrics.jsonl is damaged",
    ),
    "metrics.jsonl: CRLF": (
        line("metrics.jsonl", lambda lines: [x.replace(b"\n", b"\r\n") for x in lines]),
        REFUSED,
        "metrics.jsonl is damaged",
    ),
    "metrics.jsonl: more was written": (
        line("metrics.jsonl", lambda lines: [*lines, lines[-1]]),
        HARMLESS,
        "",
    ),
    "tree: of another run": (swap(TREE, "other"), NOTED, f"{TREE} "),
    "tree: foreign name": (
        add_file("trees/step-abc.jsonl.gz"),
        NOTED,
        "trees/step-abc.jsonl.gz is not a file of this run and is left alone",
    ),
    "tree: a folder": (
        other_kind(TREE),
        REFUSED,
        f"{TREE} is a folder, and a run keeps a file there: move it away",
    ),
    "guided: a file of others": (
        add_file("guided/stage-0/cache.jsonl.bak"),
        HARMLESS,
        "guided/stage-0/cache.jsonl.bak is not a file of this run and is left alone",
    ),
    "tree: notes of a reader": (
        add_file("trees/notes.txt"),
        NOTED,
        "trees/notes.txt is not a file of this run",
    ),
    "trees: all gone": (
        lambda out, runs: shutil.rmtree(out / "trees"),
        NOTED,
        "trees/step-000004.jsonl.gz is missing .and 1 more.",
    ),
    "trees: left half written": (add_file("trees/.step-000006.jsonl.gz.tmp"), HARMLESS, ""),
    "a page left half written": (add_file(".report.html.x1y2"), HARMLESS, ""),
    "a summary left half written": (add_file(".summary.json.tmp"), HARMLESS, ""),
    "a lock left by a killed run": (lambda out, runs: (out / ".lock").write_text("x"), HARMLESS, ""),
}


def drop_entry(manifest: Path) -> None:
    said = json.loads(manifest.read_text())
    del said["engine/fake.json"]
    manifest.write_text(json.dumps(said))


@pytest.mark.parametrize("name", CRAFTED)
def test_damage_that_is_whole_in_itself(runs, copy, name):
    do, outcome, told = CRAFTED[name]
    do(copy, runs)
    what, said = resumed(copy)
    if outcome == REFUSED:
        assert what == "refused" and re.search(told, said), said
        return
    assert what == "went on" and re.search(told, said), said
    found, straight = ending(copy), ending(runs["straight"])
    if outcome == NOTED:
        found["trees"] = straight["trees"] = None
    assert found == straight
    assert not [p.name for p in copy.rglob(".*.tmp")]


def test_a_finished_run_with_a_stage_more_written_into_its_recipe_is_refused(runs, copy):
    """`extend` makes such a run, in a folder of its own; a recipe that was edited is another one."""
    out = Path(shutil.copytree(runs["straight"], copy.parent / "finished"))
    said = json.loads((out / "recipe.json").read_text())
    (out / "recipe.json").write_text(json.dumps(said | {"stage": [*said["stage"], said["stage"][1]]}))
    assert resumed(out)[0] == "refused"
    longer = replace(RECIPE, stage=(*RECIPE.stage, RECIPE.stage[1]))
    run.extend(longer, runs["straight"], copy.parent / "longer", nothing, fake_desk())
    run.train(longer, copy.parent / "at-once", nothing, fake_desk())
    found, straight = ending(copy.parent / "longer"), ending(copy.parent / "at-once")
    assert found == straight


@pytest.mark.parametrize("damage", ["engine/fake.json", "metrics.jsonl"])
def test_a_damaged_run_is_not_extended(runs, copy, damage):
    out = Path(shutil.copytree(runs["straight"], copy.parent / "finished"))
    flip(out / damage if damage == "metrics.jsonl" else Store(out).folder(Store(out).steps()[-1]) / damage)
    with pytest.raises(UserError, match=f"{damage}"):
        run.extend(
            replace(RECIPE, stage=(*RECIPE.stage, RECIPE.stage[1])),
            out,
            copy.parent / "longer",
            nothing,
            fake_desk(),
        )
    assert not (copy.parent / "longer").exists()


def test_there_are_many():
    assert len(DAMAGES) + len(CRAFTED) >= 150
