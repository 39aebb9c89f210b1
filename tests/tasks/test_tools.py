"""`tools`: problems, plans and answers, worked out by hand; the calculator and what it refuses."""

from __future__ import annotations

import random

import pytest

from forethought.core.errors import RecipeError
from forethought.core.types import Task
from forethought.tasks.conformance import conformance
from forethought.tasks.tools.calculator import Wrong, calculate
from forethought.tasks.tools.problem import Has, Problem, sentence
from forethought.tasks.tools.taskset import Tools

# d = b + c, b = a + 12, c = 3 * e; a has 47 and e has 8: b has 59, c 24, d 83
RULES = {
    "b": Has(rule="plus", who="a", by=12),
    "c": Has(rule="times", who="e", by=3),
    "d": Has(rule="plus", who="b", other="c"),
}
NUMBERS = {"a": 47, "e": 8}
CONTEXT = "b has a plus 1 2 ; c has e times 3 ; d has b plus c ;"
REWOO = (
    "Plan : d b a c e #E1 = Look [ e ] Plan : c has e times 3 #E2 = Calc [ #E1 * 3 ] "
    "Plan : a #E3 = Look [ a ] "
    "Plan : b has a plus 1 2 #E4 = Calc [ #E3 + 1 2 ] Plan : d has b plus c #E5 = Calc [ #E4 + #E2 ] </plan>"
)
CHAIN = (
    "d b a c e [ e -Look-> y1 ] c has e times 3 [ y1 * 3 = y2 ] a [ a -Look-> y3 ] "
    "b has a plus 1 2 [ y3 + 1 2 = y4 ] d has b plus c [ y4 + y2 = y5 ] </plan>"
)


def hand(book: frozenset[str] = frozenset(), given: bool = False) -> Task:
    problem = Problem(goal="d", value=83, rules=RULES, numbers=NUMBERS, book=book, given=given)
    return Task(id="hand", taskset="tools", level=3, context=CONTEXT, prompt="ASK d", state=problem)


def test_sentences_say_the_rules():
    assert " ".join(f"{sentence(name, has)} ;" for name, has in RULES.items()) == CONTEXT
    assert sentence("f", Has(rule="minus", who="b", by=7)) == "f has b minus 7"


def test_the_plan_is_worked_out_from_the_goal_and_carried_out_in_reverse():
    assert hand().state.order() == ["d", "b", "a", "c", "e"]
    assert Tools((3,)).oracle_plan(hand()) == REWOO
    assert Tools((3,), plans="chain").oracle_plan(hand()) == CHAIN
    # numbers that are told are no steps
    told = Tools((3,), plans="chain", numbers="given").oracle_plan(hand(given=True))
    assert told == (
        "d b c c has e times 3 [ 8 * 3 = y1 ] b has a plus 1 2 [ 4 7 + 1 2 = y2 ] "
        "d has b plus c [ y2 + y1 = y3 ] </plan>"
    )


def test_a_worked_chain_has_its_results_in_it():
    tools, task = Tools((3,), plans="worked", numbers="given"), hand(given=True)
    [turn] = tools.demonstrate(task)
    assert turn.text == (
        "d b c c has e times 3 [ 8 * 3 = 2 4 ] b has a plus 1 2 [ 4 7 + 1 2 = 5 9 ] "
        "d has b plus c [ 5 9 + 2 4 = 8 3 ] </act>"
    )
    for act, success in ((turn.text, True), (turn.text.replace("8 3", "8 4"), False), ("d </act>", False)):
        outcome = tools.environment(task, False).step(act)
        assert (outcome.done, outcome.success) == (True, success)
    with pytest.raises(RecipeError, match='task.plans: .*add numbers = "given"'):
        Tools((3,), plans="worked")


def test_a_demonstration_is_the_plan_one_by_one():
    tools = Tools((3,))
    assert [turn.text for turn in tools.demonstrate(hand())][1:] == [
        "Look [ e ] </act>", "8", "Calc [ 8 * 3 ] </act>", "2 4", "Look [ a ] </act>", "4 7",
        "Calc [ 4 7 + 1 2 ] </act>", "5 9", "Calc [ 5 9 + 2 4 ] </act>", "8 3", "Finish [ 8 3 ] </act>",
    ]  # fmt: skip
    assert tools.steps(hand(), REWOO) == [
        "d b a c e",
        "c has e times 3",
        "a",
        "b has a plus 1 2",
        "d has b plus c",
        "so",
    ]


def test_who_is_in_the_second_register_is_found_there_and_not_before():
    tools, task = Tools((3,), plans="chain", book=1.0), hand(book=frozenset("e"))
    assert tools.oracle_plan(task) == CHAIN  # nobody can know
    assert tools.repaired(task) == CHAIN.replace("e -Look->", "e -Book->") and not tools.repaired(hand())
    assert tools.answers(task, CHAIN) == {"y3": "4 7", "y4": "5 9"}
    judged = tools.judge_plan(task, CHAIN)
    assert (judged.score, judged.reason) == (0.0, "y1: Look does not know 'e'")
    assert tools.judge_plan(task, tools.repaired(task)).score == 1.0
    assert [turn.text for turn in tools.demonstrate(task)][1:5] == [
        "Look [ e ] </act>", "none", "Book [ e ] </act>", "8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REWOO, ""),
        (REWOO.replace("#E3 + 1 2", "#E3 + 1 3"), "#E5 is 8 4, d has 8 3"),
        (REWOO.replace("* 3", "/ 0"), "#E2: the calculator: division by zero"),
        (REWOO.replace("Look [ e ]", "Look [ z ]"), "#E1: Look does not know 'z'"),
        (REWOO.removesuffix(" </plan>"), f"character {len(REWOO) - 7}: found the end of the text, expected"),
        (REWOO.replace("#E4 + #E2", "#E4 + #E9"), "#E9 is not defined"),
        (REWOO.replace("#E1 * 3", "#E2 * 3"), "#E2 refers to itself"),
        ("Plan : d " * 3 + "</plan>", "expected '#E... = TOOL[...]'"),
    ],
)
def test_a_plan_is_judged_by_what_its_tools_bring(text, reason):
    judged = Tools((3,)).judge_plan(hand(), text)
    assert judged.score == float(not reason) and reason in judged.reason


@pytest.mark.parametrize(
    ("act", "answer", "done", "success"),
    [
        ("Look [ a ] </act>", "4 7", False, False),
        ("Look [ b ] </act>", "none", False, False),
        ("Book [ a ] </act>", "none", False, False),
        ("Calc [ ( 4 7 + 1 2 ) * 2 ] </act>", "1 1 8", False, False),
        ("Calc [ 7 / 2 ] </act>", "none", False, False),
        ("Finish [ 8 3 ] </act>", None, True, True),
        ("Finish [ 8 4 ] </act>", None, True, False),
        ("8 3 </conclude>", None, True, True),
        ("8 3 </act>", None, True, False),
        ("Ask [ a ] </act>", None, True, False),
        ("8 3", None, True, False),
        ("", None, True, False),
    ],
)
def test_what_the_tools_answer(act, answer, done, success):
    outcome = Tools((3,)).environment(hand(), False).step(act)
    assert (outcome.observation, outcome.done, outcome.success) == (answer, done, success)
    assert bool(outcome.reason) == (done and not success or "7 / 2" in act)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("1 2 + 3", 15), ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("[2 + 3] * 4", 20), ("8 / 4 / 2", 1),
        ("2 - 3 - 4", -5), ("- 5 + 2", -3), ("7 / 2 * 2", 7), ("0 * 9", 0), ("10 - - 2", 12),
    ],
)  # fmt: skip
def test_the_calculator_is_exact(formula, value):
    assert calculate(formula) == value


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("", "found 'the end', expected a number"),
        ("1 / 0", "division by zero"),
        ("7 / 2", "is no whole number"),
        ("1 +", "found 'the end', expected a number"),
        ("1 ) 2", "it goes on with ')'"),
        ("( 1 + 2", "'(' is never closed"),
        ("( 1 ]", "'(' is never closed"),
        ("1 + none", "no number or sign: 'none'"),
        ("9 ** 9", "found '*', expected a number"),
        ("9" * 19, "a number of 19 digits"),
        ("999999999 * 999999999 * 9", "more than 18 digits"),
        ("(" * 40 + "1" + ")" * 40, "nested more than 32 deep"),
        ("1 + " * 200 + "1", "longer than 512 characters"),
    ],
)
def test_the_calculator_says_what_it_cannot_work_out(formula, reason):
    with pytest.raises(Wrong) as said:
        calculate(formula)
    assert reason in str(said.value)


@pytest.mark.parametrize(
    "options", [{}, {"plans": "chain", "numbers": "given"}, {"digits": 4, "together": 1, "spare": 4}]
)
def test_it_keeps_what_a_taskset_promises(options):
    assert [finding for finding in conformance(Tools((1, 4, 8), **options)) if finding.wrong] == []


def test_its_levels_are_calculations_and_the_oracle_is_right():
    for options in ({}, {"book": 0.5}):
        tools, rng = Tools((1, 2, 3, 4), **options), random.Random(1)
        for level in tools.levels * 20:
            [task] = tools.family(rng, [level], "train")
            uses = tools.uses(task, tools.oracle_plan(task))
            assert sum(use.tool == "Calc" for use in uses) == level
            assert tools.judge_plan(task, tools.repaired(task) or tools.oracle_plan(task)).score == 1.0


@pytest.mark.parametrize(
    ("key", "options", "levels"),
    [
        ("task.plans", {"plans": "json"}, ()),
        ("task.digits", {"digits": 5}, ()),
        ("task.digits", {"digits": True}, ()),
        ("task.book", {"book": 1.5}, ()),
        ("task.spare", {"spares": 1}, ()),
        ("task.levels", {}, (9,)),
    ],
)
def test_an_option_that_it_lacks_is_refused_by_its_key(key, options, levels):
    with pytest.raises(RecipeError) as said:
        Tools(levels, **options)
    assert said.value.where == key or said.value.where.startswith(key)
