"""What runs have written: trees, logs, pages, manifests."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
from pathlib import Path

from attacks_kit import mutate
from attacks_kit.feeds import Feed, dumped
from attacks_kit.subjects import IMITATE, PLAN, subject

# --- what runs have written ---

NODES = [
    {
        "id": 0,
        "parent": None,
        "role": None,
        "text": "GOAL a v3",
        "status": "given",
        "reason": "",
        "reward_parts": {},
        "reward": None,
        "advantage": None,
        "policy": None,
        "version": 0,
        "tokens": 4,
        "logprob": None,
    },
    {
        "id": 1,
        "parent": 0,
        "role": "plan",
        "text": "a </plan>",
        "status": "finished",
        "reason": "",
        "reward_parts": {"format": 1.0, "valid": 1.0},
        "reward": 2.0,
        "advantage": 0.5,
        "policy": "plan",
        "version": 1,
        "tokens": 2,
        "logprob": -0.5,
    },
    {
        "id": 2,
        "parent": 1,
        "role": "act",
        "text": "a x1 y2 v3 </act>",
        "status": "finished",
        "reason": "",
        "reward_parts": {"outcome": 1.0, "format": 1.0, "follows": 1.0},
        "reward": 1.0,
        "advantage": 0.1,
        "policy": "base",
        "version": 0,
        "tokens": 5,
        "logprob": -0.1,
    },
]
TREE = {
    "step": 3,
    "stage": 1,
    "free_text": False,
    "task": "t",
    "domain": "desk",
    "level": 1,
    "context": "a desk x1 y2",
    "prompt": "GOAL a v3",
    "oracle_plan": "a </plan>",
    "nodes": NODES,
}


def trees(folder: Path) -> Feed:
    """A saved tree, read, judged and shown."""
    from forethought.display.trees import print_found
    from forethought.report.trees import load_trees
    from forethought.traces.find import Filter, find

    (folder / "trees").mkdir(exist_ok=True)
    path = folder / "trees" / "step-000003.jsonl.gz"

    def feed(rng: random.Random) -> None:
        lines = [mutate.structure(rng, [TREE]), TREE]
        said = "".join(dumped(line) + "\n" for line in lines).encode("utf-8", "surrogatepass")
        packed = gzip.compress(said, 1, mtime=0)
        if rng.random() < 0.2:
            at = rng.randrange(len(packed))
            packed = packed[:at] + (rng.randbytes(1) + packed[at + 1 :] if rng.random() < 0.5 else b"")
        path.write_bytes(packed)
        found = io.StringIO()
        with contextlib.suppress(UnicodeEncodeError):
            print_found(find(folder, Filter(), []), 0, found, full=True, as_json=rng.random() < 0.3)
        load_trees(folder, [])

    return feed


def run(folder: Path) -> Feed:
    """A run directory of which one file is changed, up to its page."""
    from forethought import report

    out = folder / "run"
    out.mkdir(exist_ok=True)
    files = {
        "recipe.json": [json.dumps(subject(IMITATE, PLAN))],
        "metrics.jsonl": [
            "".join(
                json.dumps(
                    {
                        "step": i,
                        "stage": 0,
                        "stage_name": "imitate",
                        "kind": "imitate",
                        "stage_step": i,
                        "seconds": i / 2,
                        "eval/plan": 0.5,
                        "eval/plan_low": 0.1,
                        "eval/plan_high": 0.9,
                        "eval/act": 0.25,
                        "loss/sft": 1.5,
                        "grad_norm/base": 0.1,
                    }
                )
                + "\n"
                for i in range(4)
            )
        ],
        "decisions.jsonl": [
            json.dumps(
                {
                    "step": 1,
                    "stage": 0,
                    "kind": "gate",
                    "name": "eval/act",
                    "outcome": "pass",
                    "reason": "why",
                    "numbers": {"change": 0.1},
                }
            )
            + "\n"
        ],
        "summary.json": [
            json.dumps(
                {
                    "name": "x",
                    "seed": 3,
                    "status": "done",
                    "step": 3,
                    "seconds": 2.0,
                    "stages": [
                        {
                            "name": "imitate",
                            "kind": "imitate",
                            "roles": ["plan", "act"],
                            "steps": 3,
                            "seconds": 1.0,
                            "tokens_sampled": 0,
                            "tokens_trained": 9,
                        }
                    ],
                    "machine": {"threads": 1, "device": "cpu"},
                }
            )
        ],
    }
    structures = {name: [json.loads(line) for line in seeds[0].splitlines()] for name, seeds in files.items()}

    def feed(rng: random.Random) -> None:
        changed = rng.choice(list(files))
        for name, seeds in files.items():
            if name != changed:
                (out / name).write_text(seeds[0], encoding="utf-8")
            elif rng.random() < 0.5:
                (out / name).write_bytes(mutate.data(rng, seeds))
            else:
                (out / name).write_bytes(
                    (dumped(mutate.structure(rng, structures[name])) + "\n").encode("utf-8", "surrogatepass")
                )
        report.write(out)

    return feed


def manifest(folder: Path) -> Feed:
    """A checkpoint whose manifest is changed, and the newest state of a run."""
    from forethought.store import Store

    checkpoint = folder / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True, exist_ok=True)
    seeds = [{"state.json": [13, "0" * 32], "engine/model.safetensors": [10, "f" * 32]}]

    def feed(rng: random.Random) -> None:
        (checkpoint / "state.json").write_text('{"step": 3 }\n', encoding="utf-8")
        if rng.random() < 0.3:
            (checkpoint / "manifest.json").write_bytes(mutate.data(rng, [json.dumps(seeds[0])]))
        else:
            (checkpoint / "manifest.json").write_bytes(
                dumped(mutate.structure(rng, seeds)).encode("utf-8", "surrogatepass")
            )
        Store(folder).latest()

    return feed
