"""Memory that runs out: the same gradient and the same samples in smaller pieces, or a sentence that says
what would fit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import lines_of, nothing
from test_torch_training import close
from tolerance import LOGP
from torch_kit import config_of, engine_of, forest, model_of, same, snapshot

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.base import UpdateRefused
from forethought.engines.torch import engine as engine_module
from forethought.engines.torch.loss import losses
from forethought.engines.torch.machine import memory
from forethought.engines.torch.sampling.sampler import Sampler
from forethought.estimate.memory import Numbers, activations
from forethought.learn.losses import term
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import override
from forethought.recipe.schema import OptimSpec, Recipe
from forethought.runs import run

SFT = {"stream": "sft", "role": "plan", "weight": lambda rng, n: (rng.choice([0.5, 1.0]),) * n}
OBJECTIVE = Objective((term("sft", 7.0),))
WHOLE = tuple(forest(4, roots=5, segments=25, **SFT))
BATCH = Batch(policy="base", segments=WHOLE)
# of the one pack that it makes, and of the largest of those that half as many tokens allow
TOKENS, LARGEST = 91, 36
ROOM = 32  # which neither fits
FITS = LARGEST // 2


def trained(**spec):
    engine = engine_of(**spec)
    engine.prepare("base", OptimSpec(warmup=0))
    engine.told = []
    engine.listen(lambda *said: engine.told.append(said))
    return engine


def gradient(engine) -> dict[str, torch.Tensor]:
    return {k: p.grad.clone() for k, p in engine.weights.parameters("base").items() if p.grad is not None}


def assert_equal(a, b) -> None:
    assert a.keys() == b.keys() and max(g.abs().max() for g in b.values()) > 1e-2
    close(a, b)


class Short:
    """A machine with room for `most` tokens of a pack: `forward` fails before the pack, `after` when its
    gradient is there, `backward` in the middle of it."""

    def __init__(self, monkeypatch, engine, most: int, where: str = "forward"):
        self.failed, self.half, self.running, real = [], [], 0, losses.backward

        def backward(weights, policy, row, objective, slopes, left):
            self.running = len(row.packed.ids_N)
            if where == "forward":
                self.check()
            out = real(weights, policy, row, objective, slopes, left)
            if where == "after":
                self.check()
            return out

        def hook(gradient):
            if self.running > most:
                self.half.append(sum(p.grad is not None for p in engine.weights.parameters("base").values()))
                self.check()

        self.check = lambda: self.running > most and self._fail()
        monkeypatch.setattr(losses, "backward", backward)
        if where == "backward":
            deepest = next(
                p for k, p in engine.weights.parameters("base").items() if "layers.0" in k and "q_proj" in k
            )
            deepest.requires_grad_(True).register_hook(hook)

    def _fail(self):
        self.failed.append(self.running)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


# What counts as running out ---------------------------------------------------------------------------------


def test_the_errors_of_every_allocator_are_known():
    found = []
    for allocate in (
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: np.empty(1 << 60, dtype=np.uint8),
    ):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        found.append(memory.out_of_memory(caught.value))
    assert found == [True, True]
    for error, is_so in [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("could not create a primitive"), True),  # oneDNN's words
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ]:
        assert memory.out_of_memory(error) is is_so


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["forward", "after", "backward"])
def test_auto_halves_the_packs_and_the_gradient_stays(monkeypatch, where):
    engine = trained()
    plain = engine.forward_backward(BATCH, OBJECTIVE)
    wanted = gradient(engine)
    engine.forget("base")
    short = Short(monkeypatch, engine, ROOM, where)
    metrics = engine.forward_backward(BATCH, OBJECTIVE)
    assert_equal(gradient(engine), wanted)
    assert metrics["loss/sft"].value() == pytest.approx(plain["loss/sft"].value(), rel=1e-5)
    assert short.failed == [TOKENS, LARGEST]
    if where == "backward":
        assert min(short.half) > 0  # layers above had their gradients of the failed pack already
    assert engine.packs.now == FITS
    ((outcome, reason, numbers),) = engine.told
    assert (outcome, numbers) == ("shrink", {"from": 8192, "to": FITS})
    assert (
        reason
        == "out of memory: engine.pack_tokens is 18 from now on, not 8192; the result is the same, in more "
        "passes"
    )
    engine.forget("base")
    engine.forward_backward(BATCH, OBJECTIVE)  # remembered: nothing fails again
    assert len(short.failed) == 2 and len(engine.told) == 1 and engine.facts()["pack_tokens"] == FITS


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_was_gathered_before_and_what_was_set_aside_stay(monkeypatch, where):
    other = Batch(policy="base", segments=tuple(forest(9, **SFT)))
    engine = trained()
    engine.forward_backward(other, OBJECTIVE)
    engine.forward_backward(BATCH, OBJECTIVE)
    wanted = gradient(engine)
    engine.forget("base")
    engine.forward_backward(other, OBJECTIVE)
    aside = gradient(engine)
    engine.set_aside("base", "first")
    engine.forward_backward(other, OBJECTIVE)
    Short(monkeypatch, engine, TOKENS // 2, where)
    engine.forward_backward(BATCH, OBJECTIVE)
    assert_equal(gradient(engine), wanted)
    assert same(engine.gradients.aside["base"]["first"], aside)


def test_a_number_that_does_not_fit_stops_with_the_one_that_does(monkeypatch):
    engine = trained(pack_tokens=4096)
    engine.forward_backward(Batch(policy="base", segments=tuple(forest(9, **SFT))), OBJECTIVE)
    before = gradient(engine)
    Short(monkeypatch, engine, ROOM, "backward")
    with pytest.raises(UserError) as caught:
        engine.forward_backward(BATCH, OBJECTIVE)
    assert str(caught.value) == (
        "out of memory: engine.pack_tokens = 4096 does not fit here, 18 does; set "
        "engine.pack_tokens=18, or "
        '"auto", which finds what fits by itself'
    )
    assert same(gradient(engine), before) and engine.told == [] and engine.packs.now == 4096
    clean = trained(pack_tokens=FITS)  # and that number is no empty promise
    Short(monkeypatch, clean, ROOM)
    assert clean.forward_backward(BATCH, OBJECTIVE)


@pytest.mark.parametrize("asked", ["auto", 4096])
def test_one_path_that_does_not_fit_alone_is_told_with_what_helps(monkeypatch, asked):
    path = (
        Segment(parent=-1, token_ids=(3,) * 10),
        Segment(parent=0, token_ids=(4,) * 20, role="plan", stream="sft", weight=(1.0,) * 20),
    )
    engine = trained(pack_tokens=asked)
    Short(monkeypatch, engine, 29)
    with pytest.raises(
        UserError,
        match="one path of 30 tokens does not fit alone; set "
        "engine.gradient_checkpointing=true, train adapters",
    ):
        engine.forward_backward(Batch(policy="base", segments=path + forest_of_roots()), OBJECTIVE)
    assert gradient(engine) == {} and engine.packs.now == (8192 if asked == "auto" else asked)


def forest_of_roots() -> tuple[Segment, ...]:
    """Two more trees of 4 tokens, behind the first two segments."""
    trees = []
    for root in (2, 4):
        said = Segment(parent=root, token_ids=(7, 8), role="plan", stream="sft", weight=(1.0, 1.0))
        trees += [Segment(parent=-1, token_ids=(5, 6)), said]
    return tuple(trees)


def test_other_errors_pass_and_a_loss_that_is_not_finite_is_still_refused(monkeypatch):
    engine = trained()
    real = losses.backward
    monkeypatch.setattr(
        losses, "backward", lambda *args: (_ for _ in ()).throw(RuntimeError("mat1 and mat2"))
    )
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        engine.forward_backward(BATCH, OBJECTIVE)
    monkeypatch.setattr(losses, "backward", lambda *args: (torch.tensor(torch.nan), real(*args)[1]))
    with pytest.raises(UpdateRefused):
        engine.forward_backward(BATCH, OBJECTIVE)
    assert gradient(engine) == {} and engine.packs.now == 8192


@pytest.mark.parametrize(
    "ask", [lambda e: e.logprobs(BATCH), lambda e: [s and s.logprobs for s in e.inspect(BATCH)]]
)
def test_what_only_reads_is_read_in_smaller_packs_too(monkeypatch, ask):
    engine = trained()
    wanted = ask(engine)
    real = engine_module.row_of

    def row_of(segments, *args):
        if sum(len(s.token_ids) for s in segments) > ROOM:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes"
            )
        return real(segments, *args)

    monkeypatch.setattr(engine_module, "row_of", row_of)
    for found, known in zip(ask(engine), wanted, strict=True):
        assert (found is None) == (known is None) and (
            found is None or found == pytest.approx(known, abs=LOGP)
        )
    assert engine.packs.now == FITS


def test_an_optimizer_without_room_is_told(monkeypatch):
    engine = trained()
    engine.forward_backward(BATCH, OBJECTIVE)
    before = snapshot(engine, "base")
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    )
    with pytest.raises(
        UserError, match="the optimizer of policy 'base' does not fit; set engine.gradient_checkpointing=true"
    ):
        engine.optim_step("base")
    assert same(before, snapshot(engine, "base"))


# Sampling ---------------------------------------------------------------------------------------------------

ASKED = [Request(policy="base", context=(3, 4, 5 + i), n=3, stops=(), max_tokens=6, seed=i) for i in range(7)]


def few_rows(monkeypatch, most: int) -> list[int]:
    seen, real = [], Sampler.run

    def run_(self, requests, *args):
        seen.append(self.rows)
        if min(max(self.rows, *(r.n for r in requests)), sum(r.n for r in requests)) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, requests, *args)

    monkeypatch.setattr(Sampler, "run", run_)
    return seen


def test_auto_halves_the_rows_and_the_samples_stay(monkeypatch):
    engine = trained()
    wanted = engine.sample(ASKED)
    seen = few_rows(monkeypatch, 6)
    found = engine.sample(ASKED)
    assert [[o.token_ids for o in outs] for outs in found] == [[o.token_ids for o in outs] for outs in wanted]
    assert seen == [1024, 10, 5] and engine.rows.now == 5  # 21 rows run, so that half of them is 10
    ((outcome, reason, numbers),) = engine.told
    assert (outcome, numbers) == (
        "shrink",
        {"from": 1024, "to": 5},
    ) and "engine.sample_rows is 5 from now on, not 1024" in reason


def test_rows_that_do_not_fit_are_told(monkeypatch):
    engine = trained(sample_rows=512)
    few_rows(monkeypatch, 6)
    with pytest.raises(
        UserError, match="engine.sample_rows = 512 does not fit here, 5 does; set engine.sample_rows=5, or"
    ):
        engine.sample(ASKED)
    few_rows(monkeypatch, 2)
    with pytest.raises(
        UserError,
        match=r"3 completions of 6 tokens after a prompt of 3 do not fit alone; "
        r"ask for fewer .*stage.N.tree",
    ):
        trained().sample(ASKED)


# What is remembered -----------------------------------------------------------------------------------------


def test_a_resumed_run_keeps_the_smaller_size_and_a_rolled_back_one_too(monkeypatch, tmp_path):
    engine = trained()
    (tmp_path / "before").mkdir()
    engine.save(tmp_path / "before")
    Short(monkeypatch, engine, TOKENS // 2)
    engine.forward_backward(BATCH, OBJECTIVE)
    engine.forget("base")
    (tmp_path / "after").mkdir()
    engine.save(tmp_path / "after")
    assert json.loads((tmp_path / "after" / "engine.json").read_text())["sizes"] == {
        "engine.pack_tokens": TOKENS // 2
    }
    fresh, given = trained(), trained(pack_tokens=700)
    for other in (fresh, given):
        other.load(tmp_path / "after")
    assert (fresh.packs.now, given.packs.now, fresh.rows.now) == (TOKENS // 2, 700, 1024)
    engine.load(tmp_path / "before")
    assert engine.packs.now == TOKENS // 2


def test_a_resumed_run_cuts_its_work_as_the_run_did_whatever_memory_is_free_now(monkeypatch, tmp_path):
    """On a GPU sizes follow from the free memory, and the last bits of sums from sizes."""
    monkeypatch.setattr(memory, "free", lambda device: 40_000_000)
    engine = trained()
    engine.forward_backward(BATCH, OBJECTIVE)
    engine.forget("base")
    engine.sample(ASKED)
    (tmp_path / "then").mkdir()
    engine.save(tmp_path / "then")
    found = engine.packs.now, engine.rows.now
    monkeypatch.setattr(memory, "free", lambda device: 4_000_000)
    fresh, given = trained(), trained(pack_tokens=700)
    for other in (fresh, given):
        other.load(tmp_path / "then")
        other.forward_backward(BATCH, OBJECTIVE)
        other.forget("base")
        other.sample(ASKED)
    assert (fresh.packs.now, fresh.rows.now) == found and given.packs.now == 700
    alone = trained()
    alone.forward_backward(BATCH, OBJECTIVE)
    assert alone.packs.now < found[0]


def test_a_run_goes_on_and_says_so(monkeypatch, tmp_path):
    recipe = from_dict(
        {
            "name": "short",
            "layout": "shared",
            "task": {"name": "desk", "levels": [1], "widgets": 4},
            "model": {"layers": 2, "width": 16, "mlp": 16},
            "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
            "eval": {"tasks": 1},
            "probes": {"every": 0, "conflict_every": 0},
            "stage": [{"kind": "imitate", "until": {"steps": 2}, "batch": 4}],
        }
    )
    real = losses.backward

    def backward(weights, policy, row, objective, slopes, left):
        if len(row.packed.ids_N) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(weights, policy, row, objective)

    monkeypatch.setattr(losses, "backward", backward)
    assert run.train(recipe, tmp_path / "run", nothing).status == "done"
    found = [d for d in lines_of(tmp_path / "run" / "decisions.jsonl") if d["name"] == "memory"]
    assert [(d["kind"], d["outcome"], d["stage"]) for d in found] == [("guard", "shrink", 0)] and found[0][
        "numbers"
    ]["to"] <= 60
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["machine"]["pack_tokens"]
        == found[0]["numbers"]["to"]
    )


# Sizes chosen -----------------------------------------------------------------------------------------------


def test_on_a_cpu_auto_is_what_the_recipe_used_to_say():
    engine = engine_of()
    assert (engine.packs.now, engine.rows.now) == (8192, 1024)
    engine.sample(ASKED)
    engine.logprobs(BATCH)
    assert (engine.packs.now, engine.rows.now) == (8192, 1024)


def test_bytes_by_hand():
    # width 32, 2 layers, 4 heads of 8, 2 of keys and values, an MLP of 48, 32 words
    config = config_of("llama")
    layer = 4 * (4 * 48 + 4 * 32 + 4 * 16 + 2 * 32) + 16 * 32
    assert (
        layer
        == 2304
        == activations(
            SimpleNamespace(heads=4, kv_heads=2, head=8, mlp=48, width=32), Numbers(stored=4, computed=4)
        )
    )
    assert memory.token_bytes(config, 4, False, 10) == 2 * 2304 + 10 * 8 + 2 * 4 * 32
    assert memory.token_bytes(config, 4, True, 10) == 4 * 2 * 32 + 2304 + 10 * 8 + 2 * 4 * 32
    (asked,) = [Request(policy="base", context=(3,) * 8, n=4, stops=(), max_tokens=10)]
    cached = 2 * 2 * 4 * 16
    assert (
        memory.row_bytes(config, 4, [asked])
        == 10 * cached + 8 / 4 * (2 * cached + 4 * (2 * 48 + 4 * 32)) + 28 * 32
    )
    assert (
        memory.token_bytes(config_of("gpt2"), 4, False, 0) > 0
        and memory.token_bytes(config_of("qwen3_moe"), 4, False, 0) > 0
    )


def test_auto_takes_powers_of_two_of_what_is_free_and_learns():
    size = memory.Size("engine.pack_tokens", "auto", 8192)
    size.estimate(None, lambda: 100.0)
    assert size.now == 8192
    size.estimate(1e6, lambda: 100.0)  # 7000 tokens fill 70 % of it
    assert size.now == 4096
    size.estimate(1e9, lambda: 90.0)  # nothing dearer than before
    assert size.now == 4096
    size.estimate(1e9, lambda: 101.0)
    assert size.now == 4 * 8192
    size.limit(1000)
    size.estimate(1e9, lambda: 102.0)
    assert size.now == 1000
    size.estimate(-5.0, lambda: 1e6)
    assert size.now == memory.FEWEST
    told, fresh = [], memory.Size("engine.pack_tokens", "auto", 8192)
    fresh.tell = lambda *said: told.append(said)
    # no failure
    assert (
        fresh.within(lambda: fresh.estimate(1e6, lambda: 100.0) or fresh.now) == 4096
        and not told
        and not fresh.shrunk
    )
    given = memory.Size("engine.pack_tokens", 300, 8192)
    given.estimate(1e9, lambda: 100.0)
    assert given.now == 300


def test_bytes_to_come_are_gradients_and_moments_that_are_not_there_yet():
    engine = trained()
    n = sum(p.numel() for p in engine.weights.parameters("base").values())
    assert memory.to_come(engine.optimizers["base"]) == 12 * n
    engine.forward_backward(BATCH, OBJECTIVE)
    assert memory.to_come(engine.optimizers["base"]) == 8 * n
    engine.optim_step("base")
    assert memory.to_come(engine.optimizers["base"]) == 4 * n


# The recipe -------------------------------------------------------------------------------------------------


def test_a_recipe_says_a_number_or_auto():
    recipe = Recipe()
    assert (
        recipe.engine.pack_tokens,
        recipe.engine.sample_rows,
        recipe.engine.tokens,
        recipe.engine.rows,
    ) == ("auto", "auto", 8192, 1024)
    given = override(recipe, ["engine.pack_tokens=512", "engine.sample_rows=16"])
    assert (given.engine.tokens, given.engine.rows) == (512, 16)
    assert (
        override(given, ["engine.pack_tokens=auto", 'engine.sample_rows="auto"'])
        == recipe
        == from_dict(to_dict(recipe))
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("atuo", "engine.pack_tokens: expected a whole number or 'auto', found the text 'atuo'"),
        ("3.5", "engine.pack_tokens: expected a whole number or 'auto', found the number 3.5"),
        ("true", "engine.pack_tokens: expected a whole number or 'auto', found the truth value true"),
        ("[1]", r"engine.pack_tokens: expected a whole number or 'auto', found the list \[1\]"),
    ],
)
def test_what_is_neither_is_refused(value, message):
    with pytest.raises(RecipeError, match=message):
        override(Recipe(), [f"engine.pack_tokens={value}"])


def test_a_size_below_one_is_refused():
    recipe = from_dict({"engine": {"sample_rows": 0}, "stage": [{"kind": "imitate"}]})
    with pytest.raises(RecipeError, match="engine.sample_rows: must be at least 1, found 0"):
        check(recipe)


def test_a_model_without_room_is_told(monkeypatch):
    model = model_of()
    monkeypatch.setattr(
        type(model),
        "to",
        lambda self, device: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    )
    with pytest.raises(UserError, match=r"out of memory: the model, of [\d,]+ parameters, does not fit"):
        engine_of(model)
