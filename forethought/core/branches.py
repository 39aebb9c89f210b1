"""Which branch each node of a tree lies on: one reading for trees in memory and for trees on disk."""

from __future__ import annotations

from collections.abc import Iterable

Row = tuple[int, int | None, str | None, int | None]
"""(id, parent, role, branch as the node says it, or None) of a node."""


def branch_of(rows: Iterable[Row]) -> dict[int, int]:
    """Node -> the id of its branch, which is that of the branch's first node. Parents come first.

    A node that names no branch (saved before there were any, or made by hand) begins one where it is a turn
    that follows the prompt or a branch of another role: plans under the prompt, executions under a plan.
    """
    on: dict[int, int] = {}
    says: dict[int, str | None] = {}  # branch -> role of its first node
    for id, parent, role, branch in rows:
        if branch is None:
            before = None if parent is None else on[parent]
            if before is None or (role is not None and role != says[before]):
                branch = id
            else:
                branch = before
        on[id] = branch
        says.setdefault(branch, role)
    return on
