"""The graders counted on decided answers, beside math-verify alone.

    python benchmarks/grading.py

The lists are tests/grading_cases.py (own, and the pairs of public bug reports). For each list and grader: how
many pairs it grades right, how many it takes for equal that are not (false right), and the other way round
(false wrong). Every pair is graded in both orders; `asym` counts where the two differ. math-verify's own
column needs the extra `math`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from grading_cases import ALGEBRA, APART, EQUAL, MORE, REPORTED

from forethought.tasks.math.grading import GRADERS, SECONDS, WORKER, installed

Pair = tuple[str, str, bool]


def lists() -> Iterator[tuple[str, list[Pair]]]:
    yield "public reports", REPORTED
    yield "own, written afterwards", MORE
    yield "own, equal", [(gold, answer, True) for gold, answers in EQUAL.items() for answer in answers]
    yield (
        "own, equal by algebra",
        [(gold, answer, True) for gold, answers in ALGEBRA.items() for answer in answers],
    )
    yield "own, not equal", [(gold, answer, False) for gold, answers in APART.items() for answer in answers]


def alone() -> Callable[[str, str], bool]:
    """math-verify in its process, asked about every pair as it stands."""
    from forethought.tasks.grading.process import Workers

    workers = Workers([sys.executable, "-P", str(WORKER), str(2 * SECONDS + 1), str(4 << 30), "alone"])

    def compare(gold: str, answer: str) -> bool:
        try:
            return workers.ask([gold, answer], SECONDS)["same"]
        except (TimeoutError, EOFError):
            return False

    return compare


def right_of(grade: Callable) -> Callable[[str, str], bool]:
    return lambda gold, answer: grade(gold, answer).score == 1.0


def main() -> None:
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    graders: dict[str, Callable[[str, str], bool]] = {
        name: right_of(GRADERS[name]()) for name in ("exact", "auto")
    }
    if installed():
        graders["math-verify alone"] = alone()
    print(
        "| list | pairs | grader | right | false right | false wrong | asym |\n| --- | --- | --- | --- | "
        "--- | --- | --- |"
    )
    for name, pairs in lists():
        for grader, equal in graders.items():
            said = [equal(gold, answer) for gold, answer, _ in pairs]
            back = said if "alone" in grader else [equal(answer, gold) for gold, answer, _ in pairs]
            false_right = sum(s and not right for s, (_, _, right) in zip(said, pairs, strict=True))
            false_wrong = sum(right and not s for s, (_, _, right) in zip(said, pairs, strict=True))
            asym = "-" if "alone" in grader else sum(a != b for a, b in zip(said, back, strict=True))
            right = len(pairs) - false_right - false_wrong
            print(
                f"| {name} | {len(pairs)} | {grader} | {right} | {false_right} | {false_wrong} | {asym} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
