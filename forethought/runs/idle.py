"""A stage that trains nothing: found at once, with the cause and what to try.

A step is idle where no token of it trained, or every gradient was exactly zero. What the groups of idle steps
were left out for is counted in the stage's record, which summary.json shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forethought.recipe.schema import StageSpec

EARLY = 3  # idle steps at a stage's start after which it is told
TRY = {
    "all_failed": "no rollout succeeded; easier levels ({at}.levels), imitation before it, or a reward that "
    "tells their mistakes apart ({at}.reward)",
    "refused": "nothing was accepted by the interface; imitation before it, examples in the prompt, or a "
    "reward for the format ({at}.reward)",
    "truncated": "everything was cut off by its budget; a larger one (roles.ROLE.budget, {at}.tree.tokens)",
    "all_solved": "every rollout succeeded; harder levels ({at}.levels), or fewer steps ({at}.until)",
    "no_spread": "rewards were equal within each group; a higher {at}.tree.temperature, more rollouts a task "
    "({at}.tree), or a reward that tells them apart ({at}.reward)",
    "unrewarded": "no turn had a reward: the reward functions gave None for all, or {at}.reward names parts "
    "that nothing gives; a function that gives numbers, or a part that there is ({at}.reward)",
    "overlong": "the model's context had no room; shorter prompts, smaller budgets, or a longer context",
    "failed": "what judges or answers the rollouts broke; faults.json says where",
}
"""Reason of a group -> what it means, and what to try; `{at}` is the address of the stage."""
LEVELS = ("easier levels ({at}.levels), ", "harder levels ({at}.levels), or ")  # of them


def pays_success(spec: StageSpec) -> bool:
    """Whether anything but functions of its own says what a stage pays for."""
    weights, functions = getattr(spec, "weights_of_parts", {}), getattr(spec, "functions", {})
    return not weights or any(part not in functions for counted in weights.values() for part in counted)


def note(record: dict[str, Any], line: Mapping[str, float], success: bool = True) -> None:
    """Count a step, given its line of metrics, in its stage's record. `success`: whether the stage's reward
    pays for it, and not by its functions alone."""
    norms = [value for name, value in line.items() if name.startswith("grad_norm/")]
    idle = not line.get("tokens/trained") or (bool(norms) and not any(norms))
    record["idle_steps"] = record.get("idle_steps", 0) + idle
    record["trained_nothing"] = record["idle_steps"] == record["steps"]
    if not idle:
        return
    left_out = record.setdefault("left_out", {})
    for name, n in line.items():
        reason = name.removeprefix("groups/")
        if name.startswith("groups/") and reason not in ("zero", "resampled") and n:
            reason = _closer(reason, line, success)
            left_out[reason] = left_out.get(reason, 0) + int(n)


def _closer(reason: str, line: Mapping[str, float], success: bool) -> str:
    """What is closer to the cause than how the episodes ended: rewards that are None, a role that was always
    cut off or never accepted, or rewards that were equal though no success is what they pay for."""
    if reason not in ("all_failed", "all_solved", "no_spread", "unrewarded"):
        return reason
    rewards = [value for name, value in line.items() if name.startswith("reward/") and "." not in name]
    if not rewards and any(line[name] == 1 for name in line if name.startswith("reward_none/")):
        return "unrewarded"
    for status in ("truncated", "refused"):  # what is cut off is refused too, where something is to follow it
        roles = [name.partition("/")[2] for name in line if name.startswith(f"{status}/")]
        if any(line[f"{status}/{r}"] == 1 and not _graded(r, line, success) for r in roles):
            return status
    if not rewards:
        return "unrewarded"
    paid = any(value > 0 for value in rewards) or not success
    return "no_spread" if reason == "all_failed" and paid else reason


def _graded(role: str, line: Mapping[str, float], success: bool) -> bool:
    """Whether the role's turns were judged by what they say, though each was cut off or refused."""
    if any(line.get(name, 0.0) > 0 for name in (f"reward/{role}", f"reward/{role}.answered")):
        return True
    return not success and f"refused/{role}" not in line and f"reward/{role}" in line


def early(record: Mapping[str, Any]) -> bool:
    """Whether it is time to say that the stage has trained nothing so far."""
    return record["steps"] == EARLY and bool(record.get("trained_nothing"))


def broken(record: Mapping[str, Any]) -> bool:
    """Whether it trained nothing because code broke."""
    left_out = record.get("left_out", {})
    return bool(left_out) and max(left_out, key=lambda name: left_out[name]) == "failed"


def why(record: Mapping[str, Any], at: str, levels: int = 2) -> str:
    """What a stage has trained nothing for, in a sentence. `at`: its address in the recipe; `levels`: how
    many the tasks have, for where there is only one no other can be tried."""
    n, left_out = record["steps"], record.get("left_out", {})
    said = f"trained nothing in {n} step{'s' if n > 1 else ''}"
    if not left_out:
        return f"{said}: no token had a gradient"
    total = sum(left_out.values())
    reason = max(left_out, key=lambda name: left_out[name])
    means, _, attempt = TRY.get(reason, f"{reason}; ").format(at=at).partition("; ")
    if levels < 2:
        for advice in LEVELS:
            attempt = attempt.replace(advice.format(at=at), "")
    if reason == "unrewarded" and record.get("silence"):
        means = f"no turn had a reward: {record['silence']}"
        attempt = f"start the judge, or mend its endpoint ({at}.judges, or the file that makes it)"
    groups = f"all {total}" if left_out[reason] == total else f"{left_out[reason]} of {total}"
    return f"{said}: in {groups} groups {means}{f' (try: {attempt})' if attempt else ''}"
