"""Blocksworld in sentences and under other names, and what a reader of language is told before a task."""

from __future__ import annotations

import random

import pytest

from forethought.core.errors import RecipeError
from forethought.tasks.blocksworld.problem import Problem
from forethought.tasks.blocksworld.taskset import Blocksworld
from forethought.tasks.blocksworld.wordings import MYSTERY, WORDINGS
from forethought.tasks.desk.taskset import Desk

# b stands on a, c alone; wanted: c on b
HAND = Problem(names=("a", "b", "c"), below=(-1, 0, -1), goal=(-1, -1, 1))


def test_the_sentences_of_a_problem_by_hand():
    plain, mystery = WORDINGS["language"], WORDINGS["mystery"]
    assert plain.context(HAND) == (
        "As it is now: block a is on the table, block b is on block a, block c is on the table, "
        "nothing is on block b, nothing is on block c, the hand is empty."
    )
    assert plain.prompt([["b", "c"]]) == "What is wanted: block c is on block b."
    assert mystery.context(HAND) == (
        "As it is now: planet a, b craves a, planet c, province b, province c, harmony."
    )
    assert mystery.prompt([["b", "c"]]) == "What is wanted: c craves b."
    assert WORDINGS["towers"].context(HAND) == "<init> ; a b ; c"


@pytest.mark.parametrize("name", WORDINGS)
def test_a_wording_changes_words_and_nothing_else(name):
    ours, other = Blocksworld((4, 6)), Blocksworld((4, 6), wording=name, told=True)
    for seed in range(5):
        [a] = ours.family(random.Random(seed), [6], "train")
        [b] = other.family(random.Random(seed), [6], "train")
        assert (a.id, a.state) == (b.id, b.state)
        plan, act = other.demonstrate(b)
        assert WORDINGS[name].heard(plan.text) == ours.demonstrate(a)[0].text
        assert other.judge_plan(b, plan.text).score == other.follows(b, plan.text, [act.text]).score == 1
        assert other.judge_acts(b, act.text) == {"executable": True, "goal": True, "optimal": True}
        environment = other.environment(b, noise=False)
        environment.reset(b, 0)
        assert environment.step(act.text).success
        assert other.spelled(b, plan.text) == plan.text
        said = " ".join([b.context, b.prompt, plan.text, act.text, other.told])
        assert set(said.split()) <= set(other.vocabulary())


def test_under_other_names_the_familys_own_verbs_mean_nothing():
    other = Blocksworld((4,), wording="mystery")
    [task] = other.family(random.Random(0), [4], "train")
    plan, act = other.demonstrate(task)
    assert not set(f"{plan.text} {act.text}".split()) & set(MYSTERY)
    assert not other.judge_plan(task, WORDINGS["mystery"].heard(plan.text)).score
    assert not other.judge_acts(task, WORDINGS["mystery"].heard(act.text))["executable"]
    assert not set(f"{other.told} {WORDINGS['mystery'].told}".split()) & {"block", "hand", "pick", "stack"}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"wording": "latin"}, "task.wording"),
        ({"wording": 3}, "task.wording"),
        ({"wording": "language", "stepwise": True}, "task.wording"),
        ({"told": "yes"}, "task.told"),
    ],
)
def test_options_that_cannot_be(options, where):
    with pytest.raises(RecipeError) as caught:
        Blocksworld((4,), **options)
    assert caught.value.where == where


@pytest.mark.parametrize("plans", ["words", "path", "json"])
def test_a_desk_tells_its_rules_in_its_own_tags(plans):
    desk = Desk((1, 2), plans=plans, told=True, tags={"plan": "think", "act": "do"}, parents=2)
    assert "</think>" in desk.told
    assert "</do>" in desk.told
    assert "two widgets" in desk.told
    assert set(desk.told.split()) <= set(desk.vocabulary())
    assert Desk((1, 2)).told == ""


def test_a_refusal_says_the_words_that_are_written_here():
    other = Blocksworld((4,), wording="mystery")
    (task,) = other.family(random.Random(0), [4], "train")
    x, y = task.state.names[:2]
    said = other.parse_plan(task, f"clear {x} </plan>").reason
    assert said == "word 1: found 'clear', expected 'province' or 'craves'"
    assert other.judge_plan(task, f"craves {x} {x} </plan>").reason.count("clear") == 0
    outcome = other.environment(task, noise=False).step(f"stack {x} {y} </act>")
    assert outcome.reason.startswith("word 1: found 'stack', expected 'attack'")
    assert WORDINGS["language"].told_of("found 'x'") == "found 'x'"
