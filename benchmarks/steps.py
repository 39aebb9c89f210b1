"""One GRPO step of forethought against one of TRL's GRPOTrainer: same model, weights, prompts, group size,
lengths, optimizer.

    python benchmarks/steps.py [--rows small,wide,long] [--repeats 9] [--precision fp32] [--threads 1] [--json
    FILE]
    python benchmarks/steps.py --rows llm,llm_long,llm_lora,llm_sft --precision bf16 --threads 2 --no-cold

The rows `llm...` have the shape of SmolLM2-135M (embedding and head apart, so that the end token can be
forbidden by weights): `llm_long` with prompts of 512, `llm_lora` with one LoRA of rank 16 on all matrices of
the layers, `llm_sft` imitation with that LoRA (`steps_sft.py`).

Each side runs in its own process and does one step when told to; the two take turns, so that whatever else
the machine does hits both alike. The rows `llm...` run one side after the other: TRL holds up to 17 GB,
and both together do not fit a machine of 24 GB. A step is everything between two updates: encode the prompts,
sample, decode, reward, advantages, loss, backward, clip, AdamW, and the metrics that each side always
computes. Logging, saving, evaluation and progress bars are off on both.

- Ours is `Stage.step`, the library's own step, with a one-role taskset (`Parity`). TRL's is what
  `GRPOTrainer.train()` does from the end of one step to the end of the next, read by a callback; its batch is
  one micro-batch, its loss type is "grpo".
- Every completion has exactly T tokens: the model's own weights give the end token a probability of 0, so
  nobody samples it and nobody pays for forbidding it. The reward is the share of odd token ids, on both sides
  from the same function.
- Both processes get the memory settings that forethought makes for itself (glibc keeps large blocks), TRL's
  through the environment.
- The most memory that a side has held (resident) is written down for each.
- Warm-up steps are left out of the medians. The time from the start of a process to the end of its first step
  (Python and imports, load the model, one step) is measured apart, in fresh processes.
- Checked, and the run fails where one does not hold: on every step as many tokens are sampled and trained as
  asked for, losses and entropies are finite, and, ours, the trainer's log-probs are those of the sampler (the
  first step computes its forward pass, later ones of the rows `llm...` read what sampling has left of it);
  after the last, both see the same entropy (1 %).

Exit code 2 where TRL is not installed: pip install 'forethought[bench]'
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import steps_sft
import steps_trl
from bench_worker import Process

LLM = dict(layers=30, width=576, heads=9, kv_heads=3, mlp=1536, vocabulary=49152, repeats=3, lr=1e-6)
ROWS = {  # layers, width, heads, prompts x group, prompt tokens, new tokens
    "small": dict(layers=2, width=64, heads=4, prompts=4, group=4, prompt=64, new=16),
    "wide": dict(layers=4, width=128, heads=4, prompts=8, group=8, prompt=64, new=32),
    "long": dict(layers=4, width=128, heads=4, prompts=8, group=8, prompt=256, new=32),
    "llm": LLM | dict(prompts=4, group=8, prompt=128, new=64),
    "llm_long": LLM | dict(prompts=2, group=8, prompt=512, new=64),
    "llm_lora": LLM | dict(prompts=4, group=8, prompt=128, new=64, rank=16),
    "llm_sft": LLM | dict(prompts=8, group=1, prompt=170, new=120, rank=16, system=60, imitate=True),
}
USUAL = ("small", "wide", "long")
EOS = 2
ALPHA = 32.0  # of LoRA, on both sides
# A rate of 1e-4 on whole weights of 30 layers moves the dimension that forbids the end token: the rows
# `llm...` have the rate that a trained model would have.
LR, BETAS, DECAY, CLIP, EPS = 1e-4, (0.9, 0.95), 0.01, 1.0, 1e-4
WARM = 2  # steps left out
GAP = {"fp32": 1e-4, "bf16": 0.2}  # most difference in nats between sampler and trainer


def share_odd(ids) -> float:
    """The reward, with a little of the ids themselves: a group whose rewards are all equal has no gradient,
    and we would leave it out. .56 on average, however many words there are: a score is at most 1."""
    return sum((i & 1) + i % 128 / 1024 for i in ids) / len(ids)


def words_of(row: dict) -> list[str]:
    return ["<pad>", "<unk>", "<eos>", *(f"w{i}" for i in range(3, row.get("vocabulary", 128)))]


def prompts_of(row: dict, steps: int) -> list[str]:
    rng, words = random.Random(0), words_of(row)[3:]
    return [" ".join(rng.choices(words, k=row["prompt"])) for _ in range(row["prompts"] * steps)]


def write_model(row: dict, folder: Path) -> None:
    """A Llama with random weights and a word tokenizer, as `from_pretrained` reads them. One hidden dimension
    is a positive constant that no layer writes to, and the head's row of the end token reads it alone, with a
    large negative weight (a row that imitates says the end token, and has it like any other)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = words_of(row)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=row["width"],
        intermediate_size=row.get("mlp", 2 * row["width"]),
        num_hidden_layers=row["layers"],
        num_attention_heads=row["heads"],
        num_key_value_heads=row.get("kv_heads", row["heads"]),
        max_position_embeddings=1024 if "vocabulary" in row else 512,
        pad_token_id=0,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[:, 0] = model.lm_head.weight[EOS] = 0
        model.lm_head.weight[EOS, 0] = 0 if row.get("imitate") else -100
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        padding_side="left",
    ).save_pretrained(folder)


# The two sides, each in its own process ---------------------------------------------------------------------


class Line:
    """The worker's end of the conversation: wait for the word to go on, answer with what the last step
    did."""

    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
        os.dup2(2, 1)

    def wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def done(self, **facts) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, **facts}), file=self.out, flush=True)


def ours(args, row: dict, line: Line) -> None:
    if row.get("imitate"):
        return steps_sft.ours(args, row, line, words_of(row))
    from forethought.core.metrics import reduce
    from forethought.core.types import Task, Verdict
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.models.loading import from_path
    from forethought.learn.curriculum import LevelSampler
    from forethought.recipe.kinds.reinforce import Reinforce
    from forethought.recipe.schema import (
        AdapterSpec,
        CreditSpec,
        EngineSpec,
        OptimSpec,
        TreeSpec,
        UntilSpec,
    )
    from forethought.stages.step import Stage
    from forethought.tasks.base import Taskset
    from forethought.workflows.rollout import Rollouts

    words = words_of(row)
    index = {word: i for i, word in enumerate(words)}

    class Parity(Taskset):
        """Plans alone, of a fixed length: the prompts in order, rewarded by the share of odd token ids."""

        name, levels = "parity", (1,)
        stops, budgets = {"plan": "<eos>", "act": ""}, {"plan": row["new"], "act": 1}

        def __init__(self, prompts: list[str]):
            self.prompts = iter(enumerate(prompts))

        def vocabulary(self):
            return words[3:]

        def family(self, rng, levels, split):
            return [
                Task(id=str(i), taskset=self.name, level=1, context="", prompt=p)
                for i, p in (next(self.prompts) for _ in levels)
            ]

        def parse_plan(self, task, text):
            return Verdict(score=1.0)

        def judge_plan(self, task, text):
            return Verdict(score=share_odd([index[word] for word in text.split()]))

    engine = TorchEngine(
        from_path(args.model),
        EngineSpec(device="cpu", precision=args.precision, threads=args.threads, kernel_threads=args.threads),
        AdapterSpec(rank=row.get("rank", 16), alpha=ALPHA),
    )
    policy = "base"
    if "rank" in row:
        policy = "all"
        engine.fork("base", policy, "adapter")
    spec = Reinforce(
        roles=("plan",),
        until=UntilSpec(steps=args.steps),
        batch=row["prompts"],
        tree=TreeSpec(counts={"plan": row["group"], "act": 0}),
        reward={"plan": {"valid": 1.0}},
        credit=CreditSpec(eps=EPS),
        optim=OptimSpec(lr=row.get("lr", LR), betas=BETAS, weight_decay=DECAY, clip_norm=CLIP, warmup=0),
    )
    stage = Stage(
        engine,
        Rollouts(engine, Parity(prompts_of(row, args.steps))),
        spec,
        {"plan": policy},
        LevelSampler([1]),
        seed=1,
    )
    engine.prepare(policy, spec.optim)
    for k in range(args.steps):
        line.wait()
        m = reduce(stage.step(k).metrics)
        line.done(
            sampled=m["tokens/sampled"],
            trained=m["tokens/trained"],
            loss=m["loss/pg"],
            entropy=m["entropy/plan"],
            gap=m.get("gap/sampler_max", 0.0),  # an update that reuses the forward pass compares nothing
        )


# The one that tells them when -------------------------------------------------------------------------------

SIDES = {"ours": ours, "trl": steps_trl.trl}


class Worker(Process):
    """A side in its own process. `step()` lets it do one step; `cold` is the time from its start to the end
    of its first."""

    def __init__(self, side: str, row: str, model: Path, args, steps: int):
        started = time.perf_counter()
        super().__init__(
            [
                __file__,
                "--worker",
                side,
                "--rows",
                row,
                "--model",
                str(model),
                "--steps",
                str(steps),
                "--precision",
                args.precision,
                "--threads",
                str(args.threads),
            ],
            args.threads,
            HF_DATASETS_OFFLINE="1",
            TRL_EXPERIMENTAL_SILENCE="1",
        )
        self.first = self.step()
        self.cold = time.perf_counter() - started

    def step(self) -> dict:
        return self.answer("go")


def check(side: str, row: dict, fact: dict, precision: str) -> None:
    if row.get("imitate"):
        if not math.isfinite(fact["loss"]):
            sys.exit(f"the comparison does not hold: {side} loss is {fact['loss']}")
        return
    tokens = row["prompts"] * row["group"] * row["new"]
    wrong = [
        f"{what} {fact[what]} tokens of {tokens}" for what in ("sampled", "trained") if fact[what] != tokens
    ]
    wrong += [f"{what} is {fact[what]}" for what in ("loss", "entropy") if not math.isfinite(fact[what])]
    if fact.get("gap", 0.0) > GAP[precision]:
        wrong.append(f"sampler and trainer differ by {fact['gap']} nats")
    if wrong:
        sys.exit(f"the comparison does not hold: {side} " + ", ".join(wrong))


def measure(name: str, args, folder: Path) -> dict:
    """Both sides of one row, step by step in turn."""
    row = ROWS[name]
    model = folder / name
    write_model(row, model)
    repeats = min(args.repeats, row.get("repeats", args.repeats))
    took: dict[str, dict[str, list[float]]] = {side: {"wall": [], "cpu": []} for side in SIDES}
    facts: dict[str, dict] = {}
    large = "vocabulary" in row
    for turns in ([side] for side in SIDES) if large else [list(SIDES)]:
        workers = {side: Worker(side, name, model, args, WARM + repeats) for side in turns}
        facts |= {side: w.first for side, w in workers.items()}
        for side, fact in facts.items():
            check(side, row, fact, args.precision)
        gap = facts["ours"].get("gap", 0.0) if "ours" in facts else 0.0
        for k in range(1, WARM + repeats):
            for side, worker in workers.items():
                facts[side] = worker.step()
                check(side, row, facts[side], args.precision)
                if side == "ours":
                    gap = facts[side]["gap"] = max(gap, facts[side].get("gap", 0.0))
                if k >= WARM:
                    took[side]["wall"].append(facts[side]["wall"])
                    took[side]["cpu"].append(facts[side]["cpu"])
        for worker in workers.values():
            worker.close()
    same = "loss" if row.get("imitate") else "entropy"
    if abs(facts["ours"][same] / facts["trl"][same] - 1) > 0.01:
        sys.exit(
            f"the comparison does not hold: {same} {facts['ours'][same]} here, {facts['trl'][same]} there"
        )
    medians = {side: {clock: statistics.median(v) for clock, v in t.items()} for side, t in took.items()}
    ratio = {clock: medians["trl"][clock] / medians["ours"][clock] for clock in ("wall", "cpu")}
    ratio["peak"] = facts["trl"]["peak"] / facts["ours"]["peak"]
    return {
        "row": name,
        **row,
        "seconds": took,
        "median": medians,
        "ratio": ratio,
        "last_step": facts,
        "load": os.getloadavg()[0],
    }


def alone(name: str, args, folder: Path) -> str:
    """Our side of one row without the other: its steps after those left out. No ratio comes of it."""
    row = ROWS[name]
    write_model(row, folder / name)
    n = WARM + min(args.repeats, row.get("repeats", args.repeats))
    worker = Worker("ours", name, folder / name, args, n)
    facts = [worker.first, *(worker.step() for _ in range(n - 1))]
    worker.close()
    for fact in facts:
        check("ours", row, fact, args.precision)
    wall, cpu = (", ".join(f"{f[clock]:.2f}" for f in facts[WARM:]) for clock in ("wall", "cpu"))
    return f"{name}, {args.precision}: {wall} s (processor {cpu}), {facts[-1]['peak'] / 1e9:.1f} GB"


def cold_starts(args, folder: Path) -> dict:
    """Seconds from the start of a process to the end of its first step, median of three, in turn."""
    model = folder / "cold"
    write_model(ROWS["small"], model)
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(3):
        for side in SIDES:
            worker = Worker(side, "small", model, args, 1)
            took[side].append(worker.cold)
            worker.close()
    return {"seconds": took, "median": {side: statistics.median(v) for side, v in took.items()}}


def machine(args) -> dict:
    import importlib.metadata as meta
    import platform

    names = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "forethought")
    with open("/proc/cpuinfo") as f:
        chip = next(
            (line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine()
        )
    return {
        "chip": chip,
        "cores": len(os.sched_getaffinity(0)),
        "threads": args.threads,
        "precision": args.precision,
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {n: meta.version(n) for n in names},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default=",".join(USUAL), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=9, help="measured steps of each side")
    parser.add_argument("--precision", choices=tuple(GAP), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-cold", action="store_true", help="leave out the cold starts")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--alone", action="store_true", help="measure our side without the other")
    parser.add_argument("--worker", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.rows.split(",")
    if unknown := [n for n in names if n not in ROWS]:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    if args.worker:
        SIDES[args.worker](args, ROWS[names[0]], Line())
        return 0
    if args.alone:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                print(alone(name, args, Path(folder)), flush=True)
        return 0
    if missing := [n for n in ("trl", "datasets") if importlib.util.find_spec(n) is None]:
        print(
            f"this comparison needs {' and '.join(missing)}: pip install 'forethought[bench]'",
            file=sys.stderr,
        )
        return 2
    result = {"machine": machine(args), "rows": []}
    m = result["machine"]
    print(
        f"{m['chip']}, {m['cores']} cores, {m['threads']} thread(s), {m['precision']}, load "
        f"{m['load'][0]:.1f}; " + ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    )
    print(
        f"{args.repeats} steps of each side in turn, medians; a process pays its imports once (cold start)\n"
    )
    print(
        "| row | layers x width | prompts x group | prompt + new | TRL ms | ours ms | ratio | TRL cpu ms | "
        "ours cpu ms | ratio | TRL GB | ours GB | load |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            r = measure(name, args, Path(folder))
            result["rows"].append(r)
            ms = {
                (side, clock): 1000 * r["median"][side][clock] for side in SIDES for clock in ("wall", "cpu")
            }
            print(
                f"| {name} | {r['layers']} x {r['width']} | {r['prompts']} x {r['group']} | {r['prompt']} "
                f"+ {r['new']} "
                f"| {ms['trl', 'wall']:.0f} | {ms['ours', 'wall']:.0f} | {r['ratio']['wall']:.1f} "
                f"| {ms['trl', 'cpu']:.0f} | {ms['ours', 'cpu']:.0f} | {r['ratio']['cpu']:.1f} | "
                + "".join(f"{r['last_step'][side]['peak'] / 1e9:.1f} | " for side in ("trl", "ours"))
                + f"{r['load']:.1f} |",
                flush=True,
            )
        if not args.no_cold:
            result["cold"] = c = cold_starts(args, Path(folder))
            print(
                f"\ncold start to the end of the first step (row small): TRL {c['median']['trl']:.1f} s, "
                f"ours {c['median']['ours']:.1f} s"
            )
    for r in result["rows"]:
        if not r.get("imitate"):
            ours_, theirs = (r["last_step"][side] for side in SIDES)
            print(
                f"checked on every step of {r['row']}: {ours_['trained']:.0f} tokens sampled and trained on "
                f"both sides; ours: sampler and trainer differ by at most {ours_['gap']:.1e} nats; entropy "
                f"{ours_['entropy']:.3f} and {theirs['entropy']:.3f}"
            )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
