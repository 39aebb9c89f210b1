"""What the shipped workflows have in common: turns of acting until the environment is done."""

from __future__ import annotations

from forethought.core.types import Outcome
from forethought.workflows.trajectory import Trajectory


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
