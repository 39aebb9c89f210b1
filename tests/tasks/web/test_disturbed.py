"""Popups and slips on recorded pages and in Chromium, and acting step by step."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from importlib.util import find_spec

import pytest

from forethought.core.errors import RecipeError
from forethought.envs.pool import play
from forethought.envs.web.browser import PROGRAMS
from forethought.interface.elements import Line
from forethought.recipe.options.web import Disturb
from forethought.tasks.web.pages import AGAIN
from forethought.tasks.web.taskset import Web
from forethought.tasks.web.walk import POPUPS, Luck, after, kept
from forethought.tasks.web.words import Act, Speech
from forethought.workflows.table import workflow_of

SMALL = ("login-user", "click-option", "choose-list", "click-tab-2")
ROUGH = {"popup": 0.3, "slip": 0.2}
CHROMIUM = pytest.mark.skipif(
    find_spec("playwright") is None or not any(map(shutil.which, PROGRAMS)), reason="needs a Chromium"
)


def made(**options):
    return Web(**{"tasks": SMALL, "pages": "recorded", "attempts": 20, **options})


def shown(web, name, split="eval"):
    found = (task for level in web.levels for task in web.pool(level, split))
    return next(task for task in found if web.origin(task) == name)


def unlucky(web, task, popups=0, slips=0):
    """The task with a luck in which so much goes wrong in its demonstration."""
    for i in range(1000):
        found = replace(task, state=replace(task.state, luck=str(i)))
        page = web.environment(task, True)
        page.reset(task, str(i))
        for turn in web.demonstrate(found):
            outcome = page.step(turn.text) if turn.role == "act" else None
            parts = outcome.parts if outcome else {}
        if outcome.success and (parts["popups"], parts["slips"]) == (popups, slips):
            return found
    raise AssertionError("no such luck")


def test_what_goes_wrong_is_drawn_by_the_seed_and_as_often_as_asked():
    def drawn(seed):
        luck = Luck(Disturb(popup=0.2, slip=0.1), seed)
        return [(luck.popup(), luck.slipped) for _ in range(2000)], luck.parts

    (found, parts), (other, _) = drawn(1), drawn(2)
    assert drawn(1)[0] == found != other
    assert parts["popups"] == sum(came is not None for came, _ in found) and 340 < parts["popups"] < 460
    assert parts["slips"] == sum(slipped for _, slipped in found) and 150 < parts["slips"] < 250
    assert not any(came and slipped for came, slipped in found)


def test_a_popup_is_shown_with_the_page_and_closed_before_it_goes_on():
    web = made(disturb=ROUGH)
    turns = web.demonstrate(unlucky(web, shown(web, "login-user"), popups=1))
    popup = next(turn.text for turn in turns if turn.role is None)
    closes = next(i for i, turn in enumerate(turns) if turn.role == "plan" and turn.text.count("@;") == 1)
    assert popup.count(":button") == 2 and popup.startswith(":text Username")
    assert turns[closes + 2].text.count(":button") == 1  # gone
    said = " ".join(turn.text for turn in turns if turn.role == "plan")
    assert sum(said.count(op) for op in ("type ", "click ")) > 3


def test_what_is_typed_before_a_popup_stands_in_its_field_behind_it():
    web = made(disturb=ROUGH)
    for i in range(200):
        task = unlucky(web, shown(web, "login-user"), popups=1)
        task = replace(task, state=replace(task.state, luck=f"{i}"))
        seen = [turn.text for turn in web.demonstrate(task) if turn.role is None]
        if seen and "@= " in seen[0] and seen[0].count(":button") == 2:
            return
    raise AssertionError("no popup after a field was filled")


def test_a_click_that_slips_last_is_done_again_and_one_before_others_is_lost():
    web = made(disturb=ROUGH)
    task = unlucky(web, shown(web, "login-user"), slips=1)
    turns = web.demonstrate(task)
    assert [turn.role for turn in turns] == ["plan", "act", None, "plan", "act"]
    assert turns[3].text == "click :button Login @; </plan>"
    page = web.environment(task, True)
    page.reset(task, "0")
    page.walk.luck.popup = lambda: None
    page.walk.luck.slipped = True
    lost = page.step(turns[1].text)
    assert lost.done and not lost.success and lost.reason == "act 2: type before one that slipped"


def test_step_by_step_the_actor_reads_what_has_changed():
    web = made(stepwise=True)
    task = shown(web, "login-user")
    turns = web.demonstrate(task)
    assert [turn.role for turn in turns] == ["plan", "act", None, "act", None, "act"]
    assert [turn.text.split()[0] for turn in turns if turn.role is None] == [":textbox", ":password"]
    assert all(" @= " in turn.text for turn in turns if turn.role is None)
    acts = [turn.text for turn in turns if turn.role == "act"]
    assert web.follows(task, turns[0].text, acts).score == 1
    assert web.follows(task, turns[0].text, acts[:2]).score == 0
    [_, two] = play(web.environment(task, False), task, [f"{acts[0].removesuffix(' </act>')} {acts[1]}"])
    assert two.done and two.reason == "2 acts in a turn that does one"


def test_step_by_step_a_slip_changes_nothing_and_is_repeated():
    web = made(stepwise=True, disturb=ROUGH)
    task = unlucky(web, shown(web, "login-user"), slips=1)
    turns = web.demonstrate(task)
    at = next(i for i, turn in enumerate(turns) if turn.text == "@done")
    assert turns[at - 1] == turns[at + 1] and sum(turn.role == "plan" for turn in turns) == 1


@pytest.mark.parametrize("options", [{}, {"stepwise": True}, {"stepwise": True, "disturb": ROUGH}])
def test_a_thought_stands_before_each_act_and_says_it(options):
    web = made(**options)
    tasks = [web.demonstrable(random.Random(i), [web.levels[i % len(web.levels)]])[0] for i in range(20)]
    for task in tasks:
        turns = [turn for turn in workflow_of("react").demonstration(web, task) if turn.role]
        assert [turn.role for turn in turns] == ["think", "act"] * (len(turns) // 2)
        for thought, act in zip(turns[::2], turns[1::2], strict=True):
            said = [word for word in act.text.split() if word[:1] != "e" or not word[1:].isdigit()]
            assert thought.text.replace(" @;", "").split()[:-1] == said[:-1]


def test_nothing_is_drawn_without_noise():
    web = made(disturb=ROUGH)
    task = shown(web, "login-user")
    act = web.demonstrate(task)[1].text
    for seed in range(20):
        page = web.environment(task, False)
        page.reset(task, seed)
        assert page.step(act).success and not page.step.__self__.walk.luck


def test_the_state_of_a_page_after_an_act():
    box, radio, other = (
        Line(ref=f"l{i}", role=role, name="A") for i, role in enumerate(("checkbox", "radio", "radio"))
    )
    field = Line(ref="l3", role="textbox", name="B", state=("= old", "focused"))
    page = (box, replace(radio, state=("checked",)), other, field)
    assert [x.state for x in after(page, Act("click", "l0"))] == [("checked",), ("checked",), (), field.state]
    assert [x.state for x in after(page, Act("click", "l2"))] == [(), (), ("checked",), field.state]
    assert after(page, Act("type", "l3", "new"))[3].state == ("= new", "focused")
    assert after(after(page, Act("click", "l0")), Act("click", "l0")) == page
    assert after(page, Act("press", "", "Enter")) == page


def test_ids_are_kept_while_everything_shown_is_there():
    old = (Line(ref="l0", role="text", name="A"), Line(ref="l1", role="button", name="Go"))
    now = (
        Line(ref="e7", role="text", name="A"),
        Line(ref="e8", role="link", name="B"),
        replace(old[1], ref="e9"),
    )
    assert [line.ref for line in kept(old, now, "3")] == ["l0", "3.1", "l1"]
    assert kept(old, now[1:], "3") is None
    speech = Speech(0)
    speech.page(old)
    assert speech.changes(old, old) == "@done"
    new = kept(old, now, "3")
    [said] = [word for word in speech.changes(old, new).split() if word.startswith("e")]
    assert said not in speech.page(old)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"disturb": {"popup": 1.2}}, "task.disturb.popup"),
        ({"disturb": {"popup": 0.7, "slip": 0.7}}, "at most 1 together"),
        ({"disturb": {"crash": 0.1}}, "task.disturb.crash"),
        ({"stepwise": True, "pictures": 1}, "task.pictures"),
    ],
)
def test_a_bad_option_is_named(options, said):
    with pytest.raises(RecipeError, match=said):
        made(**options)


@CHROMIUM
@pytest.mark.parametrize("options", [{}, {"stepwise": True}])
def test_chromium_shows_what_the_recording_does_and_lets_the_oracle_win(options):
    """Popups close, fields keep what was typed, and slips leave everything as it is."""
    web = made(pages="eval", disturb=ROUGH, **options)
    recorded = made(disturb=ROUGH, **options)
    try:
        for name, bad in (("login-user", {"popups": 1, "slips": 1}), ("choose-list", {"popups": 1})):
            task = unlucky(recorded, shown(recorded, name), **bad)
            turns = web.demonstrate(task)
            page = web.environment(shown(web, name), True)
            acts = [turn.text for turn in turns if turn.role == "act"]
            _, *seen = play(page, task, acts, seed=task.state.luck)
            assert [x.observation for x in seen[:-1]] == [turn.text for turn in turns if turn.role is None]
            assert seen[-1].success and seen[-1].parts["popups"] == 1
            assert {x.reason for x in seen[:-1]} <= {
                AGAIN,
                "",
                *(f"act {i}: covered, a popup has come" for i in (1, 2, 3)),
            }
    finally:
        web.close()


def test_popups_say_different_things():
    assert len({button for _, button in POPUPS}) == len(POPUPS) >= 3
