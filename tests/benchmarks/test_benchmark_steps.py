"""The comparison with TRL: our side of it works, and what it checks is checked. TRL's own side needs the
extra `bench`."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from bench_load import script

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "steps.py"
TOKENS = 4 * 4 * 16  # of the row `small`: prompts x group x new tokens


@pytest.fixture(scope="module")
def steps():
    return script("steps")


def test_a_reward_is_a_score_however_many_words_there_are(steps):
    for row in steps.ROWS.values():
        assert 0.5 < steps.share_odd(range(3, len(steps.words_of(row)))) < 0.6
    assert steps.share_odd([3, 4, 49_151]) < 1


def test_without_trl_it_says_what_to_install():
    if importlib.util.find_spec("trl"):
        pytest.skip("TRL is installed here")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "this comparison needs trl" in done.stderr and "pip install 'forethought[bench]'" in done.stderr


def test_our_side_does_full_steps(steps, tmp_path):
    """Every completion is exactly as long as asked for, all of it trains, and the trainer's log-probs are the
    sampler's."""
    steps.write_model(steps.ROWS["small"], tmp_path)
    worker = steps.Worker("ours", "small", tmp_path, argparse.Namespace(precision="fp32", threads=1), steps=2)
    try:
        for fact in (worker.first, worker.step()):
            steps.check("ours", steps.ROWS["small"], fact, "fp32")
            assert fact["sampled"] == fact["trained"] == TOKENS
            assert fact["gap"] < 1e-5
            assert 4.5 < fact["entropy"] < 4.85  # ln 128 = 4.852 and a little less: random weights
            assert 0 < fact["cpu"] and 0 < fact["wall"] < worker.cold
    finally:
        worker.close()


def test_our_side_alone_says_its_steps(steps, tmp_path):
    args = argparse.Namespace(precision="fp32", threads=1, repeats=1)
    said = steps.alone("small", args, tmp_path)
    assert said.startswith("small, fp32: 0.") and said.count(",") == 2 and said.endswith("GB")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trained": 200}, "ours trained 200 tokens of 256"),
        ({"loss": float("nan")}, "loss is nan"),
        ({"gap": 0.01}, "sampler and trainer differ by 0.01 nats"),
    ],
)
def test_a_comparison_that_does_not_hold_stops(steps, change, sentence):
    fact = {"sampled": TOKENS, "trained": TOKENS, "loss": 0.0, "entropy": 4.8, "gap": 1e-7}
    steps.check("ours", steps.ROWS["small"], fact, "fp32")
    with pytest.raises(SystemExit, match=sentence):
        steps.check("ours", steps.ROWS["small"], fact | change, "fp32")
