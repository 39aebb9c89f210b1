"""How cost grows: slopes by hand, both forms the same step, and a run that says what it should."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("torch")

from bench_load import run, script  # noqa: E402

scaling = script("scaling")
kit = script("bench_kit")


def test_slopes_by_hand():
    assert kit.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert kit.slope([1, 10], [5, 5]) == pytest.approx(0)
    assert math.isnan(kit.slope([3, 3], [1, 2])) and math.isnan(kit.slope([3], [1]))


def test_every_tree_has_twelve_leaves():
    for plans, shape in scaling.AXES["tree"]:
        assert shape.plans == plans and shape.leaves == 12 * shape.prompts


@pytest.mark.parametrize("shape", [kit.Shape(2, 5, 3, 4), kit.Shape(2, 5, 2, 4, 3, 2)])
def test_both_forms_have_the_same_gradient(shape):
    """Leaf by leaf a plan stands in as many copies as it has executions, each with that share of its
    weight."""
    engine = kit.engine_of(kit.SIZES["tiny"], precision="fp32", threads=1)
    kit.prepare(engine)
    prompts = kit.prompts_of(kit.SIZES["tiny"], shape, 0)
    said = kit.rollouts(engine, prompts, shape, 0)
    gradients = []
    for share, tokens in ((True, shape.tokens), (False, shape.unrolled)):
        batch, objective = kit.batch_of(prompts, said, shape, share)
        assert sum(len(s.token_ids) for s in batch.segments) == tokens
        assert (
            sum(sum(s.weight) for s in batch.segments)
            == pytest.approx(shape.sampled)
            == objective.denominators["pg"]
        )
        engine.forward_backward(batch, objective)
        gradients.append({k: p.grad.clone() for k, p in engine.weights.parameters("base").items()})
        engine.forget("base")
    assert max(float(g.abs().max()) for g in gradients[0].values()) > 1e-4
    for name, gradient in gradients[0].items():
        assert gradient.sub(gradients[1][name]).abs().max() < 1e-6, name


def test_quick(tmp_path, monkeypatch, capsys):
    file = tmp_path / "out.json"
    assert (
        run(
            scaling,
            monkeypatch,
            "--quick",
            "--repeats",
            "1",
            "--axes",
            "group,prompt,tree,model",
            "--json",
            str(file),
        )
        == 0
    )
    result, said = json.loads(file.read_text()), capsys.readouterr().out
    assert [a["axis"] for a in result["axes"]] == ["group", "prompt", "tree", "model"]
    group, _, tree, model = result["axes"]
    assert [(p["tokens"], p["unrolled"]) for p in group["points"]] == [
        (2 * (6 + 3), 2 * 9),
        (2 * (6 + 12), 8 * 9),
    ]
    assert [p["forward"] for p in group["points"]] == [
        {"tree": 18, "unrolled": 18},
        {"tree": 36, "unrolled": 72},
    ]
    assert [p["tokens"] for p in tree["points"]] == [6 + 3 + 4 * 2, 6 + 2 * 3 + 4 * 2]
    assert group["slopes"].keys() == {"tree sample", "tree train", "unrolled sample", "unrolled train"}
    assert all(math.isfinite(s["value"]) for s in group["slopes"].values())
    assert math.isnan(model["slopes"]["tree train"]["value"])  # of one model
    assert "slope over plans a prompt" in said and "the numbers mean nothing" in said


@pytest.mark.slow
def test_memory_in_fresh_processes(tmp_path, monkeypatch, capsys):
    """Two layers, width 32: 48 hidden, 2 of 4 heads have keys. What stays is four float32 a parameter."""
    file = tmp_path / "out.json"
    assert run(scaling, monkeypatch, "--quick", "--axes", "memory", "--json", str(file)) == 0
    lines = json.loads(file.read_text())["memory"]
    inside = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert [x["state"] for x in lines] == [16 * (inside + 2 * v * 32 + 5 * 32) for v in (320, 1280)]
    assert [x["logits"] for x in lines] == [4 * 12 * v for v in (320, 1280)]
    assert all(
        x["peak"] > 0 and x["before"] > 10 << 20 and x["beyond"] == x["peak"] - x["state"] for x in lines
    )
    assert "logits would be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokens": [[1, 2], [3]]}, "unrolled sampled 3 tokens of 4"),
        ({"tokens": [[1, 2], [3, 5]]}, "1 of 2 completions differ between the forms"),
        ({"norm": 1.01}, "the gradient's norm is 1.0 as trees and 1.01 unrolled"),
    ],
)
def test_a_comparison_that_does_not_hold_stops(change, sentence):
    shape, fact = kit.Shape(1, 5, 2, 2), {"tokens": [[1, 2], [3, 4]], "norm": 1.0}
    scaling.check({"tree": fact, "unrolled": fact}, shape, "fp32")
    with pytest.raises(SystemExit, match=sentence):
        scaling.check({"tree": fact, "unrolled": fact | change}, shape, "fp32")
