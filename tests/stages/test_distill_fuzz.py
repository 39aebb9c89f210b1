"""Odd texts and odd replies, drawn at random: every one is judged, read or refused, and none is a fault of
ours."""

from __future__ import annotations

import json
import random

import pytest

from forethought.core.errors import UserError
from forethought.stages.distill import reply
from forethought.stages.distill.address import address_of
from forethought.stages.distill.filter import REASONS, FilterSpec, judge
from forethought.stages.distill.pace import retry_after
from forethought.stages.distill.records import Drop, Item, Summary
from forethought.stages.distill.rules import item_of_gsm8k, steps

PIECES = [
    "<plan>",
    "</plan>",
    "<think>",
    "</think>",
    "<act>",
    "</act>",
    "[THINK]",
    " ",
    "\n",
    "\t",
    "\r",
    "\0",
    "\x1b[2J",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\xa0",
    "0",
    "7",
    "12",
    "1,000",
    "1,0,0",
    "3.5",
    ".5",
    *"+-*×÷=/^%$€()?",
    "<<",
    "<<3+4=7>>",
    ">>",
    "x",
    "A",
    "an",
    "twenty-one",
    "hundred",
    "thousand million",
    "one",
    "and",
    "Step 2:",
    "####",
    "\\frac{1}{2}",
    "\\frac{1}{0}",
    "1/0",
    "9" * 50,
    "9" * 5000,
    "²",
    "½",
    "٣",
    "\ud800",
    "é",
    "e\u0301",
    "😀",
    "apples",
    "\\boxed{7}",
    "st",
    "’",
]
VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    float("nan"),
    "",
    "x",
    "<plan>a</plan>",
    [],
    {},
    [1],
    [None],
    ["x"],
    {"type": "text", "text": "x"},
    [{"type": "text", "text": 5}],
    [{"type": "thinking"}],
    [{"type": []}],
    {"code": 429},
    {"code": "x"},
    [[[]]],
    "\ud800",
]
NAMES = [
    "choices",
    "message",
    "content",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "refusal",
    "tool_calls",
    "reasoning",
    "reasoning_content",
    "error",
    "code",
    "text",
    "type",
]


def text(rng: random.Random, most: int = 30) -> str:
    return "".join(rng.choice(PIECES) + rng.choice(["", "", " "]) for _ in range(rng.randrange(most)))


def value(rng: random.Random, depth: int = 0) -> object:
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(VALUES)
    if rng.random() < 0.5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def body(rng: random.Random) -> str:
    message = {"content": value(rng), rng.choice(NAMES): value(rng)}
    said = {
        "choices": [{"message": message, "finish_reason": value(rng)}],
        "usage": value(rng),
        rng.choice(NAMES): value(rng),
    }
    written = json.dumps(said if rng.random() < 0.7 else value(rng))
    if rng.random() < 0.2:
        at = rng.randrange(len(written) + 1)
        written = written[:at] + rng.choice(['"', "[", "}", "\\u", "9" * 20, "\0"]) + written[at:]
    return written


@pytest.mark.parametrize("seed", range(3))
def test_odd_texts_are_judged(seed):
    rng = random.Random(seed)
    for _ in range(300):
        said, answer = (
            text(rng),
            rng.choice([text(rng, 3), "7", "1/0", "-5", "$7", "x", "yes", "\\frac{1}{0}"]),
        )
        item = Item(id="1", question=text(rng), chain=text(rng), answer=answer)
        judged = judge(item, Summary(id="1", text=rng.choice([said, f"<plan>{said}</plan>"])), FilterSpec())
        assert judged.reason in REASONS if isinstance(judged, Drop) else judged.strip()
        assert all(isinstance(step, str) and step for step in steps(item))
        assert item_of_gsm8k({"question": item.question, "answer": item.chain}, id="1").level >= 0
        assert 0 <= retry_after({"retry-after": said}) < 1e12
        try:
            assert address_of(f"http://{said}").isascii()
        except UserError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("seed", range(3))
def test_odd_replies_are_read_or_refused(seed):
    rng, ends = random.Random(seed), set()
    for _ in range(500):
        try:
            parsed = reply.parse(body(rng))
            stated = reply.tokens(parsed)
            assert stated is None or all(0 <= n <= 10**9 for n in stated)
            said = reply.read(parsed)
            said.text.encode()
            ends.add("text" if said.text else "none")
        except reply.Nonsense as error:
            assert 0 <= error.status < 600
            ends.add("nonsense")
    assert ends == {"text", "none", "nonsense"}
