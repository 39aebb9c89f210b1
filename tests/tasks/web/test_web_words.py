"""Pages, plans and acts in a closed vocabulary, and back: nothing is lost."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from forethought.envs.web.miniwob import MINIWOB_56
from forethought.interface.elements import Line, describe, ground
from forethought.interface.gui import Step
from forethought.interface.result import Parsed, Refusal
from forethought.tasks.web import words
from forethought.tasks.web.demonstrations import _shown
from forethought.tasks.web.splits import FIRST
from forethought.tasks.web.words import Act, Full, Speech, joined, numbers_of, pieces

PAGES = json.loads(Path(__file__).with_name("first_pages.json").read_text("utf-8"))
SMALL = replace(
    words.shipped(), pieces=frozenset(["Username", "Password", "Login", "after"])
)  # a vocabulary of a few pieces
SHIPPED_56 = words.shipped("words-56.json")
LOGIN = (
    Line(ref="a", role="textbox", name="Username", state=("= bob-7", "focused")),
    Line(ref="b", role="password", name="Password"),
    Line(ref="", role="option", name="red"),
    Line(ref="c", role="button", name="Login"),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(words, "shipped", lambda: SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "Sign in, now!",
        "x@y.com",
        "it's 5:30 PM",
        '"quoted" (so)',
        "日本 é_ü",
        "5€ €€+1",
        '("a", "b").',
        "@glue",
    ],
)
def test_a_text_is_pieces_and_back(text):
    assert joined(pieces(text)) == text
    speech = Speech(0)
    assert speech.meant(speech.said(text).split()) == text


def test_rare_words_are_slots_drawn_anew_and_the_same_throughout_an_episode():
    one, other = Speech(1), Speech(2)
    page = one.page(LOGIN).split()
    slots = [word for word in page if word.startswith("w")]
    assert page[:2] == [":textbox", "Username"] and len(slots) == 4
    assert "+-+" in page  # bob-7
    assert one.said("bob") in slots and one.said("bob") != other.said("bob")
    again = one.page(LOGIN).split()
    assert again != page and one.said("bob") in again
    assert set(page) <= {*SMALL.words()}


def test_a_word_is_the_same_word_in_quotes_and_at_the_end():
    speech = Speech(1)
    word = speech.said("dolor")
    assert speech.said('Click "dolor".') == f'{speech.said("Click")} "+ {word} +" +.'
    assert (
        speech.said("dolor,") == f"{word} +,"
        and speech.said("5:30") == f"{speech.said('5')} +:+ {speech.said('30')}"
    )


def test_an_act_says_its_element_and_then_its_id():
    speech = Speech(4)
    ref = speech.page(LOGIN).split()[-1]
    act = Act("click", "c", target='button "Login"')
    assert speech.act([act], "</act>") == f"click :button Login {ref} </act>"
    [read] = speech.read_acts(f"click :button Login {ref} </act>", "</act>").value
    assert read == act and read.target == act.target
    assert speech.read_acts(f"click :textbox #2 {ref} </act>", "</act>").value == (act,)  # the id decides
    for wrong in (f"press Login {ref} </act>", "click :button Login @; </act>"):
        assert "ends with an id of the page" in str(speech.read_acts(wrong, "</act>"))


def test_a_plan_for_a_page_that_is_not_here_can_be_read_loosely():
    said = "click :link w7 +. @; </plan>"
    assert isinstance(Speech(0).read_plan(said, "</plan>"), Refusal)
    assert isinstance(Speech(0, loose=True).read_plan(said, "</plan>"), Parsed)
    assert isinstance(Speech(0, loose=True).read_plan("click :link seven @; </plan>", "</plan>"), Refusal)


def test_a_plan_and_its_acts_are_written_and_read():
    speech = Speech(3)
    speech.page(LOGIN)
    steps = (
        Step(op="type", target='textbox "Username"', value="bob-7"),
        Step(op="click", target='button "Login" after "Password" #1'),
        Step(op="press", value="-"),
    )
    text = speech.plan(steps, "</plan>")
    assert speech.read_plan(text, "</plan>") == Parsed(steps)
    acts = (
        Act("type", "a", "bob-7", "textbox"),
        Act("select", "b", "", "password"),
        Act("click", "c", None, 'button "Login"'),
        Act("press", "", "-"),
    )
    assert speech.read_acts(speech.act(acts, "</act>"), "</act>") == Parsed(acts)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("", 1, "does not end with"),
        ("click :button", 3, "does not end with"),
        ("</plan>", 1, "a step ends with @;"),
        ("click :button </plan>", 3, "a step ends with @;"),
        ("drag :button @; </plan>", 1, "expected one of click"),
        ("click @; </plan>", 1, "says no element"),
        ("click button @; </plan>", 2, "neither a role nor a text"),
        ("click Login @; </plan>", 2, "takes no value"),
        ("click :widget @; </plan>", 2, "neither a role nor a text"),
        ("click :button w1 @; </plan>", 3, "a word that the page does not have"),
        ("click Login :button Login @; </plan>", 2, "takes no value"),
        ("type nowhere :textbox @; </plan>", 2, "neither a role nor a text"),
        ("type Login @; </plan>", 1, "says no element"),
        ("click :button @; @; click :button @; </plan>", 4, "a step is empty"),
    ],
)
def test_what_no_plan_says_is_refused_at_its_word(text, position, said):
    refusal = Speech(0).read_plan(text, "</plan>")
    assert isinstance(refusal, Refusal) and refusal.position == position and said in refusal.reason


def test_acts_name_ids_of_this_page_alone():
    speech = Speech(0)
    speech.page(LOGIN)
    old = speech.act([Act("click", "c", None, "button")], "</act>")
    for text in ("click :button e300 </act>", "click :button Login </act>", "</act>"):
        assert "ends with an id of the page" in str(speech.read_acts(text, "</act>"))
    speech.page(LOGIN[:1])
    assert isinstance(speech.read_acts(old, "</act>"), Refusal) or speech.read_acts(old, "</act>") != Parsed(
        (Act("click", "c", None, "button"),)
    )


def test_more_than_there_are_words_for_is_said():
    with pytest.raises(Full, match="more than 160 words"):
        Speech(0).said(" ".join(f"x{i}" for i in range(161)))
    with pytest.raises(Full, match="more than 120 elements"):
        Speech(0).page([Line(ref=f"r{i}", role="button") for i in range(121)])


def test_every_page_that_was_seen_can_be_said_and_every_element_of_it():
    rng = random.Random(0)
    for task, page in PAGES.items():
        lines = [Line(ref=r, role=role, name=name, state=tuple(s)) for r, role, name, *s in page["lines"]]
        speech = Speech(task)
        try:
            speech.said(page["utterance"])
            speech.page(lines)
        except Full:
            continue
        for line in rng.sample([x for x in lines if x.ref], min(5, len([x for x in lines if x.ref]))):
            steps = (Step(op="click", target=describe(line, lines)),)
            assert speech.read_plan(speech.plan(steps, "</plan>"), "</plan>") == Parsed(steps), task


ICONS = (
    Line(ref="a", role="text", name="Kylie", state=(".sender",)),
    Line(ref="b", role="img", name="trash"),
    Line(ref="c", role="img", name="star", state=("#ff0000", "on")),
    Line(ref="d", role="text", name="Ann", state=(".sender",)),
    Line(ref="e", role="img", name="trash"),
    Line(ref="f", role="circle", state=("blue", "8x8", "19,-9")),
    Line(ref="g", role="circle"),
)


def test_a_vocabulary_that_numbers_says_which_and_leaves_out_what_no_step_says():
    assert numbers_of(ICONS) == {"a": 0, "b": 1, "c": 0, "d": 0, "e": 2, "f": 1, "g": 2}
    numbered = replace(
        SMALL, numbered=True, pieces=frozenset(["trash", "star", "on", "blue", "8x8", ".sender"])
    )
    speech = Speech(0, vocabulary=numbered)
    said = re.sub(r"\b[we]\d+", "?", speech.page(ICONS)).split(" :")
    assert said == [
        ":text ? ? #1 .sender",
        "img trash #1 ?",
        "img star ? on",
        "text ? ? #2 .sender",
        "img trash #2 ?",
        "circle blue 8x8 #1 ?",
        "circle #2 ?",
    ]
    long = Line(ref="h", role="text", name=" ".join(["after"] * 11))
    said = Speech(0, vocabulary=numbered).page([long]).split()
    assert len(said) == words.LONG + 3 and said[-2] == words.MORE
    for number, line in enumerate(ICONS):
        meant = describe(line, ICONS, anchors=False)
        assert ground(meant, ICONS) == Parsed(ICONS[number])
        step, ref = speech.plan([Step(op="click", target=meant)], "").split(" @; ")[0], line.ref
        act = speech.act([Act("click", ref, None, meant)], "")
        assert act.rsplit(" ", 2)[0] == step
        seen = speech.page(ICONS).replace(" blue 8x8", "")  # which stands between the words of a step
        assert step.removeprefix("click ") in seen


def test_a_word_and_the_mark_that_ends_a_name_are_one_piece_where_elements_are_numbered():
    names = ["ut.", "ut,", "ut", "it, ut."]
    links = [Line(ref=str(i), role="link", name=name) for i, name in enumerate(names)]
    speech = Speech(0, vocabulary=replace(SMALL, numbered=True))
    full, comma, bare, two = (said.split()[1:-1] for said in speech.page(links)[1:].split(" :"))
    assert len(full) == len(comma) == len(bare) == 1 and len({*full, *comma, *bare}) == 3
    assert two[-1:] == full and speech.said("ut.") == full[0]
    asked = speech.question('Find "ut." and then ut.').split()
    assert asked[3:5] == [full[0], '+"'] and asked[-2:] == [bare[0], "+."]
    for text in ("ut.", 'x. "y." z.', "a,", "...", '"."'):
        assert joined(pieces(text, "name")) == joined(pieces(text, "question")) == text
        assert speech.meant(speech.said(text).split()) == text


def test_a_later_page_ends_with_the_question_where_elements_are_numbered():
    for numbered in (False, True):
        speech = Speech(0, vocabulary=replace(SMALL, numbered=numbered))
        page, asked = speech.page(LOGIN), speech.question("Login, after")
        assert asked == "@ask Login +, after" and "@ask" not in page
        assert speech.next_page(LOGIN).endswith(asked) == numbered


def test_every_task_of_the_list_has_demonstrations_that_can_be_said():
    numbered = SHIPPED_56
    rows: dict[str, list[str]] = {}
    with gzip.open(
        Path(words.__file__).with_name("demonstrations-56.jsonl.gz"), "rt", encoding="utf-8"
    ) as file:
        for row in file:
            rows.setdefault(row.split('"', 4)[3], []).append(row)
    assert set(rows) == set(MINIWOB_56)
    for task, found in rows.items():
        held = [row for row in found if int(re.search(r'"seed":(\d+)', row)[1]) < FIRST]
        assert len(held) >= 20 and len(found) - len(held) >= 100, task
        shown = _shown(json.loads(held[0]))
        speech = Speech(task, vocabulary=numbered)
        said = f"{speech.page(shown.pages[0].lines)} {speech.question(shown.utterance)}"
        plan = speech.plan(shown.pages[0].steps, "</plan>")
        assert {*said.split(), *plan.split()[:-1]} <= {*numbered.words()}
        assert speech.read_plan(plan, "</plan>") == Parsed(shown.pages[0].steps)
