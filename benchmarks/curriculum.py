"""Does a curriculum that evolves from failures pay at equal rollouts (WebRL, arXiv 2411.02337)?

    forethought train webrl --out RUN --set save.keep=9
    python benchmarks/curriculum.py --start RUN/checkpoints/step-000300 [--steps 40] [--seeds 6]

The second stage of the recipe `webrl`, from one model that has imitated, once for each arm and seed: 4
phases, 64 tasks a step, one plan each. The seeds are those of tasks and sampling; the model is the same.
Measured on the same held-out tasks of levels 3 to 5, greedy; differences are paired by seed, with 95 %
t-intervals. `forethought arms curriculum` does the same with an imitation for each seed, in longer time.
`levels` is the control of `evolve`: fresh tasks of the levels that `evolve` drew, step by step; what evolving
adds beyond harder tasks is the difference to it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.cli.arguments import positive
from forethought.core.errors import UserError, unknown
from forethought.core.metrics import mean_interval, reduce
from forethought.core.seeds import seed_of
from forethought.engines.base import BASE, Engine
from forethought.learn.curriculum import LevelSampler
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.load import load
from forethought.recipe.schema import TreeSpec
from forethought.runs.run import build
from forethought.stages.step import Stage
from forethought.workflows.rollout import Rollouts

ARMS = {
    "uniform": ["stage.1.curriculum.tasks=uniform"],
    "band": ["stage.1.curriculum.tasks=band"],
    "evolve": [],
    "levels": ["stage.1.curriculum.tasks=uniform"],
    "judge": ["stage.1.outcome={learns=2,trust=true,lr=3e-3,updates=4}"],
    "released": ["stage.1.credit.name=webrl_released", "stage.1.loss=webrl_released"],
}
MAIN = ("uniform", "band", "evolve", "levels")
LEVELS = (3, 4, 5)
Drawn = dict[int, list[list[int]]]  # seed -> the level of each task, step by step
KEPT = (
    "critic/auc",
    "curriculum/in_band",
    "outcome/auc",
    "outcome/false_positive",
    "outcome/said",
    "outcome/exact",
)


class Same(LevelSampler):
    """Draws the levels that another stage has drawn, step by step."""

    def __init__(self, levels: Sequence[int], drawn: Sequence[Sequence[int]]):
        super().__init__(levels)
        self.drawn = drawn

    def draw(self, rng: random.Random, n: int, step: int) -> list[int]:
        """The first `n` of that step; UserError where it had fewer."""
        if len(self.drawn[step]) < n:
            raise UserError(f"step {step} of evolve drew {len(self.drawn[step])} tasks, not {n}")
        return list(self.drawn[step][:n])


def measured(rollouts: Rollouts, policies: Mapping[str, str], tasks: int) -> dict[str, float]:
    """Share of right greedy plans on held-out tasks, by level and over all."""
    greedy = TreeSpec(counts={"plan": 1, "act": 0}, temperature=0.0)
    found = {}
    for level in LEVELS:
        rng = random.Random(f"99/{level}")
        some = [rollouts.taskset.family(rng, [level], "eval")[0] for _ in range(tasks)]
        trees = rollouts.grow(some, greedy, policies, 0, noise=False)
        right = [n.reward_parts.get("valid", 0.0) for t in trees for n in t.nodes if n.role == "plan"]
        found[f"plan@{level}"] = sum(right) / len(right)
    return found | {"plan": statistics.fmean(found.values())}


def stage_of(engine: Engine, rollouts: Rollouts, spec: WebRL, start: Path, seed: int) -> Stage:
    """The stage at its beginning: the model that has imitated, with a new adapter that plans."""
    engine.load(start / "engine")
    for name in set(engine.policies()) - {BASE}:
        engine.drop(name)
    engine.fork(BASE, "plan", "adapter")
    engine.fork("plan", "plan-at-stage-1", "frozen")
    engine.prepare("plan", spec.optim)
    engine.publish("plan")
    policies, references = {"plan": "plan", "act": BASE}, {"plan": "plan-at-stage-1"}
    levels = LevelSampler(spec.levels or rollouts.taskset.levels)
    return Stage(engine, rollouts, spec, policies, levels, seed_of(seed, 1), references)


def arm(name: str, start: Path, seed: int, steps: int, tasks: int, built: list, drawn: Drawn) -> dict:
    """The numbers of one arm and seed, and what its steps said last of critic and judge. `drawn`: the levels
    that `evolve` has drawn with this seed, which it writes and `levels` reads."""
    if name == "levels" and seed not in drawn:
        raise UserError("levels draws as evolve has drawn: name evolve before it in --arms")
    recipe = load("webrl", [f"stage.1.until.steps={steps}", *ARMS[name]])
    if not built:
        built += build(recipe)
    engine, rollouts = built
    spec = recipe.stage[1]
    assert isinstance(spec, WebRL), f"the second stage of webrl is of kind {spec.kind}"
    stage = stage_of(engine, rollouts, spec, start, seed)
    if name == "levels":
        stage.curriculum = Same(stage.curriculum.levels, drawn[seed])
    began, lines, levels = time.process_time(), [], []
    for k in range(steps):
        step = stage.step(k, False)
        lines.append(reduce(step.metrics))
        levels.append([tree.task.level for tree in step.trees])
    if name == "evolve":
        drawn[seed] = levels
    found = measured(rollouts, stage.policies, tasks)
    said = {key: [round(line[key], 3) for line in lines if key in line][-steps // 4 :] for key in KEPT}
    means = {key: statistics.fmean(values) for key, values in said.items() if values}
    mean = {"level": statistics.fmean(x for own in levels for x in own)}
    return {"arm": name, "seed": seed, **found, **means, **mean, "cpu_seconds": time.process_time() - began}


def interval(values: list[float]) -> str:
    """Mean with its 95 % t-interval, in points."""
    mean, low, high = mean_interval(values)
    if low is None or high is None:
        return f"{100 * mean:+.1f}"
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def table(rows: list[dict]) -> str:
    """A line an arm: the end, and the differences from `uniform` and `levels`, paired by seed."""
    keys = [f"plan@{level}" for level in LEVELS] + ["plan"]
    names = dict.fromkeys(row["arm"] for row in rows)
    bases = [name for name in ("uniform", "levels") if name in names]
    heads = [*keys, *(f"plan, less {base}" for base in bases)]
    out = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    ends = {(row["arm"], row["seed"]): row["plan"] for row in rows}
    for name in names:
        own = [row for row in rows if row["arm"] == name]
        cells = [f"{100 * statistics.fmean(row[key] for row in own):.1f}" for key in keys]
        for base in bases:
            gaps = [row["plan"] - ends[base, row["seed"]] for row in own if (base, row["seed"]) in ends]
            cells.append(interval(gaps) if gaps and base != name else "")
        out.append(f"| {name} ({len(own)}) | {' | '.join(cells)} |")
    return "\n".join(out)


def chosen(text: str) -> list[str]:
    """Names of arms, with a comma between each; UserError for one that does not exist, or is named twice or
    before the arm whose levels it draws."""
    names = text.split(",")
    for i, name in enumerate(names):
        if name not in ARMS:
            raise UserError(f"--arms: {unknown('arm', name, ARMS)}")
        if name in names[:i]:
            raise UserError(f"--arms: {name} is named twice")
        if name == "levels" and "evolve" not in names[:i]:
            raise UserError("--arms: levels draws as evolve has drawn; name evolve before it")
    return names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--start", type=Path, required=True, help="a checkpoint of `webrl` after its imitation"
    )
    parser.add_argument("--steps", type=positive, default=40)
    parser.add_argument("--seeds", type=positive, default=6)
    parser.add_argument("--tasks", type=positive, default=150, help="held-out tasks of a level")
    parser.add_argument("--arms", default=",".join(MAIN), help=f"of {', '.join(ARMS)}")
    said = parser.parse_args(argv)
    try:
        names = chosen(said.arms)
        if not (said.start / "engine").is_dir():
            raise UserError(f"--start: {said.start} is no checkpoint (RUN/checkpoints/step-000300)")
        compare(names, said.start, said.seeds, said.steps, said.tasks)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def compare(names: Sequence[str], start: Path, seeds: int, steps: int, tasks: int) -> None:
    """Print a line for each arm and seed, then the table."""
    built: list = []
    drawn: Drawn = {}
    rows: list[dict] = []
    for seed in range(seeds):
        for name in names:
            rows.append(arm(name, start, seed, steps, tasks, built, drawn))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
