"""Blink, think, link on desk: looks and paths, worked out by hand on one screen."""

from __future__ import annotations

import pytest

from forethought.core.types import Task
from forethought.interface.result import Refusal
from forethought.tasks.desk.blink import mistake
from forethought.tasks.desk.screens import Goal
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.blink_think_link import demonstration

TAGS = {"plan": "think", "act": "link"}
# e is on the desk, s hangs from e, c from s; w hangs from e too
PARENTS = {"e": ("desk",), "s": ("e",), "c": ("s",), "w": ("e",)}
CELLS = {"e": ("x8", "y9"), "s": ("x5", "y7"), "c": ("x3", "y4"), "w": ("x0", "y0")}
HAND = Task(
    id="hand",
    taskset="desk",
    level=3,
    context="c s x3 y4 e desk x8 y9 w e x0 y0 s e x5 y7",
    prompt="GOAL c v3",
    state=Goal(parents=PARENTS, cells=CELLS, goal="c", value="v3"),
)
DESK = Desk((1, 2, 3), widgets=4, plans="path", tags=TAGS)


def test_what_is_shown_of_each_role():
    assert [(turn.role, turn.text) for turn in demonstration(DESK, HAND)] == [
        ("blink", "c s e </blink>"),
        ("think", "e s c </think>"),
        ("link", "e x8 y9 s x5 y7 c x3 y4 v3 </link>"),
    ]


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        ("c s e </blink>", 1.0, ""),
        ("e c s </blink>", 1.0, ""),  # in any order
        ("c s </blink>", 0.0, "they are no way from c up to the desk"),
        ("c s e w </blink>", 0.0, "they are no way from c up to the desk"),
        ("s e </blink>", 0.0, "the goal c is not among them"),
        ("c s e e </blink>", 0.0, "a widget is named twice"),
    ],
)
def test_a_look_is_judged_by_what_it_names(text, score, reason):
    judged = DESK.judge_look(HAND, text)
    assert DESK.parse_look(HAND, text).score == 1.0 and (judged.score, judged.reason) == (score, reason)


@pytest.mark.parametrize(
    "text", ["", "c s e", "c s e </think>", "</blink>", "c x3 </blink>", "c s e w c </blink>"]
)
def test_what_is_no_look_is_refused(text):
    assert isinstance(DESK.looks.parse(text), Refusal) and not DESK.judge_look(HAND, text).score


def test_with_two_parents_either_way_is_seen():
    parents = {"e": ("desk",), "f": ("desk",), "c": ("e", "f")}
    assert [mistake(parents, "desk", "c", seen) for seen in (("c", "e"), ("f", "c"))] == ["", ""]
    assert mistake(parents, "desk", "c", ("c", "e", "f")) == "they are no way from c up to the desk"


def test_a_path_is_the_plan_from_the_top_down():
    assert DESK.oracle_plan(HAND) == "e s c </think>"
    assert DESK.judge_plan(HAND, "e s c </think>").score == 1.0
    wrong = DESK.judge_plan(HAND, "w s c </think>")
    assert (wrong.score, wrong.reason) == (0.0, "word 2: s does not hang from w")
    assert DESK.follows(HAND, "e s c </think>", ["e x8 y9 s x5 y7 c x3 y4 v3 </link>"]).score == 1.0
