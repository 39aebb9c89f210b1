"""Why the small model begins the way it does: `desk` imitation from several initialisations and rates,
plan/act by level.

    python benchmarks/small_model.py [--steps 300] [--seeds 0] [--only NAME ...] [--json FILE]

Every variant sees the same tasks in the same order; only the weights at the start or the optimizer's rate
differ.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from forethought.engines.torch.models import small
from forethought.recipe.load import load
from forethought.runs import run

SHIPPED = {
    "SHARPNESS": small.SHARPNESS,
    "EMBEDDING_STD": small.EMBEDDING_STD,
    "MATCH": small.MATCH,
    "VALUE": small.VALUE,
}
LOOKUP = small._begin_with_lookup


@torch.no_grad()
def shifts_only(model, config) -> None:
    """The heads that look 1, 2 and 3 tokens back, and nothing else."""
    fresh = {k: v.clone() for k, v in model.state_dict().items() if ".layers." in k and ".layers.0." not in k}
    LOOKUP(model, config)
    model.load_state_dict(fresh, strict=False)


def nothing(model, config) -> None:
    """The initialisation of `transformers`."""


# name -> (constants of small.py, initialisation, overrides of the recipe)
VARIANTS = {
    "shipped": ({}, LOOKUP, []),
    "default-init": ({}, nothing, []),
    "shifts-only": ({}, shifts_only, []),
    "small-values": ({"VALUE": 0.1}, LOOKUP, []),
    "match-2.5": ({"MATCH": 2.5}, LOOKUP, []),
    "adamw": ({}, LOOKUP, ["stage.0.optim.name=adamw"]),
    "muon-.005": ({}, LOOKUP, ["stage.0.optim.muon_lr=0.005"]),
    "muon-.02": ({}, LOOKUP, ["stage.0.optim.muon_lr=0.02"]),
    "muon-.04": ({}, LOOKUP, ["stage.0.optim.muon_lr=0.04"]),
}


def one(name: str, seed: int, steps: int, out: Path) -> dict[str, float]:
    constants, initialise, overrides = VARIANTS[name]
    for key, value in (SHIPPED | constants).items():
        setattr(small, key, value)
    small._begin_with_lookup = initialise
    recipe = load(
        "desk",
        [f"stage.0.until.steps={steps}", "stage.1.until.steps=1", "eval.every=0", f"seed={seed}", *overrides],
    )
    run.train(recipe, out, lambda event: None)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == 0 and "eval/plan" in line][-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.only:
            for seed in args.seeds:
                line = one(name, seed, args.steps, Path(scratch) / f"{name}-{seed}")
                rows.append(
                    {"name": name, "seed": seed, **{k: v for k, v in line.items() if k.startswith("eval/")}}
                )
                cells = "  ".join(
                    f"d{d} {line[f'eval/plan@{d}']:.2f}/{line[f'eval/act@{d}']:.2f}" for d in range(1, 6)
                )
                print(f"{name:14} seed {seed}  {cells}   {line['seconds']:.0f} s", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
