"""What the comparison of products says: rates, ratios, and what it cannot compare."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from bench_load import run, script  # noqa: E402

from forethought.engines.torch.forest.native.library import library, why_not  # noqa: E402

products = script("products")


def test_sides_take_turns_and_the_least_counts(monkeypatch):
    now, order = [0.0], []
    costs = {"a": iter([1, 1, 3, 2, 5]), "b": iter([1, 1, 1, 4, 4])}  # a warm-up and a first look each
    monkeypatch.setattr(products.time, "thread_time", lambda: now[0])
    monkeypatch.setattr(products.time, "perf_counter", lambda: now[0])

    def side(name):
        def do():
            order.append(name)
            now[0] += next(costs[name])

        return do

    assert products.least({name: side(name) for name in costs}, 3, 1) == {"a": 2, "b": 1}
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3


def test_bf16_is_compared_with_the_better_of_pytorchs_two():
    rate = {"ours fp32": 1.0, "linear fp32": 4.0, "ours bf16": 1.0, "linear bf16": 2.0}
    assert products.best_of(rate, "fp32") == products.best_of(rate, "bf16") == 4.0
    assert products.best_of({"ours bf16": 1.0, "linear bf16": 2.0}, "bf16") == 2.0


def test_the_shapes_are_those_of_the_models():
    *inside, head = products.products_of("SmolLM2-135M")
    assert [p[:2] for p in inside] == [(576, 576), (576, 192), (576, 1536), (1536, 576)]
    assert {n for *_, n in inside} == {30} and head == (576, 49152, 1)
    assert max(4 * i * o * n for i, o, n in products.products_of("Qwen2.5-0.5B") if n > 1) <= 256 << 20


@pytest.mark.skipif(library() is None, reason=why_not())
def test_quick(tmp_path, monkeypatch, capsys):
    file = tmp_path / "products.json"
    monkeypatch.setattr(products, "SECONDS", 0.0)
    args = ("--quick", "--rows", "1,3", "--threads", "1", "--repeats", "1", "--json", str(file))
    assert run(products, monkeypatch, *args) == 0
    found = json.loads(file.read_text())["models"]["tiny"]
    assert [(line["product"], line["rows"]) for line in found] == [
        ([i, o], n) for i, o, _ in products.products_of("tiny") for n in (1, 3)
    ]
    assert all(0 < r for line in found for r in line["ratio"].values())
    assert "in x out" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(products, monkeypatch, "--models", "GPT-9")
