"""What the tables of docs/gsm8k.md are computed with."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from forethought.tasks.math.grading import exact
from forethought.tasks.text.answers import boxed

_spec = importlib.util.spec_from_file_location("gsm8k", Path(__file__).parents[2] / "benchmarks" / "gsm8k.py")
gsm8k = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gsm8k)


@pytest.mark.parametrize("gold", ["0", "18", "1,800", "-5"])
@pytest.mark.parametrize("form", gsm8k.FORMS)
def test_every_form_is_judged_as_it_should_be(form, gold):
    write, right = gsm8k.FORMS[form]
    said = boxed(f"So it is \\boxed{{{write(int(gold.replace(',', '')))}}}.").value
    assert exact(gold, said).score == float(right), said


def test_chance_is_the_mean_over_all_orders_of_the_problems():
    assert gsm8k.by_chance(["1", "1", "2"], ["1", "2", "2"]) == pytest.approx((2 * 1 + 1 * 2) / 9)
    assert gsm8k.by_chance(["", "1"], ["1", "1"]) == pytest.approx(0.5)  # no answer is never right


def test_saved_trees_by_hand(tmp_path):
    """Two steps, a tree each: 3 of 12 right, then all plans refused. pass@4 of the first is 1 - C(9, 4) /
    C(12, 4)."""
    (tmp_path / "train.jsonl").write_text(
        '{"question": "?", "answer": "x\\n#### 7"}\n{"question": "??", "answer": "y\\n#### 8"}\n'
    )
    (tmp_path / "trees").mkdir()
    acts = [
        {"role": "act", "text": f"\\boxed{{{7 if i < 3 else 8}}}", "reward_parts": {"outcome": float(i < 3)}}
        for i in range(11)
    ]
    acts.append({"role": "act", "text": "none", "reward_parts": {"outcome": 0.0}})
    for step, nodes in ((5, acts), (10, [])):
        with gzip.open(tmp_path / f"trees/step-{step:06}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"task": "gsm8k/train/1", "nodes": nodes}) + "\n")
    head, first, second = gsm8k.saved_trees(tmp_path, tmp_path / "train.jsonl")
    assert first == ["5-5", "1", "91.7%", "25.0%", "25.0%", "25.0%", "74.5%", "100.0%"] and len(head) == len(
        first
    )
    assert second == ["10-10", "1", "0.0%", "0.0%", "0.0%", "0.0%", "0.0%", "0.0%"]


def test_tables_and_steps_without_executions():
    assert gsm8k.table([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert gsm8k._mean([{"x": 1.0}, {"y": 3.0}, {"x": 2.0}], "x") == "1.500" and gsm8k._mean([{}], "x") == "-"
