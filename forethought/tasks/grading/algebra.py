"""Exact algebra of bounded size: ratios of sums of monomials over the rationals.

A sum is {monomial: coefficient}; a monomial is a sorted tuple of (atom, exponent). Atoms are variables, the
primes under roots ("#2"), pi, e, i, and whatever is not taken apart: functions, roots of sums, symbolic
powers. Two ratios are equal where a*d - b*c is the empty sum. That decides equality for rational functions of
the variables, roots of rationals, pi, e and i taken as independent; where other atoms take part, equal sums
are equal and unequal ones are only not shown to be equal (`opaque`).
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial, isqrt

Mono = tuple[tuple[str, Fraction], ...]
Sum = dict[Mono, Fraction]
Ratio = tuple[Sum, Sum]

MOST_TERMS = 300
MOST_BITS = 40_000  # of one integer
MOST_POWER = 64  # of a sum of several terms
MOST_FACTORIAL = 3_000
TRIALS = 2_000  # divisors tried to split the number under a root

ONE: Sum = {(): Fraction(1)}


class TooLargeError(ValueError):
    """The expression would grow beyond the bounds."""


class Atom(str):
    """A name with, for roots of sums, the sum that it is a root of."""

    __slots__ = ("inner",)
    inner: Sum | None

    def __new__(cls, name: str, inner: Sum | None = None) -> Atom:
        made = super().__new__(cls, name)
        made.inner = inner
        return made


def number(value: Fraction | int) -> Ratio:
    """An exact rational as a ratio."""
    return _constant(Fraction(value)), ONE


def variable(name: str) -> Ratio:
    """A letter as a ratio."""
    return {((Atom(name), Fraction(1)),): Fraction(1)}, ONE


def unread(name: str, *arguments: Ratio) -> Ratio:
    """A function that is not taken apart, by the spelling of its arguments."""
    return variable(f"{name}({';'.join(key(argument) for argument in arguments)})")


def value(ratio: Ratio) -> Fraction | None:
    """The number that a ratio is; None for anything else."""
    over, under = ratio
    if set(over) <= {()} and set(under) == {()}:
        return over.get((), Fraction(0)) / under[()]
    return None


def key(ratio: Ratio) -> str:
    """Canonical text: equal ratios have equal keys."""
    over, under = ratio
    said = _spelled(over)
    return said if under == ONE else f"[{said}]/[{_spelled(under)}]"


def equal(a: Ratio, b: Ratio) -> bool:
    """TooLargeError where telling it would grow beyond the bounds."""
    if a == b:
        return True
    return _product(a[0], b[1]) == _product(b[0], a[1])


def opaque(ratio: Ratio) -> bool:
    """Whether something takes part that this algebra does not take apart."""
    return any("(" in atom or "<" in atom for side in ratio for mono in side for atom, _ in mono)


# --- operations ---


def plus(a: Ratio, b: Ratio) -> Ratio:
    """a + b."""
    if a[1] == b[1]:
        return _settled(_added(a[0], b[0]), a[1])
    return _settled(_added(_product(a[0], b[1]), _product(b[0], a[1])), _product(a[1], b[1]))


def minus(a: Ratio) -> Ratio:
    """-a."""
    return {mono: -c for mono, c in a[0].items()}, a[1]


def times(a: Ratio, b: Ratio) -> Ratio:
    """a * b."""
    return _settled(_product(a[0], b[0]), _product(a[1], b[1]))


def inverse(a: Ratio) -> Ratio:
    """ZeroDivisionError for nothing."""
    if not a[0]:
        raise ZeroDivisionError
    return _settled(a[1], a[0])


def power(base: Ratio, exponent: Ratio) -> Ratio:
    """base ^ exponent; symbolic where the exponent is not a number."""
    by = value(exponent)
    if by is None:
        return _symbolic(base, exponent)
    if by.denominator > 1:
        return _whole(_root(base, by.denominator), by.numerator)
    return _whole(base, by.numerator)


def root(base: Ratio, degree: int) -> Ratio:
    """The root of this degree."""
    return _root(base, degree)


def faculty(base: Ratio) -> Ratio:
    """n! of a whole number from 0 to MOST_FACTORIAL; an unread term for anything else."""
    n = value(base)
    if n is not None and n.denominator == 1 and 0 <= n <= MOST_FACTORIAL:
        return number(factorial(int(n)))
    return unread("fact", base)


def logarithm(name: str, base: Ratio) -> Ratio:
    """Split over the primes of a positive number, so that ln 4 is 2 ln 2."""
    n = value(base)
    if n is None or n <= 0:
        return number(1) if name == "ln" and base == variable("e") else unread(name, base)
    total = number(0)
    for part, sign in ((n.numerator, 1), (n.denominator, -1)):
        for prime, count in _factors(part).items():
            total = plus(total, times(number(sign * count), unread(name, number(prime))))
    return total


# --- inside ---


def _constant(c: Fraction) -> Sum:
    if c.numerator.bit_length() > MOST_BITS or c.denominator.bit_length() > MOST_BITS:
        raise TooLargeError
    return {(): c} if c else {}


def _added(a: Sum, b: Sum) -> Sum:
    out = dict(a)
    for mono, c in b.items():
        if total := out.get(mono, 0) + c:
            out[mono] = total
        else:
            out.pop(mono, None)
    return _bounded(out)


def _bounded(total: Sum) -> Sum:
    if len(total) > MOST_TERMS or any(
        max(c.numerator.bit_length(), c.denominator.bit_length()) > MOST_BITS for c in total.values()
    ):
        raise TooLargeError
    return total


def _product(a: Sum, b: Sum) -> Sum:
    if a is ONE or a == ONE:
        return b
    if b is ONE or b == ONE:
        return a
    if len(a) * len(b) > 40 * MOST_TERMS:
        raise TooLargeError
    out: Sum = {}
    for left, c in a.items():
        for right, d in b.items():
            mono, coefficient, rest = _joined(left, right, c * d)
            made = {mono: coefficient}
            for inner in rest:
                made = _product(made, inner)
            for m, x in made.items():
                if total := out.get(m, 0) + x:
                    out[m] = total
                else:
                    out.pop(m, None)
            if len(out) > MOST_TERMS:
                raise TooLargeError
    return _bounded(out)


def _joined(left: Mono, right: Mono, c: Fraction) -> tuple[Mono, Fraction, list[Sum]]:
    """The product of two monomials: what is left of it as one, its coefficient, and sums that roots have
    become."""
    exponents: dict[str, Fraction] = dict(left)
    for atom, exponent in right:
        if atom in exponents:
            exponents[atom] += exponent
        else:
            exponents[atom] = exponent
    rest: list[Sum] = []
    kept = []
    for atom, exponent in exponents.items():
        if not exponent:
            continue
        if atom[0] == "#":
            whole = exponent.numerator // exponent.denominator
            c, exponent = c * Fraction(int(atom[1:])) ** whole, exponent - whole
        elif atom == "i":
            if exponent.denominator == 1:
                turn = int(exponent) % 4
                c, exponent = (-c if turn >= 2 else c), Fraction(turn % 2)
        elif isinstance(atom, Atom) and atom.inner is not None and exponent >= 1:
            whole = exponent.numerator // exponent.denominator
            if whole > MOST_POWER:
                raise TooLargeError
            rest += [atom.inner] * whole
            exponent -= whole
        if exponent:
            kept.append((atom, exponent))
    return tuple(sorted(kept)), c, rest


def _settled(over: Sum, under: Sum) -> Ratio:
    """With a denominator of one term taken into the numerator."""
    if not under:
        raise ZeroDivisionError
    if not over:
        return {}, ONE
    if len(under) > 1:
        return over, under
    ((mono, c),) = under.items()
    below = ONE
    turned: Sum = {(): 1 / c}
    for atom, exponent in mono:
        inner = atom.inner if isinstance(atom, Atom) else None
        if inner is None or exponent < 0:
            whole, c, _ = _joined(((atom, -exponent),), (), Fraction(1))
            turned = _product(turned, {whole: c})
        else:  # 1/root(s) is root(s)/s
            turned = _product(turned, {((atom, 1 - exponent),): Fraction(1)})
            below = _product(below, inner)
    return _product(over, turned), below


def _whole(base: Ratio, by: int) -> Ratio:
    if by < 0:
        return _whole(inverse(base), -by)
    if by == 0:
        return number(1)
    n = value(base)
    if n is not None:
        if max(n.numerator.bit_length(), n.denominator.bit_length()) * by > MOST_BITS and abs(n) != 1 and n:
            raise TooLargeError
        return number(n if by % 2 else abs(n)) if abs(n) == 1 else number(n**by)
    if by > MOST_POWER:
        over, under = base
        if len(over) > 1 or len(under) > 1 or by > MOST_BITS:
            raise TooLargeError
    out, square = number(1), base
    while by:
        if by & 1:
            out = times(out, square)
        by >>= 1
        square = times(square, square) if by else square
    return out


def _root(base: Ratio, degree: int) -> Ratio:
    if not 1 <= degree <= 100:
        raise TooLargeError
    if degree == 1 or not base[0]:
        return base
    n = value(base)
    if n is not None:
        return _root_of_number(n, degree)
    over, under = base
    # the number before a root of a product comes out, the letters stay under it
    if len(over) == 1 and under == ONE:
        ((mono, c),) = over.items()
        if c != 1 and c > 0:
            return times(_root_of_number(c, degree), _root(({mono: Fraction(1)}, ONE), degree))
        if mono == (("e", Fraction(1)),) or mono == (("π", Fraction(1)),):
            return {((mono[0][0], Fraction(1, degree)),): Fraction(1)}, ONE
    if under == ONE:
        return {((Atom(f"<{key(base)}>", over), Fraction(1, degree)),): Fraction(1)}, ONE
    return unread(f"root{degree}", base)


def _root_of_number(n: Fraction, degree: int) -> Ratio:
    out = number(1)
    if n < 0:
        out = (
            number(-1)
            if degree % 2
            else variable("i")
            if degree == 2
            else unread(f"root{degree}", number(-1))
        )
        n = -n
    exponents: dict[int, int] = {}
    for part, sign in ((n.numerator, 1), (n.denominator, -1)):
        for prime, count in _factors(part).items():
            exponents[prime] = exponents.get(prime, 0) + sign * count
    for prime, count in exponents.items():
        # whole powers leave the root
        mono, c, _ = _joined(((Atom(f"#{prime}"), Fraction(count, degree)),), (), Fraction(1))
        out = times(out, ({mono: c}, ONE))
    return out


def _factors(n: int) -> dict[int, int]:
    """Prime -> how often; what no small number divides counts as one prime, or as its root twice."""
    found: dict[int, int] = {}
    for prime in (2, 3, *range(5, TRIALS, 2)):
        if prime * prime > n:
            break
        while n % prime == 0:
            n //= prime
            found[prime] = found.get(prime, 0) + 1
    if n > 1:
        side = isqrt(n)
        whole, count = (side, 2) if side * side == n else (n, 1)
        found[whole] = found.get(whole, 0) + count
    return found


def _symbolic(base: Ratio, exponent: Ratio) -> Ratio:
    """A power with letters in its exponent, over the terms of the exponent: 2^(n+1) is 2 * 2^n."""
    if exponent[1] != ONE:
        return unread("pow", base, exponent)
    n = value(base)
    if n is not None and n > 0:
        bases = [
            (number(p), s * k)
            for part, s in ((n.numerator, 1), (n.denominator, -1))
            for p, k in _factors(part).items()
        ]
    elif (
        base[1] == ONE
        and len(base[0]) == 1
        and next(iter(base[0].values())) == 1
        and len(next(iter(base[0]))) == 1
    ):
        ((atom, by),) = next(iter(base[0]))
        if by != 1:
            return unread("pow", base, exponent)
        bases = [(variable(atom), 1)]
    else:
        return unread("pow", base, exponent)
    out = number(1)
    for part, count in bases:
        for mono, c in exponent[0].items():
            c *= count
            if mono == ():
                out = times(out, power(part, number(c)))
            else:
                name = f"pow({key(part)};{key(({mono: Fraction(1)}, ONE))})"
                out = times(out, ({((Atom(name), c),): Fraction(1)}, ONE))
    return out


def _spelled(total: Sum) -> str:
    terms = sorted(
        ("*".join(f"{atom}^{exponent}" for atom, exponent in mono), c) for mono, c in total.items()
    )
    if sum(c.numerator.bit_length() + c.denominator.bit_length() for _, c in terms) > 12_000:
        raise TooLargeError  # Python does not write whole numbers of more than 4,300 digits
    return "+".join(f"{c}*{mono}" for mono, c in terms) or "0"
