"""LLM-Modulo on Blocksworld: rounds node for node, the first mistake in words, what is shown, who is paid."""

from __future__ import annotations

import random

import pytest
from test_workflows import policies, rollouts_on

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Task
from forethought.learn.credit import CREDITS
from forethought.learn.rewards import reward
from forethought.recipe.schema import CreditSpec, TreeSpec
from forethought.tasks.blocksworld.problem import FREE, Problem
from forethought.tasks.blocksworld.taskset import Blocksworld
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.table import WORKFLOWS

BLOCKS = Blocksworld((2, 4, 6), critic=True)
# b stands on a, c beside them; a is wanted on c
HAND = Task(
    id="hand",
    taskset="blocksworld",
    level=4,
    context="<init> ; a b ; c",
    prompt="<goal> ; c a",
    state=Problem(names=("a", "b", "c"), below=(FREE, 0, FREE), goal=(2, FREE, FREE)),
)
RIGHT, ACTS = "clear a on a c </plan>", "unstack b a put b pick a stack a c </act>"
BURIED, SHORT, FORM = "on a c </plan>", "clear a </plan>", "clear a on a </plan>"
SAID = {
    BURIED: "<err> on a c covered a b </err>",
    SHORT: "<err> missing on a c </err>",
    FORM: "<err> form </err>",
    "clear b on a c </plan>": "<err> clear b already </err>",
    "on b a on a c </plan>": "<err> on b a already </err>",
    "clear a on b c on a c </plan>": "<err> on a c covered c b </err>",
    "clear a": "<err> form </err>",
    RIGHT: "",
}


@pytest.mark.parametrize(("plan", "said"), SAID.items())
def test_the_first_mistake_of_a_plan_in_words(plan, said):
    assert BLOCKS.critique(HAND, plan) == said
    assert bool(said) == (BLOCKS.judge_plan(HAND, plan).score == 0.0)


def grown(*plans: str, act: str = ACTS, rounds: int = 3, n: int = 1, blocks=BLOCKS, acts: int = 1):
    """`plans`: what the planner says, one after the other."""
    said = iter(plans)
    script = lambda policy, text, i, seed: next(said) if text.endswith("<plan>") else act
    rollouts = rollouts_on(blocks, "modulo", script, rounds=rounds)
    rollouts.tasks = [HAND]
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": n, "act": acts}), policies("modulo"), 1)
    return tree, rollouts


def test_a_plan_is_mended_in_rounds_node_for_node():
    tree, rollouts = grown(BURIED, SHORT, RIGHT)
    assert [(n.id, n.parent, n.branch, n.role, n.text, n.status) for n in tree.nodes] == [
        (0, None, 0, None, "<init> ; a b ; c <goal> ; c a <plan>", "given"),
        (1, 0, 1, "plan", BURIED, "finished"),
        (2, 1, 1, None, f"{SAID[BURIED]} <plan>", "given"),
        (3, 2, 1, "plan", SHORT, "finished"),
        (4, 3, 1, None, f"{SAID[SHORT]} <plan>", "given"),
        (5, 4, 1, "plan", RIGHT, "finished"),
        (6, 5, 6, "act", ACTS, "finished"),
    ]
    assert [dict(n.reward_parts) for n in tree.nodes if n.role == "plan"] == [
        {"format": 1.0, "valid": 0.0}, {"format": 1.0, "valid": 0.0}, {"format": 1.0, "valid": 1.0},
    ]  # fmt: skip
    assert tree.nodes[6].reward_parts == {"format": 1.0, "outcome": 1.0, "follows": 1.0}
    assert tree.nodes[1].reason == "subgoal 1 'on a c': a is not clear (b is on it)"
    # what is read is nobody's: no policy, nothing to train on
    assert all(n.policy is None and not n.logprobs for n in tree.nodes if n.role is None)
    # the second proposal is asked with the first and its mistake before it
    assert rollouts.engine.decode(rollouts.engine.asked[1].context).endswith(
        f"{BURIED} {SAID[BURIED]} <plan>"
    )


def test_a_right_plan_needs_one_round():
    tree, rollouts = grown(RIGHT, acts=2)
    assert [n.role for n in tree.nodes] == [None, "plan", "act", "act"] and len(rollouts.engine.asked) == 2


def test_a_planner_that_never_ends_gives_up_and_nothing_is_executed():
    tree, _ = grown(BURIED, FORM, SHORT)
    assert [n.role for n in tree.nodes if n.role] == ["plan"] * 3
    last = tree.nodes[-1]
    assert last.status == "refused" and last.reward_parts == {"format": 1.0, "valid": 0.0}
    assert last.reason == "no right plan in 3 rounds; the goal fact (on a c) does not hold at the end"
    assert [n.reward_parts["format"] for n in tree.nodes if n.role] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("rounds", [0, 1])
def test_one_round_is_a_plan_that_is_tested(rounds):
    tree, _ = grown(BURIED, rounds=rounds)
    assert [(n.role, n.status) for n in tree.nodes] == [(None, "given"), ("plan", "refused")]


def test_a_plan_that_runs_out_of_its_budget_is_told_its_form():
    tree, _ = grown("clear a " * 30, RIGHT)
    assert tree.nodes[1].status == "truncated" and tree.nodes[2].text == "<err> form </err> <plan>"
    assert tree.nodes[-1].reward_parts["outcome"] == 1.0


def test_a_validator_or_a_critic_that_breaks_fails_the_branch():
    for method in ("judge_plan", "critique"):
        blocks = Blocksworld((4,), critic=True)

        def breaks(task, plan):
            raise ValueError("lost")

        setattr(blocks, method, breaks)
        tree, rollouts = grown(BURIED, RIGHT, blocks=blocks)
        last = tree.nodes[-1]
        assert (last.role, last.status) == ("plan", "failed") and "ValueError: lost" in last.reason
        assert rollouts.guard.total == 1


def test_the_oracles_plan_is_not_tested():
    rollouts = rollouts_on(BLOCKS, "modulo", lambda policy, text, i, seed: ACTS)
    rollouts.tasks = [HAND]
    spec = TreeSpec(counts={"plan": 1, "act": 1}, oracle=("plan",))
    [tree] = rollouts.grow([HAND], spec, policies("modulo"), 1)
    assert [(n.role, n.status) for n in tree.nodes[1:]] == [("plan", "given"), ("act", "finished")]


# What is shown ----------------------------------------------------------------------------------------------


def test_some_tasks_are_shown_with_a_mistake_that_nobody_learns():
    tasks = BLOCKS.family(random.Random(3), [4, 6] * 20, "train")
    rollouts = rollouts_on(BLOCKS, "modulo")
    mended = 0
    for task in tasks:
        shown = [(turn.role, turn.text) for turn in WORKFLOWS["modulo"].demonstration(BLOCKS, task)]
        assert shown[-2:] == [(turn.role, turn.text) for turn in BLOCKS.demonstrate(task)]
        if len(shown) == 2:
            continue
        mended += 1
        (role, wrong), (none, said) = shown[:2]
        assert role is none is None and said == BLOCKS.critique(task, wrong) != ""
        # token for token what a rollout reads that says the same
        plans = iter([wrong, shown[2][1]])
        rollouts.engine.script = lambda p, text, i, s, plans=plans, act=shown[3][1]: (
            next(plans) if text.endswith("<plan>") else act
        )
        [tree] = rollouts.grow([task], TreeSpec(counts={"plan": 1, "act": 1}), policies("modulo"), 1)
        ids = [n.token_ids for n in tree.path(tree.leaves()[0])]
        assert sum(ids[1:], ()) == sum((ids for _, ids in rollouts.turns(task)), ())
    assert 12 <= mended <= 28


def test_a_taskset_that_says_nothing_of_mistakes_is_refused():
    desk = Desk((1,))
    [task] = desk.family(random.Random(0), [1], "train")
    with pytest.raises(UserError, match="modulo asks for a taskset with critique .*desk has none"):
        WORKFLOWS["modulo"].demonstration(desk, task)
    with pytest.raises(RecipeError, match="task.critic: .*add critic = true"):
        WORKFLOWS["modulo"].demonstration(Blocksworld((4,)), HAND)
    assert "<err>" not in Blocksworld((4,)).vocabulary()  # recipes without it keep their words


# Who is paid ------------------------------------------------------------------------------------------------


def test_credit_follows_the_rounds():
    """Right at once, in the second round, and never. By turn, with gamma 1/2, returns to go of the first
    proposals are 1, 1/2 and 0: mean 1/2, deviation sqrt(1/6). Of the second: 1 and 0, which give 1 and -1.
    By branch the first two are worth the same."""
    script = lambda policy, text, i, seed: (
        [RIGHT, BURIED, SHORT][i] if text == rollouts.words.root_text(HAND)
        else RIGHT if "covered" in text and "missing" not in text else BURIED
    )  # fmt: skip
    rollouts = rollouts_on(BLOCKS, "modulo", script)
    rollouts.tasks = [HAND]
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 3, "act": 0}), policies("modulo"), 1)
    assert [n.text for n in tree.nodes if n.role == "plan"] == [
        RIGHT,
        BURIED,
        SHORT,
        RIGHT,
        BURIED,
        BURIED,
    ]
    paid = reward(tree, {"plan": {"valid": 1.0}})
    spec = CreditSpec(name="turn_level", gamma=0.5, eps=0.0)
    found = CREDITS["turn_level"](paid, spec)
    first = {n.text: found[n.id][0] for n in tree.nodes if n.parent == 0}
    assert first == pytest.approx({RIGHT: 1.5**0.5, BURIED: 0.0, SHORT: -(1.5**0.5)})
    second = [found[n.id][0] for n in tree.nodes if n.role == "plan" and n.parent != 0]
    assert second == pytest.approx([1.0, -1.0, 0.0])  # the third proposal has no peer
    whole = CREDITS["role_baseline"](paid, CreditSpec(name="role_baseline", eps=0.0))
    by_branch = {n.text: whole[n.id][0] for n in tree.nodes if n.parent == 0}
    assert by_branch[RIGHT] == by_branch[BURIED] > by_branch[SHORT]
