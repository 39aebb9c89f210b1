"""`benchmarks/exchange.py`: cells under the arms' names, means over seeds, and what is not a pair of arms."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "exchange.py"


@pytest.fixture(scope="module")
def exchange():
    spec = importlib.util.spec_from_file_location("exchange", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(value: float) -> dict:
    return {"value": value, "low": 0.0, "high": 1.0}


def test_each_cell_is_the_mean_over_the_seeds_that_both_arms_have(exchange, tmp_path, monkeypatch, capsys):
    for arm, seeds in (("a", (0, 1, 2)), ("b", (1, 2, 3))):
        for seed in seeds:
            (tmp_path / arm / f"seed-{seed}").mkdir(parents=True)

    def tables(one, other, tasks):
        names = [f"{path.parent.name}/{path.name}" for path in (one, other)]
        s = int(one.name[-1]) / 10  # seeds 1 and 2: 0.1 and 0.2
        return [
            {
                "n": 7,
                "plan": {name: cell(s) for name in (*names, "oracle")},
                "e2e": {p: {a: cell(s + (p == a)) for a in names} for p in (*names, "oracle")},
            }
        ] * 2

    monkeypatch.setattr(exchange, "tables", tables)
    monkeypatch.setattr(sys, "argv", ["exchange.py", str(tmp_path / "a"), str(tmp_path / "b")])
    assert exchange.main() == 0
    out, name = capsys.readouterr().out, tmp_path.name
    assert f"tasks of {name}/a (2 seeds, 7 tasks each)" in out and f"tasks of {name}/b (2 seeds" in out
    assert f"| {name}/a | 15.0 % [" in out  # the mean of 10 % and 20 %
    assert out.count("| 115.0 % [") == 4 and out.count("| oracle | ") == 2


def test_arms_without_a_seed_in_common_are_refused(exchange, tmp_path, monkeypatch, capsys):
    (tmp_path / "a/seed-0").mkdir(parents=True)
    (tmp_path / "b/seed-1").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["exchange.py", str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(SystemExit):
        exchange.main()
    assert "have no seed in common" in capsys.readouterr().err
