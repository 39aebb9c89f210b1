"""What an episode costs: calls of models and tools, tokens that are read and said, and how much of it must
wait for something else; and what the paper of ReWOO (arXiv 2305.18323) says that it costs.

A call is one turn of a role. It reads everything before it on its path, as a server without a cache would: a
prefix that was read before counts again. The serial steps are the calls on the longest path of a tree, each
answer of the environment that was waited for, and the waves in which a plan's tools were asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from forethought.core.types import NO_EVIDENCE, Node, Tree
from forethought.recipe.measurements import END_TO_END

ANSWERED = ("finished", "truncated")  # turns that an environment may have answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one tree. `read` and `said`: tokens."""

    calls: int
    read: int
    said: int
    tools: int  # answers of the environment, and those of tools to a plan
    serial: int


def cost(tree: Tree, last: str) -> Cost:
    """`last`: the role that acts. What was given costs nothing but what it is read."""
    before: dict[int, int] = {}
    serial: dict[int, int] = {}
    found = {"calls": 0, "read": 0, "said": 0, "tools": 0}
    for node in tree.nodes:  # parents precede children
        above = 0 if node.parent is None else before[node.parent]
        wait = 0 if node.parent is None else serial[node.parent]
        before[node.id] = above + len(node.token_ids)
        serial[node.id] = wait
        if node.policy is None or node.status in NO_EVIDENCE:
            continue
        tools, waves = _tools(node, last)
        found["calls"] += 1
        found["read"] += above
        found["said"] += len(node.token_ids)
        found["tools"] += tools
        serial[node.id] = wait + 1 + waves
    return Cost(**found, serial=max(serial.values(), default=0))


def _tools(node: Node, last: str) -> tuple[int, int]:
    """(times that something answered a turn, how many of them in a row)"""
    if "waves" in node.reward_parts:
        return int(node.reward_parts["tools"]), int(node.reward_parts["waves"])
    answered = int(node.role == last and node.status in ANSWERED)
    return answered, answered


def costs(trees: Sequence[Tree], last: str) -> dict[str, float]:
    """`eval_calls/e2e`, `eval_read/e2e`, `eval_said/e2e`, `eval_tools/e2e` and `eval_serial/e2e`: means over
    the trees in which nothing failed."""
    found = [cost(tree, last) for tree in trees if all(n.status != "failed" for n in tree.nodes)]
    names = [field.name for field in fields(Cost)] if found else []
    return {
        f"eval_{name}/{END_TO_END}": sum(getattr(one, name) for one in found) / len(found) for name in names
    }


def rounds(trees: Sequence[Tree], first: str) -> dict[str, float]:
    """`eval_round/ROLE.K`: the share of tasks in which one of the first K proposals of the first role is
    valid, for K up to the most that a task has; {} where no task has more than one that was judged."""
    judged = [
        [n.reward_parts["valid"] for n in tree.nodes if n.role == first and "valid" in n.reward_parts]
        for tree in trees
    ]
    most = max(map(len, judged), default=0)
    known = [some for some in judged if some]
    if most < 2:
        return {}
    return {
        f"eval_round/{first}.{k}": sum(max(some[:k]) for some in known) / len(known)
        for k in range(1, most + 1)
    }


def interleaved_reads(question: int, context: int, shots: int, steps: Sequence[int]) -> int:
    """Tokens that thinking before every act reads in as many calls as there are `steps` (tokens of each
    thought, act and observation): k Q + k C + k S + sum over j of (k - j) (T_j + A_j + O_j)."""
    k = len(steps)
    return k * (question + context + shots) + sum((k - j) * step for j, step in enumerate(steps, 1))


def rewoo_reads(question: int, context: int, shots: int, steps: Sequence[int]) -> int:
    """Tokens that ReWOO reads in its two calls: 2 Q + 2 C + S + sum of the `steps` (tokens of each plan, #E
    and evidence)."""
    return 2 * (question + context) + shots + sum(steps)
