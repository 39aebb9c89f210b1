"""A cold start: a model that does not know the form of a turn writes nothing that can be read, and nothing
trains. Said once, with what helps."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.types import NO_EVIDENCE, Node, Tree
from forethought.interface.result import quoted_text

ENOUGH = 100  # turns after which a run without a readable one says so
HOW = (
    "Three ways to show a model the form: worked examples in the prompt (task.shots = 3), a reward for parts "
    "of the form (a function of your own), or a short stage of imitation before this one (kind = "
    '"imitate", of your own solutions or of distilled plans)'
)


class ColdStart:
    """Counts the first turns of a run until one can be read, or enough could not."""

    def __init__(self) -> None:
        self.seen, self.cut, self.over, self._first = 0, 0, False, ""

    def hear(self, trees: Sequence[Tree], roles: Sequence[str]) -> str:
        """What to say after a step, or "": at most once."""
        if self.over:
            return ""
        role, part = roles[0], "format" if len(roles) > 1 else "answered"
        for node in (n for tree in trees for n in tree.nodes):
            if node.role != role or node.policy is None or node.status in NO_EVIDENCE:
                continue
            if node.reward_parts.get(part, 0.0) > 0 or (part not in node.reward_parts and part == "answered"):
                self.over = True  # one can be read; or nothing here says so
                return ""
            self.seen += 1
            self.cut += node.status == "truncated"
            self._first = self._first or _shown(node)
        if self.seen < ENOUGH:
            return ""
        self.over = True
        return _advice(self.seen, role, part, self._first, self.cut == self.seen)


def _shown(node: Node) -> str:
    return f"{quoted_text(node.text, 60)}: {node.reason or node.status}"


def unplayed(role: str, budget: int, tasks: int, left: int) -> str:
    """What is said of an evaluation that ended early."""
    played = tasks - left
    return (
        f"each of the first {played} tasks had its {role} cut off after {budget} tokens, before it ended, so "
        f"the other {left} were not played; the numbers are of those {played} (eval.give_up). {HOW}"
    )


def _advice(seen: int, role: str, part: str, first: str, cut: bool) -> str:
    if cut:
        return (
            f"each of the first {seen} turns of {role} was cut off at its budget before it ended (such as "
            f"{first}), so nothing can train. {HOW}"
        )
    what = "is accepted" if part == "format" else "holds an answer that the grader can read"
    return f"none of the first {seen} turns of {role} {what} (such as {first}), so nothing can train. {HOW}"
