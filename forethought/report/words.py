"""The verdict in words: what happened to each role and to all together, and what the gates decided.

"rose" and "fell" are said only where the 95 % interval of the change excludes zero, or where no interval is
known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from forethought.report.effects import Change, Effect, Point, change


def percent(share: float) -> str:
    """0.613 -> "61.3 %"."""
    return f"{share * 100:.1f} %"


def points_of(share: float) -> str:
    """A difference of shares: -0.041 -> "-4.1 points"."""
    return f"{signed(share)} points"


def signed(share: float) -> str:
    """A difference of shares in points, with its sign; what rounds to zero is 0.0."""
    rounded = round(share * 100, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def join(words: Sequence[str], last: str = " and ") -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + last + words[-1] if words else ""


def count(n: int, noun: str) -> str:
    """ "1 step", "2,000 steps"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def change_clause(side: str, before: Point | None, after: Point | None, known: Change | None = None) -> str:
    """One measurement in a clause: "act fell from 97.0 % to 81.0 %". `known`: an interval of the change that
    is better than the one from the two points."""
    if before is None or after is None:
        only = after or before
        return f"{side} was measured once ({percent(only.value)})" if only else f"{side} was not measured"
    if after.value == before.value:
        return f"{side} stayed at {percent(after.value)}"
    diff = known or change(before, after)
    if diff.clear or diff.low is None:
        return (
            f"{side} {'rose' if diff.value > 0 else 'fell'} from {percent(before.value)} to "
            f"{percent(after.value)}"
        )
    return f"{side} showed no clear change ({percent(before.value)} to {percent(after.value)})"


def gates(effect: Effect, decisions: Sequence[Mapping[str, Any]]) -> str:
    """What the gates of a stage decided, in a clause."""
    mine = [d for d in decisions if d["kind"] == "gate" and d["stage"] == effect.index]
    if not mine:
        return "no gate judged it"
    clauses = []
    for name in dict.fromkeys(d["name"] for d in mine):
        order = [d["outcome"] for d in mine if d["name"] == name]
        outcomes = Counter(order)
        said = []
        if outcomes["roll_back"]:
            to = "" if effect.rolled_back_to is None else f" to step {effect.rolled_back_to:,}"
            again = f" {_times(n)}, the last time" if (n := outcomes["roll_back"]) > 1 else ""
            said.append(f"rolled it back{again}{to}")
            if passed := order[::-1].index("roll_back"):  # what it said after that, of another attempt
                said.append(
                    f"then passed {_times(passed)}"
                    if set(order[-passed:]) == {"pass"}
                    else "then judged it again"
                )
        if outcomes["stop"]:
            said.append("stopped the run")
        if outcomes["warn"]:
            said.append(f"warned {_times(outcomes['warn'])}")
        if outcomes["vacuous"]:
            said.append("was vacuous: it could not fail")
        if not said:
            said.append(f"passed {_times(outcomes['pass'])}")
        clauses.append(f"the gate on {name} {join(said)}")
    return join(clauses)


def turns(effect: Effect, decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each time that a stage was isolated, shared again, forked, partly held, fused or run
    again."""
    out, apart = [], False
    for decision in decisions:
        if decision["stage"] != effect.index or decision["kind"] != "schedule":
            continue
        outcome, at, reason = (
            decision["outcome"],
            f"At step {decision['step']:,}",
            decision["reason"].removesuffix("."),
        )
        if outcome == "retry":
            out.append(f"{at} it was sent through again, {reason.removeprefix('once more, ')}.")
            apart = False
        elif decision["name"] == "isolation":
            switch = (
                "isolation switched on"
                if outcome == "isolate"
                else "isolation switched off"
                if apart
                else "sharing went on"
            )
            out.append(f"{at} {switch}: {reason}.")
            apart = outcome == "isolate"
        elif decision["name"] in ("core", "layout"):
            what = {
                "random": "random weights held as a control",
                "core": "core weights",
                "fuse": "fused",
            }.get(outcome, "weights")
            out.append(f"{at}, {what}: {reason}.")
    return out


def trained_nothing(effect: Effect, decisions: Sequence[Mapping[str, Any]]) -> str:
    """What the run said at the end of a stage that trained nothing; "" of another."""
    said = [d for d in decisions if d["outcome"] == "trained nothing" and d["stage"] == effect.index]
    return said[-1]["reason"] if said and said[-1]["numbers"].get("steps", 0) >= effect.steps else ""


def stage_sentence(effect: Effect, decisions: Sequence[Mapping[str, Any]]) -> str:
    """One stage in one sentence, roll back and all, and one more for each change of who holds which
    weights."""
    who = f"Stage {effect.index + 1}, {effect.name}"
    if effect.first is None:
        return f"{who}: not begun."
    trains = f"trains {join(effect.roles)}, " if effect.roles else ""
    attempts = f" in {effect.attempts} attempts" if effect.attempts > 1 else ""
    head = f"{who} ({trains}{count(effect.steps, 'step')}{attempts}): "
    if idle := trained_nothing(effect, decisions):
        head += f"{idle}. Its evaluations: "
    if not effect.before:
        return " ".join(
            [f"{head}no evaluation was made; {gates(effect, decisions)}.", *turns(effect, decisions)]
        )
    moves = [
        (side, effect.before.get(side), effect.after.get(side), effect.changes.get(side))
        for side in _measured(effect.before)
    ]
    text = head + join([change_clause(*move) for move in moves])
    text += f"; {gates(effect, decisions)}"
    if effect.kept != effect.after:
        text += ", which leaves " + join(
            [f"{side} at {percent(effect.kept[side].value)}" for side in _measured(effect.kept)]
        )
    return " ".join([f"{text}.", *turns(effect, decisions)])


def headline(
    status: str,
    stages: Sequence[Effect],
    start: Mapping[str, Point],
    end: Mapping[str, Point],
    decisions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole run in one sentence."""
    begun = [effect for effect in stages if effect.first is not None]
    steps = sum(effect.steps for effect in begun)
    span = f"{count(len(begun), 'stage')} and {count(steps, 'step')}"
    lead = {
        "running": f"So far, over {span}",
        "interrupted": f"Interrupted after {span}",
        "stopped": f"Stopped after {span}",
    }.get(status, f"Over {span}")
    if not start:
        return f"{lead}: no evaluation was made, so nothing can be said about any role."
    comma = ":" if status in ("interrupted", "stopped") else ","
    text = f"{lead}{comma} " + join(
        [change_clause(side, start.get(side), end.get(side)) for side in _measured(start)], last=", and "
    )
    back = [effect for effect in begun if effect.rolled_back_to is not None]
    held = [effect for effect in back if effect.attempts > 1 and effect.kept == effect.after]
    undone = [f"stage {effect.index + 1} ({effect.name})" for effect in back if effect not in held]
    if undone:
        text += f"; {join(undone)} {'was' if len(undone) == 1 else 'were'} rolled back"
    if idle := [f"stage {e.index + 1} ({e.name})" for e in begun if trained_nothing(e, decisions)]:
        text += f"; {join(idle)} trained nothing"
    for effect in held:
        which = f"stage {effect.index + 1} ({effect.name})"
        text += f"; {which} was rolled back and held at attempt {effect.attempts}"
    return text + "."


def no_room(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence each for held-out tasks and for training turns without room in the model's context; none
    if there are none."""
    newest = next((line for line in reversed(lines) if "eval/e2e" in line), {})
    lost = [
        f"{side} in {n:.0f} of {newest[f'eval_n/{side}']:.0f}"
        for side, n in _under("eval_overlong/", newest).items()
    ]
    steps = sum(any(_under("overlong/", line).values()) for line in lines)
    told = []
    if lost:
        told.append(
            f"At the last evaluation the model's context had no room for {join(lost)} held-out "
            f"tasks, which count as not solved."
        )
    if steps:
        told.append(
            f"In {count(steps, 'step')} the model's context had no room for some turns; they trained "
            f"nothing and were not counted."
        )
    return told


def no_picture(recipe: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence where the recipe asks for pictures of evaluations and there are none."""
    task = recipe.get("task", {})
    if not task.get("pictures") or not any("eval/e2e" in line for line in lines):
        return []
    if task.get("pages") == "recorded":
        return ["No page was photographed: pages are recorded (task.pages), and a recording has no picture."]
    return [
        "No page was photographed: where no plan can be read no page is opened, and recordings have none."
    ]


def broke(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence each for held-out tasks and for training rollouts that failed; none if there are none."""
    newest = next((line for line in reversed(lines) if any(key.startswith("eval") for key in line)), {})
    lost = [f"{side} in {n:.0f}" for side, n in _under("eval_failed/", newest).items()]
    steps = sum(any(_under("failed/", line).values()) for line in lines)
    told = []
    if lost:
        told.append(
            f"At the last evaluation something broke ({join(lost)} held-out tasks); these are in no number."
        )
    if steps:
        told.append(
            f"In {count(steps, 'step')} the environment, the task family, a grader or a parser broke for "
            "some rollouts; they trained nothing and were not counted (faults.json has the tracebacks)."
        )
    return told


def ranking(side: str, ends: Mapping[str, Point]) -> str:
    """Runs by name -> where each one ends in a measurement, and whether the best is clearly ahead of the
    next."""
    if len(ends) < 2:
        return f"{side}: fewer than two runs were measured."
    (best, top), (second, next_), *_ = sorted(ends.items(), key=lambda item: -item[1].value)
    if top.value == next_.value:
        return f"{side}: {best} and {second} both end at {percent(top.value)}."
    diff = change(next_, top)
    interval = f" [{signed(diff.low)}, {signed(diff.high)}]" if diff.low is not None else ""
    verdict = "" if diff.clear or diff.low is None else ", which is no clear difference"
    return (
        f"{side}: {best} ends highest at {percent(top.value)}, {second} at {percent(next_.value)}: "
        f"{points_of(diff.value)}{interval}{verdict}."
    )


def _measured(found: Mapping[str, Point]) -> list[str]:
    return [side for side in found if "@" not in side]


def _under(family: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a family, by what follows its name."""
    return {key.removeprefix(family): value for key, value in line.items() if key.startswith(family)}


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n) or f"{n:,} times"
