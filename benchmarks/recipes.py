"""A shipped recipe over several seeds: the three factored numbers before and after its last stage, and the
wall time.

    python benchmarks/recipes.py desk --seeds 0 1 2 --level 5 [--no-gates] [--problems FILE.jsonl] [--set K=V]
    [--json FILE]

Each seed is one `forethought train` in its own process, one after another, so the seconds are those a user
waits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("plan", "act", "e2e")


def run(recipe: str, seed: int, out: Path, extra: list[str]) -> float:
    """Train; returns wall seconds of the whole command, start-up and report included."""
    started = time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "forethought.cli",
            "train",
            recipe,
            "--seed",
            str(seed),
            "--out",
            str(out),
            "--plain",
            *extra,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def read(out: Path, suffix: str) -> dict[str, dict[str, float]]:
    """The factored numbers at the start of the last stage, at its last evaluation, and at the end of the
    run."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == lines[-1]["stage"] and "eval/plan" in line]
    trained = [line for line in last if "rolled_back_to" not in line]
    pick = lambda line: {side: line[f"eval/{side}{suffix}"] for side in SIDES}  # noqa: E731
    return {"before": pick(last[0]), "after": pick(trained[-1]), "end": pick(last[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--level", type=int, help="show this level (default: all levels together)")
    parser.add_argument("--no-gates", action="store_true")
    parser.add_argument(
        "--problems", type=Path, help="also evaluate each run on this file of published problems"
    )
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    args = parser.parse_args()
    extra = [*(["--no-gates"] if args.no_gates else []), *[x for pair in args.set for x in ("--set", pair)]]
    suffix = f"@{args.level}" if args.level is not None else ""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in args.seeds:
            out = (args.keep or Path(scratch)) / f"{args.recipe}-seed-{seed}"
            seconds = run(args.recipe, seed, out, extra)
            row = {"seed": seed, "seconds": seconds, **read(out, suffix)}
            if args.problems:
                found = subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "forethought.cli",
                        "eval",
                        str(out),
                        "--json",
                        "--problems",
                        str(args.problems),
                    ],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                row["problems"] = json.loads(found.stdout)
            rows.append(row)
            show = lambda x: "  ".join(f"{side} {x[side]:.3f}" for side in SIDES)  # noqa: E731
            print(
                f"seed {seed}  {seconds:5.0f} s   before {show(row['before'])}   after "
                f"{show(row['after'])}   end {show(row['end'])}",
                flush=True,
            )
            for name, entry in row.get("problems", {}).items():
                if not isinstance(entry, dict) or "value" not in entry:
                    continue  # counts and settings
                print(
                    f"        {name:10} {entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}] of "
                    f"{entry['n']}",
                    flush=True,
                )
    if args.json:
        args.json.write_text(
            json.dumps({"recipe": args.recipe, "level": args.level, "set": args.set, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
