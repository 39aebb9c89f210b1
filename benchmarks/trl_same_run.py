"""The same GRPO run through TRL's GRPOTrainer and through forethought: one data file, one file of reward
functions, one model, as many steps, the same settings (docs/from-trl.md has both side by side).

    python benchmarks/trl_same_run.py                                   # a tiny model, made here
    python benchmarks/trl_same_run.py --model FOLDER --steps 10 --seeds 2 --most 32 --prompts 4

Needs the extra `bench` (TRL). Each run is a process of its own; the two sides take turns. Printed: the mean
reward over the steps in windows, with its standard error over seeds; the difference with its 95 % interval;
whether the sides differ over the whole run by more than seeds do; and how long their steps took. The windows
of a seed move together, so six differences of one sign are no six findings: the whole run is one. Times mean
something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIDES = ("trl", "ours")
REWARDS = '''
def digits(completions, **kwargs):
    """The share of digits: what a model from scratch can find by chance, and then more of."""
    return [sum(c.isdigit() for c in text) / max(len(text), 1) for text in completions]


def short(completions, completion_ids, most, **kwargs):
    """What is left of the longest answer."""
    return [1 - len(ids) / m for ids, m in zip(completion_ids, most, strict=True)]
'''
FUNCTIONS = {"digits": 1.0, "short": 0.2}
WINDOWS = 6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="", help="a folder; by default a tiny model is made")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--prompts", type=int, default=4, help="of a step")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt")
    parser.add_argument("--most", type=int, default=16, help="tokens of a completion")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        run = ours if args.side == "ours" else trl
        print("RESULT", json.dumps(run(args, args.folder)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), args)
        found: dict[str, list[dict]] = {side: [] for side in SIDES}
        for seed in range(args.first, args.first + args.seeds):
            for side in SIDES:
                found[side].append(once(args, Path(folder), side, seed))
                print(f"{side} seed {seed}: {found[side][-1]['seconds']:.1f} s of steps", file=sys.stderr)
    print(table(found))
    return 0


def once(args: argparse.Namespace, folder: Path, side: str, seed: int) -> dict:
    """One run in a process of its own."""
    named = ("steps", "prompts", "group", "most", "lr")
    command = [sys.executable, __file__, "--side", side, "--seed", str(seed), "--folder", str(folder)]
    command += [word for name in named for word in (f"--{name}", str(getattr(args, name)))]
    command += ["--model", args.model or str(folder / "model")]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{side}, seed {seed}: {done.stderr[-3000:]}")
    return json.loads(line.removeprefix("RESULT "))


# ---- what both sides are given


def prepare(folder: Path, args: argparse.Namespace) -> None:
    """The data, the functions and, where none is given, a model."""
    rng = random.Random(0)
    rows = [
        {"prompt": f"{rng.randint(0, 99)} + {rng.randint(0, 99)} =", "most": args.most} for _ in range(256)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    if not args.model:
        make_model(folder / "model", [row["prompt"] for row in rows])


def make_model(folder: Path, texts: Sequence[str]) -> None:
    """Two layers with random weights, and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **shape,
        num_key_value_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def functions_of(folder: Path) -> dict:
    """The functions of rewards.py."""
    page: dict = {}
    exec(compile((folder / "rewards.py").read_text(), str(folder / "rewards.py"), "exec"), page)
    return {name: page[name] for name in FUNCTIONS}


# ---- the two sides


def trl(args: argparse.Namespace, folder: Path) -> dict:
    """TRL's GRPOTrainer: what docs/from-trl.md shows on its left."""
    import time

    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    class Clock(TrainerCallback):
        seconds = begun = 0.0

        def on_step_begin(self, *_, **__):
            self.begun = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.seconds += time.perf_counter() - self.begun

    clock = Clock()
    trainer = GRPOTrainer(
        model=args.model,
        reward_funcs=list(functions_of(folder).values()),
        args=trl_config(args, folder),
        train_dataset=load_dataset("json", data_files=str(folder / "data.jsonl"), split="train"),
        callbacks=[clock],
    )
    trainer.train()
    curve = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    return {"curve": curve, "seconds": clock.seconds}


def trl_config(args: argparse.Namespace, folder: Path, **more):
    """Its settings."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder / f"trl-{args.seed}"),
        seed=args.seed,
        max_steps=args.steps,
        per_device_train_batch_size=args.prompts * args.group,
        num_generations=args.group,
        max_completion_length=args.most,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        loss_type="dapo",
        reward_weights=list(FUNCTIONS.values()),
        model_init_kwargs={"dtype": "float32"},
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        **more,
    )


def ours(args: argparse.Namespace, folder: Path) -> dict:
    """forethought: what docs/from-trl.md shows on its right."""
    from forethought.recipe.convert import from_dict
    from forethought.runs import run

    out = folder / f"ours-{args.seed}"
    task = {"name": "text", "train": str(folder / "data.jsonl"), "prompt": "{prompt}", "chat": False}
    stage = {
        "kind": "reinforce",
        "until": {"steps": args.steps},
        "batch": args.prompts,
        "tree": {"act": args.group},
        "reward": {"act": {f"{folder / 'rewards.py'}:{name}": weight for name, weight in FUNCTIONS.items()}},
        "optim": {"lr": args.lr, "warmup": 0, "weight_decay": 0.0},
    }
    recipe = {
        "name": "same-run",
        "seed": args.seed,
        "layout": "shared",
        "model": {"path": args.model},
        "task": task | {"budgets": {"act": args.most}},
        "engine": {"precision": "fp32", "weights": "fp32"},
        "eval": {"tasks": 1, "every": 0},
        "probes": {"every": 0, "conflict_every": 0, "kl_start": False},
        "save": {"every": args.steps, "trees_every": 0},
        "stage": [stage],
    }
    run.train(from_dict(recipe), out, lambda event: None)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "seconds/step" in line]
    return {
        "curve": [line["reward/act"] for line in steps],
        "seconds": sum(line["seconds/step"] for line in steps),
    }


# ---- what came of it


def windows(curve: Sequence[float], n: int = WINDOWS) -> list[float]:
    """Means of `n` equal pieces of a curve."""
    edges = [round(i * len(curve) / n) for i in range(n + 1)]
    return [statistics.fmean(curve[a:b]) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def apart(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(difference of the means over seeds, half its 95 % interval by Welch's t); ValueError for fewer than
    two seeds."""
    from forethought.core.metrics import t_quantile

    if min(len(a), len(b)) < 2:
        raise ValueError("a difference over seeds needs two seeds of each")
    own = [(statistics.variance(x) / len(x), len(x) - 1) for x in (a, b)]
    both = sum(error for error, _ in own)
    freedom = both**2 / sum(error**2 / n for error, n in own) if both else 1
    return statistics.fmean(b) - statistics.fmean(a), t_quantile(max(int(freedom), 1)) * math.sqrt(both)


def table(found: dict[str, list[dict]]) -> str:
    """Both curves in windows, their difference, and the ratio of times."""
    rows = {side: [windows(one["curve"]) for one in runs] for side, runs in found.items()}
    steps, seeds = len(found["trl"][0]["curve"]), len(found["trl"])
    lines = [
        f"reward in {len(rows['trl'][0])} windows of {steps} steps, {seeds} seeds (mean +- standard error)"
    ]
    for side in SIDES:
        errors = [
            statistics.stdev(x) / math.sqrt(seeds) if seeds > 1 else 0.0
            for x in zip(*rows[side], strict=True)
        ]
        means = map(statistics.fmean, zip(*rows[side], strict=True))
        cells = [f"{mean:6.3f} +- {error:.3f}" for mean, error in zip(means, errors, strict=True)]
        lines.append(f"{side:>10}  " + "  ".join(cells))
    if seeds > 1:
        columns = [list(zip(*rows[side], strict=True)) for side in SIDES]
        gaps = [apart(*both) for both in zip(*columns, strict=True)]
        lines.append(
            "ours - trl  " + "  ".join(f"{gap:+.3f} +- {half:.3f}" for gap, half in gaps) + " (95 %)"
        )
        gap, half = apart(*([statistics.fmean(one["curve"]) for one in found[side]] for side in SIDES))
        verdict = "within" if abs(gap) <= half else "OUTSIDE"
        lines.append(
            f"over the whole run: ours - trl = {gap:+.4f}, {verdict} the 95 % interval of no difference "
            f"(+- {half:.4f})"
        )
    seconds = {side: statistics.median(one["seconds"] for one in found[side]) for side in SIDES}
    lines.append(
        f"seconds of the steps, median over seeds: trl {seconds['trl']:.2f}, ours {seconds['ours']:.2f}, "
        f"ratio {seconds['trl'] / seconds['ours']:.2f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
