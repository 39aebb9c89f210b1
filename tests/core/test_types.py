"""Branches of a tree, by hand."""

from __future__ import annotations

from conftest import TASK, node, tree_of

from forethought.core.types import Node, Tree

ROOT = Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,))


def shape(tree: Tree) -> dict[int, tuple[int | None, str | None, tuple[int, ...]]]:
    return {b.id: (b.above, b.role, tuple(n.id for n in b.nodes)) for b in tree.branches().values()}


def test_plans_fork_from_the_prompt_and_executions_from_their_plan():
    assert shape(tree_of([[1, 0], None])) == {
        0: (None, None, (0,)),
        1: (0, "plan", (1,)),
        2: (1, "act", (2,)),
        3: (1, "act", (3,)),
        4: (0, "plan", (4,)),
    }


def test_turns_and_observations_of_an_execution_are_one_branch():
    nodes = (ROOT, node(1, 0, "plan", 2), node(2, 1, "act", 3), node(3, 2, None, 1), node(4, 3, "act", 3))
    assert shape(Tree(task=TASK, nodes=nodes))[2] == (1, "act", (2, 3, 4))


def test_nodes_that_name_their_branch_decide():
    """Two ReAct trajectories sampled from the prompt: thoughts and acts of one are one branch."""
    nodes = (
        ROOT,
        node(1, 0, "think", 2, branch=1),
        node(2, 0, "think", 2, branch=2),
        node(3, 1, "act", 3, branch=1),
        node(4, 2, "act", 3, branch=2),
        node(5, 3, None, 1, branch=1),
        node(6, 5, "think", 3, branch=1),
    )
    assert shape(Tree(task=TASK, nodes=nodes)) == {
        0: (None, None, (0,)),
        1: (0, "think", (1, 3, 5, 6)),
        2: (0, "think", (2, 4)),
    }
