"""Planners and actors exchanged between two trainings, seed by seed (Divide-or-Conquer, arXiv 2402.15000:
which half moves to another taskset?).

    python benchmarks/exchange.py ARM ARM [--tasks 100]

Each ARM is a folder of one arm, with a run for each seed (`seed-0`, `seed-1`, ...), as `forethought arms`
leaves it. Runs of the same seed are exchanged by `forethought swap`; printed are means over seeds with 95 % t
intervals, on the tasks of either side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from forethought.core.metrics import mean_interval


def tables(one: Path, other: Path, tasks: int) -> list[dict]:
    """What `forethought swap` says of two runs; each in a process of its own, whose memory goes with it."""
    command = [
        sys.executable,
        "-m",
        "forethought.cli",
        "swap",
        str(one),
        str(other),
        "--tasks",
        str(tasks),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)["tables"]


def named(cells: dict, names: dict[str, str]) -> dict:
    """The same cells under the arms' names, which do not change with the seed."""
    return {names.get(name, name): cell for name, cell in cells.items()}


def shown(values: list[float]) -> str:
    mean, low, high = mean_interval(values)
    return f"{100 * mean:.1f} %" if low is None else f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("arms", metavar="ARM", type=Path, nargs=2)
    parser.add_argument(
        "--tasks", type=int, default=100, help="held-out tasks a level (default: %(default)s)"
    )
    args = parser.parse_args()
    seeds = sorted(
        path.name
        for path in args.arms[0].glob("seed-*")
        if path.is_dir() and (args.arms[1] / path.name).is_dir()
    )
    if not seeds:
        parser.error(
            f"{args.arms[0]} and {args.arms[1]} have no seed in common; each is the folder of an "
            f"arm, with seed-0, seed-1, ..."
        )
    one, other = ("/".join(arm.parts[-2:]) for arm in args.arms)
    found = []
    for seed in seeds:
        names = {f"{arm.name}/{seed}": name for arm, name in zip(args.arms, (one, other), strict=True)}
        found.append(
            [
                t
                | {
                    "plan": named(t["plan"], names),
                    "e2e": {p: named(row, names) for p, row in named(t["e2e"], names).items()},
                }
                for t in tables(args.arms[0] / seed, args.arms[1] / seed, args.tasks)
            ]
        )
    for home, same in zip((one, other), zip(*found, strict=True), strict=False):
        actors = list(same[0]["e2e"][one])
        print(
            f"\ntasks of {home} ({len(seeds)} seeds, {same[0]['n']} tasks each)\n\n| planner | plan | "
            f"{' | '.join(f'acted by {a}' for a in actors)} |"
        )
        print("|---" * (len(actors) + 2) + "|")
        for planner in same[0]["e2e"]:
            cells = [shown([t["plan"][planner]["value"] for t in same])]
            cells += [shown([t["e2e"][planner][actor]["value"] for t in same]) for actor in actors]
            print(f"| {planner} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
