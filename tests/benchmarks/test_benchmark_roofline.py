"""What the roofline counts, by hand on a model of two layers; and that a run says what it should."""

from __future__ import annotations

import json
import math
import sys

import pytest

pytest.importorskip("torch")

from bench_load import run, script  # noqa: E402

roofline = script("roofline")
counted = sys.modules["roofline_work"]  # which it imports
kit = script("bench_kit")

# Layers 2, width 8, 2 heads of 4, 1 of keys, mlp 12, vocabulary 19.
SIZE = kit.Size(layers=2, width=8, heads=2, kv_heads=1, mlp=12, vocabulary=19)
# 10 prompt tokens, 6 rows, 24 sampled tokens, 34 in the forest
SHAPE = kit.Shape(prompts=2, prompt=5, plans=3, plan=4)
LAYER = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 12  # q, k and v, o, gate and up and down


def test_parameters_are_those_of_the_model():
    assert SIZE.inside == 2 * LAYER == 960
    assert (
        SIZE.parameters == 960 + 2 * 19 * 8 + 5 * 8 == sum(p.numel() for p in kit.model_of(SIZE).parameters())
    )


def test_pairs_by_hand():
    assert counted.causal(0, 3) == 1 + 2 + 3
    assert counted.causal(5, 4) == 6 + 7 + 8 + 9


def test_a_product_by_hand():
    work = counted.product(3, 8, 12, 2)
    assert (work.ops, work.bytes) == (2 * 3 * 8 * 12, 2 * (3 * 8 + 8 * 12 + 3 * 12))


def test_operations_of_sampling_by_hand():
    work = roofline.sampling_work(SIZE, SHAPE, 4)
    assert work["prefill: layers"].ops == 2 * 10 * 960
    # 4 operations for each pair, number of a head and head, in 2 layers; 15 pairs in each of 2 prompts.
    assert work["prefill: attention"].ops == 4 * 8 * 2 * (2 * 15)
    assert work["decode: layers"].ops == 2 * 6 * 960 * 3  # the first of 4 tokens comes from the prefill
    assert work["decode: attention"].ops == 4 * 8 * 2 * 6 * (6 + 7 + 8)
    assert work["head"].ops == 2 * 8 * 19 * (2 + 6 * 3)


def test_bytes_of_a_decode_step_by_hand():
    """Keys and values of a prompt are read once for its three rows."""
    work = roofline.sampling_work(SIZE, SHAPE, 4)
    step = lambda t: 2 * 4 * (6 * 8 + (10 + 6 * t) * 4)  # noqa: E731  queries and results, keys and values of prompts and tails
    assert work["decode: attention"].bytes == 2 * (step(1) + step(2) + step(3))
    ends = sum(i + o for i, o in SIZE.linears)
    assert work["decode: layers"].bytes == 3 * 2 * 4 * (LAYER + 6 * ends)
    assert work["decode: layers"].again == 4 * (960 + 19 * 8) + 2 * 4 * 2 * 4 * (10 + 6 * 4)


def test_operations_of_training_by_hand():
    work = roofline.training_work(SIZE, SHAPE, 4)
    pairs = 2 * (15 + 3 * (6 + 7 + 8 + 9))
    assert work["forward: layers"].ops == 2 * 34 * 960 and work["backward: layers"].ops == 4 * 34 * 960
    assert (
        work["forward: attention"].ops == 4 * 8 * 2 * pairs
        and work["backward: attention"].ops == 10 * 8 * 2 * pairs
    )
    assert work["forward: head"].ops == 2 * 24 * 8 * 19 and work["backward: head"].ops == 4 * 24 * 8 * 19
    assert (
        work["optimizer"].bytes == 8 * 4 * SIZE.parameters and work["optimizer"].again == 16 * SIZE.parameters
    )


def test_what_is_possible_is_the_slower_of_the_two():
    limits = roofline.Limits({"fp32": {(1, 1, 1): 50.0, (2, 2, 2): 100.0}}, {10: 40.0, 1000: 4.0, 100: 8.0})
    assert limits.rate("fp32") == 100
    assert [limits.bandwidth(n) for n in (1, 10, 11, 100, 500, 5000)] == [40, 40, 8, 8, 4, 4]
    assert limits.possible(roofline.Work(200, 8, 5), "fp32") == 2.0  # .2 s to read
    assert limits.possible(roofline.Work(200, 80, 500), "fp32") == 20.0


@pytest.mark.parametrize(
    ("name", "shapes", "above", "part"),
    [
        ("aten::mm", [[6, 8], [8, 12]], ["aten::linear"], "layers"),
        ("aten::mm", [[6, 8], [8, 19]], ["aten::linear"], "head"),
        ("aten::_log_softmax", [[6, 19], [], []], [], "head"),
        ("aten::bmm", [[2, 6, 4], [2, 4, 19]], [], "attention"),
        ("aten::exp", [[6]], ["_AttentionBackward"], "attention"),
        ("aten::embedding", [[19, 8], [6]], [], "rest"),
        ("aten::mul", [[6, 8], [8]], [], "rest"),
    ],
)
def test_every_operation_has_its_part(name, shapes, above, part):
    assert roofline.kind_of(name, shapes, above, 19) == part


def test_time_that_no_part_has_is_rest():
    parts = roofline.spread(
        10.0, (20.0, {"layers": [8.0, 5.0], "rest": [2.0, 0.0], "backward: rest": [1.0, 0.0]})
    )
    assert parts == {"layers": [4.0, 5.0], "rest": [6.0, 0.0]}


def test_products_that_nobody_saw_stop_it():
    limits = roofline.Limits({"fp32": {(1, 1, 1): 100.0}}, {10: 40.0})
    with pytest.raises(SystemExit, match="sampling, head: 90 operations of products ran, 100 were counted"):
        roofline.compared(
            "sampling",
            {"head": roofline.Work(100, 1, 1)},
            {"head": [1.0, 90.0], "total": [1.0, 0.0]},
            limits,
            "fp32",
        )


def test_quick(tmp_path, monkeypatch, capsys):
    """Of the layers and the head exactly the counted operations run: nothing is computed twice, nothing for
    padding."""
    file = tmp_path / "out.json"
    assert (
        run(roofline, monkeypatch, "--quick", "--repeats", "1", "--precision", "fp32", "--json", str(file))
        == 0
    )
    result, said = json.loads(file.read_text()), capsys.readouterr().out
    (model,) = result["models"]
    lines = {(x["what"], x["part"]): x for x in model["lines"]}
    assert [x["part"] for x in model["lines"] if x["what"] == "training"] == [
        "forward: layers",
        "forward: attention",
        "forward: head",
        "backward: layers",
        "backward: attention",
        "backward: head",
        "optimizer",
        "rest",
        "total",
    ]
    for (what, part), line in lines.items():
        if part.endswith(("layers", "head")):
            assert line["done"] == pytest.approx(1), (what, part)
    for what in ("sampling", "training"):
        parts = [x for x in model["lines"] if x["what"] == what and x["part"] != "total"]
        assert all(x["seconds"] >= 0 for x in parts)
        if what == "training":  # sampling is told apart by two runs, which need not agree on a busy machine
            assert math.isclose(
                sum(x["seconds"] for x in parts), lines[what, "total"]["seconds"], rel_tol=1e-6
            )
        assert sum(x["ops"] for x in parts) == lines[what, "total"]["ops"] > 0
    assert "| training | backward: layers |" in said and "the numbers mean nothing" in said
