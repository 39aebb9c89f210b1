"""The comparison with `transformers` generate: all sides do the work they are asked for, and what is checked
is checked."""

from __future__ import annotations

import importlib.util
import json

import pytest

pytest.importorskip("torch")

from bench_load import run, script  # noqa: E402

sampling = script("sampling")
kit = script("bench_kit")

TREE = kit.Shape(prompts=2, prompt=9, plans=4, plan=3, acts=3, act=2)


def test_sizes_of_trees_by_hand():
    """2 prompts of 9; 8 plans of 3; 24 executions of 2."""
    assert (TREE.leaves, TREE.sampled, TREE.tokens) == (24, 8 * 3 + 24 * 2, 18 + 72)
    assert TREE.unrolled == 24 * (9 + 3 + 2)
    flat = kit.Shape(prompts=2, prompt=9, plans=4, plan=3)
    assert (flat.leaves, flat.sampled, flat.tokens, flat.unrolled) == (8, 24, 42, 8 * 12)


def test_the_models_have_about_the_parameters_they_are_called_after():
    sizes = {name: size.parameters for name, size in kit.SIZES.items() if name != "tiny"}
    for name, n in sizes.items():
        called = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
        assert 0.8 * called < n < 1.3 * called, (name, n)
    assert all(size.vocabulary not in (size.width, size.mlp) for size in kit.SIZES.values())


@pytest.mark.parametrize("calls", [1, 2])
def test_unrolled_rollouts_say_what_the_tree_says(calls):
    engine = kit.engine_of(kit.SIZES["tiny"], precision="fp32", threads=1)
    prompts = kit.prompts_of(kit.SIZES["tiny"], TREE, 0)
    tree, alone = kit.rollouts(engine, prompts, TREE, 5), kit.unrolled(engine, prompts, TREE, 5, calls)
    ids = lambda said: [[[ids for ids, _ in group] for group in part] for part in (said.plans, said.acts)]  # noqa: E731
    assert ids(tree) == ids(alone)
    assert len({plan for group in tree.plans for plan, _ in group}) > 4  # and siblings say different things
    for a, b in zip(tree.acts, alone.acts, strict=True):
        for (_, x), (_, y) in zip(a, b, strict=True):
            assert x == pytest.approx(y, abs=1e-5)
    assert ids(kit.rollouts(engine, prompts, TREE, 5)) == ids(tree)  # nothing of it stays behind


def test_quick(tmp_path, monkeypatch, capsys):
    file = tmp_path / "out.json"
    assert (
        run(
            sampling,
            monkeypatch,
            "--quick",
            "--repeats",
            "1",
            "--precision",
            "fp32",
            "--peers",
            "generate",
            "--json",
            str(file),
        )
        == 0
    )
    result, said = json.loads(file.read_text()), capsys.readouterr().out
    flat, tree = result["rows"]
    assert (flat["row"], flat["sampled"]) == ("flat", 3 * 4) and (tree["row"], tree["sampled"]) == (
        "tree",
        2 * 4 * (3 + 3 * 3),
    )
    for row in (flat, tree):
        assert row["gap"].keys() == {"ours", "generate"} and max(row["gap"].values()) < 1e-4
        assert row["ratio"].keys() == {"generate"} and row["ratio"]["generate"]["wall"] > 0
    (own,) = result["own"]
    assert own["same"] == {"shared": 1, "two calls": 1, "one call": 1}
    assert own["tokens"] == {"tree": 2 * 9 + 2 * 4 * 3 + 24 * 3, "leaves": 24 * (9 + 3 + 3)}
    assert [(row["row"], row["same"], row["gap"] < 1e-5) for row in result["kept"]] == [
        ("episode", 1, True),
        ("tree", 1, True),
    ]
    assert result["kept"][0]["sampled"] == 2 * 2 * 3 * 4
    assert "ours / generate" in said and "the numbers mean nothing" in said


def test_peers_that_are_not_there_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    file = tmp_path / "out.json"
    assert (
        run(
            sampling,
            monkeypatch,
            "--quick",
            "--rows",
            "unrolled",
            "--precision",
            "fp32",
            "--repeats",
            "1",
            "--json",
            str(file),
        )
        == 0
    )
    assert json.loads(file.read_text())["notes"] == [
        "ctranslate2 is not installed: left out",
        "vllm is not installed: left out",
    ]
    assert "vllm is not installed: left out" in capsys.readouterr().out


@pytest.mark.skipif(not importlib.util.find_spec("ctranslate2"), reason="CTranslate2 is not installed")
def test_ctranslate2_gives_the_mean_log_prob_of_what_it_says(tmp_path, monkeypatch):
    file = tmp_path / "out.json"
    assert (
        run(
            sampling,
            monkeypatch,
            "--quick",
            "--repeats",
            "1",
            "--precision",
            "fp32",
            "--rows",
            "flat,tree",
            "--peers",
            "ctranslate2",
            "--json",
            str(file),
        )
        == 0
    )
    assert [row["gap"]["ctranslate2"] < 1e-3 for row in json.loads(file.read_text())["rows"]] == [True, True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampled": 71}, "ours sampled 71 tokens of 72"),
        ({"gap": 0.01}, "ours its log-probs are 0.01 nats from the model's"),
        ({"gap": float("nan")}, "ours its log-probs are nan nats"),
    ],
)
def test_a_comparison_that_does_not_hold_stops(change, sentence):
    fact = {"sampled": 72, "gap": 1e-6}
    sampling.check("ours", TREE, fact, "fp32")
    with pytest.raises(SystemExit, match=sentence):
        sampling.check("ours", TREE, fact | change, "fp32")


def test_other_tokens_stop_in_fp32_and_are_counted_in_bf16():
    last = lambda: {"shared": {"tokens": [[1], [2]]}, "one call": {"tokens": [[1], [3]]}}  # noqa: E731
    with pytest.raises(SystemExit, match="of 2 completions one call has 50.0% as the tree has them"):
        sampling.same(last(), TREE, "fp32")
    facts = last()
    sampling.same(facts, TREE, "bf16")
    assert facts["one call"]["same"] == 0.5
