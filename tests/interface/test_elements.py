"""Elements in words: the grammar both ways, the exact grounder, and the shortest words for a line."""

from __future__ import annotations

import random

import pytest

from forethought.interface.elements import Element, Line, describe, find, ground, parse, render
from forethought.interface.result import Parsed, Refusal

INBOX = [
    Line(ref="e7", role="heading", name="Primary"),
    Line(ref="e3", role="text", name="Kylie"),
    Line(ref="e9", role="img", name="trash"),
    Line(ref="e1", role="text", name="Ann"),
    Line(ref="e4", role="img", name="trash"),
    Line(ref="e5", role="textbox"),
    Line(ref="e6", role="textbox"),
    Line(ref="", role="option", name="red"),
    Line(ref="e8", role="button", name='Say "it\'s" 日本'),
]


@pytest.mark.parametrize(
    ("text", "element"),
    [
        ("button", Element(role="button")),
        ('button "Click Me!"', Element(role="button", name="Click Me!")),
        ('img "trash" after "Kylie"', Element(role="img", name="trash", after="Kylie")),
        ('img after "Kylie" #2', Element(role="img", after="Kylie", place=2)),
        ("tab #-1", Element(role="tab", place=-1)),
        ('button "Say \\"it\'s\\" 日本"', Element(role="button", name='Say "it\'s" 日本')),
        ('button ""', Element(role="button", name="")),
        ('after "after" after "x"', Element(role="after", name="after", after="x")),
    ],
)
def test_words_are_read_and_written(text, element):
    assert parse(text) == Parsed(element) and render(element) == text


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("", 1, "a role, such as button, comes first"),
        ('"Submit"', 1, "a role"),
        ("button Submit", 8, "expected the end"),
        ('button "Submit', 8, "not closed"),
        ('button "a" "b"', 12, "expected the end"),
        ("button #0", 8, "followed by a number"),
        ("button #2x", 8, "followed by a number"),
        ("button #99999", 8, "followed by a number"),
        ('button #1 after "x"', 11, "expected the end"),
        ("img after Kylie", 11, "a text in double quotes"),
        ('button "a  b"', 1, "white space that no name has"),
        ("img afterwards", 5, "expected the end"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_character(text, position, said):
    refusal = parse(text)
    assert isinstance(refusal, Refusal) and refusal.position == position and said in refusal.reason


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ('heading "Primary"', "e7"),
        ('img "trash" after "Kylie"', "e9"),
        ('img "trash" after "Ann"', "e4"),
        ('img "trash" #2', "e4"),
        ("img #-2", "e9"),
        ("textbox #1", "e5"),
        ('textbox after "Ann" #2', "e6"),
    ],
)
def test_words_mean_one_line(text, ref):
    found = ground(text, INBOX)
    assert isinstance(found, Parsed) and found.value.ref == ref


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('link "Primary"', "no such element"),
        ("textbox", "there are 2 of them; say which: #1 to #2"),
        ("textbox #3", "there are 2 of them"),
        ('img "trash" after "Bob"', "0 lines are named 'Bob'"),
        ('text "Kylie" after "trash"', "2 lines are named 'trash'"),
        ('text "Kylie" after "Ann"', "no such element below the anchor"),
        ('option "red"', "no such element"),
    ],
)
def test_words_that_mean_nothing_or_two_are_refused(text, said):
    found = ground(text, INBOX)
    assert isinstance(found, Refusal) and said in found.reason


def test_the_shortest_words_for_each_line():
    said = [describe(line, INBOX) for line in INBOX if line.ref]
    assert said == [
        'heading "Primary"',
        'text "Kylie"',
        'img "trash" after "Kylie"',
        'text "Ann"',
        'img "trash" after "Ann"',
        'textbox after "Ann"',
        "textbox #2",
        'button "Say \\"it\'s\\" 日本"',
    ]
    with pytest.raises(ValueError, match="no line of this snapshot"):
        describe(Line(ref="", role="option", name="red"), INBOX)


def test_every_line_of_any_snapshot_is_found_by_its_words():
    rng = random.Random(0)
    for _ in range(300):
        refs = rng.sample(range(200), rng.randint(1, 12))
        lines = [
            Line(ref=f"e{ref}", role=rng.choice("abc"), name=rng.choice(["", "x", "y", "z", 'q"\\']))
            for ref in refs
        ]
        for line in lines:
            words = describe(line, lines)
            assert find(parse(words).value, lines) is line, (words, lines)
