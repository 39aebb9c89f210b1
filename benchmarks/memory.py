"""The memory of a training step over the vocabulary: ours, against logits of all tokens at once in plain
`transformers`.

    python benchmarks/memory.py [--vocabularies 512,32000,128000] [--heads untied,tied] [--tokens 1024,2048]
    [--device cpu] [--json FILE]

One supervised step (forward, backward, clip, AdamW) on the same weights and the same paths, none of which
share anything. Every number comes from a fresh process, in which a step on three tokens has made the moments
before.

- The tables say what the step takes at its peak `beyond` what lies there before it, weights and moments, and
  beyond the gradients, which are as large as the weights whoever computes them: activations, chunks,
  temporaries. Of these a head's gradient that is summed over chunks takes once more vocabulary x width,
  whatever the tokens.
- It is measured twice: what PyTorch's allocator has given out (on the CPU by its profiler), and on the CPU
  the resident set of the process, with what the C library keeps of freed blocks.
- `a token` is what the first of these grows by from the fewest to the most tokens, for each: all that is as
  large as the vocabulary alone cancels in it. Ours does not depend on the vocabulary once there is more than
  one chunk; each copy of tokens x vocabulary adds four bytes a word.
- Checked, and the run fails where it does not hold: both sides have the same loss and the same norm of the
  gradient.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench_kit import (
    LR,
    SIZES,
    Shape,
    Size,
    chosen,
    every_id,
    machine,
    options,
    prompts_of,
    said_of,
    table,
    tokenizer_of,
)
from bench_worker import Line, worker

SIDES = ("plain", "ours")
PROMPT, ANSWER = 4, 64  # tokens of a path
VOCABULARIES, TOKENS = (512, 32_000, 128_000), (1024, 2048)
QUICK = {"vocabularies": (99, 640), "tokens": (64, 128)}
SAME = {"fp32": 1e-4, "bf16": 2e-2}  # relative difference of losses and norms
BETAS, DECAY, CLIP = (0.9, 0.95), 0.01, 1.0


# One step in a fresh process --------------------------------------------------------------------------------


def allocated(step: Callable, device: str = "cpu") -> int:
    """Most bytes that PyTorch has given out during `step`, above what it had given out before."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    changes = [
        event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    return max(itertools.accumulate(changes, initial=0))


def resident(step: Callable) -> int:
    """Most bytes by which the resident set of this process grows during `step`, after freed memory has gone
    back to the system."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is None:
        raise OSError("there is no malloc_trim here: resident memory is measured on Linux with glibc")
    trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def status(what: str) -> int:
    """Bytes, of this process: VmRSS now, VmHWM at most since it was reset."""
    found = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what + ":")
    )
    return int(found.split()[1]) * 1024


def model_of(size: Size, tied: bool, **config):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM._from_config(
        LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=size.context,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=tied,
        ),
        **config,
    )


class Ours:
    def __init__(self, o: dict, size: Size, tokens: int):
        from forethought.engines.torch.engine import TorchEngine
        from forethought.engines.torch.forest.attention import NAME
        from forethought.engines.torch.models.loading import Loaded
        from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

        spec = EngineSpec(
            device=o["device"], precision=o["precision"], threads=o["threads"], pack_tokens=tokens
        )
        tokenizer = tokenizer_of(SIZES["tiny"])  # nobody reads or writes text
        self.engine = every_id(
            TorchEngine(
                Loaded(model_of(size, o["tied"], attn_implementation=NAME), tokenizer, ""),
                spec,
                AdapterSpec(),
            )
        )
        self.engine.prepare(
            "base", OptimSpec(lr=LR, betas=BETAS, weight_decay=DECAY, clip_norm=CLIP, warmup=0)
        )

    def step(self, paths: list[tuple[int, ...]], prompt: int) -> tuple[float, float]:
        """(loss, norm of the gradient) of one update."""
        from forethought.core.types import Batch, Objective, Segment
        from forethought.learn.losses import term

        segments = []
        for ids in paths:
            said = ids[prompt:]
            segments.append(Segment(parent=-1, token_ids=ids[:prompt]))
            segments.append(
                Segment(
                    parent=len(segments) - 1,
                    token_ids=said,
                    role="act",
                    stream="sft",
                    weight=(1.0,) * len(said),
                )
            )
        total = float(sum(len(ids) - prompt for ids in paths))
        metrics = self.engine.forward_backward(
            Batch(policy="base", segments=tuple(segments)), Objective((term("sft", total),))
        )
        return metrics["loss/sft"].value(), self.engine.optim_step("base")["grad_norm/base"].value()


class Plain:
    def __init__(self, o: dict, size: Size, tokens: int):
        import torch

        torch.set_num_threads(o["threads"])
        self.device, self.bf16 = o["device"], o["precision"] == "bf16"
        self.model = model_of(size, o["tied"]).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True
        )

    def step(self, paths: list[tuple[int, ...]], prompt: int) -> tuple[float, float]:
        import torch

        ids = torch.tensor(paths, device=self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.model(input_ids=ids, use_cache=False).logits[:, prompt - 1 : -1]
        loss = -logits.float().log_softmax(-1).gather(-1, ids[:, prompt:, None]).mean()
        del logits
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()


def serve(o: dict, line: Line) -> None:
    """Waits to be asked, measures one step, says what it took."""
    size = replace(SIZES[o["size"]], vocabulary=o["vocabulary"])
    paths = prompts_of(size, Shape(o["tokens"] // ANSWER, PROMPT + ANSWER, 1, 0), 0)
    for _ in line:
        side = {"ours": Ours, "plain": Plain}[o["side"]](o, size, sum(map(len, paths)))
        side.step([paths[0][:3]], 1)
        said = []
        grown = resident(lambda: said.append(side.step(paths, PROMPT))) if o["device"] == "cpu" else None
        most = allocated(lambda: said.append(side.step(paths, PROMPT)), o["device"])
        line.say(
            allocated=most,
            resident=grown,
            gradients=4 * parameters(size, o["tied"]),
            loss=said[0][0],
            norm=said[0][1],
        )


def parameters(size: Size, tied: bool) -> int:
    return size.parameters - tied * size.vocabulary * size.width


# The one that asks ------------------------------------------------------------------------------------------


def measure(size: str, precision: str, tied: bool, vocabulary: int, tokens: int, args) -> dict:
    """Both sides of one row, each time in a fresh process; medians."""
    found = {side: [] for side in SIDES}
    for _, side in itertools.product(range(args.repeats), SIDES):
        one = worker(
            serve,
            __file__,
            args,
            side=side,
            size=size,
            precision=precision,
            tied=tied,
            vocabulary=vocabulary,
            tokens=tokens,
        )
        found[side].append(one.ask(step=True))
        one.close()
    check(
        {side: facts[0] for side, facts in found.items()},
        f"{vocabulary:,} words, {tokens:,} tokens",
        precision,
    )
    gradients = found["ours"][0]["gradients"]
    beyond = {
        what: {side: statistics.median(f[what] for f in facts) - gradients for side, facts in found.items()}
        for what in ("allocated", "resident")
        if found["ours"][0][what] is not None
    }
    return {
        "size": size,
        "precision": precision,
        "head": "tied" if tied else "untied",
        "vocabulary": vocabulary,
        "tokens": tokens,
        "logits": 4 * tokens * vocabulary,
        "gradients": gradients,
        "beyond": beyond,
        "found": found,
    }


def check(facts: dict[str, dict], where: str, precision: str) -> None:
    for what in ("loss", "norm"):
        plain, ours = (facts[side][what] for side in SIDES)
        if not math.isclose(plain, ours, rel_tol=SAME[precision]):
            sys.exit(
                f"the comparison does not hold at {where}: the {what} is {ours} in ours and {plain} in "
                f"the plain step"
            )


def growth(rows: list[dict]) -> dict[str, float]:
    """Bytes that each side has PyTorch give out more for each token more, between the fewest and the most;
    NaN for one number of tokens."""
    few, many = (pick(rows, key=lambda r: r["tokens"]) for pick in (min, max))
    more = many["tokens"] - few["tokens"]
    return {
        side: (many["beyond"]["allocated"][side] - few["beyond"]["allocated"][side]) / more
        if more
        else math.nan
        for side in SIDES
    }


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in text.split(","))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options(parser, repeats=1, sizes=("1M",), precision=("fp32",))
    parser.add_argument(
        "--vocabularies", type=numbers, default=VOCABULARIES, help="words of the model (%(default)s)"
    )
    parser.add_argument("--heads", default="untied,tied", help="of untied, tied (%(default)s)")
    parser.add_argument(
        "--tokens", type=numbers, default=TOKENS, help=f"trained tokens, in paths of {ANSWER} (%(default)s)"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(json.loads(args.worker), Line())
        return 0
    sizes, precisions = chosen(parser, args)
    heads = args.heads.split(",")
    if unknown := [h for h in heads if h not in ("untied", "tied")]:
        parser.error(f"no head {unknown[0]!r}; there are untied and tied")
    if bad := [n for n in args.tokens if n < ANSWER or n % ANSWER]:
        parser.error(f"{bad[0]} tokens cannot be made of paths of {ANSWER}")
    if bad := [v for v in args.vocabularies if v < 8]:
        parser.error(f"a vocabulary of {bad[0]} words is too small; take 8 or more")
    if args.quick:
        args.vocabularies, args.tokens = QUICK["vocabularies"], QUICK["tokens"]
    result = {"machine": machine(args), "quick": args.quick, "rows": [], "growth": []}
    print(said_of(result["machine"]) + "\n")
    for size, precision, head in itertools.product(sizes, precisions, heads):
        cells = []
        for vocabulary in args.vocabularies:
            rows = [
                measure(size, precision, head == "tied", vocabulary, tokens, args) for tokens in args.tokens
            ]
            a_token = growth(rows)
            result["rows"] += rows
            result["growth"].append(
                {"size": size, "precision": precision, "head": head, "vocabulary": vocabulary, **a_token}
            )
            cells += lines(rows, a_token)
        print(
            f"{size}, {precision}, {head} head: what a training step takes beyond weights, moments and "
            f"gradients, MiB\n"
        )
        print(table(HEAD, cells) + "\n", flush=True)
    if args.quick:
        print("--quick: the numbers mean nothing")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


HEAD = [
    "vocabulary",
    "tokens",
    "a copy of the logits",
    "plain",
    "ours",
    "plain / ours",
    "a token: plain KiB",
    "ours KiB",
    "resident: plain",
    "ours",
    "plain / ours",
]


def lines(rows: list[dict], a_token: dict[str, float]) -> list[list[str]]:
    """A line of the table for each number of tokens; the growth with the last."""
    kib = ["-" if math.isnan(a_token[side]) else f"{a_token[side] / 2**10:,.0f}" for side in SIDES]
    return [
        [
            f"{r['vocabulary']:,}",
            f"{r['tokens']:,}",
            mib(r["logits"]),
            *sides(r["beyond"]["allocated"]),
            *(kib if r is rows[-1] else ("", "")),
            *sides(r["beyond"].get("resident")),
        ]
        for r in rows
    ]


def sides(beyond: dict[str, float] | None) -> list[str]:
    if beyond is None:
        return ["-"] * 3
    return [
        *(mib(beyond[side]) for side in SIDES),
        f"{beyond['plain'] / beyond['ours']:.1f}" if beyond["ours"] > 0 else "-",
    ]


def mib(n: float) -> str:
    return f"{n / 2**20:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
