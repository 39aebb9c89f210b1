"""A cold start: a model that does not know the form of a turn writes hardly anything that can be read, and
hardly anything trains. Said once, with what helps."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.types import NO_EVIDENCE, Node, Tree
from forethought.interface.result import quoted_text

ENOUGH = 100  # turns after which a run in which hardly one can be read says so
NEARLY = 0.9  # the share of turns that cannot be read from which on it does
HOW = (
    "Three ways to show a model the form: worked examples in the prompt (task.shots = 3), a reward for parts "
    "of the form (a function of your own), or a short stage of imitation before this one (kind = "
    '"imitate", of your own solutions or of distilled plans)'
)


class ColdStart:
    """Counts the first turns of a run, and those of them that can be read, until there are enough."""

    def __init__(self) -> None:
        self.seen, self.read, self.cut, self.over, self._first = 0, 0, 0, False, ""

    def hear(self, trees: Sequence[Tree], roles: Sequence[str]) -> str:
        """What to say after a step, or "": at most once."""
        if self.over:
            return ""
        role, part = roles[0], "format" if len(roles) > 1 else "answered"
        for node in (n for tree in trees for n in tree.nodes):
            if node.role != role or node.policy is None or node.status in NO_EVIDENCE:
                continue
            if part not in node.reward_parts and part == "answered":
                self.over = True  # nothing here says so
                return ""
            self.seen += 1
            if node.reward_parts.get(part, 0.0) > 0:
                self.read += 1
                continue
            self.cut += node.status == "truncated"
            self._first = self._first or _shown(node)
        if self.seen < ENOUGH:
            return ""
        self.over = True
        if self.seen - self.read < NEARLY * self.seen:
            return ""
        return _advice(self.seen, self.read, role, part, self._first, self.cut == self.seen - self.read)


def _shown(node: Node) -> str:
    return f"{quoted_text(node.text, 60)}: {node.reason or node.status}"


def unplayed(role: str, budget: int, tasks: int, left: int, shown: bool = False) -> str:
    """What is said of an evaluation that ended early. `shown`: the stage that goes on from here imitates."""
    played, how = tasks - left, "The demonstrations of this stage show the model the form" if shown else HOW
    return (
        f"each of the first {played} tasks had its {role} cut off after {budget} tokens, before it ended, so "
        f"the other {left} were not played; the numbers are of those {played} (eval.give_up). {how}"
    )


def _advice(seen: int, read: int, role: str, part: str, first: str, cut: bool) -> str:
    form, few = part == "format", f"{read} of the first {seen} turns of {role}"
    so = f"so {'hardly anything' if read else 'nothing'} can train. {HOW}"
    if cut:
        each = f"{seen - read} of" if read else "each of"
        was = "were cut off at their budget before they" if read else "was cut off at its budget before it"
        what = f"{each} the first {seen} turns of {role} {was} ended"
        return f"{what} (such as {first}), {so}"
    if read:
        what = f"only {few} {'keep to the form' if form else 'hold an answer that the grader can read'}"
        return f"{what}, the others do not (such as {first}), {so}"
    what = "is accepted" if form else "holds an answer that the grader can read"
    return f"none of the first {seen} turns of {role} {what} (such as {first}), {so}"
