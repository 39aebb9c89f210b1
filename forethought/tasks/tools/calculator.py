"""An exact calculator for formulas in digits: + - * / and brackets, round or square.

A number may be written digit by digit ("4 7" is 47), as a model does whose words are digits. What it cannot
work out it says in a sentence, and gives no number."""

from __future__ import annotations

import re
from fractions import Fraction

from forethought.interface.result import quoted_text

MOST_CHARACTERS, MOST_DEPTH, MOST_DIGITS = 512, 32, 18
_TOKEN = re.compile(r"\s*(?:(\d+(?:\s+\d+)*)|([-+*/()\[\]]))")
_CLOSES = {"(": ")", "[": "]"}


class Wrong(Exception):
    """What is wrong with a formula, as a sentence."""


def calculate(formula: str) -> int:
    """Its value. Raises Wrong for what is no formula, for a division without a whole result, and for
    numbers of more than 18 digits."""
    value = _Reader(_tokens(formula)).all()
    if value.denominator != 1:
        raise Wrong(f"{quoted_text(formula)} is no whole number")
    return int(value)


def _tokens(formula: str) -> list[str]:
    if len(formula) > MOST_CHARACTERS:
        raise Wrong(f"longer than {MOST_CHARACTERS} characters")
    found, at = [], 0
    while at < len(formula.rstrip()):
        if (match := _TOKEN.match(formula, at)) is None:
            raise Wrong(f"no number or sign: {quoted_text(formula[at:].strip())}")
        found.append("".join((match[1] or match[2]).split()))
        at = match.end()
    return found


class _Reader:
    """One pass over the tokens, without going back."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.depth = [*tokens, ""], 0, 0

    def all(self) -> Fraction:
        value = self.sum()
        if self.tokens[self.at]:
            raise Wrong(f"it goes on with {self.tokens[self.at]!r} where it should end")
        return value

    def take(self, *signs: str) -> str:
        here = self.tokens[self.at]
        self.at += here in signs
        return here if here in signs else ""

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            value += self.product() * (1 if sign == "+" else -1)
            self.check(value)
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while sign := self.take("*", "/"):
            other = self.factor()
            if sign == "/" and not other:
                raise Wrong("division by zero")
            value = value * other if sign == "*" else value / other
            self.check(value)
        return value

    def factor(self) -> Fraction:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Wrong(f"nested more than {MOST_DEPTH} deep")
        try:
            if self.take("-"):
                return -self.factor()
            if opened := self.take("(", "["):
                value = self.sum()
                if not self.take(_CLOSES[opened]):
                    raise Wrong(f"{opened!r} is never closed")
                return value
            token = self.tokens[self.at]
            if not token.isdigit():
                raise Wrong(f"found {token or 'the end'!r}, expected a number")
            self.at += 1
            if len(token) > MOST_DIGITS:
                raise Wrong(f"a number of {len(token)} digits")
            return Fraction(int(token))
        finally:
            self.depth -= 1

    def check(self, value: Fraction) -> None:
        if max(abs(value.numerator), value.denominator) >= 10**MOST_DIGITS:
            raise Wrong(f"a number of more than {MOST_DIGITS} digits")
