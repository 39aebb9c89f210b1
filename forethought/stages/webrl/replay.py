"""Successes of earlier phases that are learned again: those of which the policy is neither sure (nothing is
left to learn) nor far from (they are not its own any more).

A success is kept as plain numbers and text, so that a checkpoint holds it: the lineage of its task, and each
node of its path as [role, place of the branch's first node, token ids, parts, whether a policy said it].
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forethought.core.types import Node, Task, Tree
from forethought.learn.batches import for_policy, tree_segments
from forethought.learn.credit.webrl import VALUE
from forethought.learn.curriculum import ends
from forethought.learn.rewards import reward
from forethought.recipe.kinds.webrl import ReplaySpec
from forethought.stages.groups import weights_in
from forethought.stages.setting import Setting
from forethought.stages.webrl.lineage import Lineage, task_of
from forethought.stages.webrl.outcomes import PARTS

Kept = dict[str, Any]
"""{"task": lineage, "nodes": [[role, branch, ids, parts, said], ...]}"""
Chosen = list[list[Any]]
"""[place in the buffer, [nodes that are learned]]"""


def success_of(tree: Tree, lineage: Lineage) -> Kept | None:
    """The first trajectory of a tree that succeeded, as it is kept; None where none did."""
    branches = tree.branches()
    on = {n.id: b.id for b in branches.values() for n in b.nodes}
    for branch in ends(branches):
        last = branch.turns[-1]
        worth = next((last.reward_parts[part] for part in PARTS if part in last.reward_parts), 0.0)
        if last.policy is None or last.status != "finished" or worth < 1:
            continue
        path = tree.path(branch.nodes[-1])
        place = {node.id: i for i, node in enumerate(path)}
        nodes = []
        for node in path:
            own = node.id == last.id or on[node.id] == branch.id
            parts = {p: x for p, x in node.reward_parts.items() if (own or p != "outcome") and p != VALUE}
            ids = " ".join(map(str, node.token_ids))
            nodes.append([node.role, place[on[node.id]], ids, parts, node.policy is not None])
        return {"task": lineage, "nodes": nodes}
    return None


def tree_of(s: Setting, kept: Kept, task: Task) -> Tree:
    """A kept success as a tree with one trajectory, rewarded as the stage pays. What policies said in it is
    theirs again, whichever of them said it then."""
    nodes = []
    for i, (role, branch, ids, parts, said) in enumerate(kept["nodes"]):
        nodes.append(
            Node(
                id=i,
                parent=i - 1 if i else None,
                role=role,
                text="",
                token_ids=tuple(map(int, ids.split())),
                status="finished" if said else "given",
                branch=branch,
                policy=s.policies[role] if said else None,
                reward_parts=parts,
            )
        )
    tree = Tree(task=task, nodes=tuple(nodes))
    return reward(tree, weights_in(s), s.spec.shaping, s.spec.functions)


def sifted(s: Setting, buffer: Sequence[Kept], spec: ReplaySpec) -> tuple[Chosen, list[float]]:
    """(the successes with a turn that trains and is of the right perplexity, with these turns; the perplexity
    of every such turn). exp of the mean of -log p of a turn's tokens (arXiv 2411.02337, section 3.3)."""
    trees = [tree_of(s, kept, task_of(s.rollouts.taskset, kept["task"])) for kept in buffer]
    chosen: Chosen = []
    seen: list[float] = []
    for i, found in enumerate(perplexities(s, trees)):
        seen += found.values()
        turns = [node for node, ppl in found.items() if spec.low <= ppl <= spec.high]
        if turns:
            chosen.append([i, turns])
    return chosen, seen


def perplexities(s: Setting, trees: Sequence[Tree]) -> list[dict[int, float]]:
    """Of each tree, node -> its perplexity under the policy that speaks in its role now; of roles that
    train."""
    if not trees:
        return []
    written = [{n.id: (0.0,) * len(n.token_ids) for n in _trained(s, tree)} for tree in trees]
    places: list[Mapping[int, int]] = []
    segments = tree_segments(s.rollouts, trees, written, "tokens", places)
    out: list[dict[int, float]] = [{} for _ in trees]
    with s.rollouts.parts.part("training"):
        for policy in s.trained():
            found = s.engine.logprobs(for_policy(segments, policy, s.policies))
            for i, own in enumerate(written):
                for node in own:
                    if logps := found[places[i][node]]:
                        out[i][node] = math.exp(min(-sum(logps) / len(logps), 700.0))
    return out


def _trained(s: Setting, tree: Tree) -> Iterator[Node]:
    return (n for n in tree.nodes if n.role in s.spec.roles and n.policy is not None and n.token_ids)


def drawn(
    s: Setting, buffer: Sequence[Kept], chosen: Chosen, most: int, rng: random.Random
) -> tuple[list[Tree], list[set[int]]]:
    """(at most `most` of the chosen successes as trees, of each the nodes that are learned)."""
    some = rng.sample(chosen, min(most, len(chosen)))
    trees = [tree_of(s, buffer[i], task_of(s.rollouts.taskset, buffer[i]["task"])) for i, _ in some]
    return trees, [set(turns) for _, turns in some]
