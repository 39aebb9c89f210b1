"""ReWOO's plans and abstract chains: what they say, and where each mistake stands."""

from __future__ import annotations

import random

import pytest

from forethought.interface import chains, rewoo
from forethought.interface.result import Parsed, Refusal
from forethought.interface.uses import MOST_CHARACTERS, Use

TOOLS = ("Search", "Lookup", "Calc")
PLAN = """Plan: find out where the match was played
#E1 = Search[final of 1966 [men]]
Plan: look up how many live there
#E2 = Lookup[people of #E1]
Plan: twice as many, and #E1 again
#E3 = Calc[#E2 * 2 + #E2]"""


def test_a_plan_of_rewoo_is_read_and_written():
    uses = rewoo.parse(PLAN, TOOLS).value
    assert [(u.name, u.tool, u.given, u.needs) for u in uses] == [
        ("#E1", "Search", "final of 1966 [men]", ()),
        ("#E2", "Lookup", "people of #E1", ("#E1",)),
        ("#E3", "Calc", "#E2 * 2 + #E2", ("#E2",)),
    ]
    assert uses[2].says == "twice as many, and #E1 again"
    assert rewoo.render(uses) == PLAN
    words = rewoo.render(uses, spaced=True)
    assert words.startswith("Plan : find out") and rewoo.parse(words, TOOLS) == Parsed(uses)


def test_references_are_exact_to_the_token():
    """The released code reads #E10 as #E1 and a 0, and has no evidence for it."""
    steps = [f"Plan: {i}\n#E{i} = Calc[{i}]" for i in range(1, 11)]
    uses = rewoo.parse("\n".join([*steps, "Plan: sum\n#E11 = Calc[#E10 + #E1]"]), TOOLS).value
    assert uses[-1].needs == ("#E10", "#E1")
    assert uses[-1].filled(rewoo.NAME, {"#E1": "7", "#E10": "9"}) == "9 + 7"
    chain = " ".join([*(f"[{i} = y{i}]" for i in range(1, 11)), "[y10 + y1 = y11]"])
    assert (
        chains.parse(chain, TOOLS, "Calc").value[-1].filled(chains.NAME, {"y1": "7", "y10": "9"}) == "9 + 7"
    )


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 1, "found the end of the text, expected 'Plan:'"),
        ("  hello", 3, "found 'hello', expected 'Plan:'"),
        ("Plan: a", 8, "expected '#E... = TOOL[...]': each Plan is followed by exactly one"),
        (
            "Plan: a Plan: b #E1 = Calc[1]",
            9,
            "expected '#E... = TOOL[...]': each Plan is followed by exactly one",
        ),
        ("Plan: a #E1 = Calc[1] #E2 = Calc[2]", 23, "found '#E2', expected 'Plan:'"),
        ("Plan: a #E1 = Google[1]", 15, "there is no tool 'Google'; take Calc, Lookup or Search"),
        ("Plan: a #E1 = Calc[1 [2]", 19, "the bracket that opens here is never closed"),
        ("Plan: a #E1 = Calc[ ]", 21, "#E1 gives Calc nothing"),
        ("Plan: a #E1 = Calc[1] Plan: b #E1 = Calc[2]", 31, "#E1 is defined a second time"),
        ("Plan: a #E1 = Calc[#E1 + 1]", 20, "#E1 refers to itself"),
        ("Plan: a #E1 = Calc[#E3 + 1]", 20, "#E3 is not defined; nothing stands before it"),
        (
            "Plan: a #E1 = Calc[1] Plan: b #E2 = Calc[#E1 + #E7]",
            48,
            "#E7 is not defined; before it stand #E1",
        ),
        (
            "Plan: a #E1 = Calc[#E2] Plan: b #E2 = Calc[1]",
            20,
            "#E1 refers forward to #E2, which is defined after it",
        ),
        (
            "Plan: a #E1 = Calc[#E2] Plan: b #E2 = Calc[#E3] Plan: c #E3 = Calc[#E1]",
            20,
            "#E1 waits for itself: #E1 needs #E2 needs #E3 needs #E1",
        ),
    ],
)
def test_a_plan_that_is_none_is_refused_at_its_character(text, position, reason):
    assert rewoo.parse(text, TOOLS) == Refusal(position=position, reason=reason, unit="character")


def test_a_plan_without_end_is_refused():
    many = "\n".join(f"Plan: a\n#E{i} = Calc[{i}]" for i in range(1, 6))
    assert "a plan has at most 4" in rewoo.parse(many, TOOLS, most=4).reason
    assert rewoo.parse("x" * (MOST_CHARACTERS + 1), TOOLS).position == MOST_CHARACTERS + 1
    assert "16,384" in chains.parse("[" * (MOST_CHARACTERS + 1), TOOLS).reason


def test_a_chain_is_read_and_written():
    """The example of the paper, and a query with the tool that answers it."""
    text = "Ann has [20 + 35 = y1] nuts, of 90 are [90 - y1 = y2] left, by [y2 of Rome -Search-> y3]"
    uses = chains.parse(text, TOOLS, "Calc").value
    assert [(u.name, u.tool, u.given, u.needs, u.says) for u in uses] == [
        ("y1", "Calc", "20 + 35", (), "Ann has"),
        ("y2", "Calc", "90 - y1", ("y1",), "nuts, of 90 are"),
        ("y3", "Search", "y2 of Rome", ("y2",), "left, by"),
    ]
    assert chains.render(uses, "Calc") == text
    assert chains.parse(chains.render(uses, "Calc", spaced=True), TOOLS, "Calc") == Parsed(uses)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("no step", 8, "found the end of the text, expected a step such as [1 + 2 = y1]"),
        ("[1 + 2 = y1", 1, "the bracket that opens here is never closed"),
        ("[1 = y1] ] [2 = y2]", 10, "this bracket closes nothing"),
        ("[1 = y1] ]", 10, "this bracket closes nothing"),
        ("[1 + 2]", 2, "'1 + 2' ends with no placeholder such as = y1"),
        ("[= y1]", 2, "y1 gives Calc nothing"),
        ("[Rome -Google-> y1]", 8, "there is no tool 'Google'; take Calc, Lookup or Search"),
        ("[y2 + 1 = y1] [1 = y2]", 2, "y1 refers forward to y2, which is defined after it"),
        ("[y2 + 1 = y1] [y1 = y2]", 2, "y1 waits for itself: y1 needs y2 needs y1"),
        ("[1 + y1 = y1]", 6, "y1 refers to itself"),
        ("[1 + y4 = y1]", 6, "y4 is not defined; nothing stands before it"),
        ("[1 = y1] [2 = y1]", 15, "y1 is defined a second time"),
    ],
)
def test_a_chain_that_is_none_is_refused_at_its_character(text, position, reason):
    assert chains.parse(text, TOOLS, "Calc") == Refusal(position=position, reason=reason, unit="character")


def test_without_a_calculator_a_formula_says_who_answers():
    assert "there is no calculator" in chains.parse("[1 + 2 = y1]", ("Search",)).reason


@pytest.mark.parametrize(
    ("worked", "abstract"),
    [
        ([("20 + 35", "55"), ("90 - 55", "35")], [("20 + 35", "y1"), ("90 - y1", "y2")]),
        # 5 is given, and stays; 15 is not 5
        ([("5 * 3", "15"), ("15 - 5", "10")], [("5 * 3", "y1"), ("y1 - 5", "y2")]),
        ([("0.5 * 4", "2"), ("2.5 + 2", "4.5")], [("0.5 * 4", "y1"), ("2.5 + y1", "y2")]),
        ([("1 + 1", "2"), ("4 - 2", "2"), ("2 + 1", "3")],
 [("1 + 1", "y1"), ("4 - y1", "y2"), ("y2 + 1", "y3")]),
    ],
)  # fmt: skip
def test_worked_steps_become_abstract_ones(worked, abstract):
    assert chains.abstracted(worked) == abstract


def test_random_text_is_read_or_refused_and_what_is_read_comes_back():
    rng, read = random.Random(5), 0
    pieces = [
        "Plan: a",
        "#E1 = Calc[1]",
        "#E2 = Calc[#E1]",
        "[",
        "]",
        "[1 = y1]",
        "[y1 -Lookup-> y2]",
        "= y3",
        " ",
    ]
    for _ in range(3000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(14)))
        for parse, write in (
            (lambda t: rewoo.parse(t, TOOLS), rewoo.render),
            (lambda t: chains.parse(t, TOOLS, "Calc"), lambda uses: chains.render(uses, "Calc")),
        ):
            answer = parse(text)
            if isinstance(answer, Parsed):
                read += 1
                assert parse(write(answer.value)) == answer
            else:
                assert 1 <= answer.position <= len(text) + 1 and answer.unit == "character"
    assert read > 10


def test_a_use_is_filled_with_values_once():
    """A value that looks like a name is no name."""
    use = Use(name="#E3", tool="Calc", given="#E1 + #E2", needs=("#E1", "#E2"))
    assert use.filled(rewoo.NAME, {"#E1": "#E2", "#E2": "5"}) == "#E2 + 5"
