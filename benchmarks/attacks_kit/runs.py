"""What a finished run left, without its clocks, and how it differs from what another run left."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

LOCKS = (".lock",)
# of a summary: where it was made, and what covers that and its seconds
BESIDE = ("machine", "machines", "digest")


def clock(name: str) -> bool:
    return name.startswith(("seconds", "tokens_per_second", "memory/"))


def timeless(value: object, drop: tuple[str, ...] = ()) -> object:
    """The same value without what a clock wrote, at any depth. `drop`: further keys."""
    if isinstance(value, dict):
        return {k: timeless(v, drop) for k, v in value.items() if not clock(str(k)) and k not in drop}
    return [timeless(v, drop) for v in value] if isinstance(value, list) else value


def rows(path: Path) -> list[dict]:
    """The whole lines of a log; one that was cut off is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return [row for row in found if isinstance(row, dict)]


def steps(out: Path) -> list[int]:
    folder = out / "checkpoints"
    found = [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(int(p.name[5:]) for p in found if re.fullmatch(r"step-\d{6,}", p.name))


def left(out: Path) -> dict[str, object]:
    """Name -> value of all that must be equal in two runs of one recipe, however often one of them was
    killed."""
    found: dict[str, object] = {"checkpoints": steps(out)}
    if found["checkpoints"]:
        newest = out / "checkpoints" / f"step-{found['checkpoints'][-1]:06d}"
        for path in sorted(newest.rglob("*")):
            name = str(path.relative_to(newest))
            if path.is_file() and name not in ("manifest.json", "state.json"):
                found[f"checkpoint: {name}"] = hashlib.blake2b(path.read_bytes()).hexdigest()[:32]
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        found["checkpoint: progress"] = timeless(state["progress"])
    found["metric rows"] = [timeless(row) for row in rows(out / "metrics.jsonl")]
    # What says that a run was stopped and went on differs by nature.
    found["decisions"] = [d for d in rows(out / "decisions.jsonl") if d.get("kind") != "run"]
    for path in sorted((out / "trees").glob("*")) if (out / "trees").is_dir() else []:
        found[f"trees: {path.name}"] = _unpacked(path)
    for path in sorted((out / "guided").rglob("*")) if (out / "guided").is_dir() else []:
        if path.is_file():
            found[f"guided: {path.relative_to(out / 'guided')}"] = _guided(path)
    summary = out / "summary.json"
    found["summary"] = (
        timeless(json.loads(summary.read_text(encoding="utf-8")), BESIDE) if summary.exists() else None
    )
    found["report.html"] = (out / "report.html").is_file() and (out / "report.html").stat().st_size > 10_000
    found["names"] = names(out)
    return found


def names(out: Path) -> list[str]:
    """Files and folders of the run directory, apart from event files, whose names hold the time, and the
    lock."""
    return sorted(p.name for p in out.iterdir() if p.name not in (*LOCKS, "tensorboard"))


def difference(wanted: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Where two runs differ, in one line, or ""."""
    said = []
    for name in [*wanted, *(n for n in found if n not in wanted)]:
        a, b = wanted.get(name, "absent"), found.get(name, "absent")
        if a == b:
            continue
        if name in ("names", "checkpoints"):
            said.append(f"{name}: {sorted(set(b) - set(a))} too many, {sorted(set(a) - set(b))} missing")
        elif isinstance(a, list) and isinstance(b, list):
            said.append(f"{name}: {_first(a, b)}")
        else:
            what = "is extra" if a == "absent" else "differs"
            said.append(f"{name} {'is missing' if b == 'absent' or b is False else what}")
    return "; ".join(said[:8]) + (f"; and {len(said) - 8} more" if len(said) > 8 else "")


def _first(a: list, b: list) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    keys = ""
    if at < len(a) and at < len(b) and isinstance(a[at], dict) and isinstance(b[at], dict):
        other = sorted(k for k in a[at].keys() | b[at].keys() if a[at].get(k) != b[at].get(k))
        keys = f" in {', '.join(other[:6])}"
    return f"{len(b)} for {len(a)}, different from row {at} on{keys}"


def gradients_after(out: Path, step: int) -> int:
    """Rows of reinforce stages after `step` in which a gradient flowed."""
    return sum(
        row.get("step", 0) > step
        and row.get("kind") in ("reinforce", "imitate")
        and any(k.startswith("grad_norm") and isinstance(v, float) and v > 0 for k, v in row.items())
        for row in rows(out / "metrics.jsonl")
    )


def _unpacked(path: Path) -> str:
    try:
        return hashlib.blake2b(gzip.decompress(path.read_bytes())).hexdigest()[:32]
    except (OSError, EOFError, zlib.error) as error:
        return f"cannot be unpacked: {error}"


def _guided(path: Path) -> object:
    if path.name != "provenance.json":
        return hashlib.blake2b(path.read_bytes()).hexdigest()[:32]
    said = json.loads(path.read_text(encoding="utf-8"))
    # when, and in how many goes
    return {k: v for k, v in said.items() if k not in ("date", "paid", "paid_before", "tried")}
