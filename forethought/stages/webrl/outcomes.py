"""A model that judges outcomes: asked after whole episodes, measured against the exact reward, and, where it
is trusted, put in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forethought.core.metrics import Last, Mean, Metric
from forethought.core.types import Node, Tree
from forethought.learn.curriculum import ends
from forethought.learn.rewards import reward
from forethought.stages.groups import weights_in
from forethought.stages.setting import Setting
from forethought.stages.webrl.yes_or_no import Places

EXACT = "exact"
PARTS = ("outcome", "valid")  # what says whether an episode succeeded: the first that is there


def judged(trees: Sequence[Tree]) -> list[tuple[int, Node, str]]:
    """(tree, last turn, part that says whether it succeeded) of every trajectory that a policy has finished.
    One that was refused or cut off failed for its form, which needs no judge."""
    found = []
    for i, tree in enumerate(trees):
        for branch in ends(tree.branches()):
            last = branch.turns[-1]
            part = next((name for name in PARTS if name in last.reward_parts), "")
            if last.policy is not None and last.status == "finished" and part:
                found.append((i, last, part))
    return found


def places_of(found: Sequence[tuple[int, Node, str]]) -> Places:
    """Where these trajectories end."""
    return [(i, node.id) for i, node, _ in found]


def compared(said: Sequence[float], exact: Sequence[float]) -> dict[str, Metric]:
    """What is said (the probability of success; a verdict is one above 1/2) beside what is so:

    outcome/accuracy         share of right verdicts
    outcome/false_positive   of the failures, the share that is called a success
    outcome/false_negative   of the successes, the share that is called a failure
    outcome/auc              chance that a success is found likelier than a failure (ties count half)
    outcome/said, /exact     share of successes, as it says and as it is
    """
    won = [x > 0.5 for x in exact]
    verdicts = [x > 0.5 for x in said]
    right = sum(a == b for a, b in zip(won, verdicts, strict=True))
    wrong = [v for w, v in zip(won, verdicts, strict=True) if not w]
    lost = [not v for w, v in zip(won, verdicts, strict=True) if w]
    area = auc(
        [x for x, w in zip(said, won, strict=True) if w], [x for x, w in zip(said, won, strict=True) if not w]
    )
    told: dict[str, Metric] = {
        "outcome/accuracy": Mean(right, len(won)),
        "outcome/false_positive": Mean(sum(wrong), len(wrong)),
        "outcome/false_negative": Mean(sum(lost), len(lost)),
        "outcome/said": Mean(sum(verdicts), len(won)),
        "outcome/exact": Mean(sum(won), len(won)),
    }
    return told if area is None else told | {"outcome/auc": Last(area)}


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve: the chance that one of `positive` is above one of `negative`, ties half; None
    where one of them is empty."""
    if not positive or not negative:
        return None
    ranked = sorted([(x, 1) for x in positive] + [(x, 0) for x in negative])
    total, i = 0.0, 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][0] == ranked[i][0]:
            j += 1
        ups = sum(up for _, up in ranked[i:j])
        total += ups * (i + j + 1) / 2  # the mean rank, from 1, of equal ones
        i = j
    n, m = len(positive), len(negative)
    return (total - n * (n + 1) / 2) / (n * m)


def trusted(
    s: Setting, trees: Sequence[Tree], found: Sequence[tuple[int, Node, str]], said: Sequence[float]
) -> list[Tree]:
    """The trees with a verdict (1 or 0) in place of what was exact, which stays as the part `exact`, and with
    the rewards that follow from it."""
    verdicts: list[dict[int, tuple[str, float]]] = [{} for _ in trees]
    for (i, node, part), x in zip(found, said, strict=True):
        verdicts[i][node.id] = part, float(x > 0.5)
    weights = weights_in(s)
    return [
        reward(_with(tree, own), weights, s.spec.shaping, s.spec.functions)
        for tree, own in zip(trees, verdicts, strict=True)
    ]


def _with(tree: Tree, verdicts: Mapping[int, tuple[str, float]]) -> Tree:
    branches = tree.branches()
    forked = {b.above for b in branches.values()}  # their outcome is a mean of what hangs below
    derived = {n.id for b in branches.values() if b.id in forked for n in b.nodes}
    nodes = []
    for node in tree.nodes:
        parts = dict(node.reward_parts)
        if node.id in derived:
            parts.pop("outcome", None)
        if node.id in verdicts:
            part, verdict = verdicts[node.id]
            parts |= {EXACT: parts[part], part: verdict}
        nodes.append(node if parts == node.reward_parts else replace(node, reward_parts=parts))
    return replace(tree, nodes=tuple(nodes))
