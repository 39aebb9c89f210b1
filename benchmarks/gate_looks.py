"""How often a gate rolls back a stage that did no harm, and how often it sees one that did.

    python benchmarks/gate_looks.py [--stages 2000] [--seed 0]

A stage is simulated and judged by `measure/gates.py` itself, with `max_drop = 0.01` at `confidence = 0.95`. A
task has a fixed difficulty and, at each evaluation, noise of its own, which lives on from one evaluation to
the next by `rho` (0: forgotten at once). Without harm nothing else happens: at every evaluation each task is
solved with the probability of the start, so every fall is chance. With harm the share that is solved falls by
six points, evenly over the stage. "normal" is the rule that gates had before: the interval mean +- 1.96
standard errors of the differences excludes 0, at each evaluation anew.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from forethought.measure.gates import Evaluation, judge
from forethought.recipe.schema import GateSpec

RULES = ("normal", "each", "even", "late")
NOISE = 0.5  # standard deviation beside that of the difficulties, which is 1
# (tasks, evaluations after the start, share solved, rho)
CASES = [(n, k, p, rho) for n in (100, 500) for k in (1, 4, 8, 20) for p, rho in ((0.95, 0.0), (0.7, 0.8))]


def stage(rng: np.random.Generator, n: int, looks: int, solved: float, rho: float, harm: float) -> np.ndarray:
    """Whether each of `n` tasks is solved at the start and at each look: [1 + looks, n]."""
    scale = math.sqrt(1 + NOISE**2)
    difficulty, noise = rng.normal(size=n), rng.normal(size=n)
    rows = []
    for k in range(looks + 1):
        if k:
            noise = rho * noise + math.sqrt(1 - rho**2) * rng.normal(size=n)
        level = NormalDist().inv_cdf(solved - harm * k / looks) * scale
        rows.append(difficulty + NOISE * noise + level > 0)
    return np.array(rows)


def rolled_back(rule: str, scores: np.ndarray, max_drop: float = 0.01) -> bool:
    """Whether the gate fails at one of the looks."""
    looks = len(scores) - 1
    if rule == "normal":
        return any(_normal(row.astype(float) - scores[0], max_drop) for row in scores[1:])
    gate = GateSpec(max_drop=max_drop, looks=rule)
    seen = [
        Evaluation(metrics={"eval/act": float(row.mean())}, scores={"eval/act": row.astype(float).tolist()})
        for row in scores
    ]
    return any(not judge(gate, seen[: k + 2], looks).passed for k in range(looks))


def _normal(difference: np.ndarray, max_drop: float) -> bool:
    mean, error = difference.mean(), difference.std(ddof=1) / math.sqrt(len(difference))
    return bool(-mean > max_drop + 1e-9 and mean + 1.96 * error < 0)


def rates(
    case: tuple[int, int, float, float], stages: int, seed: int, harm: float, rules: Sequence[str] = RULES
) -> dict[str, float]:
    """Rule -> share of the simulated stages that it rolls back; every rule sees the same ones."""
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(rules, 0)
    for _ in range(stages):
        scores = stage(rng, *case, harm)
        for rule in rules:
            found[rule] += rolled_back(rule, scores)
    return {rule: n / stages for rule, n in found.items()}


def main() -> None:
    """Print the table of docs/gates.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    head = "".join(f" {rule} |" for rule in RULES)
    print(f"| tasks | looks | solved | rho | no harm:{head} harm:{head}")
    print("|---|---|---|---|" + "---|" * (2 * len(RULES)))
    for case in CASES:
        cells = [
            "".join(f" {rate:.1%} |" for rate in rates(case, args.stages, args.seed, harm).values())
            for harm in (0.0, 0.06)
        ]
        n, looks, solved, rho = case
        print(f"| {n} | {looks} | {solved} | {rho} |{cells[0]}{cells[1]}", flush=True)


if __name__ == "__main__":
    main()
