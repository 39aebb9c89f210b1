"""Oracles on the first page of each of the 56 tasks, as Chromium showed it (seed 11), and pages by hand."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.envs.web.miniwob import MINIWOB_56
from forethought.interface.elements import Line, ground
from forethought.interface.gui import Step
from forethought.interface.result import Parsed
from forethought.tasks.web.oracles import ORACLES, View, steps

PAGES = json.loads(Path(__file__).with_name("first_pages.json").read_text("utf-8"))
READ_THE_PACKAGE = {
    "click-checkboxes-soft",
    "email-inbox-forward-nl",
    "email-inbox-forward-nl-turk",
    "email-inbox-nl-turk",
}


def lines(*rows):
    return tuple(Line(ref=ref, role=role, name=name, state=tuple(state)) for ref, role, name, *state in rows)


def test_each_task_of_the_list_has_an_oracle():
    assert set(ORACLES) == set(MINIWOB_56) == set(PAGES)
    with pytest.raises(UserError, match="click-buton"):
        steps("click-buton", View(utterance="", lines=()))


@pytest.mark.parametrize("task", sorted(PAGES))
def test_the_first_page(task):
    if task in READ_THE_PACKAGE and find_spec("miniwob") is None:
        pytest.skip("reads a table of the package miniwob")
    page = PAGES[task]
    seen = lines(*page["lines"])
    found = steps(task, View(utterance=page["utterance"], lines=seen))
    assert [[step.op, step.target, step.value] for step in found] == page["steps"] and found
    assert isinstance(ground(found[0].target, seen), Parsed)


@pytest.mark.parametrize("task", sorted(PAGES))
def test_an_oracle_that_sees_nothing_knows_no_step(task):
    if task in READ_THE_PACKAGE and find_spec("miniwob") is None:
        pytest.skip("reads a table of the package miniwob")
    assert steps(task, View(utterance="", lines=())) == []


def test_a_search_goes_on_where_it_was():
    tabs = lines(("e1", "tab", "A"), ("e2", "tab", "B"), ("e3", "tab", "C"))
    asked = 'Switch between the tabs to find and click on the link "x".'
    past: tuple[Step, ...] = ()
    for name in ("B", "C"):
        [step] = steps("click-tab-2", View(utterance=asked, lines=tabs, past=past))
        assert step == Step(op="click", target=f'tab "{name}"')
        past += (step,)
    found = (*tabs, Line(ref="e4", role="link", name="x"))
    assert steps("click-tab-2", View(utterance=asked, lines=found, past=past))[0].target == 'link "x"'


@pytest.mark.parametrize(
    ("guesses", "told", "next_guess"),
    [
        ((), "", "4"),
        ((4,), "higher", "7"),
        ((4,), "lower", "1"),
        ((4, 7), "lower", "5"),
        ((4, 7), "higher", "8"),
    ],
)
def test_a_guess_halves_what_is_left(guesses, told, next_guess):
    shown = [("e1", "spinbutton", ""), ("e2", "button", "Submit")]
    if told:
        shown.append(("e3", "text", f"The number is {told} than"))
    past = tuple(Step(op="type", target="spinbutton", value=str(n)) for n in guesses)
    found = steps("guess-number", View(utterance="Guess", lines=lines(*shown), past=past))
    assert found[0].value == next_guess


def test_tic_tac_toe_wins_and_blocks():
    def board(cells):
        return lines(*((f"e{i}", "cell", str(i), *([c] if c != "." else [])) for i, c in enumerate(cells)))

    for cells, best in (("xx.oo....", "2"), ("oo.x.....", "2"), ("x...o....", "8")):
        found = steps("tic-tac-toe", View(utterance="", lines=board(cells)))
        assert len(found) == 1
        if best != "8":
            assert found[0].target == f'cell "{best}"'
