r"""The process that compares answers with math-verify; `math_grading` starts it, the package never imports
it.

One JSON array per line in, [gold, answer]; one JSON object per line out, {"same": bool, "reason": str}; the
first line out is "ready". It is run as a file, not as a module, so that starting it loads nothing of the
package.

    python worker.py SECONDS BYTES < pairs

SECONDS: after this long in one comparison the operating system ends the process (the parent usually has
before; this is for a parent that died). BYTES: most memory (10^(10^10) is a short answer). Answers are read
by math-verify's LaTeX grammar alone: its reader of plain expressions calls `eval` inside of sympy.
"""

from __future__ import annotations

import json
import sys


def comparer(checked: bool = True):
    """(gold, answer) -> (whether they are equal, reason why not). Without math-verify's own time limits,
    which this process has. `checked` False: as math-verify says, for benchmarks."""
    from math_verify import LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> list:
        return parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None)

    def compare(gold: str, answer: str) -> tuple[bool, str]:
        golds, answers = read(gold), read(answer)
        if not answers:
            return False, "math-verify cannot read the answer"
        if not checked:
            return verify(golds, answers, timeout_seconds=None), ""
        if not (verify(golds, answers, timeout_seconds=None) or verify(answers, golds, timeout_seconds=None)):
            return False, ""
        return (
            (True, "")
            if agree(golds[0], answers[0])
            else (False, "math-verify calls it equal, its numbers do not agree")
        )

    return compare


POINTS = ((7, 5), (31, 17), (113, 71))  # fractions put in for letters, plus one for each letter more
DIGITS = 50


def agree(left, right) -> bool:
    """Whether two expressions of sympy have one value to 30 digits wherever both have one: math-verify rounds
    to six."""
    from sympy import Expr, N, Rational

    if not (isinstance(left, Expr) and isinstance(right, Expr)):
        return False
    letters = sorted(left.free_symbols | right.free_symbols, key=str)
    seen = 0
    for over, under in POINTS if letters else POINTS[:1]:
        at = {letter: Rational(over, under) + i for i, letter in enumerate(letters)}
        a, b = (N(side.subs(at), DIGITS) for side in (left, right))
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            continue
        seen += 1
        nothing = Rational(1, 10**45) if a == 0 or b == 0 else 0  # what rounding leaves of a nought
        if abs(a - b) > Rational(1, 10**30) * abs(a) + nothing:
            return False
    return seen > 0


def limits(seconds: float, size: int):
    """Set the memory limit; returns what starts (True) and stops (False) the clock of one comparison. Neither
    exists on Windows."""
    try:
        import resource
        import signal
    except ImportError:
        return lambda on: None
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    # ends the process even where C code never looks at Python's handlers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return lambda on: signal.setitimer(signal.ITIMER_REAL, seconds if on else 0)


def main(seconds: float, size: int, checked: bool = True) -> None:
    """Answer one JSON pair per line with one JSON verdict per line, within `seconds` and `size` bytes of
    memory each."""
    compare = comparer(checked)
    clock = limits(seconds, size)
    print('"ready"', flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        clock(True)
        try:
            same, reason = compare(gold, answer)
        except Exception as error:  # whatever an answer does to the reader, it is an answer that is not equal
            same, reason = False, f"math-verify: {type(error).__name__}"
        clock(False)
        print(json.dumps({"same": bool(same), "reason": reason}), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] != ["alone"])
