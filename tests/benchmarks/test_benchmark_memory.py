"""The memory of a step: peaks of known allocations, both sides the same step, growth by hand, and a run that
says what it should."""

from __future__ import annotations

import json
import math
import sys

import pytest

torch = pytest.importorskip("torch")

from bench_load import run, script  # noqa: E402

memory = script("memory")
MIB = 1 << 20


def test_the_peak_of_known_allocations():
    """3 MiB and 4 MiB live together, 5 MiB alone; what was there before does not count."""
    before = torch.ones(MIB)

    def step():
        first = torch.ones(3 * MIB // 4)
        both = first, torch.ones(MIB)
        del first, both
        torch.ones(5 * MIB // 4)

    assert memory.allocated(step) == 7 * MIB
    assert memory.allocated(lambda: before.mul_(2)) < 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_resident_memory_counts_what_was_touched_and_begins_anew():
    def step():
        torch.ones(16 * MIB)

    assert 60 * MIB < memory.resident(step) < 80 * MIB
    assert memory.resident(lambda: None) < 10 * MIB  # not the peak of before


def row(tokens: int, plain: float, ours: float) -> dict:
    return {
        "vocabulary": 1000,
        "tokens": tokens,
        "logits": 4000 * tokens,
        "beyond": {"allocated": {"plain": plain, "ours": ours}},
    }


def test_growth_by_hand():
    rows = [row(10, 1000, 700), row(30, 9000, 720)]
    assert memory.growth(rows) == {"plain": 400, "ours": 1}
    assert all(math.isnan(x) for x in memory.growth(rows[:1]).values())


def test_lines_by_hand():
    """On a GPU nothing is said of resident memory; the growth stands in the last line."""
    rows = [row(512, 8 * MIB, 2 * MIB), row(1024, 16 * MIB, 2 * MIB)]
    assert memory.lines(rows, memory.growth(rows)) == [
        ["1,000", "512", "2", "8", "2", "4.0", "", "", "-", "-", "-"],
        ["1,000", "1,024", "4", "16", "2", "8.0", "16", "0", "-", "-", "-"],
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_both_sides_have_the_same_parameters(tied):
    size = memory.SIZES["tiny"]
    assert sum(p.numel() for p in memory.model_of(size, tied).parameters()) == memory.parameters(size, tied)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": 3.1}, "the loss is 3.1 in ours and 3.0 in the plain step"),
        ({"norm": 0.6}, "the norm is 0.6 in ours and 0.5 in the plain step"),
    ],
)
def test_a_comparison_that_does_not_hold_stops(change, sentence):
    fact = {"loss": 3.0, "norm": 0.5}
    memory.check({"plain": fact, "ours": dict(fact)}, "here", "fp32")
    with pytest.raises(SystemExit, match=f"does not hold at here: {sentence}"):
        memory.check({"plain": fact, "ours": fact | change}, "here", "fp32")


@pytest.mark.slow
def test_quick(tmp_path, monkeypatch, capsys):
    file = tmp_path / "out.json"
    assert run(memory, monkeypatch, "--quick", "--json", str(file)) == 0
    result, said = json.loads(file.read_text()), capsys.readouterr().out
    assert [(r["head"], r["vocabulary"], r["tokens"]) for r in result["rows"]] == [
        (head, v, n) for head in ("untied", "tied") for v in (99, 640) for n in (64, 128)
    ]
    # two layers, width 32: 48 hidden, 2 of 4 heads have keys
    inside = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 5 * 32
    assert [r["gradients"] for r in result["rows"][::2]] == [
        4 * (inside + n * 32) for n in (2 * 99, 2 * 640, 99, 640)
    ]
    for r in result["rows"]:
        plain, ours = r["found"]["plain"][0], r["found"]["ours"][0]
        assert plain["loss"] == pytest.approx(math.log(r["vocabulary"]), rel=0.05) and plain["norm"] > 0
        assert plain["allocated"] > r["logits"] + r["gradients"] and ours["allocated"] > r["gradients"]
    assert len(result["growth"]) == 4 and "tied head" in said and "the numbers mean nothing" in said


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (["--heads", "bare"], "no head 'bare'; there are untied and tied"),
        (["--tokens", "100"], "100 tokens cannot be made of paths of 64"),
        (["--tokens", "0"], "0 tokens cannot be made"),
        (["--tokens", "many"], "invalid numbers value: 'many'"),
        (["--vocabularies", "3"], "a vocabulary of 3 words is too small"),
        (["--sizes", "huge"], "no size 'huge'"),
    ],
)
def test_a_wrong_argument_is_named(argument, sentence, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(memory, monkeypatch, *argument)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
