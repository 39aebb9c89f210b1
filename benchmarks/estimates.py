"""What `forethought train --dry-run --json` says a run will take, against what the run takes: seconds and
peak memory by part, at three sizes of model.

    python benchmarks/estimates.py [--sizes 1M,25M,135M] [--model PATH] [--cpu] [--json FILE]

The estimate times this machine at the model's shape first, and keeps that; the run then trains a small
recipe: imitation, reinforcement of the planner, evaluations and probes. A ratio is estimate / measured. Parts
of less than `LEAST` seconds are shown and not judged. `--model`: a row for this model too, with LoRA.
`--cpu`: seconds of processor time on one thread, timed anew, for a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from forethought.core.parts import totals

LEAST = 1.0
JUDGED = ("sampling", "training", "evaluation", "probes")
SIZES = {  # (model table, steps of imitation, of reinforcement): enough to be measured, minutes at most
    "1M": ("layers = 4, width = 128, heads = 4, mlp = 512", 60, 30),
    "25M": ("layers = 8, width = 512, heads = 8, mlp = 1024", 12, 8),
    "135M": ("layers = 30, width = 576, heads = 9, mlp = 1536", 3, 3),
}
RECIPE = """
name = "estimates"
trackers = []
layout = "adapters"
task = {{ name = "desk", levels = [1, 2, 3], widgets = 6{told} }}
model = {{ {model} }}
eval = {{ tasks = 10, every = 0 }}
probes = {{ every = 2, tasks = 4, conflict_every = 0 }}

[[stage]]
kind = "imitate"
weights = "{weights}"
until = {{ steps = {imitate} }}
batch = 8
optim = {{ lr = 1e-3 }}

[[stage]]
kind = "reinforce"
roles = ["plan"]
until = {{ steps = {reinforce} }}
batch = 4
tree = {{ plan = 4, act = 0 }}
reward = {{ plan = {{ "spread.py:spread" = 1 }} }}
"""
# An estimate says that every group has a gradient: a reward that differs from plan to plan.
SPREAD = """
def spread(completion_ids, **kwargs):
    return [sum(ids) % 7 for ids in completion_ids]
"""


def recipe_of(size: str, model: str = "") -> str:
    """The recipe of a row, as TOML."""
    table, imitate, reinforce = SIZES[size]
    return RECIPE.format(
        model=f"path = {json.dumps(model)}" if model else table,
        told=", told = true" if model else "",
        weights="adapter" if model else "base",
        imitate=imitate,
        reinforce=reinforce,
    )


# What Python runs first in every process of a comparison in processor time.
PROCESSOR_TIME = "import time\ntime.perf_counter = time.process_time\n"


def surroundings(folder: Path, cpu: bool) -> dict[str, str]:
    """Environment variables of the processes that are compared."""
    if not cpu:
        return dict(os.environ)
    (folder / "sitecustomize.py").write_text(PROCESSOR_TIME, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return {**os.environ, **own}


def measured(recipe: str, folder: Path, cpu: bool = False) -> tuple[dict, dict]:
    """(the object of the dry run, part -> {"seconds", "peak_bytes"} of the run)."""
    env = surroundings(folder, cpu)
    path = folder / "estimates.toml"
    path.write_text(recipe, encoding="utf-8")
    (folder / "spread.py").write_text(SPREAD, encoding="utf-8")
    command = [sys.executable, "-m", "forethought", "train", str(path)]
    said = subprocess.run(
        [*command, "--dry-run", "--json"], check=True, capture_output=True, text=True, env=env
    ).stdout
    out = folder / "run"
    subprocess.run([*command, "--out", str(out), "--plain"], check=True, stdout=subprocess.DEVNULL, env=env)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return json.loads(said), totals(lines)


def row_of(size: str, said: Mapping, found: Mapping[str, Mapping[str, float]]) -> dict:
    """Estimated and measured seconds by part, their ratios, and the same of the peak memory."""
    seconds = {name: row["seconds"] for name, row in found.items()}
    seconds["total"] = sum(seconds.values())
    peak = max(row["peak_bytes"] for row in found.values())
    return {
        "size": size,
        "timed": said["timed"],
        "estimated": said["seconds"],
        "measured": seconds,
        "ratio": {
            name: said["seconds"][name] / seconds[name]
            for name in (*JUDGED, "total")
            if seconds.get(name, 0.0) >= LEAST and name in said["seconds"]
        },
        "bytes": {
            "estimated": said["bytes"]["peak"],
            "measured": peak,
            "ratio": said["bytes"]["peak"] / peak,
        },
    }


def table(rows: list[dict]) -> list[str]:
    """For people, as Markdown."""
    parts = ("sampling", "training", "evaluation", "probes", "saving", "other", "total")
    lines = [f"| size | {' | '.join(parts)} | peak memory |", f"|{'---|' * (len(parts) + 2)}"]
    for row in rows:
        cells = []
        for name in parts:
            est, real = row["estimated"].get(name, 0.0), row["measured"].get(name, 0.0)
            ratio = f" ({row['ratio'][name]:.2f})" if name in row["ratio"] else ""
            cells.append(f"{est:.1f} / {real:.1f} s{ratio}")
        size = row["bytes"]
        cells.append(f"{size['estimated'] / 1e9:.2f} / {size['measured'] / 1e9:.2f} GB ({size['ratio']:.2f})")
        lines.append(f"| {row['size']} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--model", default="", help="a model of the last size, for a row with LoRA")
    parser.add_argument("--cpu", action="store_true", help="compare processor time of one thread")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    args = parser.parse_args()
    asked = [(size, "") for size in args.sizes.split(",") if size]
    if unknown := [size for size, _ in asked if size not in SIZES]:
        parser.error(f"--sizes: {unknown[0]!r} is none of {', '.join(SIZES)}")
    rows = []
    for size, model in [*asked, *([("135M", args.model)] if args.model else [])]:
        with tempfile.TemporaryDirectory() as folder:
            said, found = measured(recipe_of(size, model), Path(folder), args.cpu)
        rows.append(row_of(f"{size} LoRA" if model else size, said, found))
        print(*table(rows)[-1:], sep="\n", flush=True)
    print("", "estimate / measured (ratio)", *table(rows), sep="\n")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
