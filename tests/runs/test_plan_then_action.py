"""PTA-GRPO's reward and HICRA's credit, by hand; the numbers of the 4 x 3 tree are those of the notes on
methods."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from conftest import TASK, desk_recipe, fake_desk, lines_of, node, nothing, tree_of

from forethought.core.errors import RecipeError
from forethought.core.types import Node, Tree
from forethought.learn.credit import assign
from forethought.learn.credit.hicra import entropy_mask, hicra, placebo_mask, preparing_mask
from forethought.learn.rewards import reward
from forethought.recipe.check import check
from forethought.recipe.schema import CreditSpec, ShapingSpec
from forethought.runs import run

FOUR_BY_THREE = [[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
PTA = {"plan": {"analytic": 0.5}, "act": {"outcome": 1.0}}
PLANS, ACTS = (1, 5, 9, 13), ((2, 3, 4), (6, 7, 8), (10, 11, 12), (14, 15, 16))


def parts(tree: Tree, weights, **shaping) -> dict[int, dict[str, float]]:
    return {n.id: dict(n.reward_parts) for n in reward(tree, weights, ShapingSpec(**shaping)).nodes}


def leaf_advantages(outcomes, tau: float) -> list[list[float]]:
    tree = reward(tree_of(outcomes), PTA, ShapingSpec(tau=tau))
    given = assign(tree, CreditSpec(name="grpo", eps=1e-9), ("plan", "act"))
    return [[given[i][0] for i in row] for row in ACTS]


# the plan's own reward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_analytic_is_the_softmax_of_the_plans_success_rates(tau):
    found = parts(tree_of(FOUR_BY_THREE), PTA, tau=tau)
    raised = [math.exp(s / tau) for s in (1, 1 / 3, 0, 0)]
    assert [found[i]["analytic"] for i in PLANS] == pytest.approx([r / sum(raised) for r in raised])


@pytest.mark.parametrize(
    ("tau", "good", "first", "others", "rest"),
    [(1.0, 1.46, 1.26, -0.66, -0.72), (0.1, 1.58, 0.82, -0.69, -0.69)],
)
def test_one_normalisation_over_the_whole_tree_gives_the_published_vector(tau, good, first, others, rest):
    rows = leaf_advantages(FOUR_BY_THREE, tau)
    assert rows[0] == pytest.approx([good] * 3, abs=0.005)
    assert rows[1] == pytest.approx([first, others, others], abs=0.005)
    assert rows[2] + rows[3] == pytest.approx([rest] * 6, abs=0.006)


@pytest.mark.parametrize("outcomes", [[[1, 1], [1, 1], [1, 1]], [[0, 0], [0, 0], [0, 0]]])
def test_plans_that_all_do_alike_share_it_equally_and_nothing_trains(outcomes):
    tree = reward(tree_of(outcomes), PTA)
    assert {n.reward_parts["analytic"] for n in tree.nodes if n.role == "plan"} == {1 / 3}
    assert not any(a for row in assign(tree, CreditSpec(name="grpo"), ("plan", "act")).values() for a in row)


def test_a_refused_plan_takes_part_as_one_that_never_succeeds():
    found = parts(tree_of([[1], None]), PTA)
    assert found[3]["analytic"] == pytest.approx(1 / (1 + math.e)) and found[1]["analytic"] == pytest.approx(
        math.e / (1 + math.e)
    )


def test_a_plan_without_evidence_takes_no_part():
    tree = tree_of([[1], [0]])
    broken = replace(
        tree,
        nodes=tuple(replace(n, status="failed", reward_parts={}) if n.id == 4 else n for n in tree.nodes),
    )
    found = parts(broken, PTA)
    assert found[1]["analytic"] == 1.0 and "analytic" not in found[3]


# structure and length ---------------------------------------------------------------------------------------


def sized(*responses: tuple[int, int, float, str]) -> Tree:
    """(plan tokens, act tokens, outcome, status of the act) of each response, one plan each."""
    nodes = [Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,))]
    for plan, act, outcome, status in responses:
        nodes.append(node(len(nodes), 0, "plan", plan, reward_parts={"format": 1.0, "valid": 1.0}))
        nodes.append(
            node(
                len(nodes),
                len(nodes) - 1,
                "act",
                act,
                status=status,
                reward_parts={"format": float(status == "finished"), "outcome": outcome, "follows": 1.0},
            )
        )
    return Tree(task=TASK, nodes=tuple(nodes))


LENGTH = {"act": {"outcome": 1.0, "length": 0.1, "structure": 0.2}}


def test_length_is_nearness_to_the_shortest_success():
    """Lengths 4 (wrong), 6 (right, the shortest), 10 (right), 16 (the longest): T = 6, T_max = 16."""
    found = parts(
        sized((2, 2, 0, "finished"), (2, 4, 1, "finished"), (4, 6, 1, "finished"), (8, 8, 0, "truncated")),
        LENGTH,
    )
    assert [found[i]["length"] for i in (2, 4, 6, 8)] == pytest.approx(
        [math.exp(-0.2), 1.0, math.exp(-0.4), math.exp(-1.0)]
    )
    # what ran out of budget kept to no format
    assert [found[i]["structure"] for i in (2, 4, 6, 8)] == [1.0, 1.0, 1.0, 0.0]


def test_length_with_a_longest_of_the_recipe():
    found = parts(sized((2, 4, 1, "finished"), (4, 6, 1, "finished")), LENGTH, length_max=26)
    assert [found[i]["length"] for i in (2, 4)] == pytest.approx([1.0, math.exp(-4 / 20)])


def test_where_nobody_succeeds_nobody_is_paid_for_length():
    found = parts(sized((2, 4, 0, "finished"), (4, 6, 0, "finished")), LENGTH)
    assert [found[i]["length"] for i in (2, 4)] == [0.0, 0.0]


def test_where_all_are_equally_long_all_are_near():
    found = parts(sized((2, 4, 1, "finished"), (3, 3, 0, "finished")), LENGTH)
    assert [found[i]["length"] for i in (2, 4)] == [1.0, 1.0]
    # T_max below T: the formula's limit
    short = parts(sized((2, 4, 1, "finished"), (3, 5, 1, "finished")), LENGTH, length_max=3)
    assert [short[i]["length"] for i in (2, 4)] == [1.0, 0.0]


def test_the_whole_reward_is_the_papers_sum():
    tree = reward(
        sized((2, 4, 1, "finished"), (4, 6, 0, "finished")),
        {"plan": {"analytic": 0.5}, **LENGTH},
        ShapingSpec(),
    )
    best = math.e / (1 + math.e)
    paths = [sum(n.reward or 0.0 for n in tree.path(leaf)) for leaf in tree.leaves()]
    assert paths == pytest.approx([1 + 0.5 * best + 0.2 + 0.1, 0.5 * (1 - best) + 0.2 + 0.1 * math.exp(-1)])


# HICRA ------------------------------------------------------------------------------------------------------


def test_hicra_reinforces_more_and_discourages_less_on_the_mask_alone():
    advantages, mask = {1: (1.0, -1.0), 2: (1.0, -1.0)}, {1: (True, True), 2: (False, False)}
    assert hicra(advantages, mask, 0.2) == {1: (1.2, -0.8), 2: (1.0, -1.0)}
    assert hicra(advantages, mask, 0.0) == advantages


def test_credit_with_alpha_acts_on_plans():
    tree = reward(tree_of([[1, 0], [0, 0]]), {"act": {"outcome": 1.0}})
    plain, more = (
        assign(
            tree,
            CreditSpec(name="dr_grpo", alpha=alpha),
            ("plan", "act"),
            planning=preparing_mask(tree, "act"),
        )
        for alpha in (0.0, 0.2)
    )
    for n in tree.nodes:
        factor = (1.2 if plain[n.id][0] > 0 else 0.8) if n.role == "plan" else 1.0
        if n.id:
            assert more[n.id] == pytest.approx([a * factor for a in plain[n.id]])


def test_the_placebo_has_the_same_density_and_depends_on_its_seed():
    tree = tree_of(FOUR_BY_THREE)
    count = lambda mask: sum(map(sum, mask.values()))  # noqa: E731
    plans = preparing_mask(tree, "act")
    one, again, other = (placebo_mask(tree, seed, plans) for seed in (1, 1, 2))
    assert count(plans) == count(one) == count(other) == 8
    assert one == again != other
    assert not any(one[0])  # nobody wrote the prompt


def test_the_roles_before_the_last_prepare_however_many_they_are():
    tree = tree_of([[1]], plan_tokens=3, act_tokens=2)
    last = replace(tree.nodes[2], id=3, parent=2, role="link")
    mask = preparing_mask(replace(tree, nodes=(*tree.nodes, last)), "link")
    assert mask == {0: (False,), 1: (True,) * 3, 2: (True,) * 2, 3: (False,) * 2}


def test_the_entropy_mask_takes_the_most_uncertain_tokens_of_each_turn():
    tree = tree_of([[1]], plan_tokens=3, act_tokens=4)
    mask = entropy_mask(tree, {1: (0.1, 0.9, 0.5), 2: (0.3, 0.3, 0.2, 0.1)}, 0.5)
    assert mask[1] == (False, True, True) and mask[2] == (True, True, False, False)
    assert entropy_mask(tree, {1: (0.1, 0.9, 0.5)}, 0.1)[1] == (False, True, False)  # at least one


@pytest.mark.parametrize("mask", ["preparing", "placebo", "entropy"])
def test_a_stage_trains_with_each_mask(tmp_path, mask):
    stage = {
        "kind": "reinforce",
        "until": {"steps": 2},
        "batch": 2,
        "tree": {"plan": 3, "act": 2},
        "credit": {"name": "dr_grpo", "alpha": 0.2, "mask": mask},
        "reward": {"plan": {"analytic": 0.5}, "act": {"outcome": 1, "length": 0.1}},
        "optim": {"lr": 0.5, "warmup": 0},
    }
    run.train(desk_recipe(stage, layout="shared"), tmp_path / "run", nothing, fake_desk())
    line = lines_of(tmp_path / "run" / "metrics.jsonl")[-1]
    assert {"reward/plan.analytic", "reward/act.length"} <= line.keys()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"credit": {"alpha": -0.1}}, "stage.0.credit.alpha"),
        ({"credit": {"mask": "entropy"}}, "stage.0.credit.mask"),
        ({"credit": {"alpha": 0.2, "mask": "entropy", "mask_share": 0}}, "stage.0.credit.mask_share"),
        ({"shaping": {"tau": 0}}, "stage.0.shaping.tau"),
        (
            {"reward": {"plan": {"analytic": 1}}, "tree": {"act": 0}, "roles": ["plan"]},
            "stage.0.reward.plan.analytic",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(change, where):
    with pytest.raises(RecipeError) as e:
        check(desk_recipe({"kind": "reinforce"} | change, layout="shared"))
    assert e.value.where == where
