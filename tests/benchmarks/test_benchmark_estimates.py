"""The comparison of estimates with measured runs: its recipes can run, its ratios are of the same things."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import estimates  # noqa: E402

from forethought.recipe.check import check  # noqa: E402
from forethought.recipe.convert import from_dict  # noqa: E402


@pytest.mark.parametrize("size", estimates.SIZES)
@pytest.mark.parametrize("model", ["", "some/model"])
def test_every_row_is_a_recipe_that_can_run(size, model):
    recipe = from_dict(tomllib.loads(estimates.recipe_of(size, model)))
    check(recipe)
    assert recipe.model.path == model


def test_processor_time_is_what_the_compared_processes_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert estimates.surroundings(tmp_path, cpu=False)["PYTHONPATH"] == "elsewhere"
    env = estimates.surroundings(tmp_path, cpu=True)
    assert env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "elsewhere"]
    said = "import time; print(time.perf_counter is time.process_time)"
    done = subprocess.run([sys.executable, "-c", said], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_row_by_hand():
    said = {
        "timed": True,
        "seconds": {"sampling": 3.0, "training": 8.0, "evaluation": 1.0, "total": 12.0},
        "bytes": {"peak": 3e9},
    }
    found = {
        "sampling": {"seconds": 2.0, "peak_bytes": 1e9},
        "training": {"seconds": 8.0, "peak_bytes": 2e9},
        "evaluation": {"seconds": 0.5, "peak_bytes": 1e9},
    }
    row = estimates.row_of("1M", said, found)
    assert row["ratio"] == pytest.approx({"sampling": 1.5, "training": 1.0, "total": 12 / 10.5})
    assert row["bytes"]["ratio"] == 1.5
    *_, line = estimates.table([row])
    assert line.startswith("| 1M | 3.0 / 2.0 s (1.50) | 8.0 / 8.0 s (1.00) | 1.0 / 0.5 s |")
    assert line.endswith("3.00 / 2.00 GB (1.50) |")
