"""What happened in a saved tree: a verdict on each node, and the signs by which the report and the command
line find trees again.

The quality of a plan is what the run knows of it, each a number from 0 to 1: `valid` (the exact executor; of
free text, whether the interface accepted it), `outcome` (the share of its executions that succeed) and
`analytic` (its share of the task's plan reward, PTA-GRPO, arXiv 2510.01833). A plan and its executions
disagree where these tell different stories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SIGNS = {  # name -> (label, what it says of a tree)
    "disagree": (
        "disagreement",
        "what a plan is worth and what came of it differ, in any of the next four ways",
    ),
    "valid_failed": (
        "plan right, all acts failed",
        "the executor says that a plan reaches the goal, and no execution of it succeeded",
    ),
    "invalid_solved": (
        "plan wrong, yet solved",
        "the executor says that a plan does not reach the goal, and an execution of it succeeded",
    ),
    "split": ("acts of a plan differ", "some executions of a plan succeeded and some did not"),
    "lone": (
        "one plan works",
        "at least half of the executions of one plan succeeded, and of the task's other plans none",
    ),
    "plan_wrong": ("plan wrong", "the executor says that a plan does not reach the goal"),
    "act_failed": ("plan right, an act failed", "an execution of a plan that is right went wrong"),
    "refused": ("refused", "the interface did not accept a plan"),
    "truncated": ("truncated", "a turn ran out of its budget of tokens"),
    "overlong": (
        "no room",
        "what stands before a turn left it no room in the model's context; such a rollout is not counted",
    ),
    "broke": ("broke", "the engine or the environment failed; such a rollout is not counted"),
}
DISAGREEMENTS = ("valid_failed", "invalid_solved", "split", "lone")
MEASURES = ("outcome", "valid", "analytic")
WORKS = 0.5  # share of executions from which a plan works, for `lone`


def judge(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with what can be seen in it.

    Each node gets a `verdict` (right | wrong | accepted | act_failed | refused | failed | overlong | unjudged
    | ""). A plan is judged by its part `valid`, an act by its part `outcome`; a plan is `act_failed` when it
    is right and an execution under it went wrong, `refused` when the interface did not accept it, cut off
    ones included, `accepted` when it did and nothing can execute it (free text). `failed` is the engine's or
    the environment's failure, which is nobody's mistake, and nor is an `overlong` turn, which the model's
    context left no room.

    A plan also gets its `quality` (measure -> number, where known), `executions` ([succeeded, judged]) and
    `disagrees` (signs). The tree gets `signs`, `disagreements` (how many, over its plans), `solved` (whether
    an execution succeeded; None where nothing was executed), `sampled` (tokens) and `reasons` (as
    `reason_group` says them).
    """
    nodes = [dict(node) for node in tree["nodes"]]
    parents = {node.get("parent") for node in nodes}
    for node in nodes:
        node["verdict"] = _verdict(node, node["id"] not in parents, bool(tree.get("free_text")))
    executions = _executions(nodes)
    plans = [node for node in nodes if node.get("role") == "plan"]
    for plan in plans:
        done = executions.get(plan["id"], [])
        plan["executions"] = [sum(done), len(done)]
        plan["quality"] = _quality(plan)
        plan["disagrees"] = _disagreements(plan)
    if alone := _lone(plans):
        alone["disagrees"].append("lone")
    signs = _signs(nodes, plans)
    return dict(tree) | {
        "nodes": nodes,
        "signs": [sign for sign in SIGNS if sign in signs],
        "disagreements": sum(len(plan["disagrees"]) for plan in plans),
        "solved": _solved(plans, executions),
        "sampled": sum(node.get("tokens") or 0 for node in nodes if node.get("policy") is not None),
        "reasons": list(dict.fromkeys(reason_group(node["reason"]) for node in nodes if node.get("reason"))),
    }


def reason_group(reason: str) -> str:
    """A reason without place, names and numbers, so that those of one kind read alike: "nothing is at x3 y4"
    -> "nothing is at … …"."""
    text = re.sub(r"^(?:word|character|step) \d+: ", "", " ".join(reason.split()))
    text = re.sub(r"^expected .+, found .+$", "expected …, found …", text)
    text = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "…", text)
    # numbers, cells and values, names of one letter
    text = re.sub(r"\b\w*\d[\w.]*|(?<!['\w])[b-zB-Z](?!['\w])", "…", text)
    return text if len(text) <= 100 else text[:99] + "…"


def _verdict(node: Mapping[str, Any], leaf: bool, free_text: bool) -> str:
    role, parts = node.get("role"), node.get("reward_parts") or {}
    if role is None:
        return ""
    if node.get("status") in ("refused", "failed", "overlong"):
        return node["status"]
    if role == "plan" and not parts and node.get("status") == "given":
        return "right"  # the oracle's
    if role == "plan" and parts.get("format") == 0:
        return "refused"
    score = parts.get("valid" if role == "plan" else "outcome")
    if score is None:
        # a turn in the middle of an episode is not judged by itself
        return "unjudged" if leaf or role == "plan" else ""
    if role == "plan" and free_text:
        return "accepted" if score >= 1 else "refused"
    return "right" if score >= 1 else "wrong"


def _executions(nodes: list[dict[str, Any]]) -> dict[Any, list[bool]]:
    """Plan id -> whether each judged execution of it succeeded; the key None holds those without a plan.
    Marks a right plan where one went wrong."""
    by_id, found = {node["id"]: node for node in nodes}, {}
    for node in nodes:
        if node.get("role") != "act" or node["verdict"] not in ("right", "wrong", "refused"):
            continue
        plan = _plan_above(node, by_id)
        found.setdefault(plan["id"] if plan else None, []).append(node["verdict"] == "right")
        if plan and node["verdict"] != "right" and plan["verdict"] == "right":
            plan["verdict"] = "act_failed"
    return found


def _plan_above(node: Mapping[str, Any], by_id: Mapping[Any, dict[str, Any]]) -> dict[str, Any] | None:
    above = by_id.get(node.get("parent"))
    while above is not None and above.get("role") != "plan":
        above = by_id.get(above.get("parent"))
    return above


def _quality(plan: Mapping[str, Any]) -> dict[str, float]:
    """An executed plan's outcome is counted here; the reward gives one to a plan that was refused too, 0."""
    parts, (hits, n) = plan.get("reward_parts") or {}, plan["executions"]
    known = {measure: parts[measure] for measure in MEASURES if measure in parts}
    return known | ({"outcome": hits / n} if n else {})


def _disagreements(plan: Mapping[str, Any]) -> list[str]:
    hits, n = plan["executions"]
    found = {
        "valid_failed": n > 0 and hits == 0 and plan["verdict"] in ("right", "act_failed"),
        "invalid_solved": hits > 0 and plan["verdict"] == "wrong",
        "split": 0 < hits < n,
    }
    return [sign for sign, is_so in found.items() if is_so]


def _lone(plans: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The one plan that works where the others never do; a refused plan is one that never does."""
    shares = [
        (plan["quality"].get("outcome", 0.0 if plan["verdict"] == "refused" else None), plan)
        for plan in plans
    ]
    shares = [(share, plan) for share, plan in shares if share is not None]
    working = [(share, plan) for share, plan in shares if share > 0]
    return working[0][1] if len(shares) > 1 and len(working) == 1 and working[0][0] >= WORKS else None


def _solved(plans: list[dict[str, Any]], executions: Mapping[Any, list[bool]]) -> bool | None:
    """Where every plan was refused there was nothing to execute, and the task is not solved either."""
    judged = [done for row in executions.values() for done in row]
    if judged:
        return any(judged)
    return False if plans and all(plan["verdict"] == "refused" for plan in plans) else None


def _signs(nodes: list[dict[str, Any]], plans: list[dict[str, Any]]) -> set[str]:
    found = {sign for plan in plans for sign in plan["disagrees"]}
    found |= {"disagree"} if found else set()
    verdicts = {node["verdict"] for node in nodes}
    verdict_of = {"refused": "refused", "broke": "failed", "overlong": "overlong", "act_failed": "act_failed"}
    found |= {sign for sign, verdict in verdict_of.items() if verdict in verdicts}
    found |= {"plan_wrong" for plan in plans if plan["verdict"] == "wrong"}
    return found | {"truncated" for node in nodes if node.get("status") == "truncated"}
