"""How the command line's verbs and their arguments are declared: what every verb has, and the types that
check a value."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from forethought.core.errors import UserError, unknown
from forethought.core.printable import printable

MOST_NUMBERS = 10_000  # in a list such as 3-5
MOST_DIGITS = 18  # of a whole number: what 64 bits hold

Verbs = argparse._SubParsersAction  # what `add_subparsers` gives


class Parser(argparse.ArgumentParser):
    """Its errors are one line, as all others; they quote the command line, and a terminal is shown them
    without what they could do there."""

    def error(self, message: str) -> NoReturn:
        """One line on stderr and exit code 2; for a name that is not known, the nearest that is."""
        if found := re.fullmatch(r"argument (\w+): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = [name.strip(" '") for name in found[3].split(",")]
            message = unknown(found[1].lower(), found[2], known)
        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


def verb(
    verbs: Verbs, name: str, do: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    """A verb that calls `do(args)`, which returns an exit code."""
    parser = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(do=do)
    return parser


def add_set(parser: argparse.ArgumentParser, example: str = "stage.0.until.steps=50") -> None:
    """Declare `--set KEY=VALUE`, which may be repeated; the values arrive in `overrides`."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help=f"change one value of the recipe, such as {example}; may be repeated",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare `--trust-code`."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run code that a run or a model brings along and that has not run here before",
    )


def need_run(path: Path) -> None:
    """UserError where there is no run."""
    if not (path / "recipe.json").is_file():
        raise UserError(f"{path}: no run here (a run directory has a recipe.json)")


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas; empty ones are dropped."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text[:60]!r}")
    return int(text)


def from_zero(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text[:60]!r}")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """ "3,4,5" or "3-5" as numbers; bounded, so that a slip of the keyboard does not fill the memory."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise argparse.ArgumentTypeError(f"expected numbers such as 3,4,5 or 3-5, found {text!r}")
        if len(low) > 9 or len(high) > 9 or int(high or low) - int(low) + len(found) >= MOST_NUMBERS:
            raise argparse.ArgumentTypeError(
                f"expected at most {MOST_NUMBERS} numbers of at most 9 digits, found {text[:60]!r}"
            )
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def shares(text: str) -> tuple[float, float]:
    """ "0.2-0.8" as (low, high). The caller checks the order."""
    low, _, high = text.partition("-")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a range such as 0.2-0.8, found {text!r}") from None


def temperature(text: str) -> float:
    """A number from 0 to 100."""
    return _number(text, "a temperature, 0 or more", 0.0, 100.0)


def top_p(text: str) -> float:
    """A number above 0 and at most 1."""
    return _number(text, "a share above 0 and at most 1", 1e-9, 1.0)


def min_p(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, "a share from 0 to 1", 0.0, 1.0)


def _number(text: str, expected: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # NaN is in no range
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
    return value
