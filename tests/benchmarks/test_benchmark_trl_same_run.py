"""What `benchmarks/trl_same_run.py` makes of two sets of curves. (The runs need TRL and minutes.)"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "trl_same_run.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("trl_same_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_windows_are_means_of_equal_pieces(bench):
    assert bench.windows([1, 3, 5, 7], 2) == [2, 6] and bench.windows([1, 2, 3], 6) == [1, 2, 3]


def test_a_difference_over_seeds_by_hand(bench):
    """Means 2 and 5, variances 2 and 2 over 2 seeds each: the error is sqrt(2), with 2 degrees of freedom."""
    assert bench.apart([1, 3], [4, 6]) == (3, pytest.approx(4.303 * 2**0.5, rel=1e-3))
    with pytest.raises(ValueError, match="two seeds"):
        bench.apart([1], [2, 3])


@pytest.mark.parametrize(("ours", "said"), [(0.5, "within the"), (1.9, "OUTSIDE the")])
def test_the_table_says_whether_the_sides_differ(bench, ours, said):
    """The last of six windows by 0 or 1.4: a sixth of it over the whole run, as of the error of .0707."""

    def runs(end, seconds):
        return [{"curve": [0.1] * 5 + [end + d], "seconds": seconds} for d in (-0.05, 0.05)]

    text = bench.table({"trl": runs(0.5, 4.0), "ours": runs(ours, 2.0)})
    assert said in text and "ratio 2.00" in text
    assert f"{ours - 0.5:+.3f} +- 0.304 (95 %)" in text


def test_the_functions_are_those_of_the_file(bench, tmp_path):
    args = SimpleNamespace(most=4, model="there")
    bench.prepare(tmp_path, args)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    assert len(rows) == 256 and set(rows[0]) == {"prompt", "most"}
    page = bench.functions_of(tmp_path)
    assert page["digits"](completions=["1a", ""]) == [0.5, 0.0]
    assert page["short"](completions=[""], completion_ids=[[1]], most=[4]) == [0.75]
