"""Who competes with whom: peers are branches of the same role under the same branch, at any depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forethought.core.types import NO_EVIDENCE, Branch, Node, Tree

Group = tuple[str | None, int | None]
"""(role, id of the branch above)"""


def below(branches: Mapping[int, Branch]) -> dict[int, list[Branch]]:
    """Branch -> the branches that fork from it, in order; every branch is a key."""
    found: dict[int, list[Branch]] = {id: [] for id in branches}
    for branch in branches.values():
        if branch.above is not None:
            found[branch.above].append(branch)
    return found


def groups(branches: Iterable[Branch]) -> dict[Group, list[Branch]]:
    """Peers by what they share, in the order of their branches; the prompt's own branch has none."""
    found: dict[Group, list[Branch]] = {}
    for branch in branches:
        if branch.role is not None:
            found.setdefault((branch.role, branch.above), []).append(branch)
    return found


def written(branch: Branch) -> list[Node]:
    """The turns that policies wrote on it; an oracle's are none."""
    return [n for n in branch.nodes if n.policy is not None]


def value(branch: Branch) -> float | None:
    """The summed reward of a branch over all of its turns; None if it is unknown how it went (it failed, or
    had no room) or if it has no reward. The results of the branches below are in the part `outcome` of its
    last turn."""
    rewards = [n.reward for n in written(branch) if n.reward is not None]
    return sum(rewards) if rewards and branch.status not in NO_EVIDENCE else None


def levels(tree: Tree) -> list[str]:
    """The roles that begin branches, in the order in which they first speak."""
    return list(dict.fromkeys(b.role for b in tree.branches().values() if b.role is not None))
