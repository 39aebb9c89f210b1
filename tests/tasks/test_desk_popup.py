"""A popup covers the desk until it is clicked."""

from __future__ import annotations

import random

import pytest

from forethought.core.errors import RecipeError
from forethought.core.types import Turn
from forethought.envs.pool import play
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.table import workflow_of

STEPS = {"stepwise": True, "retry": True}


def desk(popup=0.5, **options):
    return Desk((1, 2, 3), popup=popup, **STEPS, **options)


def test_without_the_option_nothing_is_another_word():
    assert set(desk().vocabulary()) - set(desk(0.0).vocabulary()) == {"popup"}
    assert desk(0.0).vocabulary() == Desk((1, 2, 3), **STEPS).vocabulary()


def test_a_demonstration_closes_each_popup_and_does_the_click_again():
    made = desk()
    tasks = [made.demonstrable(random.Random(i), [3])[0] for i in range(40)]
    task = next(task for task in tasks if len(task.state.popups) == 1)
    turns = made.demonstrate(task)
    at = next(i for i, turn in enumerate(turns) if turn.text.startswith("<obs> popup"))
    _, x, y, _ = turns[at].text.removeprefix("<obs> ").split()[0:4]
    assert turns[at + 1] == Turn(role="act", text=f"popup {x} {y} </act>")
    assert turns[at + 2].text == "<obs> </obs>" and turns[at + 3] == turns[at - 1]
    assert (x, y) not in task.state.cells.values()
    some = sum(len(task.state.popups) for task in tasks)
    assert 40 < some < 80  # of 120 clicks


def test_the_environment_waits_until_it_is_closed():
    made = desk()
    [task] = made.family(random.Random(0), [2], "train")
    acts = [turn.text for turn in made.demonstrate(task) if turn.role == "act"]
    seed = next(
        i
        for i in range(50)
        if "popup" in (play(made.environment(task, True), task, acts, i)[1].observation or "")
    )
    covered, again = play(made.environment(task, True), task, [acts[0], acts[0]], seed)[1:]
    assert covered.reason == again.reason == "a popup covers the desk" and covered.missed
    assert covered.observation == again.observation
    closes = " ".join([*covered.observation.split()[1:4], "</act>"])
    closed = play(made.environment(task, True), task, [acts[0], closes], seed)[2]
    assert not closed.reason and closed.observation == "<obs> </obs>"
    calm = play(made.environment(task, False), task, acts)[1:]
    assert calm[-1].success and all("popup" not in (x.observation or "") for x in calm)


def test_a_thought_names_the_popup():
    made = desk(slip=0.3)
    for i in range(20):
        [task] = made.demonstrable(random.Random(i), [3])
        turns = [turn for turn in workflow_of("react").demonstration(made, task) if turn.role]
        for thought, act in zip(turns[::2], turns[1::2], strict=True):
            words = [word for word in act.text.split() if word[0] not in "xy" or len(word) == 1]
            assert thought.text.split()[:-1] == words[:-1]


@pytest.mark.parametrize(
    ("options", "said"), [({"popup": 1.5, **STEPS}, "task.popup"), ({"popup": 0.1}, "add retry")]
)
def test_a_bad_option_is_named(options, said):
    with pytest.raises(RecipeError, match=said):
        Desk((1,), **options)
