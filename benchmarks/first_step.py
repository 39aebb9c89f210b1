"""From the command to the first step of a recipe, by part.

    python benchmarks/first_step.py [RECIPE] [--model PATH] [--runs 5] [--fresh-kernels] [--json FILE]

Every run is a fresh process that does what `forethought train RECIPE` does and ends after its first step.

- `python`: until our code runs; `command`: reading and checking the recipe; `import`: PyTorch, transformers
  and ours; `load`: the model, and what is timed to choose threads and kernels; `evaluation`: of the untrained
  model, with the first checkpoint after it; `step`: the first step.
- Each part is the least of all runs, in seconds of the clock and of the processor: on a busy machine only the
  latter say something. The first run is told apart: files that nobody has read since the machine started come
  from the disk then.
- `--fresh-kernels`: an empty cache folder for each run, so that the kernels in C are compiled (seconds).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PARTS = ("python", "command", "import", "load", "evaluation", "step")
CHILD = """
import json, os, sys, time
def now():
    return time.time() - float(os.environ["BEGAN"]), time.process_time()
marks = {"python": now()}
from pathlib import Path
from forethought.estimate.for_model import for_model
from forethought.recipe.load import load
from forethought.tasks.families import check_recipe
source, model, out = sys.argv[1:]
recipe = load(source, [])
if model:  # as --model has it: rates and sizes of a trained model
    recipe, _ = for_model(recipe, model, ())
check_recipe(recipe)
marks["command"] = now()
from forethought.runs import run
from forethought.engines.torch import engine
marks["import"] = now()
def hear(event):
    if event.kind == "busy" and "load" not in marks:
        marks["load"] = now()
    if event.kind in ("eval", "checkpoint") and event.step == 0:
        marks["evaluation"] = now()
    if event.kind == "step" or (event.kind == "eval" and event.step):
        marks["step"] = now()
        print("MARKS", json.dumps(marks), flush=True)
        os._exit(0)
run.train(recipe, Path(out), hear)
"""


def once(recipe: str, model: str, fresh: bool) -> dict[str, tuple[float, float]]:
    """Part -> seconds of the clock and of the processor, of one process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BEGAN": str(time.time())}
        if fresh:
            environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        child = subprocess.run(
            [sys.executable, "-c", CHILD, recipe, model, f"{folder}/run"],
            env=environment,
            capture_output=True,
            text=True,
        )
        lines = [line for line in child.stdout.splitlines() if line.startswith("MARKS ")]
        if not lines:
            raise SystemExit(f"there was no first step:\n{child.stdout}\n{child.stderr}")
    return parts(json.loads(lines[-1].removeprefix("MARKS ")))


def parts(marks: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The differences of marks, each (clock, processor) since the command."""
    found, before = {}, (0.0, 0.0)
    for name in PARTS:
        at = tuple(marks[name])
        found[name] = (at[0] - before[0], at[1] - before[1])
        before = at
    return found


def least(runs: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Of each part the least of all runs."""
    return {name: tuple(min(run[name][i] for run in runs) for i in range(2)) for name in PARTS}  # type: ignore[misc]


def table(first: dict[str, tuple[float, float]], others: dict[str, tuple[float, float]]) -> str:
    """The parts, and their sum, in seconds."""
    lines = [f"{'':12}{'first run':>12}{'least':>10}{'processor':>12}"]
    for name in PARTS:
        lines.append(f"{name:12}{first[name][0]:12.2f}{others[name][0]:10.2f}{others[name][1]:12.2f}")
    sums = [sum(run[name][i] for name in PARTS) for run, i in ((first, 0), (others, 0), (others, 1))]
    lines.append(f"{'in all':12}{sums[0]:12.2f}{sums[1]:10.2f}{sums[2]:12.2f}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="desk")
    parser.add_argument("--model", default="")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--fresh-kernels", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    runs = [once(args.recipe, args.model, args.fresh_kernels) for _ in range(max(args.runs, 1))]
    print(table(runs[0], least(runs)))
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
