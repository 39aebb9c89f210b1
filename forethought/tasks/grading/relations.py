"""Names, equations and inequalities: `x = 5`, `2x - y + 3 = 0`, `0 <= x < 1`, `x in [0, 1)`."""

from __future__ import annotations

import re
from dataclasses import replace

from forethought.tasks.grading import algebra
from forethought.tasks.grading.algebra import TooLargeError
from forethought.tasks.grading.compare import same_values
from forethought.tasks.grading.value import Inner, Value, parsed, spelled, split

_RELATION = re.compile(r"(≤|≥|<|>|≠|∈)")
_NAMED = re.compile(
    r"(?:\\?[A-Za-zα-ω]|\\[a-z]+ ?|[A-Z]{2,3}|\\angle ?[A-Z]{1,3}|⟦[^⟦⟧=\d]{2,30}⟧(?: of [A-Za-z ]+)?"
    r"|[A-Za-z][a-z]{2,}(?: [A-Za-z][a-z]+){0,4}"
    r"|\( ?[a-z](?: ?, ?[a-z]){1,3} ?\)|\\overline ?\{[A-Z]{2}\})(?: ?_ ?(?:\{\w{1,6}\}|\w))?'{0,2}(?: "
    r"?\([^()=]{1,12}\))?"
)
_FALSE_NAMES = re.compile(
    r"\b(?:not?|never|wrong|false|less|more|sin|cos|tan|log|ln|sqrt|about|approximately)\b"
    r"|\\(?:pi|sqrt|frac|sin|cos|tan|ln|log"
    r"|binom|infty|pm)\b",
    re.IGNORECASE,
)


def _name(text: str) -> str | None:
    """The text as a name of a value (`x`, `f(x)`, `\text{Area}`, `(x, y)`), None for anything else."""
    text = text.strip()
    if not _NAMED.fullmatch(text) or _FALSE_NAMES.search(text) or text in ("e", "i"):
        return None
    return re.sub(r"[\s⟦⟧{}]", "", text).casefold() if len(text) > 3 else re.sub(r"[\s⟦⟧{}]", "", text)


def equation(text: str, inner: Inner) -> Value | None:
    """ "x = 5" as a named value, "a = b = c" as one value where all sides agree, else an equation."""
    if "=" not in text or (sides := split(text, "=")) is None or len(sides) < 2:
        return None
    sides = [side.strip() for side in sides]
    if not all(sides) or len(sides) > 6:
        return Value("words", spelled(text))
    if len(sides) == 2 and _name(sides[0]) is None and _name(sides[1]) is not None:
        sides.reverse()  # 5 = x
    name = _name(sides[0])
    values = [inner(side) for side in (sides[1:] if name else sides)]
    if all(value.kind not in ("words", "algebra", "large", "equation") for value in values):
        if all(same_values(values[0], other) for other in values[1:]) and (
            name or all(_constant(value) for value in values)
        ):
            last = values[-1]
            return (
                replace(last, name=name or last.name, text=spelled(text))
                if not last.name
                else Value("equation", None, spelled(text))
            )
    elif name and len(values) == 1 and values[0].kind != "equation":
        return replace(values[0], name=name, text=spelled(text))
    if len(sides) == 2:
        left, right = (parsed(side) for side in sides)
        if left is not None and right is not None:
            try:
                return Value("equation", algebra.plus(left, algebra.minus(right)))
            except (TooLargeError, ZeroDivisionError):
                pass
    return Value("equation", None)


def _constant(value: Value) -> bool:
    return (
        value.kind == "scalar"
        and algebra.value(value.body) is not None
        or value.kind in ("based", "infinity")
    )


def relation(text: str, inner: Inner) -> Value | None:
    """Inequalities and membership as intervals where they are of one variable; None where there is no
    sign."""
    if not _RELATION.search(text):
        return None
    parts = split(text, "≤≥<>≠∈", keep=True)
    if parts is None or len(parts) not in (3, 5):
        return Value("words", spelled(text)) if parts is None or len(parts) > 1 else None
    sides, signs = [part.strip() for part in parts[::2]], parts[1::2]
    if not all(sides):
        return Value("words", spelled(text))
    if signs == ["∈"]:
        name = _name(sides[0])
        return replace(inner(sides[1]), name=name) if name else Value("words", spelled(text))
    if signs[0] in "≥>":
        sides, signs = (
            sides[::-1],
            [{"≥": "≤", ">": "<", "≤": "≥", "<": ">"}.get(sign, sign) for sign in signs[::-1]],
        )
    if not all(sign in "≤<" for sign in signs):
        if signs == ["≠"]:
            left, right = (inner(side) for side in sides)
            return Value("unequal", (left, right))
        return Value("words", spelled(text))
    names = [_name(side) for side in sides]
    if len(sides) == 3 and names[1] and not (names[0] or names[2]):
        return _interval(names[1], sides[0], signs[0], signs[1], sides[2], inner)
    if len(sides) == 2 and names[0] and not names[1]:
        return _interval(names[0], None, "<", signs[0], sides[1], inner)
    if len(sides) == 2 and names[1] and not names[0]:
        return _interval(names[1], sides[0], signs[0], "<", None, inner)
    return Value("words", spelled(text))


def _interval(name: str, low: str | None, first: str, second: str, high: str | None, inner: Inner) -> Value:
    start = Value("infinity", "-", "-∞") if low is None else inner(low)
    end = Value("infinity", "", "∞") if high is None else inner(high)
    return Value(
        "tuple", ("[" if first == "≤" else "(", (start, end), "]" if second == "≤" else ")"), name=name
    )
