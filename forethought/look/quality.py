"""Plans in free text, measured without executing them: against sub-questions that somebody wrote, and by what
they give away.

    plan        1. Find the eggs that are left to sell.  2. Find what Janet makes at the market.
    reference   How many eggs does Janet sell?           How much does Janet make at the farmers' market?

Two steps resemble each other by the F1 of their content words, as answers of SQuAD do (arXiv 1606.05250).
Steps and sub-questions are aligned in their order, so that the sum over the pairs is the largest that there
is; a step is paired at most once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from forethought.core.metrics import avg_at_k, mean_interval, share_interval
from forethought.look.records import Record
from forethought.stages.distill.leaks import calculation, new_numbers, says, without_markers
from forethought.tasks.base import Asked, Taskset

COVERED = 0.5  # share of a sub-question's content words that the step beside it must hold
_FUNCTION_WORDS = frozenset(
    "a an the this that these those each all some any of to in on at by for from with as into and or but if "
    "then than so is are was were be been do does did has have had will would can could should it its he she "
    "they them his her their him we you i who what which when where why how many much there".split()
)
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
_NUMBERED = re.compile(r"(?:(?<=\s)|^)(?:step\s+)?\d{1,2}[.):]\s+", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")


def references(taskset: Taskset, records: Sequence[Record]) -> dict:
    """{"references": ...} for the problems that come with sub-questions; {} where none does. Means over
    problems, each the mean over its responses, with 95 % intervals over problems:

    f1        2 x (sum of F1 over the aligned pairs) / (steps + sub-questions): 1 for the same steps, 0 where
              no word is shared
    covered   share of the sub-questions of which at least half of the content words stand in the step beside
              them
    f1_other  f1 with the sub-questions of the next problem instead: what chance gives
    steps, sub_questions   their mean numbers
    """
    pairs = [
        (_plans(taskset, record), asked.sub_questions)
        for record in records
        if (asked := taskset.asked(record.task)).sub_questions
    ]
    if not pairs:
        return {}
    others = [asked for _, asked in pairs[1:] + pairs[:1]]
    scores = {
        "f1": [avg_at_k([f1(plan, asked) for plan in plans]) for plans, asked in pairs],
        "covered": [avg_at_k([covered(plan, asked) for plan in plans]) for plans, asked in pairs],
        "f1_other": [
            avg_at_k([f1(plan, asked) for plan in plans])
            for (plans, _), asked in zip(pairs, others, strict=True)
        ],
        "steps": [avg_at_k([len(plan) for plan in plans]) for plans, _ in pairs],
        "sub_questions": [len(asked) for _, asked in pairs],
    }
    return {
        "references": {"problems": len(pairs)}
        | {name: _with_interval(values) for name, values in scores.items()}
    }


def leaks(taskset: Taskset, records: Sequence[Record]) -> dict:
    """{"leaks": ...} over problems: "answer" (share of plans that state the answer although the problem does
    not), "calculation" (share of plans with a calculation), "numbers" (mean count of numbers in a plan that
    are not in the problem)."""
    rows = [
        [_leaks(plan, taskset.asked(record.task)) for plan in _texts(taskset, record)] for record in records
    ]
    found: dict = {}
    for i, name in enumerate(("answer", "calculation")):
        mean, low, high = share_interval(
            [avg_at_k([row[i] for row in plans]) for plans in rows], len(rows[0])
        )
        found[name] = {"value": mean, "low": low, "high": high}
    return {
        "leaks": found | {"numbers": _with_interval([avg_at_k([row[2] for row in plans]) for plans in rows])}
    }


def steps_of(plan: str) -> list[str]:
    """The lines of a plan without their numbering; for a plan of one line its numbered items, or else its
    sentences."""
    lines = [line.strip() for line in plan.splitlines() if line.strip()]
    if len(lines) == 1:
        items = [item for item in _NUMBERED.split(lines[0]) if item.strip()]
        lines = _SENTENCE.split(items[0]) if len(items) == 1 else items
    bare = (without_markers(line).strip() for line in lines)
    return [line for line in bare if any(word.isalpha() for word in content_words(line))]


def content_words(text: str) -> Counter[str]:
    """Words that carry content, lower case, with counts."""
    return Counter(word for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS)


def f1(steps: Sequence[str], asked: Sequence[str]) -> float:
    """See `references`; 0 for a plan without steps."""
    return 2 * sum(score for _, _, score in align(steps, asked)) / (len(steps) + len(asked)) if steps else 0.0


def covered(steps: Sequence[str], asked: Sequence[str]) -> float:
    """See `references`."""
    held = 0
    for i, j, _ in align(steps, asked):
        wanted = content_words(asked[j])
        held += (wanted & content_words(steps[i])).total() >= COVERED * wanted.total()
    return held / len(asked)


def align(steps: Sequence[str], asked: Sequence[str]) -> list[tuple[int, int, float]]:
    """(step, sub-question, F1 of their words) for every pair, in order: the order-preserving alignment with
    the largest sum."""
    a, b = [content_words(step) for step in steps], [content_words(question) for question in asked]
    like = [[2 * (x & y).total() / (x.total() + y.total()) if x and y else 0.0 for y in b] for x in a]
    # of the steps from i on with the sub-questions from j on
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], like[i][j] + best[i + 1][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j, like[i][j]))
            i, j = i + 1, j + 1
    return pairs


def _texts(taskset: Taskset, record: Record) -> list[str]:
    """What the role that speaks first said in each response, without the word that ends its turn."""
    first = [response.turns[0] for response in record.responses]
    return [turn.text.removesuffix(taskset.stop(turn.role)) for turn in first]


def _plans(taskset: Taskset, record: Record) -> list[list[str]]:
    return [steps_of(text) for text in _texts(taskset, record)]


def _leaks(plan: str, asked: Asked) -> tuple[float, float, float]:
    answer = says(without_markers(plan), asked.answer) and not says(asked.question, asked.answer)
    return float(answer), float(calculation(plan) is not None), float(len(new_numbers(plan, asked.question)))


def _with_interval(values: Sequence[float]) -> dict:
    mean, low, high = mean_interval(values)
    return {"value": mean, "low": low, "high": high}
