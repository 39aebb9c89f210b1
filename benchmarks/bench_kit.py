"""What `roofline.py`, `sampling.py` and `scaling.py` share: models with random weights, work that is the same
on every side, processes that take turns, and the same rollouts without anything shared.

Nothing here loads torch before it is needed: the process that tells the others when stays small.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

EOS, FIRST = 2, 3  # the end token; the first token that is a word
GAP = {"fp32": 1e-3, "bf16": 0.25}  # most difference in nats between two computations of one log-prob
LR = 1e-6  # an update that costs what any costs, and changes nothing that is measured


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama. No dimension equals the vocabulary, so that a product with the head is known by its shape."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    context: int = 2048
    tied: bool = False  # the head is the embedding

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of a layer's products."""
        own, shared = self.heads * self.head, self.kv_heads * self.head
        return [
            (self.width, own),
            (self.width, shared),
            (self.width, shared),
            (own, self.width),
            (self.width, self.mlp),
            (self.width, self.mlp),
            (self.mlp, self.width),
        ]

    @property
    def inside(self) -> int:
        """Parameters of the matrices inside the layers."""
        return self.layers * sum(i * o for i, o in self.linears)

    @property
    def parameters(self) -> int:
        """Embedding and head, which may be one, and the norms."""
        words = (1 if self.tied else 2) * self.vocabulary * self.width
        return self.inside + words + (2 * self.layers + 1) * self.width


SIZES = {
    "tiny": Size(2, 32, 4, 2, 48, 99),  # --quick
    "1M": Size(4, 128, 4, 4, 384, 500),
    "5M": Size(5, 256, 8, 8, 768, 1000),
    "25M": Size(6, 512, 8, 8, 1536, 4000),
    "100M": Size(12, 768, 12, 12, 2048, 8000),
    "135M": Size(30, 576, 9, 3, 1536, 49152, tied=True),  # the shape of SmolLM2-135M
    # The shapes of Qwen2.5.
    "0.5B": Size(24, 896, 14, 2, 4864, 151936, tied=True),
    "1.5B": Size(28, 1536, 12, 2, 8960, 151936),
    "7B": Size(28, 3584, 28, 4, 18944, 152064),
}


def model_of(size: Size, **config):
    """A Llama with random weights that never samples the end token, so that every completion is as long as
    asked for, and nobody pays for forbidding it: one hidden dimension is a constant that no layer writes to,
    and the end token's row of the head reads it alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(
        LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=size.context,
            pad_token_id=0,
            eos_token_id=EOS,
            bos_token_id=None,
            tie_word_embeddings=size.tied,
        ),
        **config,
    )
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.5
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        if not size.tied:  # else the constant adds the same to all logits, and nobody reads the end token
            model.lm_head.weight[:, 0] = 0
        model.lm_head.weight[EOS] = 0
        model.lm_head.weight[EOS, 0] = -100
    return model.eval()


def tokenizer_of(size: Size):
    """One token a word. Nobody here reads or writes text; engines want to have one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "<eos>", *(f"w{i}" for i in range(FIRST, size.vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        # CTranslate2 wants to know a first token
        bos_token="<eos>",
        padding_side="left",
    )


def write_model(size: Size, folder: Path) -> None:
    """As `from_pretrained` reads it."""
    model_of(size).save_pretrained(folder)
    tokenizer_of(size).save_pretrained(folder)


def engine_of(
    size: Size,
    *,
    precision: str,
    threads: int,
    device: str = "cpu",
    pack_tokens: int = 8192,
    words: Size | None = None,
    prefix_cache: int | str = "auto",
):
    """Our engine on such a model, without a detour over files. `words`: whose tokenizer it has, if not its
    own."""
    import torch

    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.forest.attention import NAME
    from forethought.engines.torch.models.loading import Loaded
    from forethought.recipe.schema import AdapterSpec, EngineSpec

    torch.set_num_threads(threads)
    spec = EngineSpec(
        device=device,
        precision=precision,
        threads=threads,
        kernel_threads=threads,
        pack_tokens=pack_tokens,
        prefix_cache=prefix_cache,
    )
    engine = TorchEngine(
        Loaded(model_of(size, attn_implementation=NAME), tokenizer_of(words or size), ""), spec, AdapterSpec()
    )
    return every_id(engine) if words else engine


def every_id(engine):
    """The engine, for which every id of its model is a token: its tokenizer stands in for one of all words,
    which would take memory for each."""
    from forethought.engines.torch.forest import vocabulary as words

    setattr(engine.weights.base, words.ATTRIBUTE, None)
    return engine


# The work ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """Trees: `prompts` of `prompt` tokens, `plans` of `plan` tokens under each, `acts` of `act` tokens under
    each of those. With `acts` 0 a flat group of plans."""

    prompts: int
    prompt: int
    plans: int
    plan: int
    acts: int = 0
    act: int = 0

    @property
    def leaves(self) -> int:
        """Of all trees."""
        return self.prompts * self.plans * max(1, self.acts)

    @property
    def sampled(self) -> int:
        """Tokens to sample."""
        return self.prompts * self.plans * (self.plan + self.acts * self.act)

    @property
    def tokens(self) -> int:
        """Of the trees."""
        return self.prompts * self.prompt + self.sampled

    @property
    def unrolled(self) -> int:
        """Tokens of all leaves, each with everything above it."""
        return self.leaves * (self.prompt + self.plan + self.act * bool(self.acts))

    def __str__(self) -> str:
        group = f"{self.plans} x {self.acts}" if self.acts else f"{self.plans}"
        new = f"{self.plan} + {self.act}" if self.acts else f"{self.plan}"
        return f"{self.prompts} x ({group}), {self.prompt} + {new}"


Ids = tuple[int, ...]


def prompts_of(size: Size, shape: Shape, seed: int) -> list[Ids]:
    rng = random.Random(seed)
    return [tuple(rng.choices(range(FIRST, size.vocabulary), k=shape.prompt)) for _ in range(shape.prompts)]


@dataclass(frozen=True, slots=True)
class Sampled:
    """(token ids, log-probs) of each plan of each prompt, and of each execution of each plan in the order of
    the plans."""

    plans: list[list[tuple[Ids, tuple[float, ...]]]]
    acts: list[list[tuple[Ids, tuple[float, ...]]]]


def rollouts(engine, prompts: Sequence[Ids], shape: Shape, seed: int) -> Sampled:
    """As trees: all plans in one call, all executions in one."""
    from forethought.core.types import Request

    def call(contexts, n, tokens, what):
        requests = [
            Request(policy="base", context=c, n=n, stops=(), max_tokens=tokens, seed=_seed(seed, what, i))
            for i, c in enumerate(contexts)
        ]
        return [[(c.token_ids, c.logprobs) for c in group] for group in engine.sample(requests)]

    plans = call(prompts, shape.plans, shape.plan, 0)
    contexts = [p + plan for p, group in zip(prompts, plans, strict=True) for plan, _ in group]
    acts = call(contexts, shape.acts, shape.act, 1) if shape.acts else []
    engine.forget_paths()
    return Sampled(plans, acts)


def unrolled(engine, prompts: Sequence[Ids], shape: Shape, seed: int, calls: int = 2) -> Sampled:
    """The same rollouts with nothing shared: every leaf samples its plan, and acts, on a prompt of its own,
    with the random numbers that its row has in `rollouts`; siblings say the same plan. In two calls, as two
    roles speak, or in one, as one rollout goes on."""
    from forethought.core.types import Request

    # of a request: pieces of (the seed and n that `rollouts` asks with, the row, tokens); what its row
    # becomes
    draws, rows = [], []
    for i, prompt in enumerate(prompts):
        for j in range(shape.plans):
            for k in range(max(1, shape.acts)):
                first = (_seed(seed, 0, i), shape.plans, j, shape.plan)
                second = (_seed(seed, 1, i * shape.plans + j), shape.acts, k, shape.act)
                draws.append([first, second] if shape.acts else [first])
                rows.append((i, j, prompt))

    def call(contexts, pieces):
        with _alone(pieces):
            return [
                c
                for (c,) in engine.sample(
                    [
                        Request(
                            policy="base",
                            context=c,
                            n=1,
                            stops=(),
                            max_tokens=sum(p[3] for p in pieces[i]),
                            seed=i,
                        )
                        for i, c in enumerate(contexts)
                    ]
                )
            ]

    if calls == 1 or not shape.acts:
        said = [(c.token_ids, c.logprobs) for c in call([p for _, _, p in rows], draws)]
    else:
        plans = call([p for _, _, p in rows], [d[:1] for d in draws])
        acts = call(
            [p + c.token_ids for (_, _, p), c in zip(rows, plans, strict=True)], [d[1:] for d in draws]
        )
        said = [
            (a.token_ids + b.token_ids, a.logprobs + b.logprobs) for a, b in zip(plans, acts, strict=True)
        ]
    every = max(1, shape.acts)
    first = [(ids[: shape.plan], logps[: shape.plan]) for ids, logps in said[::every]]
    last = [(ids[shape.plan :], logps[shape.plan :]) for ids, logps in said]
    return Sampled(
        [first[i : i + shape.plans] for i in range(0, len(first), shape.plans)],
        [last[i : i + every] for i in range(0, len(last), every)] if shape.acts else [],
    )


def _seed(seed: int, what: int, i: int) -> int:
    return (seed * 2 + what) * 100_000 + i


@contextmanager
def _alone(pieces: Sequence[Sequence[tuple[int, int, int, int]]]) -> Iterator[None]:
    """Inside, the engine shares no prefix (it must keep none either), and request number i (its seed) draws
    what `pieces[i]` says. The only place that reaches into the engine; that the tokens come out the same says
    whether it still fits."""
    from unittest.mock import patch

    import numpy as np

    from forethought.core.types import Segment
    from forethought.engines.torch.forest.native.tree import Tree
    from forethought.engines.torch.sampling import prefill
    from forethought.engines.torch.sampling import sampler as sampling

    def forest_of(contexts):
        return [Segment(parent=-1, token_ids=c) for c in contexts], [[i] for i in range(len(contexts))]

    def uniforms(request, n, most):
        drawn = [
            draw(replace(request, seed=seed, n=group), group, tokens)[row]
            for seed, group, row, tokens in pieces[request.seed]
        ]
        return np.concatenate(drawn)[None]

    draw = sampling._uniforms
    with (
        patch.object(prefill, "forest_of", forest_of),
        patch.object(Tree, "find", lambda self, tokens: []),
        patch.object(sampling, "_uniforms", uniforms),
    ):
        yield


def batch_of(prompts: Sequence[Ids], said: Sampled, shape: Shape, share: bool = True):
    """(batch, objective) of a training step on these rollouts: one forest, or (`share` false) every leaf with
    its own copy of what is above it, where a plan's weight is spread over its copies. Both have the same
    gradient."""
    from forethought.core.types import Batch, Objective, Segment
    from forethought.learn.losses import term

    segments: list[Segment] = []

    def add(parent: int, ids: Ids, logps=(), copies: int = 1) -> int:
        n = len(logps)
        trained = dict(
            role="plan",
            stream="pg",
            weight=(1 / copies,) * n,
            advantage=(_advantage(ids),) * n,
            old_logprobs=logps,
        )
        segments.append(Segment(parent=parent, token_ids=ids, **(trained if n else {})))
        return len(segments) - 1

    for i, prompt in enumerate(prompts):
        root = add(-1, prompt) if share else -1
        for j, plan in enumerate(said.plans[i]):
            acts = said.acts[i * shape.plans + j] if shape.acts else []
            if share:
                above = add(root, *plan)
                for act in acts:
                    add(above, *act)
            else:
                for act in acts or [None]:
                    above = add(add(-1, prompt), *plan, copies=max(1, len(acts)))
                    if act:
                        add(above, *act)
    return Batch(policy="base", segments=tuple(segments)), Objective((term("grpo", float(shape.sampled)),))


def _advantage(ids: Ids) -> float:
    """Of the tokens alone, so that it does not depend on the form of the batch."""
    return sum(i & 1 for i in ids) / len(ids) - 0.5


def prepare(engine) -> None:
    from forethought.recipe.schema import OptimSpec

    engine.prepare("base", OptimSpec(lr=LR, warmup=0))


# Clocks and numbers -----------------------------------------------------------------------------------------


def synchronize(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


class Clock:
    """Seconds inside: `wall`, and `cpu` of this process."""

    def __init__(self, device: str = "cpu"):
        self.device = device

    def __enter__(self) -> Clock:
        synchronize(self.device)
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        synchronize(self.device)
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of log y over log x, least squares: 1 where y grows as x does. NaN where x does not change."""
    x, y = [math.log(v) for v in xs], [math.log(v) for v in ys]
    if len(x) < 2 or max(x) == min(x):
        return math.nan
    return statistics.linear_regression(x, y).slope


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


# What it ran on, and what it can be told --------------------------------------------------------------------


def machine(args, packages: Sequence[str] = ()) -> dict:
    """What it ran on, and how busy that was."""
    import importlib.metadata as meta
    import platform

    versions = {}
    for name in ("forethought", "torch", "transformers", *packages):
        try:
            versions[name] = meta.version(name)
        except meta.PackageNotFoundError:
            versions[name] = "from source" if name == "forethought" else "not installed"
    try:
        with open("/proc/cpuinfo") as f:
            chip = next(
                (line.split(":", 1)[1].strip() for line in f if line.startswith("model name")),
                platform.machine(),
            )
    except OSError:
        chip = platform.processor() or platform.machine()
    if args.device != "cpu":
        import torch

        chip = f"{torch.cuda.get_device_name()} ({chip})"
    return {
        "chip": chip,
        "cores": len(os.sched_getaffinity(0)),
        "threads": args.threads,
        "precision": args.precision,
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": versions,
    }


def said_of(m: dict) -> str:
    """One line of it."""
    return (
        f"{m['chip']}, {m['cores']} cores, {m['threads']} thread(s), {m['precision']}, load "
        f"{m['load'][0]:.1f}; " + ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    )


def options(
    parser, *, repeats: int, sizes: Sequence[str], precision: Sequence[str] = ("fp32", "bf16")
) -> None:
    """What all three can be told."""
    parser.add_argument(
        "--sizes", default=",".join(sizes), help=f"models, of {', '.join(SIZES)} (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=repeats,
        help="measurements of each side; the median counts (%(default)s)",
    )
    parser.add_argument(
        "--precision", default=",".join(precision), help="fp32, bf16, or both with a comma (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each process (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="seconds, on a tiny model: does it run? The numbers mean nothing"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")


def chosen(parser, args) -> tuple[list[str], list[str]]:
    """(sizes, precisions); says what is wrong with them."""
    sizes, precisions = args.sizes.split(","), args.precision.split(",")
    if unknown := [n for n in sizes if n not in SIZES]:
        parser.error(f"no size {unknown[0]!r}; there are {', '.join(SIZES)}")
    if unknown := [n for n in precisions if n not in GAP]:
        parser.error(f"no precision {unknown[0]!r}; there are {', '.join(GAP)}")
    if args.repeats < 1 or args.threads < 1:
        parser.error("repeats and threads are at least 1")
    return (["tiny"] if args.quick else sizes), precisions
