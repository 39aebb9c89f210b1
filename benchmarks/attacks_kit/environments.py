"""Task families that misbehave: inside a training step and inside an evaluation, now and then and always.

What they do wrong is data: the run goes on and counts it, or it stops with one line that names it, with a
checkpoint to resume from. It is never our bug, never a reward of 0, never exit code 0 without a word. The
list is that of tests/misbehaving.py.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks_kit import children, runs
from attacks_kit.records import Outcome, Try, failed, held, idle, memory, rng_of
from attacks_kit.subjects import ACT, IMITATE, PLAN, subject

# seconds of a command: the run itself takes two, and every step that hangs has a limit of its own
LIMIT = 40.0
STEP_LIMIT = 0.05  # seconds, where the recipe can say one
RARELY, ALWAYS = "now and then", "always"


@functools.cache
def cases() -> dict[str, Any]:
    tests = Path(__file__).parents[2] / "tests"
    if str(tests) not in sys.path:
        sys.path.append(str(tests))
    import misbehaving

    return misbehaving.CASES


def tries(scale: float, seed: int) -> list[Try]:
    found = [
        Try(
            f"environments/{where}, {often}/{name}",
            functools.partial(trained if where == "training" else evaluated, name, often),
        )
        for name, case in cases().items()
        for where, often in (("training", RARELY), ("training", ALWAYS), ("evaluation", RARELY))
        if where == "training" or not case.limits  # those are of the recipe that is trained
    ]
    return (
        found if scale >= 1 else rng_of("environments", seed).sample(found, max(6, round(scale * len(found))))
    )


def tables(**limits: Any) -> dict:
    """Imitation until some plans are accepted, then both roles learn by rewards that ask parser, executor and
    environment."""
    short = [stage | {"until": {"steps": steps}} for stage, steps in ((IMITATE, 16), (PLAN, 3), (ACT, 3))]
    return subject(*short, eval={"tasks": 4, "every": 8}, limits={"step_seconds": STEP_LIMIT, **limits})


def misbehave(case: Any, often: str, marker: Path) -> Callable[[], None]:
    """For a child's `before`: its `desk` has one method replaced at some or all of its calls; `marker` holds
    how often."""

    def begin() -> None:
        from forethought.tasks import families
        from forethought.tasks.desk.taskset import Desk

        at, calls = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_APPEND), {"n": 0}

        def now() -> bool:
            calls["n"] += 1
            wrong = often == ALWAYS or calls["n"] % 7 == 5
            if wrong:
                os.write(at, b"x")
            return wrong

        import misbehaving

        ours = case.method in misbehaving.OF_ENVIRONMENT
        name = "environment" if ours else case.method
        right = getattr(Desk, name)

        def instead(self, *args, **named):
            if ours:
                return misbehaving.wrong(case, now, right(self, *args, **named))
            return case.does(*args, **named) if now() else right(self, *args, **named)

        family = type("Misbehaving", (Desk,), {name: instead})
        for table in (families.TASKSETS, families.TO_MEASURE):
            table["desk"] = lambda levels, **options: family(levels, **options)

    return begin


def trained(name: str, often: str, folder: Path) -> Outcome:
    case, out, marker = cases()[name], folder / "run", folder / "calls"
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(tables(**case.limits)), encoding="utf-8")
    ended = children.run(
        ["train", recipe, "--out", out, "--plain"],
        folder / "logs",
        LIMIT,
        misbehave(case, often, marker),
    )
    found = judged(ended, marker, out)
    if found.verdict == "held" and ended.code and (out / "recipe.json").exists():
        mended = children.run(["train", "--resume", out, "--plain"], folder / "logs", LIMIT)
        if mended.code != 0:
            return failed(
                f"it stopped, and with a family that does not misbehave it cannot go on: {mended.last}"
            )
    return found


def evaluated(name: str, often: str, folder: Path) -> Outcome:
    case, marker = cases()[name], folder / "calls"
    ended = children.run(
        ["eval", finished(), "--json"], folder / "logs", LIMIT, misbehave(case, often, marker)
    )
    return judged(ended, marker, None)


def judged(ended: children.Ended, marker: Path, out: Path | None) -> Outcome:
    """`out`: the run that trained, None for an evaluation."""
    times = marker.stat().st_size if marker.exists() else 0
    if why := children.untyped(ended, fine=(0, 2, 3)):
        return failed(why)
    if not times:
        return idle("it was never asked")
    if ended.code:
        if (
            out is not None
            and any(row["step"] for row in runs.rows(out / "metrics.jsonl"))
            and not runs.steps(out)
        ):
            return failed(f"it stopped without a checkpoint: {ended.last}")
        return held(reason=f"stopped: {ended.last}", stopped=1)
    said = counted(out) if out is not None else "failed" in ended.text
    if not said:
        return failed(f"silent: {times} times wrong, and no metric, decision or line says so")
    if out is not None and (wrong := rewarded(out)):
        return failed(wrong)
    return held(reason=f"{times} times, counted", counted=1)


def counted(out: Path) -> bool:
    """Whether the logs say that something failed."""
    rows = any(
        k.startswith("failed") and isinstance(v, int | float) and v > 0
        for row in runs.rows(out / "metrics.jsonl")
        for k, v in row.items()
    )
    return rows or any("fail" in str(d) for d in runs.rows(out / "decisions.jsonl") if d.get("kind") != "run")


def rewarded(out: Path) -> str:
    """A node that failed and yet has a reward, or ""."""
    for path in (out / "trees").glob("*.gz"):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            for node in json.loads(line).get("nodes", []):
                if node["status"] == "failed" and node["reward"] is not None:
                    return f"a node that failed has the reward {node['reward']} in {path.name}"
    return ""


_FINISHED: list[Path] = []


def finished() -> Path:
    """A finished run to evaluate, made once in a process."""
    if not _FINISHED:
        folder = Path(tempfile.mkdtemp(prefix="base-", dir=memory()))
        recipe = folder / "recipe.json"
        recipe.write_text(json.dumps(tables()), encoding="utf-8")
        ended = children.run(["train", recipe, "--out", folder / "run", "--plain"], folder / "logs")
        if why := children.untyped(ended, fine=(0,)):
            shutil.rmtree(folder)
            raise RuntimeError(f"the run to evaluate: {why}")
        _FINISHED.append(folder / "run")
    return _FINISHED[0]
