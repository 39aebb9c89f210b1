"""Credit by turn: what a turn brought and what came after it on its branch, against peers at the same turn.

    G_t = r_t + gamma r_(t+1) + gamma^2 r_(t+2) + ...     A_t = (G_t - mean) / (std + eps)

r_t is the reward of turn t (0 where it has none), and the sum ends with the branch; what hangs below a branch
is part of its last turn's reward. The mean and the population std are over the same turn of the peers: same
role of the branch, same branch above, same role of the turn, the same number among the branch's turns of that
role. That is AT-GRPO's group (arXiv 2510.11062: question, turn, agent) on trees, with returns to go from
rewards by turn as in MT-GRPO (arXiv 2505.11821) and GiGPO (arXiv 2505.10978), whose groups are by state.

Valid where a turn is rewarded for itself, or episodes are long. Peers at a later turn are in different
states: the baseline is still unbiased, since it does not depend on the turn's own tokens but for their share
in the mean, and it is blunter than one by state. A turn that only one peer has reached gets 0. gamma = 1 and
rewards at the last turn alone: role_baseline, but for trajectories that have ended before a turn. gamma = 0:
each turn for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from forethought.core.types import Advantages, Branch, Node, Tree
from forethought.learn.credit.roles import standardised, zeros
from forethought.learn.peers import groups, value, written
from forethought.recipe.schema import CreditSpec


def turn_level(tree: Tree, spec: CreditSpec) -> Advantages:
    """`gamma` discounts from one turn of the branch to the next, whatever their roles. A branch that failed
    or had no room is not a peer at any of its turns, since it is unknown how it would have continued."""
    advantages = zeros(tree)
    for members in groups(tree.branches().values()).values():
        at: dict[tuple[str | None, int], list[tuple[Node, float]]] = {}
        for branch in members:
            if value(branch) is not None:
                for place, turn, to_go in returns(branch, spec.gamma):
                    at.setdefault(place, []).append((turn, to_go))
        for peers in at.values():
            for (turn, _), a in zip(peers, standardised([g for _, g in peers], spec.eps), strict=True):
                advantages[turn.id] = (a,) * len(turn.token_ids)
    return advantages


def returns(branch: Branch, gamma: float) -> Iterator[tuple[tuple[str | None, int], Node, float]]:
    """((role, number among the turns of that role), turn, discounted return to go), the last turn first."""
    turns, to_go = written(branch), 0.0
    left = Counter(n.role for n in turns)
    for turn in reversed(turns):
        to_go = (turn.reward or 0.0) + gamma * to_go
        left[turn.role] -= 1
        yield (turn.role, left[turn.role]), turn, to_go
