"""avg@k, pass@k and maj@k of one problem, by hand."""

from __future__ import annotations

from itertools import combinations

import pytest

from forethought.core.metrics import avg_at_k, maj_at_k, mean_interval, pass_at_k, reduce
from forethought.core.types import Node, Task, Tree
from forethought.stages.outcome import tree_metrics


def test_avg_at_k():
    assert avg_at_k([1, 0, 0, 1]) == 0.5
    with pytest.raises(ValueError, match="no samples"):
        avg_at_k([])


@pytest.mark.parametrize(
    ("n", "correct", "k", "value"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),
        (4, 2, 2, 5 / 6),
        (4, 0, 3, 0.0),
        (4, 4, 1, 1.0),
        (4, 1, 4, 1.0),
        (4, 3, 2, 1.0),
        (1, 0, 1, 0.0),
    ],
)
def test_pass_at_k(n, correct, k, value):
    assert pass_at_k(n, correct, k) == pytest.approx(value)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    samples = [1, 1, 0, 0, 0, 0, 0]
    subsets = list(combinations(samples, 3))
    assert pass_at_k(7, 2, 3) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_of_what_cannot_be(n, correct, k):
    with pytest.raises(ValueError, match=f"found k = {k}, n = {n}, correct = {correct}"):
        pass_at_k(n, correct, k)


@pytest.mark.parametrize(
    ("votes", "correct", "value"),
    [
        (["5", "7", "5"], [1, 0, 1], 1.0),
        (["5", "7", "7"], [1, 0, 0], 0.0),
        (["5", "7"], [1, 0], 0.5),  # a tie, whatever came first
        (["7", "5"], [0, 1], 0.5),
        (["5", "7", "8"], [1, 0, 0], 1 / 3),
        ([None, None, "5"], [0, 0, 1], 1.0),  # no answer is no vote
        ([None, None], [0, 0], 0.0),
        (["5", "5", "7"], [1, 0, 0], 0.5),
    ],
)
def test_maj_at_k(votes, correct, value):
    assert maj_at_k(votes, correct) == pytest.approx(value)


@pytest.mark.parametrize(("votes", "correct"), [([], []), (["5"], [1, 0])])
def test_maj_at_k_needs_a_grade_for_each_vote(votes, correct):
    with pytest.raises(ValueError, match=f"{len(votes)} votes, {len(correct)} grades"):
        maj_at_k(votes, correct)


def test_their_interval_is_the_one_over_problems():
    """Four problems, avg@2 each: mean 0.5, standard deviation sqrt(1/6), t(3) = 3.1824."""
    mean, low, high = mean_interval([avg_at_k(c) for c in ([1, 1], [0, 0], [1, 0], [0, 1])])
    assert (mean, high - mean, mean - low) == pytest.approx(
        (0.5, 3.1824 * (1 / 6 / 4) ** 0.5, 3.1824 * (1 / 6 / 4) ** 0.5), rel=1e-4
    )


def test_a_time_out_of_a_grader_is_counted_in_the_step():
    task = Task(id="a", taskset="math", level=0, context="", prompt="p")
    said = {"parent": 0, "role": "act", "text": "t", "token_ids": (1,), "policy": "p", "status": "finished"}
    late = Node(id=1, reward_parts={"outcome": 0.0, "timed_out": 1.0}, **said)
    fine = Node(id=2, reward_parts={"outcome": 1.0}, **said)
    root = Node(id=0, parent=None, role=None, text="p", token_ids=(0,))
    metrics = reduce(tree_metrics([Tree(task=task, nodes=(root, late, fine))], ()))
    assert metrics["timed_out/act"] == 1 and metrics["reward/act.outcome"] == 0.5
    assert "timed_out/act" not in reduce(tree_metrics([Tree(task=task, nodes=(root, fine))], ()))
