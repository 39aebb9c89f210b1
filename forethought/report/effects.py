"""What each stage did to each role and to all of them together: evaluations before and after, and the change
with its interval.

A key is a side (a role, or `e2e`) or a side at a level (`plan@5`). Values are shares in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forethought.recipe.roles import roles_in
from forethought.report.load import Run, finite

TOGETHER = "e2e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One evaluation of one key."""

    step: int
    value: float
    low: float | None = None  # 95 % interval
    high: float | None = None
    n: int | None = None  # tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """after - before, in shares. Without an interval a change is never called clear."""

    value: float
    low: float | None = None
    high: float | None = None
    paired: bool = False

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One stage. `after` is what its training reached, `kept` is what the next stage started from; they
    differ after a roll back."""

    index: int
    name: str
    kind: str
    roles: tuple[str, ...]
    steps: int  # trained
    first: int | None  # position of its first metric line, None: not begun
    last: int | None
    before: Mapping[str, Point]
    after: Mapping[str, Point]
    kept: Mapping[str, Point]
    changes: Mapping[str, Change]  # before -> after
    rolled_back_to: int | None = None  # step
    attempts: int = 1  # more where a gate sent it through again


def measured_names(run: Run) -> tuple[str, ...]:
    """What the run has measured: its roles in the order of the workflow, and all together. A role without a
    number (a thought, which nothing judges) is not one of them; all are where nothing was measured yet."""
    seen = {key for line in run.lines for key in line if key.startswith(("eval/", "eval_failed/"))}
    measured = [r for r in roles_in(run.recipe) if not seen or seen & {f"eval/{r}", f"eval_failed/{r}"}]
    return (*measured, TOGETHER)


def points(line: Mapping[str, Any], first: Sequence[str] = ()) -> dict[str, Point]:
    """The evaluation in a metric line, by key, the keys of `first` before the others; empty if the line has
    none."""
    out = {}
    for name in dict.fromkeys([f"eval/{side}" for side in first] + list(line)):
        value = line.get(name)
        if name.startswith("eval/") and finite(value):
            key = name.removeprefix("eval/")
            low, high = line.get(f"eval_low/{key}"), line.get(f"eval_high/{key}")
            both = finite(low) and finite(high)
            n = line.get(f"eval_n/{key}")
            out[key] = Point(
                step=line["step"],
                value=value,
                low=low if both else None,
                high=high if both else None,
                n=int(n) if finite(n) else None,
            )
    return out


def change(before: Point, after: Point) -> Change:
    """Newcombe's interval for the difference of two proportions, from the two Wilson intervals (his method
    10, 1998). It assumes independent evaluations; ours use the same tasks, so the true interval is usually
    narrower."""
    d = after.value - before.value
    if None in (before.low, before.high, after.low, after.high):
        return Change(value=d)
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Change(value=d, low=d - down, high=d + up)


def lost_lines(run: Run) -> tuple[list[bool], list[tuple[int, int, int]]]:
    """For each metric line, whether a roll back discarded its training; and the roll backs as (stage, back to
    step, at step)."""
    lost = [False] * len(run.lines)
    backs: list[tuple[int, int, int]] = []

    def throw_away(stage: int, to: int, last: int) -> None:
        backs.append((stage, to, run.lines[last]["step"]))
        for i in range(last + 1):
            lost[i] = lost[i] or run.lines[i]["step"] > to

    for i, line in enumerate(run.lines):
        if finite(line.get("rolled_back_to")) and i:
            throw_away(run.lines[i - 1]["stage"], int(line["rolled_back_to"]), i - 1)
    for decision in run.decisions:  # a roll back that ended the run: no line came after it
        if decision["outcome"] == "roll_back" and run.lines and decision["step"] >= run.lines[-1]["step"] > 0:
            starts = [line["step"] for line in run.lines if line["stage"] == decision["stage"]]
            if starts and not any(back[2] >= decision["step"] for back in backs):
                to = decision.get("numbers", {}).get("rolled_back_to", starts[0])
                throw_away(decision["stage"], int(to), len(run.lines) - 1)
    return lost, backs


def effects(run: Run) -> list[Effect]:
    """One Effect per stage of the recipe (or of the metrics, where they know more), begun or not."""
    (lost, backs), order = lost_lines(run), measured_names(run)
    specs = run.recipe.get("stage", [])
    count = max([len(specs), *(line["stage"] + 1 for line in run.lines)])
    out, standing = [], {}  # standing: the newest evaluation that no roll back threw away
    for index in range(count):
        at = [i for i, line in enumerate(run.lines) if line["stage"] == index]
        measured = [i for i in at if points(run.lines[i])]
        # an evaluation in the middle of training cannot stand for the stage's start where the stage before
        # left one
        opens = bool(measured) and (not standing or run.lines[measured[0]].get("stage_step", 0) == 0)
        before = points(run.lines[measured[0]], order) if opens else dict(standing) if at else {}
        # the line after a roll back, and one that opens another attempt, measure what was restored, not what
        # the training reached
        reached = [
            i
            for i in measured[opens:]
            if "rolled_back_to" not in run.lines[i] and run.lines[i].get("stage_step") != 0
        ]
        after = points(run.lines[reached[-1]], order) if reached else {}
        for i in measured:
            if not lost[i]:
                standing = points(run.lines[i], order)
        back = [to for stage, to, _ in backs if stage == index]
        undone = bool(back) and bool(reached) and lost[reached[-1]]
        out.append(
            Effect(
                index=index,
                **_who(specs[index] if index < len(specs) else {}, run.lines[at[0]] if at else {}),
                steps=_steps(run, at),
                first=at[0] if at else None,
                last=at[-1] if at else None,
                before=before,
                after=after,
                kept=dict(standing) if undone else after,
                rolled_back_to=back[-1] if back else None,
                attempts=1 + sum(d["outcome"] == "retry" and d["stage"] == index for d in run.decisions),
                changes={
                    key: _logged(run.lines[reached[-1]], key) or change(before[key], after[key])
                    for key in after
                    if key in before
                },
            )
        )
    return out


def first_and_last(run: Run) -> tuple[dict[str, Point], dict[str, Point]]:
    """The run's first evaluation, and the last one that no roll back discarded (empty if there was no second
    one)."""
    lost, _ = lost_lines(run)
    measured = [i for i, line in enumerate(run.lines) if points(line)]
    standing = [i for i in measured if not lost[i]]
    order = measured_names(run)
    return (points(run.lines[measured[0]], order) if measured else {}), (
        points(run.lines[standing[-1]], order) if len(measured) > 1 and standing else {}
    )


def levels(run: Run) -> list[str]:
    """Every level that was measured, smallest first."""
    found = {key.split("@", 1)[1] for line in run.lines for key in points(line) if "@" in key}
    return sorted(
        found,
        key=lambda level: (
            not level.lstrip("-").isdigit(),
            int(level) if level.lstrip("-").isdigit() else 0,
            level,
        ),
    )


def _logged(line: Mapping[str, Any], key: str) -> Change | None:
    """The change since the stage's start on the same tasks, which the run logs with each evaluation inside a
    stage."""
    value, low, high = (
        line.get(f"{name}/{key}") for name in ("eval_change", "eval_change_low", "eval_change_high")
    )
    return (
        Change(value=value, low=low, high=high, paired=True) if all(map(finite, (value, low, high))) else None
    )


def _steps(run: Run, at: list[int]) -> int:
    """Trained steps among the lines of one stage: those that moved its own count of steps."""
    counts = [run.lines[i].get("stage_step", k + 1) for k, i in enumerate(at)]
    return sum(count > 0 and count != before for before, count in zip([0, *counts], counts, strict=False))


def _who(spec: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    kind = line.get("kind") or spec.get("kind") or "stage"
    return {
        "name": line.get("stage_name") or spec.get("name") or kind,
        "kind": kind,
        "roles": tuple(spec.get("roles", ())),
    }
