"""Credit from a critic: what a turn gained in value, and what came of it less what was expected.

Each turn has the part `value`, V of the state before it, which the stage kind `webrl` asks its critic for. r
is what the branch of the turn is worth; the next state is the one before the next turn of the branch; after
its last turn, the states of the branches that fork there, averaged over those of known worth.
"""

from __future__ import annotations

from collections.abc import Iterator

from forethought.core.types import Advantages, Node, Tree
from forethought.learn.credit.roles import zeros
from forethought.learn.peers import below, value, written
from forethought.recipe.schema import CreditSpec

VALUE = "value"
GAMMA = 0.9  # of the released code, with which the outcome of a later turn is discounted


def webrl(tree: Tree, spec: CreditSpec) -> Advantages:
    """WebRL, equation 9 (arXiv 2411.02337), with no reward before the end:

        A = mix (V(next) - V) + (1 - mix) (r - V);  at the end of a trajectory, where V(next) is r: r - V

    mix is the paper's lambda, 0.5. Valid for one trajectory a task, since its baseline is no peer; it is as
    good as the critic, and with V = 0 everywhere every turn of a success is pushed up. A branch of unknown
    worth has 0.
    """
    advantages = zeros(tree)
    for turn, now, then, worth, _ in _turns(tree):
        gain = worth if then is None else then
        a = spec.mix * (gain - now) + (1 - spec.mix) * (worth - now)
        advantages[turn.id] = (a,) * len(turn.token_ids)
    return advantages


def webrl_released(tree: Tree, spec: CreditSpec) -> Advantages:
    """The advantage of WebRL's released code, for the loss of that name:

        A = clamp(V(next) - V - margin + r + 0.9^left r, -1, 1);  after the last turn V(next) is V

    `left` turns follow on the branch. The outcome is added on every turn, twice, so each turn of a success
    has 1, whatever its value says; a turn of a failure is above 0 only where the value rose by more than
    `margin`, 0.05. The code has two heads and takes the smaller value; here there is one critic.
    """
    advantages = zeros(tree)
    for turn, now, then, worth, left in _turns(tree):
        gain = 0.0 if then is None else then - now
        a = gain - spec.margin + worth + GAMMA**left * worth
        advantages[turn.id] = (max(-1.0, min(1.0, a)),) * len(turn.token_ids)
    return advantages


def _turns(tree: Tree) -> Iterator[tuple[Node, float, float | None, float, int]]:
    """(turn, V before it, V after it or None at the end, what its branch is worth, turns after it on the
    branch) of every turn that counts."""
    branches = tree.branches()
    under = below(branches)
    for branch in branches.values():
        turns, worth = written(branch), value(branch)
        if worth is None:
            continue
        forks = [_value(written(b)[0]) for b in under[branch.id] if value(b) is not None]
        after = sum(forks) / len(forks) if forks else None
        values = [_value(turn) for turn in turns]
        for i, turn in enumerate(turns):
            then = values[i + 1] if i + 1 < len(turns) else after
            yield turn, values[i], then, worth, len(turns) - 1 - i


def _value(turn: Node) -> float:
    """0 where no critic was asked."""
    return turn.reward_parts.get(VALUE, 0.0)
