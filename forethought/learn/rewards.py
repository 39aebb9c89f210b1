"""From named reward parts to one number per turn, by the recipe's weights. The parts stay; the sum is one
more field.

A turn has the parts that its workflow, task family and environment gave it, and those of the recipe's own
functions (`functions.py`):
    format (the interface accepted it), valid (the exact executor says that it reaches the goal), outcome (the
    episode succeeded), follows (a correct execution of the plan above it, right or wrong), and any other name
Added here, because they need the whole tree:
    outcome    of a branch that has none of its own: the mean of the branches directly below it; 0 where it
               was refused or cut off, while its peers went on; absent where nothing went on, or all that did
               failed (the engine or the environment broke) or had no room: no evidence is not a 0
    analytic   softmax of the outcomes of a branch and its peers (PTA-GRPO)
    structure  1 where every turn from the prompt to the end of a trajectory kept to its format, and
    length     how near it is to the shortest success (PTA-GRPO)

So a turn is rewarded by its own parts, a branch by those of its turns and by what hangs below it, and a
trajectory by the rewards along it. PTA-GRPO's reward (arXiv 2510.01833) is { plan = { analytic = 0.5 }, act =
{ outcome = 1, structure = 0.2, length = ALPHA } } with credit "grpo": one normalisation over all responses of
the tree. The paper does not give ALPHA.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from forethought.core.scores import success_of
from forethought.core.types import NO_EVIDENCE, Branch, Tree
from forethought.learn.peers import below, groups, written
from forethought.recipe.schema import ShapingSpec

PARTS = ("format", "valid", "outcome", "follows", "analytic", "structure", "length")
ENDED = ("refused", "truncated")  # a turn after which nothing can follow
DEFAULT_SHAPING = ShapingSpec()

Weights = Mapping[str, Mapping[str, float]]
"""role -> part -> weight"""
Parts = dict[int, dict[str, float]]
"""node -> its parts"""


def default_weights(by_branch: bool, roles: Sequence[str], whole: bool = True) -> Weights:
    """What an empty reward table means: success, counted once. `roles`: those that policies speak in the
    tree, in order. Credit over whole paths adds up rewards along a path, so only the last role is rewarded;
    credit `by_branch` needs a reward for each role. If the tree is not `whole` (the workflow's last role is
    not sampled), its last role is rewarded for being valid."""
    if not whole:
        return {roles[-1]: {"valid": 1.0}}
    return {role: {"outcome": 1.0} for role in (roles if by_branch else roles[-1:])}


def reward(
    tree: Tree,
    weights: Weights,
    shaping: ShapingSpec = DEFAULT_SHAPING,
    optional: Container[str] = (),
) -> Tree:
    """The tree with `reward` set on every turn that has the parts which count for its role. A role that
    `weights` does not name has no reward (None). A turn that failed or had no room never has one; None is not
    0. The same holds for the turns of a role on a branch if none of them has a part that counts; but if the
    branch ended refused or cut off, the missing part counts 0. A part of `optional` that is missing is left
    out of the sum; where nothing else counts, the turn has no reward (TRL's None)."""
    parts: Parts = {node.id: dict(node.reward_parts) for node in tree.nodes}
    branches = tree.branches()
    _outcomes(branches, weights, parts)
    _analytic(branches, weights, shaping.tau, parts)
    _structure_and_length(tree, weights, shaping.length_max, parts)
    rewards: dict[int, float | None] = {}
    for branch in branches.values():
        rewards |= _weigh(branch, weights, parts, optional)
    nodes = tuple(
        # what was only read stays as it is
        n
        if not parts[n.id] and n.reward is None and n.id not in rewards
        else replace(n, reward_parts=parts[n.id], reward=rewards.get(n.id))
        for n in tree.nodes
    )
    return replace(tree, nodes=nodes)


def paid(tree: Tree, weights: Weights, role: str) -> Tree:
    """The tree of an episode that nobody judges: its outcome is what the last `role` is paid, at its last
    turn on a branch, so that the roles before it are rewarded for what they lead to."""
    counted = {part: w for part, w in weights.get(role, {}).items() if part != "outcome"}
    last = {written(b)[-1].id for b in tree.branches().values() if b.role is not None and written(b)}
    nodes = []
    for node in tree.nodes:
        own = [w * node.reward_parts[part] for part, w in counted.items() if part in node.reward_parts]
        if node.id in last and node.role == role and own:
            node = replace(node, reward_parts={**node.reward_parts, "outcome": sum(own)})
        nodes.append(node)
    return replace(tree, nodes=tuple(nodes))


def _outcomes(branches: Mapping[int, Branch], weights: Weights, parts: Parts) -> None:
    """Give every branch that a policy wrote its outcome, on its last turn, unless a turn already has one."""
    under, known = below(branches), dict[int, float | None]()
    # A level that no branch hangs from says nothing about outcomes, unless the recipe counts them: then all
    # of its branches were refused.
    asked = {b.role for b in branches.values() if under[b.id]}
    asked |= {role for role, counted in weights.items() if {"outcome", "analytic"} & counted.keys()}
    for branch in reversed(list(branches.values())):  # those below before those above
        own = [parts[n.id]["outcome"] for n in branch.nodes if "outcome" in parts[n.id]]
        deeper = [known[b.id] for b in under[branch.id]]
        found = [outcome for outcome in deeper if outcome is not None]
        if branch.status in NO_EVIDENCE:
            known[branch.id] = None
        elif own:
            known[branch.id] = own[-1]
        elif found:
            known[branch.id] = sum(found) / len(found)
        else:
            known[branch.id] = 0.0 if branch.status in ENDED and branch.role in asked else None
        turns = written(branch)
        if turns and not own and (outcome := known[branch.id]) is not None:
            parts[turns[-1].id]["outcome"] = outcome


def _analytic(branches: Mapping[int, Branch], weights: Weights, tau: float, parts: Parts) -> None:
    """r_i = exp(s_i / tau) / sum_j exp(s_j / tau) over peers, s_i the share of what hangs below branch i that
    succeeds.

    Where all succeed alike it is 1/m for each, which no normalised credit can tell apart. Branches without
    evidence take no part.
    """
    for (role, _), members in groups(branches.values()).items():
        last = [written(b)[-1].id for b in members if written(b) and b.status not in NO_EVIDENCE]
        last = [id for id in last if "outcome" in parts[id]]
        if not last or role is None or "analytic" not in weights.get(role, {}):
            continue
        best = max(parts[i]["outcome"] for i in last)
        raised = {i: math.exp((parts[i]["outcome"] - best) / tau) for i in last}
        total = sum(raised.values())
        for i in last:
            parts[i]["analytic"] = raised[i] / total


def _structure_and_length(tree: Tree, weights: Weights, length_max: int, parts: Parts) -> None:
    """length = exp(-|n - T| / (T_max - T)): n tokens of the response (all that roles said on its path), T
    those of the shortest success.

    The paper leaves two cases open. Nobody succeeds: there is no T, and nobody is paid for length. T_max <=
    T: a response of T tokens gets 1, any other the limit of the formula, 0.
    """
    paid = {role for role, counted in weights.items() if counted.keys() & {"structure", "length"}}
    if not paid:
        return
    responses = [
        leaf
        for leaf in tree.leaves()
        if leaf.role in paid and leaf.status not in NO_EVIDENCE and "outcome" in leaf.reward_parts
    ]
    paths = {leaf.id: tree.path(leaf) for leaf in responses}
    size = {id: sum(len(n.token_ids) for n in path if n.role is not None) for id, path in paths.items()}
    shortest = min(
        (size[leaf.id] for leaf in responses if (success_of(leaf.reward_parts) or 0.0) > 0), default=None
    )
    longest = length_max or max(size.values(), default=0)
    for leaf in responses:
        path = [n for n in paths[leaf.id] if n.policy is not None]
        kept = all(n.status == "finished" and n.reward_parts.get("format", 1.0) for n in path)
        parts[leaf.id]["structure"] = float(kept)
        if shortest is None:
            near = 0.0
        elif longest <= shortest:
            near = float(size[leaf.id] == shortest)
        else:
            near = math.exp(-abs(size[leaf.id] - shortest) / (longest - shortest))
        parts[leaf.id]["length"] = near


def _weigh(
    branch: Branch, weights: Weights, parts: Parts, optional: Container[str]
) -> dict[int, float | None]:
    """Node -> its reward, for the turns on a branch that have one. The outcome counts once, at the last turn
    that has it; any other part counts at each turn that has it."""
    found: dict[int, float | None] = {}
    ended = branch.status in ENDED
    for role, counted in weights.items():
        turns = [
            n.id
            for n in branch.nodes
            if n.role == role
            and n.status not in NO_EVIDENCE
            and (parts[n.id] or (ended and n.policy is not None))
        ]
        has = {part: [id for id in turns if part in parts[id]] for part in counted}
        needed = [has[part] for part in counted if part not in optional]
        if not turns or (not all(needed) and not ended) or not (needed or any(has.values())):
            continue
        if "outcome" in has:
            has["outcome"] = has["outcome"][-1:]
        for id in turns:
            own = [w * parts[id][part] for part, w in counted.items() if id in has[part]]
            if own or id == turns[-1]:
                found[id] = sum(own)
    return found
