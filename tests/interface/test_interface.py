"""Word grammars: against an enumeration of whole languages, and against random values and random text."""

from __future__ import annotations

import doctest
import random
import re
from itertools import product
from pathlib import Path

import pytest

from forethought.core.types import Verdict
from forethought.interface.grammar import Choice, Fixed, Grammar, Repeat, Sequence, Word
from forethought.interface.result import Parsed, Refusal, verdict
from forethought.tasks.blocksworld.words import act_grammar, plan_grammar

A, B, AB, STOP = Word(("a",)), Word(("b",)), Word(("a", "b")), Fixed(".")

# grammar, and three sentences with their values, by hand
SMALL = {
    "a list": (
        Sequence((Repeat(AB, 1, 3), STOP)),
        {"a .": ("a",), "b a .": ("b", "a"), "a a a .": ("a", "a", "a")},
    ),
    "optional": (
        Sequence((Repeat(A, 0, 1), B, Repeat(Word(("c",)), 0, 1))),
        {"b": ((), "b", ()), "a b": (("a",), "b", ()), "a b c": (("a",), "b", ("c",))},
    ),
    "two kinds of step": (
        Sequence((Repeat(Choice((Sequence((A, B)), Sequence((Word(("c",)), AB, B)))), 0, 2), STOP)),
        {".": (), "a b .": (("a", "b"),), "c b b a b .": (("c", "b", "b"), ("a", "b"))},
    ),
    "an option that can be empty": (
        Sequence((Choice((Repeat(A, 0, 2), B)), STOP)),
        {".": (), "a a .": ("a", "a"), "b .": "b"},
    ),
    "exactly two": (
        Sequence((Repeat(A, 2, 2), Repeat(B, 0, 2))),
        {"a a": (("a", "a"), ()), "a a b": (("a", "a"), ("b",)), "a a b b": (("a", "a"), ("b", "b"))},
    ),
    "one word": (AB, {"a": "a", "b": "b", " b\n": "b"}),
}


def sentences(rule) -> set[tuple[str, ...]]:
    """Every sentence of a rule whose repeats are bounded, by exhaustion."""
    if isinstance(rule, Word):
        return {(word,) for word in rule.words}
    if isinstance(rule, Fixed):
        return {(rule.word,)}
    if isinstance(rule, Choice):
        return {s for option in rule.options for s in sentences(option)}
    if isinstance(rule, Repeat):
        return {
            sum(parts, ())
            for n in range(rule.least, rule.most + 1)
            for parts in product(sentences(rule.item), repeat=n)
        }
    return {sum(parts, ()) for parts in product(*map(sentences, rule.items))}


@pytest.mark.parametrize("name", SMALL)
def test_the_parser_is_the_language_and_stops_at_the_furthest_word(name):
    """All texts of up to five words: accepted exactly where the enumeration has them; else the position is
    the first word after the longest beginning that some sentence has, and the words expected there are those
    with which one goes on."""
    rule, _ = SMALL[name]
    grammar, language = Grammar(rule), sentences(rule)
    beginnings = {s[:n] for s in language for n in range(len(s) + 1)}
    refused = 0
    for n in range(6):
        for words in product(("a", "b", "c", "."), repeat=n):
            answer = grammar.parse(" ".join(words))
            assert isinstance(answer, Parsed) == (words in language), words
            if isinstance(answer, Parsed):
                assert grammar.render(answer.value) == " ".join(words)
                continue
            refused += 1
            good = max(k for k in range(n + 1) if words[:k] in beginnings)
            assert answer.position == good + 1, (words, answer)
            following = {s[good] if len(s) > good else "END" for s in language if s[:good] == words[:good]}
            if "in a row" not in answer.reason:
                wanted = answer.reason.split("expected ")[1].replace("the end of the text", "'END'")
                assert set(re.findall(r"'([^']+)'", wanted)) == following, (words, answer)
    assert refused > 1000


@pytest.mark.parametrize("name", SMALL)
def test_values_by_hand(name):
    rule, values = SMALL[name]
    for text, value in values.items():
        assert Grammar(rule).parse(text) == Parsed(value)
        assert Grammar(rule).render(value) == " ".join(text.split())


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        (Sequence((Repeat(AB, 1, 3), STOP)), "a x .", "word 2: found 'x', expected 'a', 'b' or '.'"),
        (
            Sequence((Repeat(AB, 1, 3), STOP)),
            "a b",
            "word 3: found the end of the text, expected 'a', 'b' or '.'",
        ),
        (Sequence((Repeat(AB, 1, 3), STOP)), "", "word 1: found the end of the text, expected 'a' or 'b'"),
        (
            Sequence((Repeat(AB, 1, 3), STOP)),
            "a a a a .",
            "word 4: found 'a', one more than the 3 that may stand in a row",
        ),
        (Sequence((Repeat(AB, 1, 3), STOP)), "a a a c .", "word 4: found 'c', expected '.'"),
        (Sequence((Repeat(AB, 1, 3), STOP)), "a . a", "word 3: found 'a', expected the end of the text"),
        (Repeat(AB, distinct=True), "a b a", "word 3: 'a' stands here a second time"),
        (Repeat(Sequence((A, AB)), distinct=True), "a b a a a b", "word 5: 'a b' stands here a second time"),
        (Sequence((A, AB, AB), distinct=True), "a b b", "word 3: 'b' stands here a second time"),
        (Word(("a", "b"), "a block"), "c", "word 1: found 'c', expected a block"),
        (A, "x" * 99, f"word 1: found '{'x' * 37}...', expected 'a'"),
        (A, "\x1b[2J", r"word 1: found '\x1b[2J', expected 'a'"),  # what a terminal would obey is escaped
    ],
)
def test_a_refusal_has_position_and_reason(rule, text, reason):
    refusal = Grammar(rule).parse(text)
    assert isinstance(refusal, Refusal) and str(refusal) == reason
    assert verdict(refusal) == Verdict(score=0.0, reason=reason)


def test_an_accepted_text_is_a_verdict_of_one():
    assert verdict(Grammar(A).parse("a")) == Verdict(score=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Word(()), "a word of a grammar is a text without spaces"),
        (lambda: Word(("a b",)), "found ['a b']"),
        (lambda: Word("ab"), "found 'ab'"),
        (lambda: Fixed(""), "found ['']"),
        (
            lambda: Sequence(()),
            "a sequence is made of rules (Word, Fixed, Sequence, Choice, Repeat), found 'none'",
        ),
        (
            lambda: Choice((A, "b")),
            "a choice is made of rules (Word, Fixed, Sequence, Choice, Repeat), found 'b'",
        ),
        (
            lambda: Choice((A, AB)),
            "two options begin with 'a': the next word alone must say how the text goes on",
        ),
        (lambda: Choice((Repeat(A), Repeat(B))), "two options of a choice can be empty"),
        (lambda: Repeat(Repeat(A)), "what repeats must not be empty"),
        (lambda: Repeat(A, 3, 2), "a repeat of 3 to 2 times can never be read"),
        (lambda: Repeat(A, 0, 0), "a repeat of 0 to 0 times can never be read"),
        (
            lambda: Grammar(Sequence((Repeat(A), A))),
            "what repeats begins and what follows it begins with 'a'",
        ),
        (
            lambda: Grammar(Sequence((Repeat(Sequence((B, Repeat(A)))), A))),
            "what repeats begins and what follows it begins with 'a'",
        ),
        (
            lambda: Grammar(Repeat(Sequence((A, Repeat(A))))),
            "what repeats begins and what follows it begins with 'a'",
        ),
        (
            lambda: Grammar(Sequence((Choice((Repeat(A), B)), B))),
            "a choice that can be empty begins and what follows it begins with 'b'",
        ),
        (lambda: Grammar("a"), "a grammar is made of rules"),
    ],
)
def test_a_grammar_with_two_readings_or_none_is_not_made(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (AB, "c", "'c' is not 'a' or 'b'"),
        (AB, ["a"], "['a'] is not"),
        (Fixed("a"), "a", "'a' is not ()"),
        (Sequence((A, B)), ("a",), "('a',) is not a tuple of 2 values"),
        (Sequence((A, B)), "ab", "'ab' is not a tuple of 2 values"),
        (Repeat(A, 1, 2), (), "() is not a tuple of 1 to 2 values"),
        (Repeat(A), ["a"], "['a'] is not a tuple of 0 to any number values"),
        (Repeat(AB, distinct=True), ("a", "a"), "('a', 'a') holds a value twice"),
        (Sequence((AB, AB), distinct=True), ("b", "b"), "('b', 'b') holds a value twice"),
        (Choice((A, B)), "c", "'c' is not 'a'; 'c' is not 'b'"),
    ],
)
def test_a_value_that_no_sentence_has_is_not_rendered(rule, value, message):
    with pytest.raises(ValueError) as caught:
        Grammar(rule).render(value)
    assert message in str(caught.value)


# the grammars of blocksworld, at random ---------------------------------------------------------------------

BLOCKS = tuple("abgch")


def steps(rng: random.Random, verbs: dict[str, int], least: int) -> tuple:
    return tuple(
        (verb, *rng.sample(BLOCKS, verbs[verb]))
        for verb in rng.choices(list(verbs), k=rng.randrange(least, 9))
    )


def test_what_is_rendered_is_read_back():
    rng = random.Random("render")
    for _ in range(500):
        plan = steps(rng, {"clear": 1, "on": 2}, 1)
        acts = steps(rng, {"pick": 1, "put": 1, "unstack": 2, "stack": 2}, 0)
        assert plan_grammar(BLOCKS, 1).parse(plan_grammar(BLOCKS, 1).render(plan)) == Parsed(plan)
        assert act_grammar(BLOCKS).parse(act_grammar(BLOCKS).render(acts)) == Parsed(acts)


def test_random_text_is_accepted_or_refused_and_nothing_else():
    """Sentences with a few random changes, so that both answers occur; what is accepted is exactly what is
    rendered."""
    rng, grammar, counts = random.Random("noise"), plan_grammar(BLOCKS, 1), {Parsed: 0, Refusal: 0}
    pieces = [
        "clear",
        "on",
        *BLOCKS,
        "d",
        "</plan>",
        "",
        "\x00",
        "<plan>",
        "ünder",
        "\ud800",
        "\u2028",
        "on" * 999,
    ]
    for _ in range(4000):
        words = grammar.render(steps(rng, {"clear": 1, "on": 2}, 1)).split()
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(words) + 1)
            words[at : at + rng.randrange(2)] = [rng.choice(pieces)]
        text = rng.choice([" ", "\n", "\t  "]).join(words)
        answer = grammar.parse(text)
        counts[type(answer)] += 1
        if isinstance(answer, Parsed):
            assert grammar.render(answer.value).split() == text.split()
        else:
            assert (
                1 <= answer.position <= len(text.split()) + 1
                and answer.unit == "word"
                and len(answer.reason) < 200
            )
    assert min(counts.values()) > 500


def test_a_long_text_is_read_in_one_pass():
    words = ["on a b"] * 100_000
    assert len(plan_grammar(BLOCKS).parse(" ".join([*words, "</plan>"])).value) == 100_000
    assert plan_grammar(BLOCKS).parse(" ".join(words)).position == 300_001


# the page ---------------------------------------------------------------------------------------------------


def test_the_examples_of_the_page_print_what_it_says():
    page = Path(__file__).parents[2] / "docs/interface.md"
    done = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert done.attempted >= 15 and done.failed == 0
