"""What a plan may not give away: the answer, and calculations. A plan says what to work out, the chain works
it out."""

from __future__ import annotations

import re

from forethought.stages.distill.numbers import digits_in, number_of, values_in

_MARKER = re.compile(
    r"^[ \t]*(?:(?:step|phase)[ \t]+)?\d{1,3}[ \t]*[.):](?=\s)[ "
    r"\t]*",
    re.IGNORECASE | re.MULTILINE,
)
# No part gives back what it took (`++`, `*+`): on a long text that would take the square of its length.
_EQUALS = re.compile(r"(?<![\w.,%)\]])(?=[\w.,%)\]]*?\d)[\w.,%)\]]++\s*+=|=\s*+[^\w\s=]*+\s*+\d")
_OPERATION = re.compile(
    r"\d[%)]*+\s*+[+*×÷^]\s*+[$€£(]*+\s*+\.?\d|"
    r"\d[%)]*+\s++[-–−/x:]\s++[$€£(]*+\s*+\.?\d|\d[%)]*+[*×x÷][$€£(]*+\.?\d",
    re.IGNORECASE,
)


def without_markers(text: str) -> str:
    """The text without the numbers that only count its steps ("2." or "Step 2:" at the head of a line)."""
    return _MARKER.sub("", text)


def calculation(text: str) -> str | None:
    """The first piece of a calculation: GSM8K's <<...>>, an equals sign beside digits, an operator between
    two numbers. A range or a fraction without spaces (10-15, 3/4) is none."""
    if "<<" in text:
        return text[text.index("<<") :][:40]
    found = _EQUALS.search(text) or _OPERATION.search(text)
    return found[0] if found else None


def says(text: str, answer: str) -> bool:
    """Whether the text holds the answer: a number by its value, in digits or words, whatever its sign; other
    answers as whole words, or, with LaTeX, as the same characters but for white space. A single letter must
    match in case."""
    value = number_of(answer)
    if value is not None:
        return abs(value) in values_in(text)
    wanted = answer.strip().strip("$").strip()
    if not wanted:
        return False
    if re.fullmatch(r"[\w\s]+", wanted):
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, wanted.split())) + r"(?!\w)"
        return re.search(pattern, text, re.IGNORECASE if len(wanted) > 1 else 0) is not None
    return "".join(wanted.split()) in "".join(text.split())


def new_numbers(plan: str, question: str) -> list[str]:
    """The numbers, written with digits, that the plan did not get from the question. Numbers that count steps
    are left out."""
    known = values_in(question)
    return [str(value) for value in digits_in(without_markers(plan)) if value not in known]
