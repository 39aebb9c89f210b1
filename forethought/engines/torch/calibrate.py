"""How fast this machine samples and trains a model of a given shape: timed on a few layers of it,
with the engine that a run uses, and carried on to all of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forethought.core.types import Batch, Objective, Request, Segment, Term
from forethought.engines.base import BASE
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.models.loading import Loaded
from forethought.engines.torch.models.small import tokenizer_of
from forethought.recipe.machine import CHECKED
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

DEPTHS = (2, 6)  # layers that are timed; of a model with fewer, one and all
ROWS = (4, 32)  # sequences that are sampled together
NEW = (1, 17)  # tokens of each
PROMPT, PATHS = 64, 4  # tokens of a prompt; paths of a training step
FEW = 8  # tokens of the prompt of a step that is hardly more than its call
WORDS = 16  # token ids that are used: every model has so many
TIMES = 2  # the least of so many


def speeds(shape: Mapping[str, Any], engine: EngineSpec, adapter: AdapterSpec) -> dict[str, float]:
    """Seconds of the whole model of `shape` (fields of `estimate.shapes.Shape`): of a decoding step (`step`)
    and of each row in it (`row`), of a prompt token (`read`), of a trained token in whole weights and in an
    adapter (`learn_...`; where sampling has left its forward pass, `reuse_...`) and one that is only looked
    at (`forward`), of a call that trains or looks beside its tokens (`call_...`, `look`), of a parameter that
    is updated (`update`); and the bytes that the process holds beside a model (`held`)."""
    held = float(_resident())
    layers = shape["layers"]
    few, more = DEPTHS if layers >= DEPTHS[1] else (1, max(2, layers))
    low, high = (_timed(*_engine(shape, depth, engine, adapter)) for depth in (few, more))
    found = {"held": held, "update": high["update"]}
    for name in low:
        if name not in found:
            each = max(0.0, (high[name] - low[name]) / (more - few))
            found[name] = max(1e-12, low[name] + (layers - few) * each)
    return found


def _engine(
    shape: Mapping[str, Any], layers: int, engine: EngineSpec, adapter: AdapterSpec
) -> tuple[TorchEngine, int]:
    """(an engine with so many layers, its parameters)."""
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=layers,
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["head"],
        max_position_embeddings=1024,
        tie_word_embeddings=shape["tied"],
        attn_implementation=NAME,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    made = Loaded(model, tokenizer_of([f"w{i}" for i in range(8)]), "")
    found = TorchEngine(made, replace(engine, prefix_cache=0), adapter)
    found.end, found.ends = None, frozenset()  # every row is as long as it is asked to be
    return found, model.num_parameters()


def _timed(engine: TorchEngine, size: int) -> dict[str, float]:
    found = _sampling(engine)
    goal = Objective((Term(loss="sft", stream="sft", denominator=float(PATHS * PROMPT)),))
    engine.fork(BASE, "one")
    optim = OptimSpec()
    for policy, name in ((BASE, "base"), ("one", "adapter")):
        engine.prepare(policy, optim)
        learn = partial(engine.forward_backward, objective=goal)
        each, call = _apart(learn, partial(_batch, policy))
        again = each
        if engine.spec.reuse_forward == "on":
            if policy != BASE:
                engine.optim_step(policy)  # one that adds nothing samples as the base does
            again = _apart(learn, partial(_said, engine, policy))[0]
        found |= {f"learn_{name}": each, f"reuse_{name}": min(each, again), f"call_{name}": call}
        batch = _batch(policy, PATHS, PROMPT)
        if policy == BASE:
            engine.optim_step(policy)
            engine.forward_backward(batch, goal)
            began = time.perf_counter()
            engine.optim_step(policy)
            found["update"] = (time.perf_counter() - began) / size
            engine.release(policy)
    found |= _turned_over(engine, lambda: engine.forward_backward(batch, goal))
    found["forward"], found["look"] = _apart(engine.inspect, partial(_batch, BASE))
    return found


def _apart(do: Callable[[Batch], object], make: Callable[[int, int], Batch]) -> tuple[float, float]:
    """(seconds of a token, seconds of a call beside its tokens), from a batch and from hardly any. `make`: a
    batch of so many paths."""
    many, few = 2 * PATHS * PROMPT, 2 * FEW
    whole, least = (_least(partial(do, make(paths, tokens))) for paths, tokens in ((PATHS, PROMPT), (1, FEW)))
    each = max(1e-12, (whole - least) / (many - few))
    return each, max(0.0, least - few * each)


def _said(engine: TorchEngine, policy: str, paths: int, tokens: int) -> Batch:
    """The same paths with what the policy says after the prompts, which leaves its forward pass."""
    if engine.versions[policy] % CHECKED == 0:
        engine.publish(policy)  # the update of such a version computes its own
    batch = _batch(policy, paths, tokens)
    prompts = [s.token_ids for s in batch.segments if s.parent < 0]
    asked = [
        replace(request, context=prompt, policy=policy, update=tokens)
        for request, prompt in zip(_requests(paths, tokens), prompts, strict=True)
    ]
    said = iter(engine.sample(asked))
    segments = (s if s.parent < 0 else replace(s, token_ids=next(said)[0].token_ids) for s in batch.segments)
    return replace(batch, segments=tuple(segments))


def _batch(policy: str, paths: int, tokens: int) -> Batch:
    """So many paths: a prompt of so many tokens and as many that are learned."""
    segments = [
        segment
        for i in range(paths)
        for segment in (
            Segment(parent=-1, token_ids=tuple(3 + (7 * i + j) % WORDS for j in range(tokens))),
            Segment(
                parent=2 * i,
                token_ids=tuple(3 + (5 * i + j) % WORDS for j in range(tokens)),
                role="timed",
                stream="sft",
                weight=(1.0,) * tokens,
            ),
        )
    ]
    return Batch(policy=policy, segments=tuple(segments))


def _turned_over(engine: TorchEngine, learn: Callable[[], object]) -> dict[str, float]:
    """What it costs to sample from an adapter that has moved, beside the tokens: `publish` adds it into the
    weights that sample, and the first call (`fresh`) makes of them what the products read."""
    asked = [replace(request, policy="one") for request in _requests(1, 1)]
    learn()
    engine.optim_step("one")  # one that adds nothing samples as the base does
    engine.publish("one")
    engine.sample(asked)  # copies are made
    learn()
    engine.optim_step("one")
    began = time.perf_counter()
    engine.publish("one")
    publish = time.perf_counter() - began
    began = time.perf_counter()
    engine.sample(asked)
    cold = time.perf_counter() - began
    warm = _least(lambda: engine.sample(asked))
    return {"publish": publish, "fresh": max(0.0, cold - warm)}


def _sampling(engine: TorchEngine) -> dict[str, float]:
    """From two numbers of rows and two lengths: what a step costs, what a row of it, what a prompt token."""
    took = {
        (rows, new): _least(lambda rows=rows, new=new: engine.sample(_requests(rows, new)))
        for rows in ROWS
        for new in NEW
    }
    each = {rows: max(1e-9, (took[rows, NEW[1]] - took[rows, NEW[0]]) / (NEW[1] - NEW[0])) for rows in ROWS}
    row = max(1e-12, (each[ROWS[1]] - each[ROWS[0]]) / (ROWS[1] - ROWS[0]))
    read = took[ROWS[1], NEW[0]] / (ROWS[1] * PROMPT)  # the first token comes with the prompt
    return {"step": max(1e-9, each[ROWS[0]] - ROWS[0] * row), "row": row, "read": read}


def _requests(rows: int, new: int) -> list[Request]:
    return [
        Request(
            context=tuple(3 + (11 * i + j) % WORDS for j in range(PROMPT)),
            policy=BASE,
            n=1,
            max_tokens=new,
            stops=(),
            temperature=1.0,
            top_p=1.0,
            seed=i,
        )
        for i in range(rows)
    ]


def _least(do: Callable[[], object]) -> float:
    do()
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        do()
        took.append(time.perf_counter() - began)
    return min(took)


def _resident() -> int:
    """Bytes of memory that the process holds now."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def main() -> int:
    """Shape, engine and adapter as JSON on standard input, speeds as JSON on standard output: in a process of
    its own, which takes its threads and its memory with it."""
    import sys

    asked = json.load(sys.stdin)
    engine = EngineSpec(**asked["engine"])
    adapter = AdapterSpec(**{**asked["adapter"], "targets": tuple(asked["adapter"]["targets"])})
    print(json.dumps(speeds(asked["shape"], engine, adapter)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
