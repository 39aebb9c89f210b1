"""Losses worked out by hand: tokens, and what each row gives for them. Run on the numbers of every engine."""

from __future__ import annotations

from math import exp, log
from typing import NamedTuple

from forethought.core.types import Segment

E = exp(0.1)


class Case(NamedTuple):
    loss: str
    options: dict[str, float]
    logps: list[float]
    segments: list[Segment]
    total: float  # sum of weight x loss
    slopes: list[float]  # by the log-prob of each token
    measured: dict[str, float] = {}  # noqa: RUF012


def pg(
    logps: list[float], ratios: list[float], advantage: list[float], weight: list[float], sequence: int = -1
) -> Segment:
    return Segment(
        parent=0,
        token_ids=(3,) * len(logps),
        role="plan",
        stream="pg",
        weight=tuple(weight),
        advantage=tuple(advantage),
        old_logprobs=tuple(x - log(r) for x, r in zip(logps, ratios, strict=True)),
        sequence=sequence,
    )


def words(stream: str, weight: tuple[float, ...], **fields) -> Segment:
    return Segment(
        parent=0, token_ids=(3,) * len(weight), role="plan", stream=stream, weight=weight, **fields
    )


FIVE = [-1.0, -2.0, -0.5, -3.0, -1.0]
CASES = {
    # gains 2.6 (held), -3.0, 1.0, -1.6 (held), 2.2, of weight 1 but for the last
    "grpo": Case(
        "grpo",
        {"clip_low": 0.2, "clip_high": 0.3},
        FIVE,
        [pg(FIVE, [1.5, 1.5, 0.5, 0.5, 1.1], [2, -2, 2, -2, 2], [1, 1, 1, 1, 0.5])],
        -(2.6 - 3.0 + 1.0 - 1.6 + 1.1),
        [0.0, 3.0, -1.0, 0.0, -1.1],
        {"clip/share": 2 / 4.5},
    ),
    # 1.25 is above grpo's upper bound and below dapo's; 1.3 is above both, 0.7 below both
    "grpo holds at 1.25": Case(
        "grpo", {}, FIVE[:3], [pg(FIVE[:3], [1.25, 1.3, 0.7], [1, 1, -1], [1, 1, 1])], -1.6, [0.0, 0.0, 0.0]
    ),
    "dapo does not": Case(
        "dapo",
        {},
        FIVE[:3],
        [pg(FIVE[:3], [1.25, 1.3, 0.7], [1, 1, -1], [1, 1, 1])],
        -(1.25 + 1.28 - 0.8),
        [-1.25, 0.0, 0.0],
        {"clip/share": 2 / 3},
    ),
    # Two turns of one response: log-ratios 0.6, -0.3 and 0, of which the mean is 0.1 (the token of weight 0
    # is not in it); then one of its own with ratio 2, which is held where A > 0 and is not where A < 0.
    "gspo": Case(
        "gspo",
        {"clip_low": 0.2, "clip_high": 0.2},
        [-1.0, -2.0, -0.5, -3.0, -1.0, -1.0],
        [
            pg([-1.0, -2.0], [exp(0.6), exp(-0.3)], [1, 1], [1, 1], sequence=7),
            pg([-0.5, -3.0], [1.0, exp(9.0)], [2, 1], [0.5, 0], sequence=7),
            pg([-1.0, -1.0], [2.0, 2.0], [1, -1], [1, 1]),
        ],
        -(E + E + 0.5 * 2 * E) - (1.2 - 2.0),
        [-E, -E, -E, 0.0, 0.0, 2.0],
        {"clip/share": 1 / 4.5},
    ),
    # weights 1.5 (of 2), 0.5 (no floor), 1.2; loss = -weight x A x logp
    "cispo": Case(
        "cispo",
        {"clip_high": 0.5},
        [-1.0, -2.0, -0.5],
        [pg([-1.0, -2.0, -0.5], [2.0, 0.5, 1.2], [2, -1, 1], [1, 1, 1])],
        3.0 - 1.0 + 0.6,
        [-3.0, 0.5, -1.2],
        {"clip/share": 1 / 3},
    ),
    "cispo with a floor": Case(
        "cispo",
        {"clip_low": 0.2},
        [-1.0, -2.0],
        [pg([-1.0, -2.0], [2.0, 0.5], [1, 1], [1, 1])],
        2.0 + 1.6,
        [-2.0, -0.8],
    ),
    "sft": Case(
        "sft", {}, [-1.0, -2.0], [words("sft", (0.5, 2.0))], 4.5, [-0.5, -2.0], {"loss/sft_plan": 1.8}
    ),
    # sums of log-ratios 0.6, -0.3; twice them less A: 0.2, 0.4; the last segment has no reference
    "webrl": Case(
        "webrl",
        {"beta": 2.0},
        [-1.0, -2.0, -0.5, -4.0],
        [
            words("pg", (0.5, 0.5), advantage=(1.0, 1.0), ref_logprobs=(-1.5, -2.1), sequence=1),
            words("pg", (1.0,), advantage=(-1.0,), ref_logprobs=(-0.2,), sequence=2),
            words("pg", (1.0,), advantage=(1.0,)),
        ],
        0.04 + 0.16,
        [0.8, 0.8, 1.6, 0.0],
        {"webrl/ratio": (0.6 + 0.3) / 2},
    ),
    # mean log-ratios 0.3 (b 1), 0.05 (sure: b 5), masked, -0.8 (sure, held to b 1.25, in the straight part),
    # 0 (A = 0 is kept)
    "webrl_released": Case(
        "webrl_released",
        {},
        [-1.0, -2.0, -0.05, -3.0, -1.0, -2.0],
        [
            words("pg", (0.5, 0.5), advantage=(0.3, 0.3), ref_logprobs=(-1.5, -2.1), sequence=1),
            words("pg", (1.0,), advantage=(1.0,), ref_logprobs=(-0.1,), sequence=2),
            words("pg", (1.0,), advantage=(-0.1,), ref_logprobs=(-1.0,), sequence=3),
            words("pg", (1.0,), advantage=(1.0,), ref_logprobs=(-0.2,), sequence=4),
            words("pg", (1.0,), advantage=(0.0,), ref_logprobs=(-2.0,), sequence=5),
        ],
        0.245 + 0.05625 + 1.2 + 0.5,
        [-0.35, -0.35, -0.75, 0.0, -1.0, -1.0],
        {"webrl/kept": 0.8},
    ),
    # d = 0, ln 2, -1: 0, 1 - ln 2, 1/e; the second segment has no reference
    "k3": Case(
        "k3",
        {},
        [-1.0, -1.0, -1.0, -4.0],
        [
            words("pg", (1.0, 2.0, 1.0), ref_logprobs=(-1.0, -1.0 + log(2), -2.0)),
            words("pg", (1.0,)),
        ],
        2 * (1 - log(2)) + exp(-1),
        [0.0, -2.0, 1 - exp(-1), 0.0],
    ),
}
