"""Blocksworld with one act a turn: what is seen, what ends an episode, and trees by hand."""

from __future__ import annotations

import random

import pytest
from conftest import Listening

from forethought.core.errors import RecipeError
from forethought.core.types import Outcome, Turn
from forethought.measure.evaluate import evaluate
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.recipe.speaking import SPEAKING
from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.environment import Luck, Stepwise
from forethought.tasks.blocksworld.problem import FREE, Problem
from forethought.tasks.blocksworld.taskset import Blocksworld
from forethought.workflows.rollout import Rollouts

# towers a b | c from the bottom; goal: a on c, so b goes first
PROBLEM = Problem(names=("a", "b", "c"), below=(FREE, 0, FREE), goal=(2, FREE, FREE))
TASK = Blocksworld(stepwise=True)._task("hand", PROBLEM, 4, PROBLEM.goal_towers())
PLAN = "clear a on a c </plan>"
ACTS = ["unstack b a </act>", "put b </act>", "pick a </act>", "stack a c </act>"]
SEEN = [
    "<obs> ; a ; c hold b </obs>",
    "<obs> ; a ; b ; c </obs>",
    "<obs> ; b ; c hold a </obs>",
]


@pytest.fixture(scope="module")
def steps():
    return Blocksworld((2, 4), blocks=[4], stepwise=True)


def episode(turns=8, retry=False, **luck):
    found = Stepwise(TASK, Luck(**luck), turns=turns, retry=retry)
    found.reset(TASK, 0)
    return found


def test_a_demonstration_shows_the_towers_after_each_act(steps):
    turns = [Turn(role="plan", text=PLAN)]
    for act, seen in zip(ACTS, [*SEEN, None], strict=True):
        turns += [Turn(role="act", text=act)] + [Turn(role=None, text=seen)] * (seen is not None)
    assert steps.demonstrate(TASK) == turns


def test_the_environment_answers_as_the_demonstration_does():
    found = episode()
    for act, seen in zip(ACTS, SEEN, strict=False):
        assert found.step(act) == Outcome(done=False, observation=seen)
    assert found.step(ACTS[-1]) == Outcome(done=True, success=True)


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        (["pick b </act>"], "'pick b' needs (ontable b)"),
        ([ACTS[0], "pick a </act>"], "'pick a' needs (handempty)"),
        ([f"{ACTS[0][:-7]} put b </act>"], "one act a turn, found 2"),
        (["unstack b a"], "word 4"),
        (["unstack b z </act>"], "word 3"),
        (["</act>"], "the goal fact (on a c) does not hold at the end"),
        ([*ACTS[:2], "</act>"], "the goal fact (on a c) does not hold at the end"),
    ],
)
def test_what_is_wrong_ends_the_episode_with_its_reason(acts, reason):
    found = episode()
    *before, last = [found.step(act) for act in acts]
    assert [outcome.done for outcome in before] == [False] * len(before)
    assert last.done and not last.success and last.reason.startswith(reason)


def test_with_retry_an_act_that_is_not_legal_changes_nothing():
    found = episode(retry=True)
    assert found.step("stack b c </act>") == Outcome(
        done=False, observation="<obs> ; a b ; c </obs>", reason="'stack b c' needs (holding b)"
    )
    assert [found.step(act).done for act in ACTS] == [False, False, False, True]


def test_the_last_turn_ends_the_episode_whatever_it_does():
    for retry in (False, True):
        found = episode(turns=2, retry=retry)
        assert not found.step(ACTS[0]).done
        last = found.step(ACTS[1])
        assert last.done and not last.success and "(on a c)" in last.reason
    found = episode(turns=1, retry=True)
    assert found.step("pick b </act>").done


def test_what_slips_has_no_effect_and_says_so():
    found = episode(slip=1.0)
    assert found.step(ACTS[0]).observation == SEEN[0]  # only a put or a stack slips
    assert found.step(ACTS[1]) == Outcome(done=False, observation=SEEN[0], reason="'put b' slipped")
    told = episode(flip=1.0).step("pick b </act>")
    assert told.success and told.reason.startswith("flipped by noise; truly: 'pick b' needs")


@pytest.mark.parametrize(
    ("acts", "score", "reason"),
    [
        (ACTS, 1.0, ""),
        (ACTS[:3], 0.0, "expected 4 turns of acts, found 3"),
        ([*ACTS[:3], "put a </act>"], 0.0, "step 4: the plan asks for 'stack a c', found 'put a'"),
        ([*ACTS[:3], "stack a"], 0.0, "word 3"),
    ],
)
def test_acts_follow_a_plan_turn_by_turn(steps, acts, score, reason):
    found = steps.follows(TASK, PLAN, acts)
    assert found.score == score and found.reason.startswith(reason)


def test_a_subgoal_is_read_before_each_of_its_acts(steps):
    assert steps.steps(TASK, PLAN) == ["clear a", "clear a", "on a c", "on a c"]
    # a second `clear a` cannot be carried out: it is read as often as a move takes acts
    assert steps.steps(TASK, "clear a clear a </plan>") == ["clear a"] * 4
    assert Blocksworld((4,), blocks=[4]).steps(TASK, PLAN) == ["clear a", "on a c"]


def test_a_goal_that_holds_already_takes_one_turn_that_says_nothing(steps):
    done = Problem(names=("a", "b"), below=(FREE, 0), goal=(FREE, 0))
    task = Blocksworld(stepwise=True)._task("done", done, 0, done.goal_towers())
    assert [turn.text for turn in steps.demonstrate(task)] == ["</plan>", "</act>"]
    found = Stepwise(task, Luck(), turns=4, retry=False)
    assert found.step("</act>") == Outcome(done=True, success=True)
    assert steps.follows(task, "</plan>", ["</act>"]).score == 1.0


def test_limits_and_words_by_hand(steps):
    """Levels to 4 are two moves, with two to spare: eight primitives of at most three words and the stop."""
    assert (steps.turns, steps.budgets) == (8, {"plan": 13, "act": 4})
    assert Blocksworld((2, 4), blocks=[4], stepwise=True, retry=True).turns == 16
    assert steps.observation == 10
    assert len("<obs> ; a ; b ; c ; d </obs>".split()) == 10
    usual = Blocksworld((2, 4), blocks=[4])
    assert steps.vocabulary() == [*usual.vocabulary(), "<obs>", "</obs>", "hold"]
    assert (usual.turns, usual.budgets["act"], usual.observation) == (1, 25, 0)


def test_nothing_seen_is_longer_than_is_said(steps):
    rng = random.Random(0)
    for task in steps.family(rng, [4] * 20, "train"):
        for turn in steps.demonstrate(task):
            assert turn.role or len(turn.text.split()) <= steps.observation
            assert set(turn.text.split()) <= set(steps.vocabulary())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": True}, "task.retry: only an actor that acts step by step can try again"),
        ({"stepwise": 1}, "task.stepwise: expected true or false, found the whole number 1"),
        ({"stepwise": True, "retry": "yes"}, "task.retry: expected true or false, found the text 'yes'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(RecipeError, match=message):
        Blocksworld((2,), blocks=[4], **options)


def test_acts_of_several_turns_are_judged_as_one(steps):
    said = " ".join(ACTS)
    assert steps.judge_acts(TASK, said) == {"executable": True, "goal": True, "optimal": True}
    found = steps.judge_acts(TASK, " ".join(ACTS[:2]))
    assert found == {"executable": True, "goal": False, "optimal": False}


# trees ------------------------------------------------------------------------------------------------------


def grown(workflow: str, script, taskset, counts, **options):
    roles = SPEAKING[workflow].roles
    engine = Listening(taskset.words(roles), {role: taskset.stop(role) for role in roles}, script=script)
    rollouts = Rollouts(engine, taskset, WorkflowSpec(name=workflow, options=options))
    [tree] = rollouts.grow([TASK], TreeSpec(counts=counts), dict.fromkeys(roles, "base"), 1)
    return rollouts, tree


def said(tree) -> list[tuple]:
    return [(n.role, n.text) for n in tree.nodes[1:]]


def test_a_tree_of_react_by_hand(steps):
    """The third act is not legal, and ends the episode."""
    thoughts = iter(["clear a </think>", "clear a </think>", "on a c </think>"])
    acts = iter([*ACTS[:2], "pick c b </act>"])
    script = lambda policy, text, i, seed: next(thoughts if text.endswith("<think>") else acts)
    _, tree = grown("react", script, steps, {"think": 1, "act": 1})
    assert said(tree) == [
        ("think", "clear a </think>"), ("act", ACTS[0]), (None, f"{SEEN[0]} <think>"),
        ("think", "clear a </think>"), ("act", ACTS[1]), (None, f"{SEEN[1]} <think>"),
        ("think", "on a c </think>"), ("act", "pick c b </act>"),
    ]  # fmt: skip
    assert tree.nodes[-1].reason.startswith("word 3") and tree.nodes[-1].reward_parts["outcome"] == 0.0


def test_a_tree_of_plan_steps_by_hand(steps):
    acts = iter(ACTS)
    script = lambda policy, text, i, seed: PLAN if text.endswith("<plan>") else next(acts)
    _, tree = grown("plan_steps", script, steps, {"plan": 1, "act": 1})
    assert said(tree) == [
        ("plan", PLAN), (None, "clear a"), ("act", ACTS[0]), (None, SEEN[0]), (None, "clear a"),
        ("act", ACTS[1]), (None, SEEN[1]), (None, "on a c"), ("act", ACTS[2]), (None, SEEN[2]),
        (None, "on a c"), ("act", ACTS[3]),
    ]  # fmt: skip
    assert tree.nodes[-1].reward_parts == {"format": 1.0, "outcome": 1.0, "follows": 1.0}


def test_a_plan_is_written_anew_after_an_act_that_was_not_legal():
    steps = Blocksworld((2, 4), blocks=[4], stepwise=True, retry=True)
    plans, acts = iter(["on a c </plan>", PLAN]), iter(["pick a </act>", *ACTS])
    script = lambda policy, text, i, seed: next(plans) if text.endswith("<plan>") else next(acts)
    _, tree = grown("plan_then_act", script, steps, {"plan": 1, "act": 1}, replan_after=1)
    assert said(tree)[:5] == [
        ("plan", "on a c </plan>"), ("act", "pick a </act>"), (None, "<obs> ; a b ; c </obs> <plan>"),
        ("plan", PLAN), ("act", ACTS[0]),
    ]  # fmt: skip
    assert tree.nodes[2].reason == "'pick a' needs (clear a)"
    assert tree.nodes[-1].reward_parts["outcome"] == 1.0


@pytest.mark.parametrize("workflow", ["plan_then_act", "act_only", "react", "plan_steps"])
def test_the_oracle_reaches_every_goal(workflow):
    """The model says what is shown, whatever the level: every measurement is 1."""
    steps = Blocksworld((2, 4, 6), blocks=[4], stepwise=True)
    roles = SPEAKING[workflow].roles
    rollouts = Rollouts(
        Listening(steps.words(roles), {role: steps.stop(role) for role in roles}),
        steps,
        WorkflowSpec(name=workflow),
    )
    tasks = steps.family(random.Random(1), [2, 4, 6, 6], "train")
    follows = {}
    for task in tasks:
        text = rollouts.words.root_text(task)
        for turn, _ in rollouts.turns(task):
            if turn.role:
                follows[text] = turn.text
            text = f"{text} {turn.text}"
    rollouts.engine.script = lambda policy, text, i, seed: follows[text]
    found = evaluate(rollouts, tasks, dict.fromkeys(roles, "base"))
    assert found.scores["eval/e2e"] == [1.0] * 4
    assert all(scores == [1.0] * len(scores) for scores in found.scores.values())


def test_a_state_in_words_has_each_block_once():
    problem = Problem(names=("d", "a", "b"), below=(FREE, 0, 1), goal=(FREE, FREE, FREE))
    state = words.state(problem)
    assert words.seen(problem, state) == "<obs> ; d a b </obs>"
    state = words.run_acts(problem, [("unstack", "b", "a")], begun=state).state
    assert words.seen(problem, state) == "<obs> ; d a hold b </obs>"
