"""Graders: (gold answer, model's answer) -> Verdict. One row each in GRADERS.

    exact         typed values, compared exactly (tasks.grading); needs nothing
    math-verify   the same, and where our algebra cannot tell two expressions apart, Hugging Face's
                  math-verify (the extra `math`)
    auto          math-verify where it is installed, else exact

math-verify is asked about pairs of expressions alone: no words, units, lists, towers of powers or factorials
reach it, and what it calls equal is checked in numbers (see worker.py). It limits its own time by signals,
which only the main thread of a process gets, and some of what it does hears no signal. So it runs in a
process that the parent ends when an answer takes too long: the answer counts as not equal, its verdict says
`timed_out`, and a spare process takes the next one. What was compared once is not compared again, and an
answer that timed out is not tried against another gold.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from forethought.core.errors import ForethoughtError, UserError
from forethought.core.types import Verdict
from forethought.interface.result import Refusal, quoted_text
from forethought.tasks.grading import values
from forethought.tasks.grading.expressions import latex
from forethought.tasks.grading.process import Workers
from forethought.tasks.text.answers import boxed

Grader = Callable[[str, str], Verdict]
WORKER = Path(__file__).with_name("worker.py")
SECONDS = 5.0  # most time for one comparison
BYTES = 4 << 30  # most memory of the worker
CACHED = 1 << 16  # pairs
_short = partial(quoted_text, most=60)


class GraderError(ForethoughtError):
    """A grader broke. What an answer says never breaks one: an answer that cannot be read is a wrong
    answer."""


def exact(gold: str, answer: str) -> Verdict:
    """1 if both read as the same value (`tasks.grading`), else 0. GraderError where the grader itself
    breaks."""
    same = _same(gold, answer)
    return Verdict(score=1.0) if same else Verdict(score=0.0, reason=_expected(gold, answer))


class MathVerify:
    """The grader "math-verify", safe to call from any thread: its calls wait for each other.

    `seconds` limits one comparison. `command` is the worker's (see worker.py for what it reads and
    writes). `timeouts` counts the comparisons that were ended. UserError where math-verify is not installed;
    GraderError where the worker does not start.
    """

    def __init__(self, seconds: float = SECONDS, command: Sequence[str] = ()):
        if not command and not installed():
            raise UserError(
                'the grader "math-verify" needs math-verify: pip install "forethought[math]", or '
                'take grader = "exact"'
            )
        self.seconds = seconds
        self.timeouts = 0
        # -P: the worker's folder, which holds a module `math`, stays off its path
        self._workers = Workers(
            list(command) or [sys.executable, "-P", str(WORKER), str(2 * seconds + 1), str(BYTES)]
        )
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[bool, str]] = {}  # pair -> (equal, why not)
        self._slow: set[str] = set()  # expressions that took too long

    def __call__(self, gold: str, answer: str) -> Verdict:
        said: list[str] = []

        def ask(left: str, right: str) -> bool:
            same, reason = self._asked(latex(left), latex(right))
            if reason:
                said.append(reason)
            return same

        same = _same(gold, answer, ask)
        if same:
            return Verdict(score=1.0)
        if len(answer) > values.LONGEST:
            return Verdict(
                score=0.0, reason=f"an answer of {len(answer)} characters; at most {values.LONGEST} are read"
            )
        late = [reason for reason in said if reason.startswith("timed out")]
        return Verdict(score=0.0, reason=(late or said or [_expected(gold, answer)])[0], timed_out=bool(late))

    def close(self) -> None:
        """End the workers; the next comparison starts others. (They also end with this process.)"""
        with self._lock:
            self._workers.close()

    def _asked(self, left: str, right: str) -> tuple[bool, str]:
        """(equal, why it was not told). The same for both orders of the pair."""
        pair = (min(left, right), max(left, right))
        with self._lock:
            if pair not in self._known:
                if len(self._known) >= CACHED:
                    self._known.clear()
                self._known[pair] = self._compared(pair, right)
            return self._known[pair]

    def _compared(self, pair: tuple[str, str], answer: str) -> tuple[bool, str]:
        if slow := next((text for text in pair if text in self._slow), None):
            return False, f"timed out before: comparing with {_short(slow)} is not tried again"
        # a worker can die of something else than the answer; one that dies twice died of it
        for _ in range(2):
            try:
                said = self._workers.ask(list(pair), self.seconds)
            except TimeoutError:
                self.timeouts += 1
                self._slow.add(answer)
                return False, f"timed out: comparing with {_short(answer)} took more than {self.seconds:g} s"
            except EOFError:
                continue
            except ForethoughtError as error:
                raise GraderError(str(error)) from error
            return bool(said["same"]), said["reason"]
        return False, f"comparing with {_short(answer)} ended its process twice"


# a sentence, and another one of three words or more
_PROSE = re.compile(r"[a-z0-9)][.!?]\s+[A-Z][a-z]*,?\s+\w+\s+\w")


# `-`, `<` and `=` may be answers, and so may `none`, `unknown` and `undefined`
_PLACEHOLDER = re.compile(
    r"[\s$\\{}]*(?:\?+|[.…]{2,}|…|\\[lc]?dots|_+|[\u2013\u2014]+|--+|n\.?/?a\.?|nan|null|tbd|todo)[\s${}]*",
    re.IGNORECASE,
)


def why_unmatchable(gold: str) -> str:
    """Why no answer in a box can equal this gold answer, "" where one can."""
    if not gold.strip():
        return "it is empty"
    if len(gold) > values.LONGEST:
        return f"it has {len(gold)} characters, and at most {values.LONGEST} of an answer are read"
    if _PROSE.search(gold):
        return "it is a text of several sentences, not an answer"
    written = boxed(f"\\boxed{{{gold}}}")
    if isinstance(written, Refusal):
        return f"it cannot stand in a box ({written.reason})"
    if _PLACEHOLDER.fullmatch(gold):
        return "it stands for an answer that is not there"
    if not values.read(gold).text:
        return "it says nothing but signs and spaces"
    if exact(gold, written.value).score != 1.0:
        return f"in a box it reads {_short(written.value)}, which is not equal to it"
    return ""


def installed() -> bool:
    """Whether math-verify can be imported."""
    return importlib.util.find_spec("math_verify") is not None


@cache
def shared() -> MathVerify:
    """One worker for every task family of this process."""
    return MathVerify()


GRADERS: dict[str, Callable[[], Grader]] = {
    "auto": lambda: shared() if installed() else exact,
    "exact": lambda: exact,
    "math-verify": shared,
}


def _same(gold: str, answer: str, *ask: Callable[[str, str], bool]) -> bool:
    """Whether both read as the same value. GraderError where the grader itself breaks."""
    try:
        return values.same(gold, answer, *ask)
    except GraderError:
        raise
    except Exception as error:
        said = f"{_short(answer)} (gold {_short(gold)})"
        raise GraderError(f"the grader broke at {said}: {type(error).__name__}: {error}") from error


def _expected(gold: str, answer: str) -> str:
    return f"expected {_short(gold)}, found {_short(answer)}"
