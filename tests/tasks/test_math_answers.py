r"""Final answers: found or refused, in one spelling for each value, and compared in a process that may
hang."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.interface.result import Parsed
from forethought.tasks.math import grading as math_grading
from forethought.tasks.math import worker as math_worker
from forethought.tasks.math.grading import GRADERS, GraderError, MathVerify, exact, installed, why_unmatchable
from forethought.tasks.text.answers import boxed, canonical, hashed, same

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"
needs_data = pytest.mark.skipif(not GSM8K.exists(), reason=f"GSM8K's test problems are not at {GSM8K}")
needs_math_verify = pytest.mark.skipif(
    not installed(), reason="math-verify (the extra `math`) is not installed"
)


# Finding it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{18}.", "18"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"$\boxed 2$", "2"),
        (r"\boxed5", "5"),  # TeX boxes the next sign, with or without a space before it
        (r"\fbox{3}", "3"),
        ("\\boxed{ 7\n}", "7"),
    ],
)
def test_a_box_is_found(text, answer):
    assert boxed(text) == Parsed(answer)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            "the answer is 18",
            r"character 17: found the end of the text, expected a final answer in \boxed{...}",
        ),
        ("", r"character 1: found the end of the text, expected a final answer in \boxed{...}"),
        (r"ab \boxed{ }", r"character 4: \boxed{} is empty"),
        # cut off: the 1 is not what it would have said
        (r"\boxed{1} or \boxed{2", r"character 14: the last \boxed{ is never closed"),
        (r"\boxed{\frac{1}{2}", r"character 1: the last \boxed{ is never closed"),
        # TeX would box the 1
        (r"\boxed 12", r"character 10: found the end of the text, expected a final answer in \boxed{...}"),
    ],
)
def test_no_box_is_a_refusal_and_never_a_guess(text, refusal):
    assert str(boxed(text)) == refusal


def test_the_gold_of_gsm8k():
    assert hashed("He ran <<3*3=9>>9 miles.\n#### 1,234").value == ("1,234", "He ran <<3*3=9>>9 miles.")
    for text in ("9", "####", "#### 9\nand more"):
        assert hashed(text).reason == "found no last line '#### ANSWER'"


# One spelling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "spellings"),
    [
        (
            "18",
            [
                "18",
                "$18",
                r"\$18",
                "$18$",
                "18.0",
                "18.",
                "+18",
                "0018",
                "18 eggs",
                "18 miles per hour",
                r"18\text{ cm}^2",
                r"18^\circ",
                "18%",
                r"18\%",
                "x = 18",
                r"\(18\)",
                r"\text{18}",
                r"\frac{36}{2}",
                "36/2",
            ],
        ),
        ("1234", ["1,234", "1{,}234", r"1\,234", r"1\!,234", "1 234", "$1,234.00 dollars"]),
        (
            "7/2",
            ["3.5", r"\frac72", r"\dfrac{7}{2}", r"3\frac{1}{2}", "3 1/2", r"\frac{-7}{-2}", "7/2 hours"],
        ),
        ("-1/3", ["-1/3", r"-\frac{1}{3}", r"\frac{-1}{3}", "\u22121/3", r"\frac{1}{-3}"]),
        ("(1/2,3)", [r"\left(\frac12, 3\right)", "(0.5,3)", "( 1/2 , 3.0 )"]),
        ("C", ["C", "(C)", r"\text{(C)}", r"\textbf{(C)}"]),
        ("evelyn", ["Evelyn", r"\text{evelyn}"]),
        (r"2\sqrt{3}", [r"2\sqrt{3}", r"2 \sqrt{3}", r"$2\sqrt{3}$."]),
    ],
)
def test_spellings_of_one_value(value, spellings):
    assert {spelling: canonical(spelling) for spelling in spellings} == dict.fromkeys(spellings, value)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", "19"),
        ("18", "-18"),
        ("1/3", "0.333"),
        ("3", "3 million"),
        ("3", r"3\text{ million}"),
        ("2", "2x"),
        ("2", "2 pi"),
        ("2", r"2\pi"),
        ("5", "5!"),
        ("5", r"5 \text{ or } 6"),
        ("10:30 a.m.", "10:30 p.m."),
        ("C", "c"),
        ("(1,234)", "1234"),
        ("1/0", "1"),
        ("12", "1,2"),
        ("(1,2)", "[1,2]"),
        ("(1,2)", "(2,1)"),
        (r"3\frac{-1}{2}", "2.5"),
        ("0", ""),
        ("50%", "0.5"),
        ("12", "1 2"),
        ("5", "5 sixths"),
        ("1234", "12 34"),
    ],
)
def test_other_values_stay_apart(gold, answer):
    assert not same(gold, answer)


def test_a_very_long_answer_is_text():
    """Python refuses to read whole numbers of more than 4,300 digits; nobody means one."""
    assert canonical("9" * 5000) == "9" * 5000
    assert not same("9", "9" * 5000)


@needs_data
def test_every_gold_of_gsm8k_is_a_whole_number():
    golds = [hashed(json.loads(line)["answer"]).value[0] for line in GSM8K.read_text("utf-8").splitlines()]
    assert len(golds) == 1319
    assert [g for g in golds if canonical(g) != str(int(g.replace(",", "")))] == []


@needs_data
@needs_math_verify
def test_graders_agree_with_math_verify_on_every_gold_of_gsm8k():
    compare = math_worker.comparer()
    for line in GSM8K.read_text("utf-8").splitlines():
        gold = hashed(json.loads(line)["answer"]).value[0]
        number = int(gold.replace(",", ""))
        for answer, right in ((f"{number}", True), (f"{number:,}", True), (f"{number + 1}", False)):
            assert bool(exact(gold, answer).score) == compare(gold, answer)[0] == right, (gold, answer)


# A process of its own ---------------------------------------------------------------------------------------

STANDS_IN = """
import json, sys, time
print('"ready"', flush=True)
for line in sys.stdin:
    pair = json.loads(line)
    open(sys.argv[1], "a").write(" ".join(pair) + "\\n")
    if any("sec" in said for said in pair):
        time.sleep(60)
    if any("cot" in said for said in pair):
        sys.exit(1)
    twins = sorted(said.replace("\\\\sin", "\\\\cos") for said in pair)
    reason = "unreadable" if any("tan" in said for said in pair) else ""
    print(json.dumps({"same": twins[0] == twins[1], "reason": reason}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path):
    """(a grader whose worker plays math-verify: to it a sine is the cosine; the pairs that the worker
    saw)."""
    seen = tmp_path / "seen"
    seen.touch()
    grade = MathVerify(seconds=0.5, command=[sys.executable, "-I", "-c", STANDS_IN, str(seen)])
    yield grade, lambda: seen.read_text().split("\n")[:-1]
    grade.close()


def test_the_worker_is_asked_once_for_what_our_algebra_does_not_settle(stand_in):
    grade, seen = stand_in
    assert grade("1/2", r"\frac12").score == 1.0
    assert grade("x+1", "x+2").score == 0.0
    assert grade("no", "on").score == 0.0
    assert seen() == []  # settled here
    assert [grade(r"\sin a", r"\cos a").score for _ in range(3)] == [1.0] * 3
    assert grade(r"\cos a", r"\sin a").score == 1.0  # the other order is the same question
    assert grade(r"\sin b", r"\cos a").score == 0.0
    assert grade(r"\sin a", r"\tan a").reason == "unreadable"
    assert grade(r"\sin a", r"\sin b").reason == r"expected '\\sin a', found '\\sin b'"
    assert seen() == [r"\cos a \sin a", r"\cos a \sin b", r"\sin a \tan a", r"\sin a \sin b"]


def test_items_of_lists_are_asked_for_one_by_one(stand_in):
    grade, seen = stand_in
    assert grade(r"(1, \sin a)", r"(1, \cos a)").score == 1.0
    assert seen() == [r"\cos a \sin a"]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("no", "on"),
        ("5", r"5\text{ million}"),
        (r"\sin x", "5 apples"),
        (r"\sin 1", "9^{9^{9}}"),
        (r"\sin 1", "1000000!"),
        ("52_8", "52_7"),
        (r"\sin x", "x=5=6"),
        (r"\sin x", r"\text{million}"),
        (r"\sin x", "east"),
        ("0.0000001", "0.0000002"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        (r"\sin x", r"x^{10000000}"),
    ],
)
def test_what_a_larger_algebra_is_never_asked(stand_in, gold, answer):
    grade, seen = stand_in
    assert grade(gold, answer).score == grade(answer, gold).score == 0.0
    assert seen() == []


def test_an_answer_that_hangs_costs_the_limit_once_is_counted_and_the_spare_compares_the_next(stand_in):
    grade, seen = stand_in
    for _ in range(3):
        verdict = grade(r"\sin a", r"\sec a")
        assert (verdict.score, verdict.reason, verdict.timed_out) == (
            0.0,
            r"timed out: comparing with "
            r"'\\sec a' took more than 0.5 s",
            True,
        )
    other = grade(r"\sin b", r"\sec a")  # not tried against another gold either
    assert (other.score, other.timed_out) == (0.0, True)
    assert grade.timeouts == 1
    again = grade(r"\sin a", r"\cos a")
    assert (again.score, again.timed_out) == (1.0, False)
    assert seen() == [r"\sec a \sin a", r"\cos a \sin a"]


def test_a_spare_worker_stands_ready(tmp_path):
    """Two are started by the first question, and one more when one was ended."""
    started = tmp_path / "started"
    started.touch()
    grade = MathVerify(
        seconds=0.3,
        command=[
            sys.executable,
            "-I",
            "-c",
            f"open({str(started)!r}, 'a').write('x')\n" + STANDS_IN,
            str(tmp_path / "seen"),
        ],
    )
    try:
        assert grade(r"\sin a", r"\cos a").score == 1.0
        spare = grade._workers._spare
        assert grade(r"\sin a", r"\sec a").timed_out
        assert grade(r"\sin b", r"\cos b").score == 1.0
        assert grade._workers._worker is spare and grade._workers._spare is not None
    finally:
        grade.close()


def test_an_answer_that_ends_the_worker_twice_is_not_equal(stand_in):
    grade, seen = stand_in
    assert grade(r"\sin a", r"\cot a").reason == r"comparing with '\\cot a' ended its process twice"
    assert grade(r"\sin a", r"\cos a").score == 1.0
    assert seen() == [r"\cot a \sin a"] * 2 + [r"\cos a \sin a"]


def test_threads_share_one_worker(stand_in):
    grade, seen = stand_in
    scores: dict[int, float] = {}

    def ask(i: int) -> None:
        scores[i] = grade(rf"\sin (a+{i})", rf"\cos (a+{i if i % 2 else 0})").score

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert scores == {i: float(i % 2) for i in range(1, 9)}


def test_a_long_answer_never_reaches_the_worker(stand_in):
    grade, seen = stand_in
    assert grade("a", "b" * 401).reason == "an answer of 401 characters; at most 400 are read"
    assert seen() == []


def test_a_worker_that_does_not_start_is_a_broken_grader():
    with pytest.raises(GraderError, match="did not start"):
        MathVerify(command=[sys.executable, "-I", "-c", "raise SystemExit(1)"])(r"\sin a", r"\cos a")


def test_a_fault_of_a_grader_is_named_as_one(monkeypatch):
    def broken(*_):
        raise RuntimeError("no reason")

    monkeypatch.setattr(math_grading.values, "same", broken)
    for grade in (exact, MathVerify(command=["none"])):
        with pytest.raises(
            GraderError,
            match=r"the grader broke at '6' \(gold '5'\): RuntimeError: no "
            r"reason",
        ):
            grade("5", "6")


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("x" * 401, "it has 401 characters, and at most 400 of an answer are read"),
        ("First add 2 and 3. The answer is 5.", "it is a text of several sentences, not an answer"),
        (r"\frac{1}{2", r"it cannot stand in a box (the last \boxed{ is never closed)"),
        ("\u200b", "it says nothing but signs and spaces"),
        ("\x00", "it says nothing but signs and spaces"),
    ],
)
def test_a_gold_that_nothing_can_match_is_named(gold, why):
    assert why_unmatchable(gold) == why


def test_golds_that_can_be_matched():
    for gold in (
        "5",
        "Evelyn",
        r"\{1,2\}",
        "no solution",
        "C. 5",
        "10:30 a.m.",
        "He has 5 apples.",
        "St. Louis",
        r"\boxed{4}",
        "1e-07",
        "x = 5",
    ):
        assert why_unmatchable(gold) == ""


def test_without_the_extra_only_who_asks_for_it_is_told(monkeypatch):
    monkeypatch.setattr(math_grading, "installed", lambda: False)
    math_grading.shared.cache_clear()
    assert GRADERS["auto"]() is exact
    with pytest.raises(UserError, match=r'pip install "forethought\[math\]", or take grader = "exact"'):
        GRADERS["math-verify"]()


@needs_math_verify
def test_math_verify_in_its_worker(tmp_path):
    grade = MathVerify(seconds=20)
    try:
        assert grade(r"2\sqrt{2}", r"\sqrt{8}").score == 1.0
        assert grade(r"\{1,2\}", r"\{2,1\}").score == 1.0
        assert grade("x^2+2x+1", "(x+1)^2").score == 1.0
        assert grade("7", "8").score == 0.0
        mark = tmp_path / "ran"
        assert grade("7", f"__import__('pathlib').Path('{mark}').touch()").score == 0.0
        assert not mark.exists()
        grade.seconds = 0.5
        assert grade("2", "9^{9^{9^{9^{9}}}}").score == 0.0  # refused or timed out, and no memory filled
        grade.seconds = 20
        assert grade("3", r"\frac{\sqrt{36}}{2}").score == 1.0
    finally:
        grade.close()
