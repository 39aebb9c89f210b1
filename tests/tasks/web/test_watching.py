"""What is kept of watched episodes: steps as pairs for the metrics of grounding, films, and what went
wrong."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from forethought.core.grounding import Did, Wanted, grounding
from forethought.core.types import Node, Tree, Undrawn
from forethought.envs.images import name_of
from forethought.envs.pool import play
from forethought.envs.screen import png
from forethought.envs.screen.marks import number
from forethought.interface.elements import Line
from forethought.interface.gui import Step
from forethought.tasks.web.pages import marked
from forethought.tasks.web.taskset import Web
from forethought.tasks.web.watching import Attempt, Shot, fault, film, pairs
from forethought.tasks.web.words import Act

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def web():
    return Web(tasks=("login-user",), pages="recorded")


def tree(task, plan, act, **parts):
    return Tree(
        task=task,
        nodes=(
            Node(id=0, parent=None, role=None, text=task.prompt, token_ids=()),
            Node(id=1, parent=0, role="plan", text=plan, token_ids=(), status="finished"),
            Node(id=2, parent=1, role="act", text=act, token_ids=(), status="finished", reward_parts=parts),
        ),
    )


def test_steps_of_an_episode_are_compared_with_what_its_plan_means(web):
    [task] = web.family(random.Random(0), [3], "eval")
    plan, act = (turn.text for turn in web.demonstrate(task))
    name, password, _ = re.findall(r"\w+ .*? e\d+", act)
    other = " ".join([name, password, re.sub(r"type .* :", "click :", name), "</act>"])
    web.watch([task])
    for said in (act, other):
        play(web.environment(task, False), task, [said])
    found = web.groundings(tree(task, plan, act))
    assert [did.op for did, _ in found] == ["type", "type", "click"]
    assert grounding(found) == {
        "steps": 3,
        "step_success": 1,
        "element_accuracy": 1,
        "operation_f1": 1,
        "operation": 1,
    }
    assert grounding(web.groundings(tree(task, plan, other)))["element_accuracy"] == pytest.approx(2 / 3)
    assert web.groundings(tree(task, plan, "click :button e1 </act>")) == []  # that was not played
    assert web.film(tree(task, plan, act)) is None  # a recording has no pictures
    web.watch([replace(task, state=Undrawn("no page"))])  # nothing to watch, and nothing breaks
    play(web.environment(task, False), task, [act])
    assert web.groundings(tree(task, plan, act)) == []  # nobody watched


LINES = (
    Line(ref="a", role="button", name="Yes", box=(0, 0, 40, 20)),
    Line(ref="b", role="button", name="No", box=(50, 0, 40, 20)),
)
YES, NO = Act("click", "a"), Act("click", "b")
DONE, COVERED = ("done", ""), ("covered", "another element lies over it")


PLAN = (Step(op="click", target='button "Yes"'),)


def attempt(acts, became, meant=(YES,), plan=PLAN, needed=None):
    shot = Shot(lines=LINES, said="", became=list(became), needed=needed, picture=PNG, width=90, height=20)
    return Attempt(shot, plan, acts, meant)


@pytest.mark.parametrize(
    "one, wrong, reason",
    [
        (attempt((YES,), [DONE]), "", ""),
        (attempt((NO,), [DONE]), "element", "step 1: the grounder chose another element"),
        (attempt((NO,), [COVERED]), "element", "step 1: the grounder chose another element"),
        (attempt((YES,), [COVERED]), "page", "step 1: covered, another element lies over it"),
        (attempt((), []), "element", "step 1 was not done"),
        (attempt((YES, NO), [DONE, DONE]), "element", "2 acts where 1 were planned"),
        (attempt("word 2: found 'e9'", []), "element", "word 2: found 'e9'"),
        (attempt("word 2: found 'e9'", [], meant=("no such element",)), "words", "step 1: no such element"),
        (attempt((YES,), [DONE], meant=("no such element",)), "words", "step 1: no such element"),
        (attempt((YES,), [DONE], meant=(), plan="word 1: found 'x'"), "words", "word 1: found 'x'"),
    ],
)
def test_an_attempt_goes_wrong_in_one_of_three_ways(one, wrong, reason):
    found, why = fault(one)
    assert found == wrong and why.startswith(reason)


def test_a_click_is_where_the_chosen_element_is():
    [(did, wanted)] = pairs([attempt((NO,), [DONE])])
    assert did == Did(op="click", element="b", point=(70, 10))
    assert wanted == Wanted(op="click", element="a", box=(0, 0, 40, 20))
    assert pairs([attempt("unread", [])])[0][0] is None
    assert pairs([attempt((YES, YES), [DONE], meant=(YES, YES), needed=1)]) == [
        (Did(op="click", element="a", point=(20, 10)), wanted)
    ]


def test_a_film_says_where_it_went_wrong(web):
    [task] = web.family(random.Random(0), [3], "eval")
    good = film(task, [attempt((YES,), [DONE])], True, "", "")
    assert good.success and good.wrong == good.reason == "" and good.asked == task.state.shown.utterance
    [frame] = good.frames
    assert good.pictures == {frame.image: PNG} and frame.image == name_of(PNG)
    assert frame.planned[0].said == 'click button "Yes"' and frame.chosen[0].box == (0, 0, 40, 20)
    assert "pictures" not in good.told() and good.told()["frames"][0]["width"] == 90
    bad = film(task, [attempt((NO,), [DONE])], False, "the page says -1", "")
    assert (bad.wrong, bad.frames[0].chosen[0].good, bad.frames[0].chosen[0].note) == (
        "element",
        False,
        "another than was meant",
    )
    # done as planned, and not what was asked: the plan is wrong
    led = film(task, [attempt((YES,), [DONE])], False, "the page says -1", "")
    assert led.wrong == "words" and led.frames[0].reason == "the page says -1"
    assert film(task, [], False, "", "") is None
    # a mistake that was mended does not hide the one that the episode ended with
    late = [attempt((NO,), [DONE]), attempt((YES,), [DONE]), attempt((YES,), [DONE])]
    told = film(task, late, False, "no end within 3 attempts", "")
    assert [frame.wrong for frame in told.frames] == ["element", "", "words"] and told.wrong == "element"
    first = film(task, late[1:], False, "no end within 2 attempts", "act 1: found another")
    assert [(x.wrong, x.reason[:5]) for x in first.frames] == [("words", "act 1"), ("words", "no en")]


def test_ids_are_drawn_where_the_elements_are():
    lines = [
        Line(ref="a", role="button", name="Go", box=(10, 10, 30, 12)),
        Line(ref="b", role="text", name="no id", box=(50, 10, 20, 12)),
    ]
    white = np.full((80, 160, 3), 255, np.uint8)
    seen = png.read(marked(png.write(white), 80, lines, {"a": 31}))
    changed = (seen != 255).any(-1)
    assert changed[20:44, 20:80].any() and not changed[:, 90:].any() and not changed[:18].any()
    # digits of two pixels each, in a field with an edge of two
    digits = (seen[20 + 2 : 20 + 12, 20 + 2 : 20 + 16] == 255).all(-1)
    assert (digits[::2, ::2] == number(31)).all()


def test_a_thought_is_a_plan_and_a_link_acts():
    web = Web(tasks=("login-user",), pages="recorded", tags={"plan": "think", "act": "link"})
    [task] = web.family(random.Random(0), [3], "eval")
    plan, act = (turn.text for turn in web.demonstrate(task))
    web.watch([task])
    play(web.environment(task, False), task, [act])
    said = tree(task, plan, act)
    roles = {"plan": "think", "act": "link", None: None}
    found = web.groundings(replace(said, nodes=tuple(replace(n, role=roles[n.role]) for n in said.nodes)))
    assert grounding(found)["steps"] == 3 and grounding(found)["step_success"] == 1
