r"""Reads algebra, in LaTeX or plain, into a ratio of exact sums (see algebra). Bounded in length, depth and
size.

    read(r"2\sqrt{3}+\frac{x^2}{4}")
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import comb

from forethought.tasks.grading import algebra, angles
from forethought.tasks.grading.algebra import Ratio, TooLargeError

MOST_TOKENS = 250
MOST_DEPTH = 30

_TOKEN = re.compile(
    r"(\d+(?:\.\d+)?|\.\d+)|(\\[A-Za-z]+)|([A-Za-zα-ωΑ-Ω])|([-+*/^!()\[\]{}|√°_±'])|\s+|(\\[{}])|(.)",
    re.DOTALL,
)
_HEXADECIMAL = re.compile(r"(?<![\d.])0[xX][0-9A-Fa-f]")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_FUNCTIONS = (
    "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc ln log lg exp det arg max min gcd "
    "lcm deg dim ker sgn sqrt sign mod"
).split()
_TAKES_ONE = frozenset(
    "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc ln log lg exp sgn".split()
)
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "ι": "iota",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ν": "nu",
    "ξ": "xi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "υ": "upsilon",
    "φ": "phi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
_LETTER_OF = {name: letter for letter, name in _GREEK.items()} | {
    "varepsilon": "ε",
    "vartheta": "θ",
    "varphi": "φ",
    "varrho": "ρ",
    "ell": "ℓ",
    "hbar": "ℏ",
}
ENGLISH = frozenset(
    """no on is not in at it or an as by of to so if we he me my us up do go be am pm and the for ton ten two
 one six odd yes all any few may jun jul sun mon tue wed thu fri sat jan feb mar apr aug sep oct nov dec non
 nil but per out off old new red big bad low add sum put get got has had was are his her him its our you she
 who how why now then than very too own day men man cat dog pen box bag egg pie cup jar car bus toy hat cow
 pig hen can set end top mid low far near kg cm mm km ft lb oz ml mg hr min sec mph usd aud cad gbp eur bn mn
 tn ok na ca cc th st nd rd""".split()
)  # words of two or three letters: no products


class UnreadableError(ValueError):
    """The text is no algebra that this reader knows."""


def read(text: str) -> Ratio:
    """UnreadableError, or TooLargeError where it would grow beyond the bounds."""
    reader = _Reader(_tokens(text))
    try:
        found = reader.sum()
    except ZeroDivisionError:
        raise UnreadableError("a division by zero") from None
    except TooLargeError:
        raise
    except (OverflowError, RecursionError) as error:
        raise TooLargeError from error
    reader.expect_end()
    return found


def latex(text: str) -> str:
    """The text with the signs that this package uses put back into LaTeX, and functions with their
    backslash."""
    text = (
        re.sub(r"√ ?(\d+|[a-z])", r"\\sqrt{\1}", text)
        .replace("√", "\\sqrt")
        .replace("π", "\\pi ")
        .replace("∞", "\\infty ")
    )
    text = "".join(f"\\{_GREEK[sign]} " if sign in _GREEK else sign for sign in text).replace("*", "\\cdot ")
    return re.sub(rf"(?<![\\A-Za-z])({'|'.join(_FUNCTIONS)})(?![A-Za-z])", r"\\\1", text)


def _tokens(text: str) -> list[str]:
    """Numbers, letters, commands without their backslash where they are functions, signs. A word is no
    product of letters."""
    text = text.replace("**", "^").replace("\\,", " ")
    if _HEXADECIMAL.search(text):
        raise UnreadableError("a hexadecimal number")  # 0xFF is not nothing times x F F
    for run in _LETTERS.finditer(re.sub(r"\\[A-Za-z]+", " ", text)):
        if run[0] not in _FUNCTIONS and (
            len(run[0]) > 3 and not _functions_in(run[0]) or run[0].lower() in ENGLISH
        ):
            raise UnreadableError(f"a word, {run[0]!r}")
    tokens: list[str] = []
    at = 0
    while at < len(text):
        word = _LETTERS.match(text, at)
        name = next((f for f in _FUNCTIONS if word[0].startswith(f)), None) if word else None
        if name:
            tokens.append("\\" + name)
            at += len(name)
            continue
        match = _TOKEN.match(text, at)
        assert match is not None  # any character is a token
        if match[5] or match[6]:
            raise UnreadableError(f"a sign, {match[0]!r}")
        if not match[0].isspace():
            tokens.append(match[0])
        elif (
            tokens
            and tokens[-1][-1].isdigit()
            and text[match.end() : match.end() + 1].isdigit()
            and tokens[-2:-1] != ["_"]
            and not (tokens[-2:-1] == ["^"] and tokens[-3:-2] and tokens[-3][0] == "\\")  # \cos^2 30°
        ):
            raise UnreadableError("two numbers side by side")
        at = match.end()
        if len(tokens) > MOST_TOKENS:
            raise TooLargeError
    return tokens


def _functions_in(word: str) -> bool:
    return any(word.startswith(f) and len(word) - len(f) <= 2 for f in _FUNCTIONS)


def _is_number(token: str) -> bool:
    return token[:1].isdigit() or token[:1] == "." and len(token) > 1


class _Reader:
    """Recursive descent. Depth and number of tokens are bounded before."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.bars = 0  # how many |...| are open

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.next()
        if not token or wanted and token not in wanted:
            raise UnreadableError(f"expected {' or '.join(wanted) or 'more'}, found {token or 'the end'}")
        self.at += 1
        return token

    def expect_end(self) -> None:
        if self.next():
            raise UnreadableError(f"{self.next()!r} too much")

    # --- sums and products ---

    def sum(self) -> Ratio:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise TooLargeError
        total = self.signed(self.product)
        while self.next() in ("+", "-"):
            term = self.minus_or_plus()
            total = algebra.plus(total, term)
        self.depth -= 1
        return total

    def minus_or_plus(self) -> Ratio:
        sign = self.take("+", "-")
        if self.next() in ("+", "-"):  # "3 + -2", once; nothing else is written so
            term = self.signed(self.product)
        else:
            term = self.product()
        return algebra.minus(term) if sign == "-" else term

    def signed(self, inner: Callable[[], Ratio]) -> Ratio:
        if self.next() in ("+", "-"):
            sign = self.take()
            found = inner()
            return algebra.minus(found) if sign == "-" else found
        return inner()

    def product(self) -> Ratio:
        found = self.power(first=True)
        while True:
            token = self.next()
            if token in ("*", "/"):
                self.take()
                factor = self.signed(self.power)
                found = algebra.times(found, factor if token == "*" else algebra.inverse(factor))
            elif token and self.starts(token):
                if _is_number(token) and (
                    _is_number(self.tokens[self.at - 1]) or self.tokens[self.at - 1] == "!"
                ):
                    raise UnreadableError("two numbers side by side")
                if _is_number(token) and self.tokens[self.at - 1] not in (")", "*", "}", "]", "|"):
                    raise UnreadableError("a number behind a letter")
                found = algebra.times(found, self.power())
            else:
                return found

    def starts(self, token: str) -> bool:
        return (
            token in ("(", "{", "[", "√")
            or token == "|"
            and not self.bars
            or token[0].isalnum()
            or token[0] in "\\."
        )

    # --- powers and what they are of ---

    def power(self, first: bool = False) -> Ratio:
        start = self.at
        base = self.primary()
        mixed = (
            self.mixed(start)
            if first or start == 0 or self.tokens[start - 1] in ("(", "{", "[", "+", "-", "*", "/")
            else None
        )
        if mixed is not None:
            return mixed
        while self.next() in ("!", "°", "'"):
            sign = self.take()
            if sign == "'":
                raise UnreadableError("a derivative")
            if sign == "!" and self.next() == "!":
                raise UnreadableError("a double factorial")
            base = algebra.faculty(base) if sign == "!" else algebra.times(base, algebra.variable("°"))
        if self.next() == "^":
            self.take()
            base = algebra.power(base, self.exponent())
            if self.next() == "!":
                self.take()
                base = algebra.faculty(base)
            if self.next() == "^":
                raise UnreadableError("a double power")
        return base

    def mixed(self, start: int) -> Ratio | None:
        """`3\frac{1}{2}`: three and a half. None where the tokens from `start` are something else."""
        part = self.tokens[start : start + 8]
        if (
            len(part) == 8
            and part[1:3] == ["\\frac", "{"]
            and part[4:6] == ["}", "{"]
            and part[7] == "}"
            and part[0].isdigit()
            and part[3].isdigit()
            and part[6].isdigit()
            and self.at == start + 1
            and int(part[6])
        ):
            self.at = start + 8
            if self.next() == "^":
                raise UnreadableError("a power of a mixed number")
            return algebra.number(int(part[0]) + Fraction(int(part[3]), int(part[6])))
        return None

    def exponent(self) -> Ratio:
        """What a power is raised to: a group, or one sign of it with its sign."""
        if self.next() in ("{", "("):
            return self.group()
        if self.next() == "-":
            self.take()
            return algebra.minus(self.exponent())
        token = self.next()
        if _is_number(token):
            self.take()
            return algebra.number(Fraction(token))
        return self.primary()

    def group(self) -> Ratio:
        close = {"(": ")", "{": "}", "[": "]", "|": "|"}[self.take("(", "{", "[", "|")]
        bars, self.bars = self.bars, int(close == "|")
        found = self.sum()
        self.take(close)
        self.bars = bars
        return found

    def primary(self) -> Ratio:
        self.depth += 1
        if self.depth > 2 * MOST_DEPTH:
            raise TooLargeError
        try:
            return self._primary()
        finally:
            self.depth -= 1

    def _primary(self) -> Ratio:
        token = self.next()
        if not token:
            raise UnreadableError("nothing there")
        if token in ("(", "{", "["):
            return self.group()
        if token == "|" and not self.bars:
            inner = self.group()
            n = algebra.value(inner)
            return algebra.number(abs(n)) if n is not None else algebra.unread("abs", inner)
        self.take()
        if _is_number(token):
            return algebra.number(Fraction(token))
        if token == "√":
            return algebra.root(self.argument(), 2)
        if token[0] == "\\":
            return self.command(token[1:])
        if token.isalpha():
            return self.letter(token)
        raise UnreadableError(f"{token!r} where a number or a letter should be")

    def argument(self) -> Ratio:
        """The argument of a command: a group, or one token."""
        if self.next() in ("{", "("):
            return self.group()
        return self.primary()

    def letter(self, name: str) -> Ratio:
        if self.next() == "_":
            self.take()
            sub = self.subscript()
            return algebra.variable(f"{name}_{sub}")
        # f(2) is a function's value, and not 2f
        if name in ("f", "g") and self.tokens[self.at : self.at + 3 : 2] == ["(", ")"]:
            return algebra.unread(name, self.group())
        return algebra.variable(name)

    def subscript(self) -> str:
        if self.next() != "{":
            return self.take()
        self.take()
        said = ""
        while self.next() != "}":
            said += self.take()
        self.take()
        if not re.fullmatch(r"[\w+\-*,\\]{1,20}", said):
            raise UnreadableError("a subscript")
        return said

    def command(self, name: str) -> Ratio:
        if name == "frac":
            over = self.argument()
            return algebra.times(over, algebra.inverse(self.argument()))
        if name == "sqrt":
            degree = 2
            if self.next() == "[":
                self.take()
                said = self.take()
                self.take("]")
                if not said.isdigit() or not 2 <= int(said[:4]) <= 100:
                    raise UnreadableError("a root's degree")
                degree = int(said)
            return algebra.root(self.argument(), degree)
        if name in ("binom", "dbinom", "tbinom", "choose"):
            return self.binomial()
        if name in _LETTER_OF:
            return self.letter(_LETTER_OF[name])
        if name in _TAKES_ONE:
            return self.function(name)
        raise UnreadableError(f"the command {name}")

    def binomial(self) -> Ratio:
        over, under = self.argument(), self.argument()
        n, k = algebra.value(over), algebra.value(under)
        if n is None or k is None:
            return algebra.unread("binom", over, under)
        if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 5_000:
            raise TooLargeError
        return algebra.number(comb(int(n), int(k)))

    def function(self, name: str) -> Ratio:
        base: Ratio | None = None
        raised: Ratio | None = None
        for _ in range(2):
            if self.next() == "_" and base is None and name == "log":
                self.take()
                base = self.group() if self.next() == "{" else self.primary()
            elif self.next() == "^" and raised is None:
                self.take()
                raised = self.exponent()
        if self.next() in ("(", "{", "["):
            inner = self.group()
        else:
            inner = self.power()
            while (
                self.next()
                and self.next() not in ("\\frac",)
                and self.next()[0] not in "\\"
                and self.starts(self.next())
            ):
                if _is_number(self.next()) or self.next() == "(":
                    break
                inner = algebra.times(inner, self.power())
        if name == "exp":
            found = algebra.power(algebra.variable("e"), inner)
        elif name == "log" and base is not None:
            found = algebra.times(
                algebra.logarithm("ln", inner), algebra.inverse(algebra.logarithm("ln", base))
            )
        elif name in ("ln", "log"):
            found = algebra.logarithm(name, inner)
        else:
            found = angles.ratio(name, inner) or algebra.unread(name, inner)
        if raised is None:
            return found
        by = algebra.value(raised)
        if by is None or by < 0:  # sin^{-1} is not 1/sin
            return algebra.unread(f"{name}^{algebra.key(raised)}", inner)
        return algebra.power(found, raised)
