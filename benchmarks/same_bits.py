"""Whether two revisions compute the same: the shipped recipes' trees, losses and weights, bit for bit, on
this machine.

    python benchmarks/same_bits.py OLD [NEW] [--runs desk,blocksworld,desk-shared] [--steps 50]

Each revision is written out beside the other and trains its own recipes in processes of its own. OLD is a
revision of this repository; NEW is one too, by default the files as they stand. Compared are every number of
metrics.jsonl that is not a time, under the names of the old revision; text, length and log-probs of every
turn of the saved trees; and every tensor of the last checkpoint. `desk` runs to its end (450 steps); the
others take `--steps` steps, spread over their stages.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHOLE = ("desk",)  # recipes that run to their end
NOT_COMPUTED = ("seconds", "tokens_per_second", "memory", "time")
NODE = ("parent", "role", "status", "text", "tokens", "logprob", "reward", "advantage")


def written_out(revision: str, folder: Path) -> Path:
    """The files of a revision under `folder`; "" is the working tree."""
    folder.mkdir()
    if not revision:
        names = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in names.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        return folder
    archive = subprocess.Popen(["git", "archive", revision], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder], stdin=archive.stdout, check=True)
    if archive.wait():
        raise SystemExit(f"{revision} is no revision of this repository")
    return folder


def stages_of(source: Path, recipe: str) -> list[dict]:
    import tomllib

    return tomllib.loads((source / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8"))["stage"]


def trained(source: Path, recipe: str, steps: int, out: Path) -> Path:
    """The run directory of `recipe` as `source` trains it, on one thread of PyTorch and the kernels' own."""
    command = [
        sys.executable,
        "-c",
        "import sys; from forethought.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    command += ["train", recipe, "--out", str(out), "--set", "save.trees_every=10"]
    stages = stages_of(source, recipe)
    if recipe not in WHOLE:
        for i, share in enumerate(shares(steps, len(stages))):
            command += ["--set", f"stage.{i}.until.steps={share}"]
    env = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=source)
    if not (out / "metrics.jsonl").exists() or done.returncode not in (0, 3):
        raise SystemExit(f"{recipe} did not train:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return out


def shares(steps: int, stages: int) -> list[int]:
    return [steps // stages + (i < steps % stages) for i in range(stages)]


def numbers(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if not any(word in k for word in NOT_COMPUTED)} for line in lines]


def trees(run: Path) -> dict[str, object]:
    """What a policy wrote, by file, tree and node."""
    found: dict[str, object] = {}
    for path in sorted((run / "trees").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for i, line in enumerate(lines):
                for node in json.loads(line).get("nodes", ()):
                    found[f"{path.name} tree {i} node {node['id']}"] = {k: node.get(k) for k in NODE}
    return found


def weights(run: Path) -> dict[str, str]:
    """Digest of every tensor of the newest checkpoint."""
    import torch
    from safetensors import safe_open

    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    found = {}
    for path in sorted(newest.rglob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():
                data = tensors.get_tensor(name)
                raw = data.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                found[f"{path.relative_to(newest)} {name}"] = hashlib.sha256(raw).hexdigest()
    return found


def differences(old: Path, new: Path) -> dict[str, tuple[int, list[str]]]:
    """What was compared -> (how many, the first that differ)."""
    found = {}
    a, b = numbers(old), numbers(new)
    wrong = [] if len(a) == len(b) else [f"{len(a)} lines against {len(b)}"]
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        wrong += [
            f"line {i + 1} {k}: {v} against {other.get(k)}" for k, v in one.items() if other.get(k) != v
        ]
    found["numbers"] = sum(map(len, a)), wrong
    for name, read in (("nodes", trees), ("tensors", weights)):
        one, other = read(old), read(new)
        wrong = [f"{k}: {v} against {other.get(k)}" for k, v in one.items() if other.get(k) != v]
        found[name] = len(one), wrong + [f"{k} is new" for k in other.keys() - one.keys()]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="")
    parser.add_argument("--runs", default="desk,blocksworld,desk-shared")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="write sources and runs here, and keep them")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="same-bits-"))
    folder.mkdir(parents=True, exist_ok=True)
    sources = {}
    for side, revision in (("old", args.old), ("new", args.new)):
        here = folder / side
        sources[side] = here if here.exists() else written_out(revision, here)
    same = True
    print(
        f"{'recipe':<12} {'numbers':>10} {'nodes':>10} {'tensors':>10}   {args.old} against "
        f"{args.new or 'the files here'}"
    )
    for recipe in args.runs.split(","):
        runs = {}
        for side, source in sources.items():
            runs[side] = folder / f"{side}-{recipe}"
            if not runs[side].exists():
                trained(source, recipe, args.steps, runs[side])
        found = differences(runs["old"], runs["new"])
        same &= not any(wrong for _, wrong in found.values())
        cells = (f"{n:,}" if not wrong else f"{len(wrong):,} differ" for n, wrong in found.values())
        print(f"{recipe:<12} " + " ".join(f"{cell:>10}" for cell in cells), flush=True)
        for _, wrong in found.values():
            for line in wrong[:5]:
                print("   ", line[:300])
    if not args.keep:
        shutil.rmtree(folder)
    print("the same, bit for bit" if same else "NOT the same")
    return not same


if __name__ == "__main__":
    sys.exit(main())
