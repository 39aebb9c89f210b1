"""Blink on web pages: what matters is found from the oracle's steps."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from forethought.interface.elements import Line
from forethought.interface.gui import Step
from forethought.interface.result import Refusal
from forethought.tasks.web import blinking
from forethought.tasks.web.demonstrations import Page
from forethought.tasks.web.taskset import Web
from forethought.tasks.web.words import Speech
from forethought.workflows.blink_think_link import demonstration

TAGS = {"plan": "think", "act": "link"}
REF = re.compile(r"e\d+")
LINES = (
    Line(ref="a", role="text", name="Kylie"),
    Line(ref="b", role="img", name="trash"),
    Line(ref="c", role="text", name="Ann"),
    Line(ref="d", role="img", name="trash", state=("on",)),
    Line(ref="e", role="button", name="Send"),
)
PAGE = Page(
    lines=LINES,
    steps=(
        Step(op="click", target='img "trash" after "Ann"'),
        Step(op="click", target='button "Send"'),
        Step(op="click", target='text "Kylie"'),  # which was never done
    ),
    refs=("d", "e"),
)


def test_what_steps_touch_comes_first_and_then_their_anchors():
    found = blinking.focuses(PAGE)
    assert [(one.line.ref, one.rank, one.why) for one in found] == [
        ("d", 1, "touched"),
        ("e", 2, "touched"),
        ("c", 3, "anchor"),
    ]
    assert [one.line.ref for one in blinking.focuses(PAGE, most=2)] == ["d", "e"]


def test_an_element_that_is_touched_twice_is_one_region():
    again = Page(lines=LINES, steps=PAGE.steps[:1] * 2, refs=("d", "d"))
    assert [one.line.ref for one in blinking.focuses(again)] == ["d", "c"]


def speech() -> Speech:
    made = Speech(3)
    made.page(LINES)
    return made


def test_a_look_is_judged_by_what_it_names():
    own, found = speech(), blinking.focuses(PAGE)
    look = blinking.said(found, own)
    d, e, c, a = (own.ref_of(LINES[i]) for i in (3, 4, 2, 0))
    assert look.split()[-1] == "</blink>" and "on" not in look.split()
    assert blinking.parsed(look) == [d, e, c] and blinking.judged(look, found, own).score == 1
    other_order = f":img x {c} :button y {d} :text z {e} </blink>"
    assert blinking.judged(other_order, found, own).score == 1
    few = blinking.judged(f":img x {d} :button y {e} </blink>", found, own)
    assert (few.score, few.reason) == (0, f"{c} is missing")
    many = blinking.judged(look.replace("</blink>", f":text w {a} </blink>"), found, own)
    assert (many.score, many.reason) == (0, f"{a} does not matter")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends with </blink>"),
        (":img e3", "ends with </blink>"),
        ("img e3 </blink>", "begins with its role"),
        (":img trash </blink>", "ends with its id"),
        (":img e3 :img e3 </blink>", "e3 is named twice"),
        (" ".join(f":img e{i}" for i in range(1, 7)) + " </blink>", "at most 5"),
    ],
)
def test_what_is_no_look_is_refused(text, reason):
    found = blinking.parsed(text)
    assert isinstance(found, Refusal) and reason in str(found)


def test_a_page_on_which_nothing_matters_has_an_empty_look():
    assert blinking.parsed("</blink>") == []


def test_demonstrations_look_before_each_thought():
    web = Web(tasks=("click-tab-2", "login-user"), pages="recorded", tags=TAGS)
    several = next(t for level in web.levels for t in web.pool(level, "eval") if len(t.state.shown.pages) > 1)
    turns = demonstration(web, several)
    pages = len(several.state.shown.pages)
    assert [turn.role for turn in turns] == (["blink", "think", "link", None] * pages)[:-1]
    for turn in turns:
        if turn.role:
            assert turn.text.endswith(f"</{turn.role}>")
    first = turns[0].text
    assert web.parse_look(several, first).score == web.judge_look(several, first).score == 1
    words = set(web.words(("blink", "think", "link")))
    assert {word for turn in turns for word in turn.text.split()} <= words


def test_every_look_of_the_file_can_be_read():
    web = Web(tasks="web-12", pages="recorded", tags=TAGS)
    for level in web.levels:
        for task in web.pool(level, "eval")[:6]:
            assert web.judge_look(task, web.look(task)).score == 1
            assert len(web.later_looks(task)) == len(task.state.shown.pages) - 1


def test_the_command_writes_rows(tmp_path):
    out = tmp_path / "blink.jsonl"
    command = [sys.executable, "-m", "forethought.tasks.web.blinking", "--tasks", "login-user", "--n", "1"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=60)
    [row] = map(json.loads, out.read_text("utf-8").splitlines())
    assert row["task"] == "login-user" and len(row["focuses"]) == 3
    assert {one["why"] for one in row["focuses"]} <= {"touched", "anchor"}
    path = Path(str(files("forethought.tasks.web"))) / "demonstrations.jsonl.gz"
    assert next(blinking.rows(path, ["login-user"], 1)) == row


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_popup_is_looked_at_too(stepwise):
    web = Web(
        tasks=("click-tab-2", "login-user"),
        pages="recorded",
        tags=TAGS,
        disturb={"popup": 0.5},
        attempts=30,
        stepwise=stepwise,
    )
    rng, popups = random.Random(0), 0
    for task in web.demonstrable(rng, [web.levels[-1]] * 8):
        seen = {word for word in task.prompt.split() if REF.fullmatch(word)}
        roles, ids = [], []
        for turn in demonstration(web, task):
            roles.append(turn.role)
            if turn.role is None:
                seen = {word for word in turn.text.split() if REF.fullmatch(word)} | (
                    seen if stepwise else set()
                )
            if turn.role == "blink":
                ids = blinking.parsed(turn.text)
                assert ids and set(ids) <= seen  # of the page that is there now
            if turn.role == "link":  # and what is acted on first is what was looked at first
                acted = next(word for word in turn.text.split() if REF.fullmatch(word))
                assert roles[-2] != "think" or acted == ids[0]
        assert roles.count("blink") == roles.count("think")
        popups += roles.count("think") - len(task.state.shown.pages)
    assert popups > 4


def test_the_command_takes_all_tasks_that_have_demonstrations_and_refuses_the_others(capsys):
    assert blinking.main(["--tasks", "click-color", "--n", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "click-color"
    assert blinking.main(["--tasks", "click-colour"]) == 2
    assert "click-colour" in capsys.readouterr().err
