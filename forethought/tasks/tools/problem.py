"""Problems about how many things people have, drawn at random, and the steps that solve them.

    b has a plus 1 2 ; c has b times 3 ; d has c plus e ;        ASK d

Who is not spoken of must be looked up, or, with `given` numbers, is told too (`a has 4 7 ;`). The steps are
worked out from the goal down, and carried out in the reverse order, so that each stands after what it
needs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NAMES = tuple("abcdefghijklmnopqrstuvwx")
SIGNS = {"plus": "+", "minus": "-", "times": "*"}
TIMES = range(2, 10)
LARGEST = 99_999  # no rule but a sum of two people and `minus` leads above it


@dataclass(frozen=True, slots=True, kw_only=True)
class Has:
    """How a number comes about: by `rule` from that of `who`, and of `other`, or the number `by`."""

    rule: str  # a key of SIGNS
    who: str
    other: str = ""
    by: int = 0

    def needs(self) -> tuple[str, ...]:
        """The people whose numbers it takes."""
        return (self.who, self.other) if self.other else (self.who,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`rules`: how the number of a person comes about; `numbers`: of those who have one of their own; `book`:
    whose number stands in the second register, and not in the first; `given`: whether the numbers are
    told."""

    goal: str
    value: int
    rules: Mapping[str, Has]
    numbers: Mapping[str, int]
    book: frozenset[str] = frozenset()
    given: bool = False

    def order(self) -> list[str]:
        """Whoever matters, from the goal down, each before those whom it needs; told numbers are not
        steps."""
        found: list[str] = []
        waiting = [self.goal]
        while waiting:
            name = waiting.pop()
            if name in self.rules:
                waiting.extend(reversed(self.rules[name].needs()))
            elif self.given:
                continue
            found.append(name)
        return found


def spelled(number: int) -> str:
    """A number as words, digit by digit."""
    return " ".join(str(number))


def sentence(name: str, has: Has) -> str:
    """The rule of a person in words."""
    return f"{name} has {has.who} {has.rule} {has.other or spelled(has.by)}"


def drawn(
    rng: random.Random, steps: int, *, digits: int, together: float, spare: int, given: bool, book: float
) -> tuple[Problem, str]:
    """A problem whose goal takes so many calculations, and its sentences, shuffled. `together`: the chance of
    a sum of two people; `spare`: rules that do not matter; `book`: the chance that a number stands in the
    second register."""
    names = iter(rng.sample(NAMES, len(NAMES)))
    rules: dict[str, Has] = {}
    values: dict[str, int] = {}
    goal = _person(rng, steps, digits, together, names, rules, values)
    for _ in range(spare):
        _rule(rng, digits, rng.choice(list(values)), next(names), rules, values)
    numbers = {name: value for name, value in values.items() if name not in rules}
    said = [f"{sentence(name, has)} ;" for name, has in rules.items()]
    if given:
        said += [f"{name} has {spelled(value)} ;" for name, value in numbers.items()]
    rng.shuffle(said)
    moved = frozenset(name for name in numbers if not given and rng.random() < book)
    problem = Problem(goal=goal, value=values[goal], rules=rules, numbers=numbers, book=moved, given=given)
    return problem, " ".join(said)


def _person(
    rng: random.Random,
    steps: int,
    digits: int,
    together: float,
    names: Iterator[str],
    rules: dict[str, Has],
    values: dict[str, int],
) -> str:
    """A new person whose number takes so many calculations; those below it are drawn with it."""
    name = next(names)
    if not steps:
        values[name] = rng.randrange(1, 10**digits)
        return name
    below = (digits, together, names, rules, values)
    if rng.random() < together:
        left = rng.randrange(steps)
        who, other = (_person(rng, n, *below) for n in (left, steps - 1 - left))
        rules[name], values[name] = Has(rule="plus", who=who, other=other), values[who] + values[other]
        return name
    return _rule(rng, digits, _person(rng, steps - 1, *below), name, rules, values)


def _rule(
    rng: random.Random,
    digits: int,
    who: str,
    name: str,
    rules: dict[str, Has],
    values: dict[str, int],
) -> str:
    """`name` has what `who` has plus or minus a number, or times one; what would leave the range is not
    drawn."""
    value, by, times = values[who], rng.randrange(1, 10**digits), rng.choice(TIMES)
    ways = {"plus": value + by, "minus": value - by, "times": value * times}
    most = {"minus": value}
    rule = rng.choice([way for way, result in ways.items() if 0 <= result <= most.get(way, LARGEST)])
    rules[name] = Has(rule=rule, who=who, by=times if rule == "times" else by)
    values[name] = ways[rule]
    return name
