"""The run directory: append-only logs, and checkpoints that are either whole or not there.

A checkpoint is written beside its place, every file is synced, then the folder is renamed. Its manifest holds the size and
checksum of each file and the length of each log at that moment: a resumed run cuts the logs back to it, so nothing is said twice.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from forethought.errors import CheckpointError, UserError
from forethought.types import Advantages, Decision, Task, Tree

LOGS = ("metrics.jsonl", "decisions.jsonl")


class Store:
    """One run's directory. `create` refuses a folder that holds anything."""

    def __init__(self, out: Path):
        self.out = out
        self.checkpoints = out / "checkpoints"

    @classmethod
    def create(cls, out: Path) -> Store:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; give a folder that is new or empty")
        if out.is_dir() and any(out.iterdir()):
            run = (out / "recipe.json").exists()
            way = f", or continue with --resume {out}" if run else ""
            raise UserError(f"{out} already holds {'another run' if run else 'files'}; choose a new --out{way}")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot make the folder {out}: {e.strerror}") from e
        return cls(out)

    @classmethod
    def open(cls, out: Path) -> Store:
        if not (out / "recipe.json").is_file():
            raise UserError(f"{out} is not a run: it has no recipe.json")
        return cls(out)

    # ---- logs

    def log(self, step: int, line: Mapping[str, object]) -> None:
        self._append("metrics.jsonl", {"step": step, **line})

    def decide(self, decision: Decision) -> None:
        self._append("decisions.jsonl", asdict(decision))

    def _append(self, name: str, record: Mapping[str, object]) -> None:
        with open(self.out / name, "a", encoding="utf-8") as f:
            f.write(json.dumps(record, allow_nan=False) + "\n")

    def save_trees(self, step: int, stage: int, trees: Iterable[Tree], advantages: Iterable[Advantages], oracle: Callable[[Task], str],
                   free_text: bool = False) -> None:
        """One file for the step, one line a tree (`traces` reads them). `oracle`: the plan to show beside the model's own, "" for none;
        `free_text`: plans are free words, which nothing executes, so `valid` says only that the interface accepted them."""
        folder = self.out / "trees"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step:06d}.jsonl.gz"
        # Level 1: a fifth to a third more bytes than at level 9, in less time. No time stamp: the same trees are the same bytes.
        with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0, filename="") as f:
            for tree, given in zip(trees, advantages, strict=True):
                record = {"step": step, "stage": stage, "free_text": free_text} | _tree_record(tree, given, oracle(tree.task))
                f.write((json.dumps(record) + "\n").encode())

    def write_json(self, name: str, record: Mapping[str, object]) -> None:
        """Whole or not at all."""
        beside = self.out / f".{name}.tmp"
        beside.write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(beside, self.out / name)

    def read_json(self, name: str) -> dict:
        """What `write_json` wrote, or {} if it never did."""
        path = self.out / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    # ---- checkpoints

    def save(self, step: int, state: Mapping[str, object], write: Callable[[Path], None]) -> Path:
        """A checkpoint of this step: `write` puts the engine's files in, `state` is what the loop needs to go on.

        An OSError (a full disk) leaves no trace of the attempt and every earlier checkpoint as it was.
        """
        final = self.checkpoints / f"step-{step:06d}"
        beside = self.checkpoints / f".step-{step:06d}.tmp"
        old = self.checkpoints / f".step-{step:06d}.old"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            write(beside)
            lengths = {name: (self.out / name).stat().st_size if (self.out / name).exists() else 0 for name in LOGS}
            (beside / "state.json").write_text(json.dumps({**state, "step": step, "logs": lengths}), encoding="utf-8")
            files = {str(p.relative_to(beside)): [p.stat().st_size, _digest(p)] for p in sorted(beside.rglob("*")) if p.is_file()}
            (beside / "manifest.json").write_text(json.dumps(files, indent=1), encoding="utf-8")
            logs = [self.out / name for name in LOGS if (self.out / name).exists()]
            for path in [*logs, *beside.rglob("*"), beside]:
                _sync(path)
            if final.exists():  # the same step again (a stage that begins where the last one ended): the newer one holds
                shutil.rmtree(old, ignore_errors=True)
                os.rename(final, old)
                os.rename(beside, final)
                shutil.rmtree(old)
            else:
                os.rename(beside, final)
            _sync(self.checkpoints)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            if old.exists() and not final.exists():
                os.rename(old, final)
            raise
        return final

    def steps(self) -> list[int]:
        """Steps of all checkpoints, the newest last. Half-written ones have another name and are not among them."""
        found = self.checkpoints.iterdir() if self.checkpoints.exists() else []
        return sorted(int(p.name.removeprefix("step-")) for p in found if re.fullmatch(r"step-\d{6,}", p.name))

    def state(self, step: int) -> tuple[Path, dict]:
        """(folder, loop state) of a checkpoint after checking every file. CheckpointError names a damaged one and the way on."""
        folder = self.checkpoints / f"step-{step:06d}"
        problem = verify(folder)
        if problem:
            earlier = [s for s in self.steps() if s < step and not verify(self.checkpoints / f"step-{s:06d}")]
            way = (f"the one before it is whole: delete {folder} and resume from step {earlier[-1]}" if earlier
                   else "there is no whole one before it; start a new run")
            raise CheckpointError(f"checkpoint {folder} is damaged ({problem}); {way}")
        return folder, json.loads((folder / "state.json").read_text(encoding="utf-8"))

    def latest(self) -> tuple[Path, dict] | None:
        steps = self.steps()
        return self.state(steps[-1]) if steps else None

    def mend(self) -> None:
        """Give a checkpoint its name back that was being replaced when the run was killed. Only for who resumes, never for who reads."""
        for old in self.checkpoints.glob(".step-*.old"):
            if not (final := old.with_name(old.name[1:-4])).exists():
                os.rename(old, final)

    def cut_back(self, state: Mapping) -> None:
        """Undo everything that was logged after the checkpoint with this state (a log that a crash cut shorter stays so)."""
        for name, length in state["logs"].items():
            path = self.out / name
            if path.exists():
                with open(path, "r+b") as f:
                    f.truncate(min(length, path.stat().st_size))
        for path in (self.out / "trees").glob("step-*.jsonl.gz"):
            if int(path.name.split("-")[1].split(".")[0]) > state["step"]:
                path.unlink()
        for path in self.checkpoints.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def prune(self, keep: int, spare: Iterable[int]) -> None:
        """Keep the newest `keep` checkpoints and those in `spare`."""
        for step in set(self.steps()[:-keep]) - set(spare):
            shutil.rmtree(self.checkpoints / f"step-{step:06d}")


def verify(folder: Path) -> str:
    """What is wrong with a checkpoint, or ""."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "its manifest is missing or unreadable"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
        if _digest(path) != digest:
            return f"{name} is not what was written"
    return ""


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "blake2b").hexdigest()[:32]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _tree_record(tree: Tree, advantages: Advantages, oracle: str) -> dict:
    mean = lambda xs: sum(xs) / len(xs) if xs else None  # noqa: E731
    nodes = [
        {"id": n.id, "parent": n.parent, "role": n.role, "text": n.text, "status": n.status, "reason": n.reason,
         "reward_parts": dict(n.reward_parts), "reward": n.reward, "advantage": mean(advantages.get(n.id, ())),
         "policy": n.policy, "version": n.version, "tokens": len(n.token_ids), "logprob": mean(n.logprobs)}
        for n in tree.nodes
    ]
    return {"task": tree.task.id, "domain": tree.task.domain, "level": tree.task.level,
            "context": tree.task.context, "prompt": tree.task.prompt, "oracle_plan": oracle, "nodes": nodes}
