"""Patches of pictures as tokens: their ids, their embeddings, and that a model learns from them alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from forethought.core.sight import MARK, Seen, Sight
from forethought.core.types import Batch, Objective, Request, Segment, Term
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models import sight
from forethought.engines.torch.models.loading import load
from forethought.recipe.schema import AdapterSpec, EngineSpec, ModelSpec, OptimSpec

SIGHT = Sight(side=2, rows=3, columns=3, most=4)
WORDS = ["<act>", "</act>", "look", "black", "white"]
SIZE = ModelSpec(width=32, layers=2, heads=4, mlp=64)


def picture(name: str) -> Seen:
    """`black/1`: the second row of patches is black or white, the first grey."""
    colour, row = name.split("/")
    patches = np.full((2, 12), 128, np.uint8)
    patches[1] = 0 if colour == "black" else 255
    return Seen(patches, np.array([[0, 0], [int(row), 1]]))


def engine(seed: int = 0) -> TorchEngine:
    loaded = load(SIZE, WORDS, 64, seed, sees=(SIGHT, picture))
    return TorchEngine(loaded, EngineSpec(), AdapterSpec())


def test_a_picture_is_ids_that_nobody_else_has():
    e = engine()
    one, two = e.encode(f"look {MARK}black/1 <act>"), e.encode(f"look {MARK}white/1 <act>")
    assert one[0] == two[0] and one[-1] == two[-1] and len(one) == 4
    first = e.pictures.first
    assert min(one[1:3]) >= first and set(one[1:3]).isdisjoint(two[1:3])
    assert e.encode(f"look {MARK}black/1 <act>") == one
    assert e.decode(one) == "look <act>"
    assert e.encode("look black") == e.encode("look") + e.encode("black")
    assert e.pictures.name(two[2]) == f"{MARK}white/1"
    e.check_words([f"{MARK}black/1"], ())


def test_pixels_that_were_let_go_of_are_asked_for_again(monkeypatch):
    monkeypatch.setattr(sight, "KEPT", 1)
    e = engine()
    ids = e.encode(f"{MARK}black/1 {MARK}white/1 {MARK}black/2")
    patches, places = e.pictures.gather(ids)
    assert [p[0] for p in patches] == [128, 0, 128, 255, 128, 0]
    assert places.tolist() == [[0, 0], [1, 1]] * 2 + [[0, 0], [2, 1]]


def test_an_embedding_is_of_the_pixels_and_the_place():
    embed = engine().weights.base.get_input_embeddings()
    ids = torch.tensor(embed.pictures.ids(f"{MARK}black/1") + embed.pictures.ids(f"{MARK}black/2"))
    x = embed(torch.cat([torch.tensor([3]), ids]))
    assert torch.equal(x[0], embed.weight[3])
    torch.testing.assert_close(x[1], x[3])  # the same grey patch
    torch.testing.assert_close(x[4] - x[2], embed.row[2] - embed.row[1])
    assert copy.deepcopy(embed).pictures is embed.pictures


def batch(e: TorchEngine) -> Batch:
    segments = []
    for name in ("black", "white"):
        segments.append(Segment(parent=-1, token_ids=e.encode(f"look {MARK}{name}/1 <act>")))
        said = e.encode(f"{name} </act>")
        segments.append(
            Segment(
                parent=len(segments) - 1,
                token_ids=said,
                role="act",
                stream="sft",
                weight=(1.0,) * len(said),
            )
        )
    return Batch(policy="base", segments=tuple(segments))


SFT = Objective((Term(loss="sft", stream="sft", denominator=4.0),))


def test_what_only_the_picture_says_is_learned_and_saved(tmp_path):
    e = engine()
    e.prepare("base", OptimSpec(lr=1e-2, warmup=1))
    for _ in range(25):
        e.forward_backward(batch(e), SFT)
        e.optim_step("base")
    e.publish("base")
    asked = [
        Request(
            policy="base",
            context=e.encode(f"look {MARK}{name}/1 <act>"),
            n=1,
            max_tokens=2,
            temperature=0.0,
            stops=("</act>",),
        )
        for name in ("black", "white")
    ]
    said = [e.decode(one.token_ids) for [one] in e.sample(asked)]
    assert said == ["black </act>", "white </act>"]
    e.save(tmp_path / "saved")
    other = engine(seed=1)
    other.load(tmp_path / "saved")
    for a, b in zip(e.logprobs(batch(e)), other.logprobs(batch(other)), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


def test_a_whole_copy_reads_the_same_pictures():
    e = engine()
    e.fork("base", "two", "model")
    for a, b in zip(*(e.logprobs(replace(batch(e), policy=p)) for p in ("base", "two")), strict=True):
        assert a == b


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Seen(np.zeros((2, 11), np.uint8), np.zeros((2, 2), int)), "12 numbers"),
        (Seen(np.zeros((0, 12), np.uint8), np.zeros((0, 2), int)), "0 patches"),
        (Seen(np.zeros((5, 12), np.uint8), np.zeros((5, 2), int)), "5 patches; a picture has 1 to 4"),
        (Seen(np.zeros((1, 12), np.uint8), np.array([[0, 3]])), "lies outside of 3 x 3"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(seen, reason):
    with pytest.raises(ValueError, match=reason):
        sight.Pictures(SIGHT, lambda name: seen, 10).ids(f"{MARK}x")
