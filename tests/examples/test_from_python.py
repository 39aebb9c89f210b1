"""`examples/from_python.py`: a run with a callback, and its best checkpoint handed on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import AutoModelForCausalLM

import forethought as ft

FILE = Path(__file__).parents[2] / "examples" / "from_python.py"


def test_the_best_checkpoint_is_exported(tmp_path, capsys):
    assert FILE.read_text().count("\n") <= 40
    spec = importlib.util.spec_from_file_location("from_python", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    small = {
        "eval.tasks": 2,
        "model.layers": 2,
        "model.width": 64,
        "stage.0.batch": 8,
        "stage.1.until.steps": 2,
    }
    # nothing is learned at this rate, so no evaluation is better than the first
    still = {"stage.0.until.steps": 40, "stage.0.optim.lr": 1e-9, "stage.0.optim.muon_lr": 1e-9}
    to = example.main(tmp_path / "run", **small, **still)
    run = ft.open(tmp_path / "run")
    assert (run.status, run.summary["step"]) == ("interrupted", 15)
    assert run.decisions()[-1]["reason"] == "e2e has not risen above 0.00 since step 0"
    assert to == tmp_path / "run" / "best" and [path.name for path in to.iterdir()] == ["plan-act"]
    assert AutoModelForCausalLM.from_pretrained(to / "plan-act").num_parameters() > 0
    assert "interrupted 0 0.0" in capsys.readouterr().out
