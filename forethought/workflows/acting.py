"""What the shipped workflows have in common: what comes before acting is judged, and acting is paid for when
the environment is done."""

from __future__ import annotations

from collections.abc import Callable

from forethought.core.types import Outcome, Task, Verdict
from forethought.workflows.trajectory import Trajectory

Reads = Callable[[Task, str], Verdict]
"""A parser or a judge of the taskset."""


def judge(turn: Trajectory, task: Task, parse: Reads, judge: Reads) -> None:
    """What the interface refuses is kept with its reason, and is never executed; the rest earns what the
    exact judge says. A turn that was given is not judged."""
    if turn.ended or turn.status == "given":
        return
    with turn.guard("reward"):
        parsed = parse(task, turn.text)
        valid = judge(task, turn.text) if parsed.score else parsed
        turn.reward(format=parsed.score, valid=valid.score)
        if parsed.score:
            turn.note(parsed.reason or valid.reason)
        else:
            turn.refuse(parsed.reason)


async def answer(t: Trajectory, act: str | None = None) -> None:
    """The step that ends the episode: the turn just said, or `act` in its place. Where the environment would
    go on, nothing was answered."""
    outcome = await t.step(act)
    if outcome is None:
        return
    if not outcome.done:
        outcome = Outcome(done=True, reason="the answer does not end the episode")
        await t.finish(outcome.reason)
        if t.ended:
            return
    pay(t, outcome)


def judge_plan(plan: Trajectory, task: Task) -> None:
    """A plan, by the taskset's parser and its executor of plans."""
    judge(plan, task, plan.taskset.parse_plan, plan.taskset.judge_plan)


def pay(t: Trajectory, outcome: Outcome, **parts: float) -> None:
    """The reward parts of the turn with which an episode ended: whether it has the form, and its outcome;
    where that is a score, also whether it is a success. What nobody judges has neither."""
    late = {"timed_out": 1.0} if outcome.timed_out else {}
    judged: dict[str, float] = {}
    if outcome.score is not None:
        judged["outcome"] = float(outcome.score)
    elif outcome.success is not None:
        judged["outcome"] = float(outcome.success)
    if outcome.score is not None and outcome.success is not None:
        judged["success"] = float(outcome.success)
    t.reward(format=float(t.status == "finished"), **judged, **parts, **late)
