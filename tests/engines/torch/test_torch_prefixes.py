"""Prompts of a training batch that begin alike: computed once, with the gradient of computing them apart."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch_kit import SIZE, engine_of, model_of, path_to, stir

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.torch.forest.prefixes import joined
from forethought.learn.losses import term
from forethought.recipe.schema import SHARE_ABOVE, SHARE_FROM, EngineSpec, OptimSpec

RULES = (5, 6, 7, 8, 9, 10)


def s(parent: int, *ids: int, stream=None) -> Segment:
    return Segment(parent=parent, token_ids=ids, stream=stream, weight=(1.0,) * len(ids) if stream else ())


def shared(segments: list[Segment], least: int) -> tuple[list[int], list[tuple[int, tuple[int, ...]]]]:
    indices, found = joined(range(len(segments)), segments, least)
    return list(indices), [(one.parent, one.token_ids) for one in found]


def batch(seed: int, stream: str = "sft") -> list[Segment]:
    """Twelve tasks under one text, three of which come twice: rules, a prompt of its own, then a plan and an
    act that train. Some prompts lie in two segments, as rules and a task."""
    rng = random.Random(seed)
    draw = lambda n: tuple(rng.randrange(3, SIZE) for _ in range(n))  # noqa: E731
    out: list[Segment] = []
    prompts = [draw(rng.randint(1, 5)) for _ in range(9)]
    for i in range(12):
        prompt, above = prompts[i % 9], -1
        for piece in (RULES, prompt) if i % 3 else (RULES + prompt,):
            out.append(Segment(parent=above, token_ids=piece))
            above = len(out) - 1
        for role in ("plan", "act"):
            n = rng.randint(1, 4)
            pg = (
                {"advantage": (rng.uniform(-1, 1),) * n, "old_logprobs": (-3.0,) * n}
                if stream == "pg"
                else {}
            )
            own = {"stream": stream, "weight": tuple(rng.choice([0.5, 1.0]) for _ in range(n)), **pg}
            out.append(Segment(parent=above, token_ids=draw(n), role=role, **own))
            above = len(out) - 1
    return out


# The forest -------------------------------------------------------------------------------------------------


def test_what_prompts_have_in_common_stands_once():
    prompts = [s(-1, 1, 2, 3, 4, 5), s(0, 9, stream="sft"), s(-1, 1, 2, 3, 7), s(2, 9, stream="sft")]
    assert shared(prompts, 3) == (
        [0, 0, 1, 2, 3],
        [(-1, (1, 2, 3)), (0, (4, 5)), (1, (9,)), (0, (7,)), (3, (9,))],
    )
    equal = [s(-1, 1, 2, 3), s(0, 8, stream="sft"), s(-1, 1, 2, 3), s(2, 9, stream="sft")]
    assert shared(equal, 3) == ([0, 1, 3], [(-1, (1, 2, 3)), (0, (8,)), (0, (9,))])
    inside = [s(-1, 1, 2, 3, 4), s(0, 8, stream="sft"), s(-1, 1, 2), s(2, 9, stream="sft")]
    assert shared(inside, 2) == ([0, 0, 1, 3], [(-1, (1, 2)), (0, (3, 4)), (1, (8,)), (0, (9,))])


def test_rules_in_a_segment_of_their_own_are_those_at_the_beginning_of_another():
    segments = [
        s(-1, 1, 2, 3),
        s(0, 4, 5, 6),
        s(1, 9, stream="sft"),
        s(-1, 1, 2, 3, 4, 5, 7),
        s(3, 9, stream="sft"),
    ]
    assert shared(segments, 2) == (
        [0, 1, 1, 2, 3, 4],
        [(-1, (1, 2, 3)), (0, (4, 5)), (1, (6,)), (2, (9,)), (1, (7,)), (4, (9,))],
    )


def test_less_than_asked_for_and_what_trains_are_left_alone():
    short = [s(-1, 1, 2, 3), s(0, 9, stream="sft"), s(-1, 1, 2, 4), s(2, 9, stream="sft")]
    for least in (0, 3):
        indices, found = joined([4, 5, 6, 7], short, least)
        assert found is short and indices == [4, 5, 6, 7]
    said = [s(-1, 1, 2), s(0, 7, 8, 9, stream="sft"), s(0, 7, 8, 9, stream="sft")]
    assert joined(range(3), said, 1)[1] is said


@pytest.mark.parametrize("seed", range(8))
def test_every_token_that_trains_stands_on_its_path_as_before(seed):
    segments = batch(seed)
    indices, found = joined(range(len(segments)), segments, 3)
    assert all(one.parent < i for i, one in enumerate(found))
    trained = {index: i for i, index in enumerate(indices) if found[i].stream}
    assert sorted(trained) == [i for i, one in enumerate(segments) if one.stream]
    for old, new in trained.items():
        assert path_to(found, new) == path_to(segments, old)
        assert replace(found[new], parent=0) == replace(segments[old], parent=0)
    size = lambda some: sum(len(one.token_ids) for one in some if not one.stream)  # noqa: E731
    assert size(found) <= size(segments) - 11 * len(RULES)


# The gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["sft", "pg"])
@pytest.mark.parametrize("policy", ["base", "plan"])
@pytest.mark.parametrize("pack_tokens", [8192, 40])
def test_the_gradient_is_that_of_prompts_read_apart(stream, policy, pack_tokens):
    given = Batch(policy=policy, segments=tuple(batch(3, stream)))
    objective = Objective((term("sft" if stream == "sft" else "grpo", 7.0),))
    found = []
    for share_from in (0, 4):
        engine = engine_of(model_of("llama"), share_from=share_from, pack_tokens=pack_tokens)
        if policy == "plan":
            engine.fork("base", "plan")
            stir(engine, "plan")
        engine.prepare(policy, OptimSpec())
        metrics = reduce(engine.forward_backward(given, objective))
        gradients = {k: p.grad for k, p in engine.weights.parameters(policy).items() if p.grad is not None}
        found.append((metrics, gradients, engine.logprobs(given), engine.inspect(given)))
    (apart, wanted, logps, stats), (once, got, logps_once, stats_once) = found
    assert once["tokens/forward"] < 0.9 * apart["tokens/forward"]
    assert once["tokens/trained"] == apart["tokens/trained"]
    most = max(g.abs().max() for g in wanted.values())
    assert most > 1e-3 and got.keys() == wanted.keys()
    for k in wanted:
        assert (got[k] - wanted[k]).abs().max() <= 1e-5 * most, k
    for one, other in zip(logps_once, logps, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert [one is None for one in stats_once] == [one is None for one in stats]
    assert torch.tensor([x for one in stats_once if one for x in one.entropies]).allclose(
        torch.tensor([x for one in stats if one for x in one.entropies]), atol=1e-5
    )


def test_small_models_keep_their_bits_unless_asked():
    assert EngineSpec().shared(SHARE_ABOVE - 1) == 0 and EngineSpec().shared(SHARE_ABOVE) == SHARE_FROM
    assert EngineSpec(share_from=4).shared(1) == 4 and EngineSpec(share_from=0).shared(SHARE_ABOVE) == 0
