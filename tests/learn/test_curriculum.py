"""What is drawn, what is remembered, what is admitted."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from conftest import TASK, tree_of

from forethought.core.metrics import reduce
from forethought.learn.credit import assign
from forethought.learn.curriculum import LevelSampler, admit
from forethought.learn.rewards import reward
from forethought.recipe.schema import CreditSpec


def test_levels_are_drawn_by_weight():
    drawn = Counter(LevelSampler([3, 4, 5], [1, 0, 3]).draw(random.Random(0), 4000, 0))
    assert drawn.keys() == {3, 5} and drawn[5] == pytest.approx(3000, abs=110)  # 4 standard deviations
    assert Counter(LevelSampler([3, 4]).draw(random.Random(0), 4000, 0))[3] == pytest.approx(2000, abs=130)


def test_only_easy_levels_at_first():
    sampler = LevelSampler([1, 2, 3], [1, 1, 8], easy_levels=[1, 2], easy_steps=3)
    assert [set(sampler.draw(random.Random(7), 200, step)) for step in range(4)] == [{1, 2}] * 3 + [{1, 2, 3}]


def test_the_callers_generator_decides():
    sampler = LevelSampler([1, 2, 3])
    assert (
        sampler.draw(random.Random(5), 20, 0)
        == sampler.draw(random.Random(5), 20, 9)
        != sampler.draw(random.Random(6), 20, 0)
    )


def rewarded(outcomes, level: int = 3):
    return reward(tree_of(outcomes, task=replace(TASK, level=level)), {"act": {"outcome": 1.0}})


def test_the_running_reward_of_a_level_decays_exactly():
    sampler = LevelSampler([3, 4], memory=4)
    sampler.observe([rewarded([[1, 0]]), rewarded([[1, 1]]), rewarded([[0]], level=4), rewarded([None])])
    # a group without rewards says nothing
    assert sampler.passed == {3: (0.5 * 0.75 + 1, 1.75), 4: (0.0, 1.0)}
    assert reduce(sampler.metrics()) == {"curriculum/reward@3": 1.375 / 1.75, "curriculum/reward@4": 0.0}


def test_its_state_survives_a_file():
    one, other = LevelSampler([3, 4]), LevelSampler([3, 4])
    one.observe([rewarded([[1, 0, 0]])])
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for sampler in (one, other):
        sampler.observe([rewarded([[1]]), rewarded([[0, 1]], level=4)])
    assert one.passed == other.passed and one.state_dict() == other.state_dict()


def test_groups_without_a_gradient_are_left_out_and_counted_by_reason():
    trees = [rewarded(o) for o in ([[1], [0]], [[1], [1]], [[0], [0]], [[0.5], [0.5]], [None, None])]
    given = [assign(tree, CreditSpec(name="grpo"), ("plan", "act")) for tree in trees]
    kept, counts = admit(trees, given)
    assert kept == [0]
    assert reduce(counts) == {
        "groups/zero": 4 / 5,
        "groups/all_solved": 1,
        "groups/all_failed": 2,
        "groups/no_spread": 1,  # half a success is none
        "groups/overlong": 0,
    }


def test_a_group_that_was_paid_for_its_form_alone_has_solved_nothing():
    paid = {"act": {"outcome": 1.0, "structure": 0.2}}
    trees = [reward(tree_of(o), paid) for o in ([[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], None])]
    assert min(n.reward for n in trees[0].nodes if n.reward is not None) == 0.2
    _, counts = admit(trees, [{}] * 3)
    assert reduce(counts) == {
        "groups/zero": 1.0,
        "groups/all_solved": 1,
        "groups/all_failed": 1,
        "groups/no_spread": 1,
        "groups/overlong": 0,
    }


def test_a_spread_that_does_not_train_is_told_apart():
    tree = rewarded([[1], [0]])
    kept, counts = admit([tree], [{1: (0.0, 0.0), 3: (0.0, 0.0)}])
    assert kept == [] and reduce(counts)["groups/no_spread"] == 1


def test_admit_keeps_order_and_counts_over_steps_merge():
    trees = [rewarded([[1], [0]])] * 3
    given = [{1: (1.0,)}, {1: (0.0, 0.0)}, {1: (0.0, -0.1)}]
    kept, counts = admit(trees, given)
    assert kept == [0, 2] and reduce(counts)["groups/zero"] == pytest.approx(1 / 3)
