"""Rewards and credit where trees are more than plans and executions, by hand: refusals in later turns, a
second plan on a path, three roles, uneven depth, branches that failed or had no room."""

from __future__ import annotations

from math import sqrt

import pytest
from conftest import TASK, node

from forethought.core.types import Node, Tree
from forethought.learn.credit import assign
from forethought.learn.curriculum import admit
from forethought.learn.rewards import reward
from forethought.recipe.schema import CreditSpec

EPS = 1e-4
ROOT = Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,))
SEEN = {"policy": None, "status": "given", "logprobs": ()}
OUTCOME = {"act": {"outcome": 1.0}}
EACH = {role: {"outcome": 1.0} for role in ("plan", "act", "blink", "think", "link")}


def tree(*nodes: Node) -> Tree:
    return Tree(task=TASK, nodes=(ROOT, *nodes))


def act(id: int, parent: int, branch: int, outcome: float | None = None, **fields) -> Node:
    parts = {} if outcome is None else {"format": 1.0, "outcome": outcome}
    return node(id, parent, "act", 3, **({"branch": branch, "reward_parts": parts} | fields))


def advantages(tree: Tree, name: str, weights=OUTCOME, roles=tuple(EACH), **spec) -> dict[int, float]:
    given = assign(reward(tree, weights), CreditSpec(name=name, eps=EPS, **spec), roles)
    assert all(len(set(row)) == 1 for row in given.values())
    return {id: row[0] for id, row in given.items()}


def outcomes(tree: Tree, weights=EACH) -> dict[int, float]:
    return {
        n.id: n.reward_parts["outcome"] for n in reward(tree, weights).nodes if "outcome" in n.reward_parts
    }


# a plan anew on the execution's branch ----------------------------------------------------------------------

GIVEN = {"format": 1.0, "valid": 1.0}


def replanned(status: str) -> Tree:
    """One plan, three executions; the first plans anew after its first turn. Where that plan is accepted, it
    acts again and succeeds."""
    again = {"format": float(status == "finished"), "valid": float(status == "finished")}
    nodes = [
        node(1, 0, "plan", 2, branch=1, reward_parts=GIVEN),
        act(2, 1, 2),
        act(3, 1, 3, 1.0),
        act(4, 1, 4, 1.0),
        node(5, 2, None, 1, branch=2, **SEEN),
        node(6, 5, "plan", 2, branch=2, status=status, reward_parts=again),
    ]
    return tree(*nodes, *([act(7, 6, 2, 0.0)] if status == "finished" else []))


@pytest.mark.parametrize(("name", "good", "bad"), [("dr_grpo", 1 / 3, -2 / 3), ("rloo", 0.5, -1.0)])
def test_a_refusal_in_a_later_turn_is_one_response_like_the_executions_beside_it(name, good, bad):
    """It stood for two, as a refused plan among plans does: +.5 and -.5."""
    found = advantages(replanned("refused"), name)
    assert found == pytest.approx({1: 0.0, 3: good, 4: good, 2: bad, 6: bad})


def test_a_refusal_in_a_later_turn_is_a_failed_execution_to_its_peers():
    std = sqrt(2) / 3 + EPS
    found = advantages(replanned("refused"), "role_baseline", EACH)
    assert found == pytest.approx({1: 0.0, 3: 1 / 3 / std, 4: 1 / 3 / std, 2: -2 / 3 / std, 6: -2 / 3 / std})
    assert outcomes(replanned("refused"))[1] == pytest.approx(2 / 3)


def test_a_second_plan_is_rewarded_and_trains_with_the_branch_it_lies_on():
    """The first plan of the path was paid, the second was not, and its advantage was 0."""
    weights = {"plan": {"valid": 0.5}, "act": {"outcome": 1.0}}
    rewarded = reward(replanned("finished"), weights)
    assert {n.id: n.reward for n in rewarded.nodes} == {
        0: None,
        1: 0.5,
        2: None,
        3: 1,
        4: 1,
        5: None,
        6: 0.5,
        7: 0,
    }
    # the executions under plan 1: 0.5 (valid plan, no success), 1, 1
    mean, std = 2.5 / 3, sqrt(0.5 / 9) + EPS  # (1/3)^2 + 2 (1/6)^2 = 1/6, over 3
    assert std - EPS == pytest.approx(sqrt(1 / 18))
    found = advantages(replanned("finished"), "role_baseline", weights)
    low, high = (0.5 - mean) / std, (1 - mean) / std
    assert found == pytest.approx({1: 0.0, 2: low, 6: low, 7: low, 3: high, 4: high})
    # along paths plan 1 gives each of the three 0.5
    assert advantages(replanned("finished"), "dr_grpo", weights) == pytest.approx(
        {1: 0.0, 2: -1 / 3, 6: -1 / 3, 7: -1 / 3, 3: 1 / 6, 4: 1 / 6}
    )


# three roles ------------------------------------------------------------------------------------------------


def said(id: int, parent: int, role: str, outcome: float | None = None, **fields) -> Node:
    parts = {} if outcome is None else {"outcome": outcome}
    return node(id, parent, role, 2, **({"branch": id, "reward_parts": parts} | fields))


def blinks(**lost: str) -> Tree:
    """Blink 1 -> thinks 2, 5 -> links (1, 0), (0, 0); blink 8 -> a refused think 9, think 10 -> links (1, 1).
    `lost`: node -> the status it ended with instead."""
    nodes = [
        said(1, 0, "blink"),
        said(2, 1, "think"),
        said(3, 2, "link", 1.0),
        said(4, 2, "link", 0.0),
        said(5, 1, "think"),
        said(6, 5, "link", 0.0),
        said(7, 5, "link", 0.0),
        said(8, 0, "blink"),
        said(9, 8, "think", status="refused"),
        said(10, 8, "think"),
        said(11, 10, "link", 1.0),
        said(12, 10, "link", 1.0),
    ]
    for name, status in lost.items():
        i = int(name[1:]) - 1
        nodes[i] = said(i + 1, nodes[i].parent, nodes[i].role, status=status)
    return tree(*nodes)


def test_a_branch_without_an_outcome_has_the_mean_of_those_directly_below_it():
    assert outcomes(blinks()) == {
        3: 1,
        4: 0,
        2: 0.5,
        6: 0,
        7: 0,
        5: 0,
        1: 0.25,
        9: 0,
        11: 1,
        12: 1,
        10: 1,
        8: 0.5,
    }


def test_each_of_three_roles_has_its_own_peers():
    s = lambda std: std + EPS
    assert advantages(blinks(), "role_baseline", EACH) == pytest.approx(
        {
            1: -0.125 / s(0.125),
            8: 0.125 / s(0.125),
            2: 0.25 / s(0.25),
            5: -0.25 / s(0.25),
            9: -0.5 / s(0.5),
            10: 0.5 / s(0.5),
            3: 0.5 / s(0.5),
            4: -0.5 / s(0.5),
            **dict.fromkeys((6, 7, 11, 12), 0.0),
        }
    )


def test_a_refusal_stands_for_as_many_responses_as_its_luckiest_peer_has_at_its_own_level():
    """Seven leaves, the refused think stands for two: 3 successes of 8."""
    good, bad = 5 / 8, -3 / 8
    assert advantages(blinks(), "dr_grpo", {"link": {"outcome": 1.0}}) == pytest.approx(
        {
            3: good,
            4: bad,
            2: 1 / 8,
            6: bad,
            7: bad,
            5: bad,
            1: -1 / 8,
            9: bad,
            11: good,
            12: good,
            10: good,
            8: 1 / 8,
        }
    )


def test_a_refused_blink_stands_for_all_that_a_peer_has_below_it():
    nodes = [n for n in blinks().nodes if n.id < 8]
    found = advantages(
        Tree(task=TASK, nodes=(*nodes, said(8, 0, "blink", status="refused"))),
        "dr_grpo",
        {"link": {"outcome": 1.0}},
    )
    assert found[8] == pytest.approx(-1 / 8) and found[3] == pytest.approx(7 / 8)  # 1 of 4 + 4
    assert found[1] == pytest.approx((7 / 8 - 3 / 8) / 4)


# uneven depth -----------------------------------------------------------------------------------------------


def test_a_branch_that_ended_early_and_well_counts_as_much_as_its_peers():
    """One plan is executed twice, (1, 0); another answers at once, rightly: 1, 0 and twice 1."""
    one = tree(
        node(1, 0, "plan", 2, branch=1),
        act(2, 1, 2, 1.0),
        act(3, 1, 3, 0.0),
        node(4, 0, "plan", 2, branch=4, reward_parts={"outcome": 1.0}),
    )
    assert outcomes(one) == {1: 0.5, 2: 1, 3: 0, 4: 1}
    found = advantages(one, "dr_grpo", {"plan": {"outcome": 1.0}})
    assert found[4] == pytest.approx(0.25) and found[1] == pytest.approx(-0.25)  # 0.5, 0.5 and twice 1
    both = advantages(one, "role_baseline", EACH)
    assert both == pytest.approx(
        {1: -0.25 / (0.25 + EPS), 4: 0.25 / (0.25 + EPS), 2: 0.5 / (0.5 + EPS), 3: -0.5 / (0.5 + EPS)}
    )


# nothing is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "overlong"])
def test_what_failed_or_had_no_room_is_in_no_mean_at_any_depth(status):
    lost = blinks(n3=status, n6=status, n7=status)
    # think 2 has link 4 alone, think 5 nothing that is known, blink 1 think 2 alone
    assert outcomes(lost) == {4: 0, 2: 0, 1: 0, 9: 0, 11: 1, 12: 1, 10: 1, 8: 0.5}
    found = advantages(lost, "role_baseline", EACH)
    assert found.keys() == {1, 2, 4, 5, 8, 9, 10, 11, 12}  # and 5 has no evidence: it trains on nothing
    assert (found[5], found[2], found[4]) == (0.0, 0.0, 0.0)
    assert found[8] == pytest.approx(0.25 / (0.25 + EPS))


@pytest.mark.parametrize("status", ["failed", "overlong"])
def test_a_branch_that_failed_in_a_later_turn_is_no_peer_at_any_of_its_turns(status):
    nodes = [
        act(1, 0, 1, reward_parts={"progress": 0.5}),
        act(2, 0, 2, 1.0, reward_parts={"progress": 0.0, "outcome": 1.0}),
        act(3, 0, 3, reward_parts={"progress": 1.0, "outcome": 0.0}),
        node(4, 1, None, 1, branch=1, **SEEN),
        act(5, 4, 1, status=status),
    ]
    weights = {"act": {"outcome": 1.0, "progress": 0.5}}
    for name in ("role_baseline", "turn_level"):
        found = advantages(tree(*nodes), name, weights)
        assert found == pytest.approx({1: 0.0, 2: 0.25 / (0.25 + EPS), 3: -0.25 / (0.25 + EPS)})
    _, counts = admit([reward(tree(nodes[0], nodes[3], nodes[4]), weights)], [{}])
    assert counts["groups/" + status].total == 1


# rewards by turn --------------------------------------------------------------------------------------------


def walk(*branches: tuple[tuple[float, ...], float]) -> Tree:
    """Executions of one plan, each of turns with `progress` (an observation after each but the last) and an
    outcome at the last."""
    nodes = [node(1, 0, "plan", 2, branch=1, reward_parts=GIVEN)]
    for progress, outcome in branches:
        above, first = 1, len(nodes) + 1
        for i, p in enumerate(progress):
            last = i == len(progress) - 1
            parts = {"progress": p} | ({"outcome": outcome} if last else {})
            nodes.append(act(len(nodes) + 1, above, first, reward_parts=parts))
            if not last:
                nodes.append(node(len(nodes) + 1, len(nodes), None, 1, branch=first, **SEEN))
            above = len(nodes)
    return tree(*nodes)


WALKED = walk(((0.2, 0.3), 1.0), ((0.4, 0.0), 0.0), ((0.1,), 0.0))
PAID = {"act": {"outcome": 1.0, "progress": 1.0}}


def test_a_turn_is_rewarded_by_its_own_parts_and_the_outcome_counts_once():
    rewarded = reward(WALKED, PAID)
    assert {n.id: n.reward for n in rewarded.nodes if n.role == "act"} == pytest.approx(
        {2: 0.2, 4: 1.3, 5: 0.4, 7: 0.0, 8: 0.1}
    )
    found = advantages(WALKED, "role_baseline", PAID)  # the sums: 1.5, 0.4, 0.1
    mean = 2 / 3
    std = sqrt(((1.5 - mean) ** 2 + (0.4 - mean) ** 2 + (0.1 - mean) ** 2) / 3) + EPS
    assert found == pytest.approx(
        {
            1: 0.0,
            2: (1.5 - mean) / std,
            4: (1.5 - mean) / std,
            5: (0.4 - mean) / std,
            7: (0.4 - mean) / std,
            8: (0.1 - mean) / std,
        }
    )


def test_a_part_that_no_turn_of_a_branch_has_leaves_it_without_a_reward():
    assert all(n.reward is None for n in reward(WALKED, {"act": {"outcome": 1.0, "style": 1.0}}).nodes)


def test_turn_level_compares_discounted_returns_to_go_at_the_same_turn():
    """gamma = 1/2: the first turns return .2 + 1.3 / 2 = .85, .4 and .1 (mean .45), the second ones 1.3 and
    0."""
    std = sqrt((0.4**2 + 0.05**2 + 0.35**2) / 3) + EPS
    found = advantages(WALKED, "turn_level", PAID, gamma=0.5)
    assert found == pytest.approx(
        {
            1: 0.0,
            2: 0.4 / std,
            5: -0.05 / std,
            8: -0.35 / std,
            4: 0.65 / (0.65 + EPS),
            7: -0.65 / (0.65 + EPS),
        }
    )


def test_turn_level_counts_the_turns_of_a_role_and_discounts_over_all_turns():
    """Thought, act, thought, act against thought, act: gamma = 1/2 a turn."""
    think = lambda id, parent, branch, p: node(
        id, parent, "think", 2, branch=branch, reward_parts={"progress": p}
    )
    one = tree(
        think(1, 0, 1, 0.0),
        act(2, 1, 1),
        think(3, 2, 1, 1.0),
        act(4, 3, 1, 1.0),
        think(5, 0, 5, 0.0),
        act(6, 5, 5, 0.0),
    )
    found = advantages(one, "turn_level", {"think": {"progress": 1.0}, "act": {"outcome": 1.0}}, gamma=0.5)
    # returns of branch 1: act 4: 1; think 3: 1.5; act 2: .75; think 1: .375; of branch 5: 0, 0
    assert found == pytest.approx(
        {
            1: 0.1875 / (0.1875 + EPS),
            5: -0.1875 / (0.1875 + EPS),
            2: 0.375 / (0.375 + EPS),
            6: -0.375 / (0.375 + EPS),
            3: 0.0,
            4: 0.0,
        }
    )
