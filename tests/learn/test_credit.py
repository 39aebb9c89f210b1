"""Credit, by hand. The numbers of the 4 x 3 tree are those of PTA-GRPO's section in the notes on methods."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
from conftest import TASK, node, tree_of

from forethought.core.types import Node, Tree
from forethought.learn.credit import CREDITS, assign, check_coverage
from forethought.learn.credit.hicra import hicra, placebo_mask, released_mask
from forethought.learn.rewards import PARTS, reward
from forethought.recipe import check
from forethought.recipe.check_reinforce import VALUED
from forethought.recipe.schema import CreditSpec

OUTCOME = {"act": {"outcome": 1.0}}
BOTH = ("plan", "act")
FOUR_BY_THREE = [[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
PLANS, ACTS = (1, 5, 9, 13), ((2, 3, 4), (6, 7, 8), (10, 11, 12), (14, 15, 16))  # node ids of a 4 x 3 tree


def advantages(outcomes, name: str, weights=OUTCOME, roles=BOTH, **spec) -> dict[int, float]:
    """One number a node, after checking that its tokens share it."""
    tree = outcomes if isinstance(outcomes, Tree) else tree_of(outcomes)
    given = assign(reward(tree, weights), CreditSpec(name=name, **spec), roles)
    assert all(len(set(tokens)) <= 1 for tokens in given.values())
    return {id: tokens[0] for id, tokens in given.items()}


def change(tree: Tree, id: int, **fields) -> Tree:
    return replace(tree, nodes=tuple(replace(n, **fields) if n.id == id else n for n in tree.nodes))


# trajectories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("grpo", (1 - 1 / 3) / (sqrt(2) / 3 + 1e-4), (0 - 1 / 3) / (sqrt(2) / 3 + 1e-4)),  # +1.41, -0.71
        ("dr_grpo", 2 / 3, -1 / 3),
        ("rloo", 1 - 3 / 11, 0 - 4 / 11),
    ],
)
def test_four_plans_of_three_executions(name, good, bad):
    found = advantages(FOUR_BY_THREE, name)
    for plan, acts, row in zip(PLANS, ACTS, FOUR_BY_THREE, strict=True):
        assert [found[id] for id in acts] == pytest.approx([good if outcome else bad for outcome in row])
        # the mean of its executions
        assert found[plan] == pytest.approx(sum(good if outcome else bad for outcome in row) / 3)
    assert found.keys() == {*PLANS, *sum(ACTS, ())}


def test_grpo_is_the_number_everyone_prints():
    found = advantages(FOUR_BY_THREE, "grpo")
    assert (
        round(found[2], 2),
        round(found[16], 2),
        round(found[1], 2),
        round(found[5], 6),
        round(found[9], 2),
    ) == (1.41, -0.71, 1.41, 0.0, -0.71)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"])
def test_a_turn_of_which_nobody_had_anything_to_say_is_no_zero(name):
    """Reward functions that give None for all say nothing (as in TRL): the others are compared without it."""
    prompt = Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,))
    flat = [node(i + 1, 0, "act", 2, reward=r) for i, r in enumerate((1.0, 0.0, None))]
    alone, among = Tree(task=TASK, nodes=(prompt, *flat[:2])), Tree(task=TASK, nodes=(prompt, *flat))
    spec = CreditSpec(name=name)
    expected = assign(alone, spec, BOTH)
    assert expected[1][0] > 0 > expected[2][0]
    assert assign(among, spec, BOTH) == expected | {3: (0.0, 0.0)}
    one = Tree(task=TASK, nodes=(prompt, flat[0], flat[2]))
    if name != "reinforce_pp":  # which has no peers
        assert assign(one, spec, BOTH) == {1: (0.0, 0.0), 3: (0.0, 0.0)}


def test_every_token_of_a_node_gets_the_nodes_advantage():
    given = assign(
        reward(tree_of([[1, 0]], plan_tokens=4, act_tokens=2), OUTCOME), CreditSpec(name="dr_grpo"), BOTH
    )
    assert given == {1: (0.0,) * 4, 2: (0.5, 0.5), 3: (-0.5, -0.5)}


def test_eps_is_added_to_the_standard_deviation():
    assert advantages([[1, 0]], "grpo", eps=0.5)[2] == pytest.approx(0.5 / (0.5 + 0.5))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("grpo", 1 / (1 + 2e-4), -1 / (1 + 2e-4)), ("dr_grpo", 0.5, -0.5), ("rloo", 0.6, -0.6)],
)
def test_a_refused_plan_stands_for_as_many_failures_as_a_plan_has_executions(name, good, bad):
    """Three successes against three failures, not against one: refusing must not be cheaper than failing."""
    assert advantages([[1, 1, 1], None], name) == pytest.approx({1: good, 2: good, 3: good, 4: good, 5: bad})


def test_a_failed_execution_leaves_numerator_and_denominator():
    tree = change(tree_of([[1, 0], [0, 0]]), 6, status="failed", reward_parts={})
    found = advantages(tree, "dr_grpo")  # 1, 0, 0: the mean is a third, not a quarter
    assert found == pytest.approx({2: 2 / 3, 3: -1 / 3, 5: -1 / 3, 1: 1 / 6, 4: -1 / 3})


def test_a_plan_whose_every_execution_failed_trains_on_nothing():
    tree = tree_of([[1, 0], [0]])
    found = advantages(change(tree, 5, status="failed", reward_parts={}), "grpo")
    assert found[4] == 0.0 and found[2] > 0 > found[3] and 5 not in found


def test_a_tree_whose_every_execution_failed_trains_on_nothing():
    failed = tree_of([[1]])
    failed = change(failed, 2, status="failed", reward_parts={})
    for name in CREDITS:
        assert advantages(failed, name) == {1: 0.0}


def stepwise() -> Tree:
    """Two executions of one plan, each of two turns with an observation between them; the first succeeds."""
    done = {"reward_parts": {"format": 1.0, "outcome": 1.0, "follows": 1.0}}
    lost = {"reward_parts": {"format": 1.0, "outcome": 0.0, "follows": 0.0}}
    seen = {"policy": None, "status": "given", "logprobs": ()}
    return Tree(
        task=TASK,
        nodes=(
            node(0, None, None, 1, **seen),
            node(1, 0, "plan", 2, reward_parts={"format": 1.0, "valid": 1.0}),
            node(2, 1, "act", 3),
            node(3, 1, "act", 3),
            node(4, 2, None, 2, **seen),
            node(5, 3, None, 2, **seen),
            node(6, 4, "act", 1, **done),
            node(7, 5, "act", 1, **lost),
        ),
    )


@pytest.mark.parametrize("name", ["dr_grpo", "role_baseline"])
def test_all_turns_of_an_execution_share_its_advantage_and_observations_have_none(name):
    one = 0.5 if name == "dr_grpo" else 0.5 / (0.5 + 1e-4)
    assert advantages(stepwise(), name) == pytest.approx({1: 0.0, 2: one, 6: one, 3: -one, 7: -one})


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("rewards", [[1, 0, 0, 1, 1], [0.25, 0.5, 1, 0, 0]])
def test_a_tree_of_one_execution_each_is_the_flat_group(name, rewards):
    n, mean = len(rewards), sum(rewards) / len(rewards)
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / n)
    flat = {
        "grpo": [(r - mean) / (std + 1e-4) for r in rewards],
        "dr_grpo": [r - mean for r in rewards],
        "rloo": [r - (sum(rewards) - r) / (n - 1) for r in rewards],
    }[name]
    found = advantages([[r] for r in rewards], name)
    assert [found[2 * i + 1] for i in range(n)] == pytest.approx(flat)  # plans
    assert [found[2 * i + 2] for i in range(n)] == pytest.approx(flat)  # their executions


def test_executions_under_the_oracles_plan_are_a_group_and_the_plan_has_no_advantage():
    tree = change(tree_of([[1, 0]]), 1, policy=None, status="given", reward_parts={}, logprobs=())
    assert advantages(tree, "dr_grpo", roles=("act",)) == {2: 0.5, 3: -0.5}
    assert advantages(tree, "role_baseline", roles=("act",)) == pytest.approx({2: 1 / 1.0002, 3: -1 / 1.0002})


# peers by role ----------------------------------------------------------------------------------------------

OWN = {"plan": {"valid": 1.0}, "act": {"outcome": 1.0}}


def test_role_baseline_compares_plans_with_plans_and_executions_with_those_of_the_same_plan():
    found = advantages([[1, 0], [0, 0], None], "role_baseline", OWN)  # valid: 1, 0, 0
    std = sqrt(2) / 3 + 1e-4
    assert found == pytest.approx(
        {
            1: (2 / 3) / std,
            4: (-1 / 3) / std,
            7: (-1 / 3) / std,  # scope: the task
            2: 0.5 / 0.5001,
            3: -0.5 / 0.5001,  # scope: plan 1
            5: 0.0,
            6: 0.0,  # scope: plan 2, no spread
        }
    )


def test_a_plans_reward_never_moves_an_executions_advantage():
    tree = tree_of([[1, 0], [0, 1]])
    shuffled = change(tree, 1, reward_parts={"format": 0.0, "valid": 0.0})
    before, after = (advantages(t, "role_baseline", OWN) for t in (tree, shuffled))
    assert {id: before[id] for id in (2, 3, 5, 6)} == {id: after[id] for id in (2, 3, 5, 6)}
    assert before[1] != after[1]


def test_a_failed_execution_is_no_peer():
    tree = change(tree_of([[1, 0, 0]]), 4, status="failed", reward_parts={})
    assert advantages(tree, "role_baseline", OWN) == pytest.approx(
        {1: 0.0, 2: 0.5 / 0.5001, 3: -0.5 / 0.5001}
    )


# degenerate groups ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(CREDITS) - set(VALUED)))
def test_a_singleton_has_advantage_zero(name):
    assert advantages([[1]], name) == {1: 0.0, 2: 0.0}


@pytest.mark.parametrize("name", sorted(set(CREDITS) - set(VALUED)))
@pytest.mark.parametrize("value", [0, 1, 0.7])  # 0.7 + 0.7 + 0.7 over 3 is 0.6999999999999998
def test_equal_rewards_have_advantage_zero_exactly(name, value):
    assert set(
        advantages([[value]] * 3, name, {"act": {"outcome": 1.0}, "plan": {"outcome": 1.0}}).values()
    ) == {0.0}
    assert set(advantages([[value] * 3], name).values()) == {0.0}


# planning tokens: HICRA and its controls --------------------------------------------------------------------


def count(mask) -> int:
    return sum(map(sum, mask.values()))


def test_grams_decide_which_tokens_get_more_whatever_their_role():
    """A right and a wrong execution of one plan, Dr. GRPO: +-1/2. One token of each execution is planning,
    none of the plan."""
    tree = reward(tree_of([[1, 0]]), OUTCOME)
    mask = {0: (False,), 1: (False, False), 2: (True, False, False), 3: (False, True, False)}
    given = assign(tree, CreditSpec(name="dr_grpo", alpha=0.2, mask="grams", grams="x"), BOTH, planning=mask)
    assert given == {1: (0.0, 0.0), 2: pytest.approx((0.6, 0.5, 0.5)), 3: pytest.approx((-0.5, -0.4, -0.5))}
    assert assign(tree, CreditSpec(name="dr_grpo", alpha=0.0, grams="x"), BOTH, planning=mask)[2] == (
        0.5,
        0.5,
        0.5,
    )


def test_the_placebo_of_grams_has_as_many_tokens_as_they_have():
    tree = tree_of([[1, 0], [0, 0]])  # 16 tokens, 4 of them in plans
    mask = {n.id: (n.id == 3,) * len(n.token_ids) for n in tree.nodes}
    for seed in range(5):
        assert count(placebo_mask(tree, seed, mask)) == 3 and not any(placebo_mask(tree, seed, mask)[0])
    assert len({str(placebo_mask(tree, seed, mask)) for seed in range(5)}) == 5
    given = assign(
        reward(tree, OUTCOME), CreditSpec(name="grpo", alpha=0.5, mask="placebo"), BOTH, 3, planning=mask
    )
    plain = assign(reward(tree, OUTCOME), CreditSpec(name="grpo"), BOTH)
    assert sum(a != b for i in given for a, b in zip(given[i], plain[i], strict=True)) == 3


def test_a_placebo_is_drawn_among_the_tokens_that_train():
    """Acting alone trains: 3 of its 12 tokens are planning, and 3 of those 12 are drawn, none of them in a
    plan."""
    tree = reward(tree_of([[1, 0], [0, 0]]), OUTCOME)
    mask = {n.id: (n.id in (1, 3),) * len(n.token_ids) for n in tree.nodes}
    for seed in range(5):
        given = assign(tree, CreditSpec(name="grpo", alpha=0.5, mask="placebo"), ["act"], seed, planning=mask)
        plain = assign(tree, CreditSpec(name="grpo"), ["act"])
        assert sum(a != b for i in plain for a, b in zip(given[i], plain[i], strict=True)) == 3


def flat(*responses: tuple[float, int]) -> Tree:
    """(outcome, tokens) of each response: a plan of one token, the rest acting."""
    nodes = [Node(id=0, parent=None, role=None, text="", token_ids=(9,))]
    for outcome, tokens in responses:
        own = {"status": "finished", "policy": "base"}
        nodes.append(
            Node(id=len(nodes), parent=0, role="plan", text="", token_ids=(0,), logprobs=(-1.0,), **own)
        )
        nodes.append(
            Node(
                id=len(nodes),
                parent=len(nodes) - 1,
                role="act",
                text="",
                token_ids=(0,) * (tokens - 1),
                logprobs=(-1.0,) * (tokens - 1),
                reward_parts={"outcome": outcome},
                **own,
            )
        )
    return Tree(task=TASK, nodes=tuple(nodes))


NOBODY = {i: (False,) * n for i, n in enumerate([1, 1, 4, 1, 2, 1, 4, 1, 1])}
ROWS = {
    1: (0.5,),
    2: (0.1, 0.9, 0.2, 0.3),
    3: (0.5,),
    4: (0.9, 0.8),
    5: (0.5,),
    6: (0.4, 0.9, 0.1, 0.1),
    7: (0.5,),
    8: (0.7,),
}


def test_the_released_code_credits_uncertain_tokens_of_right_responses_above_the_mean_length():
    """Lengths 5 (right), 3 (right), 5 (wrong), 2 (wrong): the mean is 3.75. The first alone is right and
    longer. Its entropies .5 .1 .9 .2 .3 have the 70 % quantile .3 + .8 (.5 - .3) = .46: two tokens lie above
    it, of which one is the plan."""
    tree = reward(flat((1, 5), (1, 3), (0, 5), (0, 2)), OUTCOME)
    spec = CreditSpec(name="dr_grpo", alpha=0.2, mask="released")
    mask = released_mask(tree, assign(tree, replace(spec, alpha=0.0), BOTH), ROWS, 0.3, NOBODY)
    assert {i: row for i, row in mask.items() if any(row)} == {1: (True,), 2: (False, True, False, False)}
    given = assign(tree, spec, BOTH, entropies=ROWS, planning=NOBODY)
    assert (
        given[1] == pytest.approx((0.6,))
        and given[2] == pytest.approx((0.5, 0.6, 0.5, 0.5))
        and given[6] == (-0.5,) * 4
    )


def test_planning_tokens_are_credited_too_in_every_response_and_against_the_sign():
    tree = reward(flat((1, 5), (1, 3), (0, 5), (0, 2)), OUTCOME)
    planning = NOBODY | {6: (False, True, False, False), 4: (True, False)}
    given = assign(
        tree, CreditSpec(name="dr_grpo", alpha=0.2, mask="released"), BOTH, entropies=ROWS, planning=planning
    )
    assert given[6] == pytest.approx((-0.5, -0.4, -0.5, -0.5)) and given[4] == pytest.approx((0.6, 0.5))
    assert given[2] == pytest.approx((0.5, 0.6, 0.5, 0.5))


def test_where_nobody_is_right_or_all_are_equally_long_only_planning_tokens_are_left():
    for tree in (flat((0, 5), (0, 3), (0, 5), (0, 2)), flat((1, 5), (0, 5))):
        tree = reward(tree, OUTCOME)
        nobody = {n.id: (False,) * len(n.token_ids) for n in tree.nodes}
        scored = assign(tree, CreditSpec(name="dr_grpo"), BOTH)
        assert (
            count(
                released_mask(
                    tree,
                    scored,
                    {n.id: (0.1,) * (len(n.token_ids) - 1) + (0.9,) for n in tree.nodes},
                    0.3,
                    nobody,
                )
            )
            == 0
        )


def test_advantages_that_come_in_are_not_touched_and_those_that_go_out_are_others():
    """Multiplying a copy in place changes nothing, without a word: the published code's kind of bug."""
    tree = reward(tree_of([[1, 0]]), OUTCOME)
    before = assign(tree, CreditSpec(name="dr_grpo"), BOTH)
    everything = {n.id: (True,) * len(n.token_ids) for n in tree.nodes}
    after = hicra(before, everything, 0.2)
    assert before == {1: (0.0, 0.0), 2: (0.5,) * 3, 3: (-0.5,) * 3}
    assert after == {1: (0.0, 0.0), 2: pytest.approx((0.6,) * 3), 3: pytest.approx((-0.4,) * 3)}


def test_grams_without_their_tokens_are_our_own_fault():
    with pytest.raises(ValueError, match="needs the planning tokens"):
        assign(reward(tree_of([[1, 0]]), OUTCOME), CreditSpec(alpha=0.2, mask="grams", grams="x"), BOTH)


# the gate before the batch ----------------------------------------------------------------------------------


def test_roles_that_do_not_train_have_no_advantage_and_weights_scale_the_others():
    assert advantages([[1, 0]], "dr_grpo", roles=("act",), weight={"act": 2.0}) == {2: 1.0, 3: -1.0}
    assert advantages([[1], [0]], "dr_grpo", roles=("plan",), weight={"plan": 0.5, "act": 7.0}) == {
        1: 0.25,
        3: -0.25,
    }


def test_the_coverage_check_finds_a_missing_a_double_and_a_strangers_advantage():
    tree = tree_of([[1, 0]], act_tokens=3)
    whole = {1: (0.0, 0.0), 2: (0.5,) * 3, 3: (-0.5,) * 3}
    check_coverage(tree, whole, {"plan", "act"})
    for wrong, message in [
        ({1: whole[1], 2: whole[2]}, "tree t: node 3 (act, finished) has 0 advantages for 3 trained tokens"),
        (whole | {2: (0.5,) * 2}, "tree t: node 2 (act, finished) has 2 advantages for 3 trained tokens"),
        (whole | {2: (0.5,) * 6}, "tree t: node 2 (act, finished) has 6 advantages for 3 trained tokens"),
        (whole | {0: (1.0,)}, "tree t: node 0 (None, finished) has 1 advantages for 0 trained tokens"),
        (whole | {99: (1.0,)}, "tree t: advantages for nodes [99] that it does not have"),
    ]:
        with pytest.raises(ValueError) as caught:
            check_coverage(change(tree, 0, policy=None, status="finished"), wrong, {"plan", "act"})
        assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"node 1 \(plan, finished\) has 2 advantages for 0 trained tokens"):
        check_coverage(tree, whole, {"act"})  # a role that does not train
    with pytest.raises(ValueError, match=r"node 3 \(act, failed\) has 3 advantages for 0"):
        check_coverage(change(tree, 3, status="failed"), whole, {"plan", "act"})


def test_assign_checks_the_coverage_of_every_row(monkeypatch):
    monkeypatch.setitem(CREDITS, "lossy", lambda tree, spec: {1: (1.0, 1.0)})
    with pytest.raises(ValueError, match=r"node 2 \(act, finished\) has 0 advantages for 3 trained tokens"):
        assign(reward(tree_of([[1]]), OUTCOME), CreditSpec(name="lossy"), BOTH)


def test_the_recipe_check_knows_the_rows_and_the_reward_parts():
    from forethought.learn.credit import OVER_BATCH
    from forethought.recipe.check_reinforce import ACTS, PREPARES
    from forethought.recipe.check_reinforce import OVER_BATCH as KNOWN

    assert set(check.CREDITS) == set(CREDITS) and set(KNOWN) == set(OVER_BATCH)
    assert {*ACTS, *PREPARES} == set(PARTS)
