"""The rows of losses on tensors: by hand, and where a loss reads whole responses, the same gradient whole,
split, in a tree and unrolled."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from loss_cases import CASES
from test_torch_training import close, packed
from tolerance import rounding
from torch_kit import SIZE, engine_of, plain_logp

from forethought.core.errors import CodeFault
from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.base import UpdateRefused
from forethought.engines.torch.loss.tokens import Tokens
from forethought.learn.losses import LOSSES, term
from forethought.learn.losses.row import Loss
from forethought.learn.losses.terms import measure
from forethought.recipe.schema import OptimSpec


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_slopes_by_hand(name):
    case = CASES[name]
    own = term(case.loss, 1.0, stream=case.segments[0].stream, options=case.options)
    # tokens of another stream stand between
    other = replace(case.segments[0], stream="other", token_ids=(3,), weight=(5.0,))
    segments, logps, spans, first = [], [], [], 0
    given = iter(case.logps)
    for s in case.segments:
        for one in (other, s):
            segments.append(one)
            spans.append((len(spans), first, len(one.token_ids)))
            first += len(one.token_ids)
            logps += [-9.0] if one is other else [next(given) for _ in one.token_ids]
    logp = torch.tensor(logps, requires_grad=True)
    total, metrics = measure(own, Tokens(segments, spans, logp).of(own))
    (slopes,) = torch.autograd.grad(total, logp)
    assert total.item() == pytest.approx(case.total, rel=1e-5)
    mine = [n for i, at, size in spans for n in range(at, at + size) if segments[i] is not other]
    assert slopes[mine].tolist() == pytest.approx(case.slopes, rel=1e-5, abs=1e-6)
    assert slopes.abs().sum().item() == pytest.approx(sum(map(abs, case.slopes)), rel=1e-5)
    line = reduce(metrics)
    assert {k: line[k] for k in case.measured} == pytest.approx(case.measured)


# Whole responses --------------------------------------------------------------------------------------------


def episodes(seed: int, tasks: int = 3, plans: int = 2, acts: int = 2, turns: int = 2) -> list[Segment]:
    """Trees of plans and executions of several turns with observations between them; a branch is a
    sequence."""
    rng, out, sequences = random.Random(seed), [], 0

    def add(parent: int, sequence: int | None = None, advantage: float = 0.0, role: str = "act") -> int:
        n = rng.randint(1, 5)
        ids = tuple(rng.randrange(3, SIZE) for _ in range(n))
        own = {}
        if sequence is not None:
            own = {
                "stream": "pg",
                "role": role,
                "weight": tuple(rng.choice([0.0, 0.5, 1.0]) for _ in range(n)),
                "advantage": (advantage,) * n,
                "old_logprobs": tuple(rng.uniform(-4, -3) for _ in range(n)),
                "sequence": sequence,
            }
        out.append(Segment(parent=parent, token_ids=ids, **own))
        return len(out) - 1

    for _ in range(tasks):
        root = add(-1)
        for _ in range(plans):
            plan = add(root, sequences, rng.uniform(-1, 1), "plan")
            sequences += 1
            for _ in range(acts):
                above, advantage = plan, rng.uniform(-1, 1)
                for turn in range(turns):
                    above = add(above if turn == 0 else add(above), sequences, advantage)
                sequences += 1
    return out


def crossing(t):
    """A loss whose gradient on one token reads all others of its response."""
    return -(t.mean(t.logp - t.old) * t.advantage).sigmoid(), {}


@pytest.fixture
def losses():
    LOSSES["crossing"] = Loss(per_token=crossing, needs={"advantage", "old", "sequences"})
    yield {"gspo": {"clip_low": 0.3, "clip_high": 0.4}, "crossing": {}}
    del LOSSES["crossing"]


def gradient(segments, objective, **engine) -> tuple[dict, dict]:
    made = engine_of(**engine)
    made.prepare("base", OptimSpec())
    return packed(made, Batch(policy="base", segments=tuple(segments)), objective)


@pytest.mark.parametrize("name", ["gspo", "crossing"])
def test_a_response_that_lies_in_several_packs_has_the_gradient_of_the_whole(losses, name):
    objective = Objective((term(name, 5.0, options=losses[name], weight=2.0),))
    segments = episodes(1)
    whole, wanted = gradient(segments, objective)
    once = whole.pop("tokens/forward")
    for pack_tokens in (40, 12, 1):
        metrics, found = gradient(segments, objective, pack_tokens=pack_tokens)
        close(found, wanted)
        assert metrics.pop("tokens/forward") > once  # trees were split
        assert metrics == pytest.approx(whole, rel=1e-4, abs=rounding([1.0]))


def test_only_responses_that_are_split_are_read_before(losses, monkeypatch):
    asked = []
    for turns, name, pack_tokens, times in (
        (1, "gspo", 12, 0),
        (2, "grpo", 1, 0),
        (2, "crossing", 8192, 0),
        (2, "crossing", 1, 1),
    ):
        made = engine_of(pack_tokens=pack_tokens)
        made.prepare("base", OptimSpec())
        real = made._logprobs
        monkeypatch.setattr(made, "_logprobs", lambda batch, real=real: asked.append(1) or real(batch))
        batch = Batch(policy="base", segments=tuple(episodes(2, turns=turns)))
        packed(made, batch, Objective((term(name, 5.0),)))
        assert len(asked) == times, name


@pytest.mark.parametrize("name", ["gspo", "crossing"])
def test_a_tree_has_the_gradient_of_its_unrolled_paths(losses, name):
    """A plan with two executions, unrolled, is two plans of half the weight."""
    segments = episodes(3)
    children = [sum(c.parent == i for c in segments) for i in range(len(segments))]
    objective = Objective((term(name, 5.0, options=losses[name]),))
    flat: list[Segment] = []
    numbers = 1000
    for leaf in [i for i, n in enumerate(children) if n == 0]:
        path, i = [], leaf
        while i >= 0:
            path.append(i)
            i = segments[i].parent
        parent, own = -1, {}
        for i in reversed(path):
            s = segments[i]
            copies = children[i] if s.role == "plan" else 1
            sequence = own.setdefault(s.sequence, numbers + len(own)) if s.stream else -1
            weight = tuple(w / copies for w in s.weight)
            flat.append(replace(s, parent=parent, sequence=sequence, weight=weight))
            parent = len(flat) - 1
        numbers += len(own)
    close(gradient(flat, objective)[1], gradient(segments, objective)[1])


def test_a_loss_that_is_one_number_is_refused(losses, monkeypatch):
    monkeypatch.setitem(LOSSES, "mine", Loss(per_token=lambda t: (t.logp.sum(), {})))
    with pytest.raises(CodeFault, match="mine must give the loss as one number for each of"):
        gradient(episodes(1), Objective((term("mine", 1.0),)))


def test_gspo_is_what_the_paper_says():
    """Sequences of equal weights and one advantage: d/d(theta) of min(s A, clip(s) A) averaged over its
    tokens."""
    segments = [replace(s, weight=(1.0,) * len(s.token_ids)) if s.stream else s for s in episodes(4, turns=1)]
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    low, high = 0.3, 0.4
    with engine.weights.training("base") as model:
        total = torch.zeros(())
        for i, s in enumerate(segments):
            if s.stream:
                gap = plain_logp(model, segments, i) - torch.tensor(s.old_logprobs)
                ratio, n = gap.mean().exp(), len(s.token_ids)
                a = s.advantage[0]
                total = total - n * torch.min(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
        (total / 5.0).backward()
    own = engine.weights.parameters("base")
    wanted = {k: p.grad.clone() for k, p in own.items() if p.grad is not None}
    engine.forget("base")
    objective = Objective((term("gspo", 5.0, options={"clip_low": low, "clip_high": high}),))
    metrics, found = packed(engine, Batch(policy="base", segments=tuple(segments)), objective)
    close(found, wanted)
    assert 0.05 < metrics["clip/share"] < 0.95


def test_a_loss_that_is_not_finite_is_refused_before_the_packs(losses):
    segments = [replace(s, old_logprobs=(-1e30,) * len(s.token_ids)) if s.stream else s for s in episodes(5)]
    engine = engine_of(pack_tokens=1)
    engine.prepare("base", OptimSpec())
    with pytest.raises(UpdateRefused, match="the loss of policy 'base' is"):
        engine.forward_backward(
            Batch(policy="base", segments=tuple(segments)), Objective((term("gspo", 5.0),))
        )
    assert all(p.grad is None for p in engine.weights.parameters("base").values())
