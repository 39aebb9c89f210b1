"""Runs that are stopped anywhere and go on: small recipes in which gradients always flow, pictures of a run
directory at every moment of it, and everything that must be equal in the end.

A picture is what a SIGKILL at that moment would leave: the files as they are between two operations on them.
One straight run gives as many of them as a test wants; each is resumed in a folder of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch_kit  # noqa: F401  one thread
from conftest import lines_of, nothing

from forethought.core.errors import UserError
from forethought.core.types import Tree
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import Recipe
from forethought.runs import endings, run
from forethought.stages import groups as stage_groups
from forethought.store import Store

# Recipes ----------------------------------------------------------------------------------------------------

IMITATE = {
    "kind": "imitate",
    "weights": "base",
    "until": {"steps": 2},
    "batch": 3,
    "optim": {"name": "muon", "lr": 5e-3, "muon_lr": 0.02},
}
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 4},
    "batch": 2,
    "tree": {"plan": 3, "act": 0, "tokens": {"plan": 6}},
    "ref_kl": 0.05,
    "credit": {"name": "rloo"},
    "reward": {"plan": {"format": 1}},
    "optim": {"lr": 0.02},
}
ACT = {
    "kind": "reinforce",
    "roles": ["act"],
    "until": {"steps": 3},
    "batch": 2,
    "tree": {"oracle": ["plan"], "act": 3, "tokens": {"act": 6}},
    "reward": {"act": {"format": 1}},
    "optim": {"lr": 0.02},
}
BOTH = {"kind": "imitate", "until": {"steps": 5}, "batch": 3, "optim": {"lr": 0.02}}
MUON = {"optim": {"name": "muon", "lr": 5e-3, "muon_lr": 0.02}}


def recipe(*stages: dict, **fields) -> Recipe:
    """60,000 numbers, with heads that the kernels compute, on screens of four widgets; a checkpoint after
    every step."""
    tables = {
        "name": "resumed",
        "layout": "adapters",
        "seed": 3,
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4, "slip": 0.1},
        "model": {"layers": 2, "width": 64, "mlp": 32},
        "adapter": {"rank": 2},
        "engine": {"device": "cpu", "precision": "bf16", "threads": 1, "pack_tokens": 300, "sample_rows": 8},
        "probes": {"tasks": 1, "every": 2, "conflict_every": 0},
        "eval": {"tasks": 1, "every": 2},
        "save": {"every": 1, "keep": 3, "trees_every": 2, "trees": 2},
    }
    engine = tables["engine"] | fields.pop("engine", {})
    return from_dict(tables | fields | {"engine": engine, "stage": [dict(s) for s in stages]})


def drawn_reward(tree: Tree, weights, shaping=None, functions=None) -> Tree:
    """Every role that is paid gets a number that its tokens alone decide: a model of no skill has a spread in
    every group, and so a gradient. What is learned is nonsense, and where it leads depends on every bit."""
    paid = lambda n: n.role in weights and n.reward_parts  # noqa: E731
    nodes = [
        replace(n, reward=sum((i + 1) * t for i, t in enumerate(n.token_ids)) % 7 / 7 if paid(n) else None)
        for n in tree.nodes
    ]
    return replace(tree, nodes=tuple(nodes))


def _page(out: Path) -> Path:
    (out / "report.html").write_text("here the report stands", encoding="utf-8")
    return out / "report.html"


def lively(monkeypatch) -> None:
    """For a test's time: `drawn_reward`, and a report of a line (what it costs is not what is tested)."""
    monkeypatch.setattr(stage_groups, "reward", drawn_reward)
    monkeypatch.setattr(endings.report, "write", _page)


# What must be equal -----------------------------------------------------------------------------------------


def _timeless(value):
    """Without what clocks say, at any depth."""
    if isinstance(value, dict):
        return {
            k: _timeless(v)
            for k, v in value.items()
            if not (k.startswith(("seconds", "tokens_per_second", "memory/")) or k == "precision/why")
        }
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def left(out: Path) -> dict:
    """Every byte of the last checkpoint's files and of the trees, every number that was logged, what was
    decided, where the loop stood."""
    folder, state = Store.open(out).latest()
    assert state["progress"]["finished"]
    return {
        "files": {
            str(p.relative_to(folder)): p.read_bytes()
            for p in sorted((folder / "engine").rglob("*"))
            if p.is_file()
        },
        "trees": {p.name: p.read_bytes() for p in sorted((out / "trees").glob("*"))},
        "metrics": _timeless(lines_of(out / "metrics.jsonl")),
        "decisions": [d for d in lines_of(out / "decisions.jsonl") if d["kind"] != "run"],
        "state": _timeless({k: v for k, v in state.items() if k != "logs"}),
    }


def same(wanted: dict, found: dict) -> None:
    for a, b in zip(wanted["metrics"], found["metrics"], strict=False):
        assert not (other := [k for k in a | b if a.get(k) != b.get(k)]), f"step {a['step']}: {other}"
    for kind in ("files", "trees"):
        assert wanted[kind].keys() == found[kind].keys()
        assert [name for name in wanted[kind] if wanted[kind][name] != found[kind][name]] == []
    assert wanted == found


def gradients(out: Path, after: int = -1) -> list[float]:
    """Norms of all updates after a step."""
    return [
        v
        for line in lines_of(out / "metrics.jsonl")
        if line["step"] > after
        for k, v in line.items()
        if k.startswith("grad_norm/")
    ]


# Pictures of a run ------------------------------------------------------------------------------------------

# event -> which argument
WRITES = {
    "open": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.mkdir": 0,
    "os.truncate": 0,
    "shutil.rmtree": 0,
}
_watch: list[Callable[[str, str], None]] = []


def _hear(event: str, args: tuple) -> None:
    if (
        _watch
        and event in WRITES
        and not (event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    ):
        _watch[-1](event, str(args[WRITES[event]]))


sys.addaudithook(_hear)  # a hook stays for ever: this one does nothing where nobody watches


@dataclass(frozen=True, slots=True)
class Moment:
    """Just before an operation on a file of the run. `newest`: the last whole checkpoint then, -1 where there
    is none."""

    event: str
    path: str  # in the run's directory
    newest: int
    folder: Path | None = None  # with the picture, where one was taken

    def __str__(self) -> str:
        return f"{self.event} {self.path} after step {self.newest}"


@contextmanager
def pictures(out: Path, folder: Path, wanted: Callable[[Moment], bool]):
    """Inside, the run in `out` is pictured at every moment that is `wanted`. Yields the list of all its
    moments."""
    seen: list[Moment] = []

    def hear(event: str, path: str) -> None:
        if not path.startswith(f"{out}/") or not (out / "recipe.json").exists():
            return
        _watch.append(lambda *_: None)  # what we do ourselves is none of the run's
        try:
            steps = Store(out).steps()
            moment = Moment(event, os.path.relpath(path, out), steps[-1] if steps else -1)
            if wanted(moment):
                moment = replace(moment, folder=folder / f"{len(seen):04d}")
                shutil.copytree(out, moment.folder)
            seen.append(moment)
        finally:
            _watch.pop()

    _watch.append(hear)
    try:
        yield seen
    finally:
        _watch.pop()


def some(seed: int, n: int) -> Callable[[list[Moment]], list[Moment]]:
    """n of the moments, drawn with a seed."""
    return lambda moments: random.Random(seed).sample(moments, min(n, len(moments)))


def straight(
    chosen: Recipe, folder: Path, wanted: Callable[[Moment], bool] = lambda moment: False
) -> tuple[dict, list[Moment]]:
    """What a run that nothing stops leaves, and its pictures."""
    out = folder / "straight"
    with pictures(out, folder, wanted) as seen:
        run.train(chosen, out, nothing)
    assert gradients(out) and all(g > 0 for g in gradients(out)), (
        "the comparison would pass on a run that trains nothing"
    )
    return left(out), [moment for moment in seen if moment.folder]


def goes_on(moment: Moment, wanted: dict, observe=nothing) -> list[float]:
    """Resume a picture and compare; the norms of the updates that it made."""
    try:
        run.resume(moment.folder, observe)
    except UserError as e:
        assert "is finished" in str(e)  # all there was to do was done
    except AssertionError as e:
        raise AssertionError(str(moment)) from e
    try:
        same(wanted, left(moment.folder))
    except AssertionError as e:
        raise AssertionError(f"resumed from: {moment}; {e}") from e
    updates = gradients(moment.folder, moment.newest)
    assert all(g > 0 for g in updates)
    return updates


def saved(step: int) -> Callable[[Moment], bool]:
    """The first moment after the checkpoint of a step: the log line of the next one is not yet written."""
    return lambda moment: moment.newest == step and moment.event == "open" and moment.path == "metrics.jsonl"
