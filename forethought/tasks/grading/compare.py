"""Whether two answers say the same. The relation is reflexive and symmetric; what each rule takes for equal
stands next to it.

    same_values(a, b)          by our own reading alone
    same_values(a, b, ask)     with `ask(left, right)`, a larger algebra, for two expressions that ours cannot
                               tell apart
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from forethought.tasks.grading import algebra
from forethought.tasks.grading.algebra import TooLargeError
from forethought.tasks.grading.expressions import latex
from forethought.tasks.grading.numbers import number
from forethought.tasks.grading.tables import BARE_LETTERS
from forethought.tasks.grading.units import DEGREE, RADIAN, agreements, unit
from forethought.tasks.grading.value import Value

Ask = Callable[[str, str], bool]
MOST_ASKED = 8  # items of lists that are compared by a larger algebra


def same_values(a: Value, b: Value, ask: Ask | None = None) -> bool:
    """Whether two values are equal. `ask`: a judge for algebra that the rules here leave open."""
    if a.text and a.text == b.text:
        return True
    if a.choice or b.choice:
        return _same_choice(a, b, ask)
    if a.name and b.name and a.name != b.name:  # x = 5 is not y = 5; 2x + y = 0 may be y = -2x
        return _same_equation(a, b)
    if a.kind == "equation" or b.kind == "equation":
        return _same_equation(a, b)
    if a.unit or b.unit:
        return _same_quantity(a, b, ask)
    return _same_body(a, b, ask)


def _bare(value: Value) -> Value:
    return Value(value.kind, value.body, "", value.unit, value.bound, value.name)


def _same_choice(a: Value, b: Value, ask: Ask | None) -> bool:
    """(C) 5 is C and is 5, but neither (D) 5 nor (C) 6."""
    if a.choice and b.choice:
        alone = "choice" in (a.kind, b.kind)
        return a.choice == b.choice and (alone or same_values(_bare(a), _bare(b), ask))
    lettered, other = (a, b) if a.choice else (b, a)
    return lettered.kind != "choice" and same_values(_bare(lettered), other, ask)


def _same_quantity(a: Value, b: Value, ask: Ask | None) -> bool:
    """A unit on one side alone is dress; two units must measure the same thing, and then 1 hour is 60
    minutes."""
    if a.kind != "scalar" or b.kind != "scalar":
        return False
    a, b = _lettered(a, b), _lettered(b, a)
    if (turned := _same_angle(a, b)) is not None:
        return turned
    if not a.unit or not b.unit:
        return not (a.bound or b.bound) and _same_body(a, b, ask)
    for factor in sorted(agreements(a.unit, b.unit)):
        try:
            scaled = Value("scalar", algebra.times(a.body, algebra.number(factor)))
        except TooLargeError:
            return False
        if _same_body(scaled if factor != 1 else Value("scalar", a.body), Value("scalar", b.body), None):
            return True
    return False


_LETTERED = re.compile(r"(.*[\d})]) ?([A-Za-z])(?:\^\{?([23])\}?)?")


def _lettered(value: Value, other: Value) -> Value:
    """`5 L` beside `5 liters`: a bare letter is the unit where the other side names one of its dimensions."""
    if value.unit or not other.unit or not (match := _LETTERED.fullmatch(value.text)):
        return value
    if match[2] not in BARE_LETTERS or (n := number(match[1])) is None:
        return value
    said = unit(f"⟦{match[2]}⟧" + (f"^{match[3]}" if match[3] else ""))
    if not said or not agreements(said, other.unit):
        return value
    return Value("scalar", algebra.number(n), value.text, said)


def _same_angle(a: Value, b: Value) -> bool | None:
    """90° is π/2 radians, and π/2 alone, a multiple of π. None where these are no such two."""
    if agreements(b.unit, DEGREE):
        a, b = b, a
    if not agreements(a.unit, DEGREE) or b.unit and not agreements(b.unit, RADIAN):
        return None
    try:
        turned = algebra.value(algebra.times(b.body, algebra.inverse(algebra.variable("π"))))
    except (TooLargeError, ZeroDivisionError):
        return None
    if turned is not None and (turned or b.unit) and algebra.value(a.body) == 180 * turned:
        return True
    return False if b.unit else None


def _same_equation(a: Value, b: Value) -> bool:
    """Equations in two or more letters are equal up to a factor: y = 2x + 3 is 2x - y + 3 = 0. 2x = 10 is not
    solved and not x = 5."""
    left, right = _zero(a), _zero(b)
    if left is None or right is None:
        return False
    if any(algebra.opaque(side) for side in (left, right)) or min(map(_letters, (left, right))) < 2:
        return left == right
    try:
        over, under = ({mono: c / _lead(side[0]) for mono, c in side[0].items()} for side in (left, right))
        return over == under
    except (TooLargeError, ZeroDivisionError):
        return False


def _zero(value: Value) -> algebra.Ratio | None:
    if value.kind == "equation":
        return value.body
    if value.kind == "scalar" and value.name.isalpha() and len(value.name) == 1 and not value.unit:
        try:
            return algebra.plus(algebra.variable(value.name), algebra.minus(value.body))
        except TooLargeError:
            return None
    return None


def _letters(ratio: algebra.Ratio) -> int:
    return len(
        {
            atom
            for side in ratio
            for mono in side
            for atom, _ in mono
            if atom[0] != "#" and atom not in ("e", "i", "π")
        }
    )


def _lead(total: algebra.Sum):
    return total[max(total)]


def _same_body(a: Value, b: Value, ask: Ask | None) -> bool:
    kinds = {a.kind, b.kind}
    if kinds <= {"scalar", "algebra"}:
        return _same_scalar(a, b, ask)
    if kinds == {"list", "set"}:
        listed, once = (a, b) if a.kind == "list" else (b, a)
        return _same_items(listed.body, _each_once(once.body), ask)
    if kinds == {"set", "scalar"} or kinds == {"list", "scalar"}:
        return False
    if kinds == {"clock", "ratio"}:
        clock, ratio = (a.body, b.body) if a.kind == "clock" else (b.body, a.body)
        hours, minutes = clock[0] // 3600, clock[0] % 3600 // 60
        return not clock[1] and hours > 0 and ratio == (1, algebra.Fraction(minutes, hours))
    if len(kinds) > 1:
        return False
    if a.kind in ("words", "infinity", "based", "ratio", "date", "left", "span"):
        return a.body == b.body
    if a.kind == "clock":
        return a.body[0] == b.body[0]  # 10:30 is 10:30 a.m., as of 24 hours
    if a.kind == "list":
        return _same_items(a.body, b.body, ask)
    if a.kind == "set":
        return _same_items(_each_once(a.body), _each_once(b.body), ask)
    if a.kind == "union":
        return _same_items(a.body, b.body, ask)
    if a.kind == "unequal":
        return _same_items(a.body, b.body, ask)
    if a.kind == "tuple":
        return (a.body[0], a.body[2]) == (b.body[0], b.body[2]) and _same_row(a.body[1], b.body[1], ask)
    if a.kind == "matrix":
        (kind, rows), (other, others) = a.body, b.body
        return (
            kind == other
            and len(rows) == len(others)
            and all(_same_row(r, s, ask) for r, s in zip(rows, others, strict=True))
        )
    return False  # large: only its own text is equal


def _same_scalar(a: Value, b: Value, ask: Ask | None) -> bool:
    if a.kind == b.kind == "scalar":
        try:
            if algebra.equal(a.body, b.body):
                return True
        except TooLargeError:
            return False
        if not (algebra.opaque(a.body) or algebra.opaque(b.body)):
            return False
    return ask is not None and _askable(a.text) and _askable(b.text) and ask(a.text, b.text)


def _same_row(a: Sequence[Value], b: Sequence[Value], ask: Ask | None) -> bool:
    return len(a) == len(b) and all(same_values(x, y, ask) for x, y in zip(a, b, strict=True))


def _same_items(a: Sequence[Value], b: Sequence[Value], ask: Ask | None) -> bool:
    """The same items, each as often, in any order. Where the items have different names, they must have the
    same names on both sides."""
    if len(a) != len(b):
        return False
    named = len({item.name for item in (*a, *b)} - {""}) > 1
    left = list(b)
    asked = ask if len(a) <= MOST_ASKED else None
    for item in a:
        for known in (None, asked) if asked else (None,):
            at = next(
                (
                    i
                    for i, other in enumerate(left)
                    if not (named and item.name != other.name) and same_values(item, other, known)
                ),
                None,
            )
            if at is not None:
                break
        if at is None:
            return False
        del left[at]
    return True


def _each_once(items: Sequence[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items:
        if not any(same_values(item, other) for other in kept):
            kept.append(item)
    return kept


# --- what a larger algebra may be asked ---

_COMMANDS = frozenset(
    """frac sqrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp binom pi infty int
 sum prod lim alpha beta gamma delta epsilon theta lambda mu rho sigma phi varphi omega psi tau lfloor rfloor
 lceil rceil overline to""".split()
)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TOWER = re.compile(
    # numbers side by side, primes, e3: the larger algebra makes sums and products of them
    r"\d \d|'|(?<![\\A-Za-z])[A-Za-z]\d"
    r"|\^ ?\w ?\^|\^ ?\{[^{}]*\^|\^ ?\{? "
    r"?\d{4,}|\^\{[^{}]*\{|\d{16,}|!|°|\d_|[⟦⟧＄$%&#~≈∧∨∈∪∩=<>≤≥±]|\\(?:begin|end|text)"
)


def _askable(text: str) -> bool:
    """Real algebra of small size: no words, no product of letters that may be one, no towers of powers, no
    factorials."""
    if not text or len(text) > 200 or _TOWER.search(text):
        return False
    text = latex(text)
    return not _WORDS.search(re.sub(r"\\[A-Za-z]+", " ", text)) and all(
        c in _COMMANDS for c in re.findall(r"\\([A-Za-z]+)", text)
    )
