"""Threads against processes: medians and ratios by hand, and a run that says what it should."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

pytest.importorskip("torch")

import torch  # noqa: E402
from bench_load import run, script  # noqa: E402

threads = script("threads")


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)


def test_sides_use_the_same_cores():
    assert threads.sides_of(4) == {"1 x 1": (1, 1), "1 x 4": (1, 4), "4 x 1": (4, 1)}


def test_a_row_by_hand():
    rates = {"1 x 1": [10.0, 8.0, 12.0], "1 x 2": [4.0, 5.0, 30.0], "2 x 1": [20.0, 21.0, 1.0]}
    took = [{1: 0.010, 2: 0.008}, {1: 0.010, 2: 0.030}, {1: 0.010, 2: 0.009}]
    row = threads.row(True, rates, took, 2)
    assert row["median"] == {"1 x 1": 10.0, "1 x 2": 5.0, "2 x 1": 20.0}
    assert row["ratio"] == {"threads": 0.5, "processes": 2.0, "processes to threads": 4.0}
    assert row["chosen"] == [2, 1, 1]  # 20 % are enough, 10 % are not
    assert threads.printed("1M", "fp32", [row]).splitlines()[2] == (
        "| 1M fp32 | 1 busy process | 10 | 5 | 20 | 0.50 | 2.00 | 4.00 | 2, 1, 1 (1: 10.0, 2: 9.0) |"
    )


class Pretend:
    """A worker that does what it is asked in no time."""

    def __init__(self, rate: float):
        self.rate, self.asked = rate, []

    def ask(self, **command):
        self.asked.append(command)
        return {"took": {"1": 0.02, "2": 0.01}} if "choose" in command else {"rate": self.rate}


def test_processes_add_up_and_the_first_round_does_not_count(monkeypatch):
    others = []
    monkeypatch.setattr(threads, "something_else", lambda there: others.append(there) or nullcontext())
    workers = {"1 x 1": [Pretend(10.0)], "1 x 2": [Pretend(5.0)], "2 x 1": [Pretend(8.0), Pretend(9.0)]}
    idle, busy = threads.measure(workers, 2, 2, 1.5)
    assert others == [False, True] * 3 and (idle["busy"], busy["busy"]) == (False, True)
    assert idle["rates"] == {"1 x 1": [10.0, 10.0], "1 x 2": [5.0, 5.0], "2 x 1": [17.0, 17.0]} and idle[
        "chosen"
    ] == [2, 2]
    assert [c.get("steps") for c in workers["1 x 2"][0].asked] == [0, 0, 1.5, 1.5, 1.5, 1.5]
    assert [c for c in workers["1 x 1"][0].asked if "choose" in c] == [{"choose": 2}] * 4


def test_something_else_is_there_and_gone_again(monkeypatch):
    begun = []
    popen = threads.subprocess.Popen
    monkeypatch.setattr(threads.subprocess, "Popen", lambda *args: begun.append(popen(*args)) or begun[-1])
    with threads.something_else(False):
        assert begun == []
    with threads.something_else(True):
        assert begun[0].poll() is None
    assert begun[0].poll() is not None and len(begun) == 1


def test_quick(tmp_path, monkeypatch, capsys):
    file = tmp_path / "out.json"
    assert run(threads, monkeypatch, "--quick", "--repeats", "1", "--seconds", "0", "--json", str(file)) == 0
    (model,), said = json.loads(file.read_text())["models"], capsys.readouterr().out
    assert [row["busy"] for row in model["rows"]] == [False, True]
    for row in model["rows"]:
        assert list(row["median"]) == ["1 x 1", "1 x 2", "2 x 1"] and min(row["median"].values()) > 0
        assert all(set(took) == {"1", "2"} for took in row["took"]) and set(row["chosen"]) <= {1, 2}
    assert "| tiny fp32 | 1 busy process |" in said and "the numbers mean nothing" in said


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--sizes", "3M"], "no size '3M'; there are tiny, 1M"),
        (["--together", "1"], "together at least 2"),
        (["--repeats", "0"], "repeats are at least 1"),
    ],
)
def test_what_makes_no_comparison_is_refused(monkeypatch, capsys, args, sentence):
    with pytest.raises(SystemExit):
        run(threads, monkeypatch, *args)
    assert sentence in capsys.readouterr().err
