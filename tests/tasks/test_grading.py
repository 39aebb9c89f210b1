"""Answers compared: decided pairs of every kind, and what must hold for all of them (reflexive, symmetric,
dress counts for nothing)."""

from __future__ import annotations

import random
import re

import pytest
from grading_cases import ALGEBRA, APART, EQUAL, MORE, REPORTED

from forethought.tasks.grading import algebra, expressions
from forethought.tasks.grading.dress import undressed
from forethought.tasks.grading.units import unit
from forethought.tasks.grading.values import read
from forethought.tasks.math.grading import MathVerify, exact, installed
from forethought.tasks.text.answers import canonical, same

TEXTS = sorted(
    {
        text
        for table in (EQUAL, ALGEBRA, APART)
        for gold, answers in table.items()
        for text in (gold, *answers)
    }
    | {text for gold, answer, _ in REPORTED + MORE for text in (gold, answer)}
)
DRESS = (
    r"\boxed{%s}",
    "$%s$",
    r"\(%s\)",
    "**%s**",
    " %s\n",
    "%s.",
    r"\textcolor{red}{%s}",
    "The answer is %s",
    r"{%s}",
    "%s\u200b",
)


def test_the_lists_are_large_enough_to_mean_something():
    assert sum(map(len, EQUAL.values())) > 500 and sum(map(len, APART.values())) > 700 and len(REPORTED) > 80


@pytest.mark.parametrize("gold", EQUAL)
def test_what_says_the_same_is_equal(gold):
    assert [answer for answer in EQUAL[gold] if not (same(gold, answer) and same(answer, gold))] == []


@pytest.mark.parametrize("gold", APART)
def test_what_says_something_else_is_not_equal(gold):
    assert [answer for answer in APART[gold] if same(gold, answer) or same(answer, gold)] == []


@pytest.mark.skipif(not installed(), reason="math-verify (the extra `math`) is not installed")
@pytest.mark.parametrize("order", [1, -1])
def test_a_larger_algebra_tells_what_exact_reading_cannot(order):
    grade = MathVerify(seconds=20)
    try:
        pairs = [(gold, answer)[::order] for gold, answers in ALGEBRA.items() for answer in answers]
        assert [pair for pair in pairs if grade(*pair).score != 1.0] == []
        assert [
            (gold, answer)
            for gold in ("3 4", "1e3", "5'", "f(2)", "x2", r"10 \approx 9")
            for answer in APART[gold]
            if grade(gold, answer).score or grade(answer, gold).score
        ] == []
        assert grade(r"\sin x", r"\cos x").score == grade(r"\ln 2", "0.693147").score == 0.0
    finally:
        grade.close()


@pytest.mark.parametrize(("gold", "answer", "equal"), REPORTED + MORE)
def test_the_pairs_of_public_bug_reports_and_of_later(gold, answer, equal):
    assert (exact(gold, answer).score == 1.0, exact(answer, gold).score == 1.0) == (equal, equal)


def test_every_text_equals_itself():
    assert [text for text in TEXTS if not same(text, text) or not same(text, text + " ")] == []


def test_the_relation_is_symmetric_over_all_pairs_of_a_sample():
    sample = random.Random(0).sample(TEXTS, 150)
    assert [(a, b) for i, a in enumerate(sample) for b in sample[:i] if same(a, b) != same(b, a)] == []


@pytest.mark.parametrize("dress", DRESS)
def test_dress_counts_for_nothing(dress):
    """Numbers, fractions, sets, intervals, expressions and words in every dress. (Bold and money signs may
    not meet their own kind.)"""
    golds = [
        "24",
        "-4",
        "1,234",
        r"\frac{1}{2}",
        "3.5",
        "(1,2)",
        "[0,1)",
        r"\{1,2\}",
        r"4\sqrt{2}",
        "x^2+1",
        "Evelyn",
        "C",
        r"\pm 7",
        "52_8",
        r"18\text{ cm}^2",
        "10:30 a.m.",
        "June 5",
        r"28\%",
        r"90^\circ",
        "x=5",
        "1,2",
    ]
    assert [gold for gold in golds if not same(gold, dress % gold)] == []


def test_another_digit_is_another_answer():
    """Every text of the lists that holds a number, with one of its digits changed. Left out: where a changed
    digit can keep the value (0/3, 1^2, a binomial, an item of a set that is there twice)."""
    rng, wrong = random.Random(1), []
    for text in TEXTS:
        digits = [match.start() for match in re.finditer(r"[1-9]", text)]
        if (
            not digits
            or len(text) > 60
            or canonical(text) in ("0", "1", "-1")
            or re.search(r"\*0|0/|\{0\}|binom|1,1|00!", text)
        ):
            continue
        at = rng.choice(digits)
        other = text[:at] + str(int(text[at]) % 9 + 1) + text[at + 1 :]
        if same(text, other):
            wrong.append((text, other))
    assert wrong == []


@pytest.mark.parametrize("number", ["7", "-7", "0.5", "12", "1234", "3/4"])
@pytest.mark.parametrize(
    "wrong",
    [
        "1{}",
        "{}1",
        "-{}",
        "{}.5",
        "2({})",
        "{}^2",
        "{}x",
        "{} million",
        "({0},{0})",
        "{0}, {0}",
        "not {}",
        "{} or 0",
        "{}_9",
        "{}:30 p.m.",
    ],
)
def test_what_is_added_to_a_number_makes_another_answer(number, wrong):
    assert not same(number, wrong.format(number))


def test_random_texts_are_answers_and_never_faults():
    rng, signs = (
        random.Random(2),
        "0123456789+-*/^_=<>()[]{}|\\,.;:!'\"$%&~ \n\tabxyzeiπ√∞≤±∪∈°²½⟦⟧£€\u00a0\u2212\u200b\u0305\ud800",
    )
    for _ in range(1500):
        text = "".join(rng.choice(signs) for _ in range(rng.randrange(14)))
        other = rng.choice(TEXTS)
        other = (
            other[: rng.randrange(len(other) + 1)]
            + rng.choice(signs)
            + other[rng.randrange(len(other) + 1) :]
        )
        for a, b in ((text, other), (other, other)):
            assert same(a, b) == same(b, a)
            canonical(a)


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9^{9}}}}",
        "10^{10^{10}}",
        "100000000!",
        "2^{1000000000}",
        "(x+y+z)^{5000}",
        "(" * 150 + "1" + ")" * 150,
        "{" * 150 + "1" + "}" * 150,
        "(x+y+z+w+v+u)^{60}",
        "1e999999999",
        r"\binom{100000}{50000}",
        r"\sqrt[99999]{2}",
        "!" * 300,
        "\\frac" * 80,
        "-" * 400,
        r"\sqrt" * 60 + "2",
        "1,234" * 80,
        "((((((((((x+1)^{9})^{9})^{9})^{9})^{9})^{9})^{9})^{9})^{9})^{9}",
        "x^{-" * 30 + "1" + "}" * 30,
        "1/" * 150 + "7",
        "3!!!!!!!!!!",
        "2^{2^{2^{2^{2^{2}}}}}",
        "\\text{" * 60,
        "1 and " * 60 + "1",
        "(1,2)," * 60 + "(1,2)",
        "9" * 400,
        "9" * 5000,
        "0." + "3" * 390 + "...",
    ],
)
def test_large_and_deep_answers_are_bounded_and_equal_themselves_alone(text):
    assert same(text, text)
    assert not same("7", text) and not same(text, "7")
    canonical(text)


def test_nothing_is_computed_before_its_size_is_known():
    with pytest.raises(algebra.TooLargeError):
        expressions.read("9^{9^{9}}")
    with pytest.raises(algebra.TooLargeError):
        expressions.read("(a+b+c+d+e+f)^{64}")
    assert algebra.value(expressions.read("2^{1000}")) == 2**1000
    assert read("100000000!").kind == "scalar"  # a name, not a number


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"**\(\dfrac12\)**.", r"\frac{1}{2}"),
        (r"18\,\text{ cm}^2", "18 ⟦cm⟧^2"),
        ("\u2212\u00a04", "- 4"),
        (r"\left( 1,\; 2 \right)", "( 1,  2 )".replace("  ", " ")),
        (r"\boxed{\boxed{5}}", "5"),
        ("x²", "x^{2}"),
        (r"\$5", "＄5"),
        ("$5$", "5"),
        (r"90^{\circ}", "90°"),
    ],
)
def test_dress_is_taken_off(text, plain):
    assert undressed(text) == plain


@pytest.mark.parametrize(
    "words",
    [
        "million",
        "not sure",
        "is wrong",
        "x y",
        "June",
        "BC",
        "gross",
        "squared",
        "or",
        "times",
        "less",
        "remainder two",
        "of them",
        "degrees north",
    ],
)
def test_words_that_are_no_unit(words):
    assert unit(words) is None


@pytest.mark.parametrize(
    "words",
    [
        "cm",
        "⟦ m⟧",
        "miles per hour",
        "sq. ft.",
        "red apples",
        "slices of pizza",
        "dollars each",
        "cm^2",
        "years old",
        "km/h",
    ],
)
def test_words_that_are_a_unit(words):
    assert unit(words)
