"""Strict coverage: a role that trains has to be compared with something. A role whose turns never have peers
has advantage 0 at every token, and would train on nothing without a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forethought.core.errors import UserError
from forethought.core.types import NO_EVIDENCE, Tree
from forethought.learn.credit.flat import responses
from forethought.learn.credit.turns import returns
from forethought.learn.peers import groups, value, written
from forethought.recipe.check_reinforce import CREDITS, OVER_BATCH, VALUED

STEPS = 5  # in which a role spoke and was never compared, before a stage ends


def compared(trees: Sequence[Tree], credit: str) -> set[str]:
    """Roles of which some turns were compared with others by a credit row, whatever the result."""
    by = {"role_baseline": _by_branch, "turn_level": _by_turn}.get(credit, _by_path)
    if credit in ("rae", "reinforce_pp", "reinforce_pp_baseline", *VALUED):
        return spoken(trees)  # against other tasks, earlier steps, or a critic
    return {role for tree in trees for role in by(tree) if role is not None}


def spoken(trees: Iterable[Tree]) -> set[str]:
    """The roles that said something which counts."""
    return {
        n.role
        for tree in trees
        for n in tree.nodes
        if n.role is not None and n.policy is not None and n.token_ids and n.status not in NO_EVIDENCE
    }


def _by_branch(tree: Tree) -> Iterable[str | None]:
    for members in groups(tree.branches().values()).values():
        known = [b for b in members if value(b) is not None]
        if len(known) > 1:
            yield from (n.role for b in known for n in written(b))


def _by_turn(tree: Tree) -> Iterable[str | None]:
    for members in groups(tree.branches().values()).values():
        places = [place for b in members if value(b) is not None for place, _, _ in returns(b, 1.0)]
        yield from {role for role, i in places if places.count((role, i)) > 1}


def _by_path(tree: Tree) -> Iterable[str | None]:
    """A turn that lies on every response gets the mean of all, which is 0."""
    paths = responses(tree).paths
    on = [i for path in paths for i in path]
    yield from (n.role for n in tree.nodes if n.policy is not None and 0 < on.count(n.id) < len(paths))


def watch(trees: Sequence[Tree], credit: str, roles: Iterable[str], waiting: dict[str, int]) -> None:
    """Count the steps in which a role of `roles` spoke without ever having been compared; UserError at the
    fifth. `waiting` (role -> number of such steps, -1 once it was compared) is saved with the checkpoint.
    Steps in which something failed or had no room do not count, and neither do those of a recipe's own credit
    row, which declares what it compares."""
    left = [role for role in roles if waiting.get(role, 0) >= 0]
    if not left or credit not in CREDITS + OVER_BATCH:
        return
    met = compared(trees, credit)
    waiting |= {role: -1 for role in left if role in met}
    if any(n.status in NO_EVIDENCE for tree in trees for n in tree.nodes):
        return
    for role in (spoken(trees) & set(left)) - met:
        waiting[role] = waiting.get(role, 0) + 1
        if waiting[role] >= STEPS:
            raise UserError(
                f"role {role!r} trains, but in {STEPS} steps credit {credit!r} found nothing to compare its "
                f"turns with, so every advantage was 0: sample at least 2 of it in the tree, give it a "
                f"reward of its own, or take {role!r} out of the stage's roles"
            )
