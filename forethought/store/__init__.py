"""The run directory: logs that grow, files that are written once, and checkpoints. One process writes it, and
every record can be checked.

    .lock                who writes (`locks`)
    run.json             the digest of recipe.json, written with it
    metrics.jsonl, decisions.jsonl      a line per step, a line per decision (`logs`)
    files.jsonl          size and digest of every file that is written once: trees, films of evaluations and
                         the images that both show, guided data, lists of grams
    checkpoints/step-N   `checkpoints`; each knows the length and the digest of every log at its moment
    summary.json         how the run stands; holds its own digest

So a checkpoint vouches for the logs, and through files.jsonl for the trees. A resumed run checks all of it
before it trains (`forethought/runs/resuming.py`), then cuts the logs back to its checkpoint, so nothing is
said twice. Nothing in here follows a symbolic link when it deletes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from forethought.core.errors import CheckpointError, UserError, quoted
from forethought.core.films import Film
from forethought.core.jsonl import dumps, sayable
from forethought.core.types import Advantages, Decision, Task, Tree
from forethought.store import checkpoints, locks
from forethought.store.checkpoints import verify
from forethought.store.files import digest, digest_of, read_object, remove, whole_number, write_whole
from forethought.store.logs import Log, unlike
from forethought.store.trees import packed

__all__ = ["Store", "free_directory", "is_new", "run_at", "verify"]

METRICS, DECISIONS, FILES = LOGS = ("metrics.jsonl", "decisions.jsonl", "files.jsonl")
RECIPE, START, SUMMARY = "recipe.json", "run.json", "summary.json"
OWN = (*LOGS, RECIPE, START, SUMMARY, "checkpoints", "trees", "films", "images", "guided", "grams")
# what a run writes into, cuts or deletes
# of OWN and beside it: the rest are files
FOLDERS = ("checkpoints", "trees", "films", "images", "guided", "grams", "tensorboard")
SHOWN = ("trees/", "films/", "images/")  # what is only looked at: nothing trains on it
MOST_STEPS = 20  # that an error lists
IMAGE = re.compile(r"[0-9a-f]{32}\.(png|jpg)")  # the name of an image
FILM = re.compile(r"step-\d{6,}\.json")  # the name of the films of an evaluation
BEGUN = {locks.NAME, f"{RECIPE}.new", f".{START}.tmp"}  # what a start that was killed can leave


class Store:
    """One run's directory. `create` refuses a folder that holds anything; `alone` keeps a second process out
    while one writes."""

    def __init__(self, out: Path):
        self.out = out
        self.checkpoints = out / "checkpoints"
        self._logs = {name: Log(out / name) for name in LOGS}
        self._recorded: set[str] = set()

    @classmethod
    def create(cls, out: Path) -> Store:
        """A run directory that is new or empty. UserError where it holds files or cannot be made."""
        if any("\ud800" <= c <= "\udfff" for c in str(out)):  # libraries that write into it encode its name
            raise UserError(f"{out} is not a name in UTF-8; choose another --out")
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; give a folder that is new or empty")
        if not is_new(out):
            run = (out / RECIPE).exists()
            way = f", or continue with --resume {quoted(out)}" if run else ""
            raise UserError(
                f"{out} already holds {'another run' if run else 'files'}; choose a new --out{way}"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot make the folder {out}: {e.strerror}") from e
        return cls(out)

    @classmethod
    def open(cls, out: Path) -> Store:
        """A run directory that exists. UserError where there is no run."""
        if not (out / RECIPE).is_file():
            raise UserError(f"{out} is not a run: it has no {RECIPE}")
        return cls(out)

    def writing(self) -> AbstractContextManager[str]:
        """Hold the directory for writing, as `locks.writing` does."""
        return locks.writing(self.out)

    def refuse_links(self) -> None:
        """UserError where a place that the run cuts and deletes in is a symbolic link (what lies behind it is
        not the run's), or is a file where a folder should be, or a folder for a file: found now, not when the
        training is done and its end cannot be written."""
        for name in (*OWN, "tensorboard", "data.json"):
            path = self.out / name
            if path.exists() and path.is_dir() != (name in FOLDERS):
                found, kept = ("folder", "file") if path.is_dir() else ("file", "folder")
                raise UserError(
                    f"{path} is a {found}, and a run keeps a {kept} there: put back what was "
                    f"there, or move this away"
                )
            if name in OWN and path.is_symlink():
                raise UserError(
                    f"{self.out / name} is a symbolic link, and a run cuts and deletes only what lies in its "
                    f"own folder: put the real thing there, or move all of {self.out} and link that"
                )
        for path in sorted((self.out / "trees").glob("step-*.jsonl.gz")):
            if path.is_dir() and _step_of(path) is not None:
                raise UserError(f"{path} is a folder, and a run keeps a file there: move it away")

    # ---- logs

    def log(self, step: int, line: Mapping[str, object]) -> None:
        """Append one line to `metrics.jsonl`."""
        self._append(METRICS, {"step": step, **line})

    def decide(self, decision: Decision) -> None:
        """Append one line to `decisions.jsonl`."""
        self._append(DECISIONS, asdict(decision))

    def _append(self, name: str, record: Mapping[str, object]) -> None:
        self._logs[name].append(record)

    def last_logged(self) -> int:
        """The highest step in the metrics, -1 if there is none. Malformed lines are skipped."""
        found = -1
        if (self.out / METRICS).is_file():
            with open(self.out / METRICS, "rb") as f:
                for row in map(_object, f):
                    found = max(found, row["step"] if whole_number(row.get("step")) else -1)
        return found

    def damaged_logs(self, state: Mapping) -> dict[str, str]:
        """Log -> how it differs from what the checkpoint with this state recorded. Older runs recorded fewer
        logs."""
        marks = {METRICS: None, DECISIONS: None} | state["logs"]
        found = {name: unlike(self.out / name, mark) for name, mark in marks.items() if name in LOGS}
        return {name: wrong for name, wrong in found.items() if wrong}

    # ---- files that are written once

    def save_trees(
        self,
        step: int,
        stage: int,
        trees: Iterable[Tree],
        advantages: Iterable[Advantages],
        oracle: Callable[[Task], str],
        free_text: bool = False,
    ) -> None:
        """One file for the step. `oracle`: the plan to show beside the model's own, "" for none; `free_text`:
        plans are free words, which nothing executes, so `valid` says only that the interface accepted
        them."""
        folder = self.out / "trees"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step:06d}.jsonl.gz"
        write_whole(path, packed(step, stage, trees, advantages, oracle, free_text))
        self._recorded.discard(f"trees/{path.name}")
        self.record(path)

    def save_films(self, step: int, stage: int, films: Sequence[Film]) -> None:
        """One file for the evaluation after this step, and its pictures."""
        for film in films:
            self.save_images(film.pictures)
        folder = self.out / "films"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step:06d}.json"
        told = {"step": step, "stage": stage, "films": [film.told() for film in films]}
        write_whole(path, dumps(told).encode())
        self._recorded.discard(f"films/{path.name}")
        self.record(path)

    def save_images(self, images: Mapping[str, bytes]) -> None:
        """Name -> bytes, before what shows them. One that is there already is not written again."""
        for name, data in images.items():
            path = self.out / "images" / name
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                write_whole(path, data)
            self.record(path)

    def record(self, path: Path) -> None:
        """From now on a resumed run expects this file unchanged. A file that is already recorded keeps its
        entry."""
        if not self._recorded:
            self._recorded = set(self.recorded())
        if (name := path.relative_to(self.out).as_posix()) not in self._recorded:
            self._append(FILES, {"file": name, "bytes": path.stat().st_size, "digest": digest(path)})
            self._recorded.add(name)

    def recorded(self, most: int | None = None) -> dict[str, tuple[int, str]]:
        """Name -> (bytes, digest) of the files recorded in the first `most` bytes of their log, the newest
        entry of each. Malformed lines are skipped: the caller has checked the log."""
        try:
            lines = (self.out / FILES).read_bytes()[:most].split(b"\n")
        except OSError:
            return {}
        return {row["file"]: (row["bytes"], row["digest"]) for row in _rows(lines)}

    def damaged_files(self, state: Mapping | None) -> dict[str, str]:
        """Recorded file -> what is wrong with it, for every file that has changed since it was written. Only
        files that the checkpoint with this state knows; None: all files."""
        most = None if state is None else _length(state["logs"].get(FILES, 0))
        found = {name: _damage(self.out / name, *known) for name, known in self.recorded(most).items()}
        return {name: wrong for name, wrong in found.items() if wrong}

    def damaged_trees(self) -> dict[str, str]:
        """Tree file -> how it differs from the recorded one. Older runs have no record."""
        wrong = {name: what for name, what in self.damaged_files(None).items() if name.startswith("trees/")}
        known = {name for name in self.recorded() if name.startswith("trees/")}
        found = (
            sorted(f"trees/{path.name}" for path in (self.out / "trees").glob("step-*.jsonl.gz"))
            if known
            else []
        )
        return wrong | {name: "is not among what the run wrote" for name in found if name not in known}

    def strange_trees(self) -> list[Path]:
        """What lies among the trees and is not a file of a step."""
        folder = self.out / "trees"
        return (
            sorted(p for p in folder.iterdir() if _step_of(p) is None and p.name[0] != ".")
            if folder.is_dir()
            else []
        )

    # ---- small files

    def write_json(self, name: str, record: Mapping[str, object]) -> None:
        """Whole or not at all."""
        write_whole(self.out / name, json.dumps(sayable(record), indent=1, allow_nan=False).encode())

    def read_json(self, name: str) -> dict:
        """What `write_json` wrote, or {} where it never did. ValueError where the file is something else."""
        return read_object(self.out / name) if (self.out / name).exists() else {}

    def write_start(self) -> None:
        """Beside recipe.json: what it says, as a digest."""
        self.write_json(START, {"recipe": digest_of(read_object(self.out / RECIPE))})

    def expect_recipe(self, tables: Mapping[str, object]) -> None:
        """recipe.json is about to say this: until `write_start` follows, either recipe is the run's."""
        self.write_json(START, {"recipe": self.begun_with(), "next": digest_of(tables)})

    def begun_with(self) -> str:
        """The digest of the recipe with which the run began, "" if unknown."""
        try:
            said = self.read_json(START).get("recipe")
        except ValueError:
            return ""
        return said if isinstance(said, str) else ""

    def has_its_recipe(self) -> bool:
        """Whether recipe.json still says what run.json knows of it. ValueError where recipe.json says
        nothing."""
        known = [self.begun_with(), self.read_json(START).get("next")] if self.begun_with() else []
        return digest_of(read_object(self.out / RECIPE)) in known

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Write `summary.json` with a digest of itself, so that a damaged one is found."""
        self.write_json(SUMMARY, {**summary, "digest": digest_of(sayable(summary))})

    def read_summary(self) -> tuple[dict, str]:
        """(summary, ""), or ({}, what is wrong with it). Only displays depend on it."""
        try:
            summary = self.read_json(SUMMARY)
        except ValueError as error:
            return {}, f"{SUMMARY} {error}"
        known = summary.pop("digest", None)  # runs from before there were digests have none
        return (
            (summary, "")
            if known in (None, digest_of(summary))
            else ({}, f"{SUMMARY} is not what was written")
        )

    # ---- checkpoints

    def save(
        self, step: int, state: Mapping[str, object], write: Callable[[Path], None], interim: bool = False
    ) -> Path:
        """A checkpoint of this step: `write` puts the engine's files in, `state` is what the loop needs to go
        on. `interim`: only because the run stops here (`prune`)."""
        marks = {name: log.mark() for name, log in self._logs.items()}
        logs = [self.out / name for name in LOGS if (self.out / name).exists()]
        return checkpoints.write(self.checkpoints, step, {**state, "logs": marks}, write, logs, interim)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return checkpoints.steps(self.checkpoints)

    def passed_over(self) -> str:
        """A sentence about entries that have a checkpoint's name but are not one and are ignored, or ""."""
        if not (found := checkpoints.passed_over(self.checkpoints)):
            return ""
        kind = "a symbolic link" if found[-1].is_symlink() else "not a folder"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"checkpoints/{found[-1].name} is {kind}, so it is passed over{more}"

    def folder(self, step: int) -> Path:
        """Where the checkpoint of `step` is or will be."""
        return checkpoints.place(self.checkpoints, step)

    def state(self, step: int) -> tuple[Path, dict]:
        """(folder, loop state) of a checkpoint after checking every file. CheckpointError names a damaged one
        and the way on."""
        folder = self.folder(step)
        if problem := verify(folder):
            way = self.way_back(step, lambda s: not verify(self.folder(s)))
            raise CheckpointError(f"checkpoint {folder} is damaged ({problem}); {way}")
        return folder, read_object(folder / checkpoints.STATE)

    def way_back(self, step: int, good: Callable[[int], bool]) -> str:
        """What to do if the checkpoint of `step` is unusable: the newest earlier one that is `good`, and
        which newer ones must be deleted before a resume takes it."""
        for earlier in (s for s in reversed(self.steps()) if s < step):
            if good(earlier):
                newer = [str(self.folder(s)) for s in self.steps() if earlier < s <= step]
                which = "the one before it" if len(newer) == 1 else f"that of step {earlier}"
                return f"{which} is whole: delete {' and '.join(newer)} and resume from step {earlier}"
        return (
            f"there is no whole one before it; start a new run: forethought train {quoted(self.out)} --out "
            "NEW"
        )

    def latest(self) -> tuple[Path, dict] | None:
        """(folder, state) of the newest checkpoint; None where there is none."""
        steps = self.steps()
        return self.state(steps[-1]) if steps else None

    def chosen(self, step: int | None) -> tuple[Path, dict]:
        """(folder, state) of the checkpoint of `step`, None: of the newest. UserError where it is not there,
        with those that are; CheckpointError for a damaged one."""
        there = self.steps()
        if not there:
            over = self.passed_over()
            why = f" ({over})" if over else ""
            raise UserError(f"{self.out} has no checkpoint yet{why}; wait for its first or resume it")
        if step is not None and step not in there:
            shown = ", ".join(map(str, there[-MOST_STEPS:]))
            more = f" and {len(there) - MOST_STEPS} earlier ones" if len(there) > MOST_STEPS else ""
            raise UserError(
                f"{self.out} has no checkpoint of step {step}; it has those of {shown}{more} "
                f"(save.keep says how many a run keeps)"
            )
        return self.state(there[-1] if step is None else step)

    def mend(self) -> None:
        """Finish or undo what a process that died left half done in `checkpoints/`."""
        checkpoints.mend(self.checkpoints)

    def cut_back(self, state: Mapping) -> None:
        """Undo everything that was written after the checkpoint with this state. Foreign files stay."""
        for name, log in self._logs.items():
            log.cut(_length(state["logs"].get(name, 0)))
        self._recorded = set()
        for path in (self.out / "trees").glob("step-*.jsonl.gz"):
            if (step := _step_of(path)) is not None and step > state["step"]:
                path.unlink()
        known = self.recorded()
        for folder, name in (("images", IMAGE), ("films", FILM)):
            for path in (self.out / folder).glob("*"):
                if name.fullmatch(path.name) and f"{folder}/{path.name}" not in known:
                    path.unlink()
        for pattern in (".*.tmp", f"{RECIPE}.new", "trees/.*.tmp", "films/.*.tmp", "images/.*.tmp"):
            for path in self.out.glob(pattern):
                remove(path)
        checkpoints.sweep(self.checkpoints)

    def prune(self, keep: int, spare: Iterable[int]) -> None:
        """Remove old checkpoints: the newest `keep` and those in `spare` stay."""
        checkpoints.prune(self.checkpoints, keep, spare)


def run_at(path: Path, step: int | None = None) -> tuple[Path, int | None] | None:
    """(run, step) of a run's folder or of a checkpoint in one (`RUN/checkpoints/step-400`, with or without
    its zeros); None for what is no run. UserError where a checkpoint's folder and `step` name two steps."""
    if (path / RECIPE).is_file():
        return path, step
    run, named = path.parent.parent, re.fullmatch(r"step-(\d{1,18})", path.name)
    if named is None or path.parent.name != "checkpoints" or not (run / RECIPE).is_file():
        return None
    if step not in (None, int(named[1])):
        raise UserError(f"{path} is the checkpoint of step {int(named[1])}, and --step says {step}; give one")
    return run, int(named[1])


def free_directory(name: str) -> Path:
    """Where a run goes that was given no place: runs/<name>-<n>, the first free n."""
    n = 1
    while (path := Path("runs") / f"{name}-{n}").exists():
        n += 1
    return path


def is_new(out: Path) -> bool:
    """Whether a run can begin in this folder: it is not there, or holds nothing but what a start that was
    killed has left."""
    return not out.exists() or (out.is_dir() and all(path.name in BEGUN for path in out.iterdir()))


def _length(mark: int | list) -> int:
    """Of a log, as a checkpoint says it; runs from before there were digests say the length alone."""
    return mark if whole_number(mark) else mark[0]


def _damage(path: Path, size: int, known: str) -> str:
    if path.is_symlink() or not path.is_file():
        return "is missing"
    if (found := path.stat().st_size) != size:
        return f"has {found} bytes, {size} were written"
    return "" if digest(path) == known else "is not what was written"


def _step_of(path: Path) -> int | None:
    """The step of a file of trees, None for what is none."""
    match = re.fullmatch(r"step-(\d{6,18})\.jsonl\.gz", path.name)
    return int(match.group(1)) if match else None


def _object(line: bytes) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _rows(lines: Iterable[bytes]) -> Iterator[dict]:
    for row in map(_object, lines):
        if (
            isinstance(row.get("file"), str)
            and isinstance(row.get("digest"), str)
            and whole_number(row.get("bytes"))
        ):
            yield row
