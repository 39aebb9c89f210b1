"""`examples/loss_row.py`: a run that names it, and its gradient by hand."""

from __future__ import annotations

from math import exp
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing
from loss_cases import pg

from forethought.core.errors import Diverged, FaultStop
from forethought.core.types import Batch
from forethought.engines.fake.numbers import Numbers
from forethought.engines.fake.objectives import Tokens
from forethought.learn.losses import term
from forethought.learn.losses.terms import measure
from forethought.runs import run
from forethought.runs.rundata import changed

FILE = Path(__file__).parents[2] / "examples" / "loss_row.py"
ROW = f"{FILE}:SAPO"


def test_it_has_at_most_forty_lines():
    assert FILE.read_text().count("\n") <= 40


def test_a_recipe_that_names_it_trains(tmp_path):
    stage = {
        "kind": "reinforce",
        "roles": ["plan"],
        "until": {"steps": 3},
        "batch": 4,
        "tree": {"plan": 4, "act": 0},
        "reward": {"plan": {"valid": 1}},
        "updates": 2,
        "loss": {"name": ROW, "negative": 1.5},
        "optim": {"lr": 0.5, "warmup": 0},
    }
    run.train(desk_recipe(stage), tmp_path / "run", nothing, fake_desk())
    steps = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "sapo/slope" in line]
    # the first of two updates is on policy
    assert len(steps) == 3 and all(0.9 < line["sapo/slope"] < 1 for line in steps)
    assert steps[0]["grad_norm/plan"] > 0


def test_a_run_knows_the_file_that_it_began_with(tmp_path):
    file = tmp_path / "mine.py"
    file.write_bytes(FILE.read_bytes())
    stage = {
        "kind": "reinforce",
        "roles": ["plan"],
        "until": {"steps": 1},
        "batch": 2,
        "loss": f"{file}:SAPO",
    }
    recipe = desk_recipe(stage | {"tree": {"plan": 2, "act": 1}})
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    assert changed(tmp_path / "run", recipe) == []
    file.write_text(file.read_text() + "# other\n")
    [said] = changed(tmp_path / "run", recipe)
    assert said.startswith(f"stage.0.loss: {file} has changed since the run began")


def test_what_its_function_raises_is_the_users_to_mend(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from forethought.learn.losses.row import Loss\n\n"
        "def broken(t):\n    return {}['w']\n\n"
        "ROW = Loss(per_token=broken, needs={'advantage'})\n"
    )
    stage = {"kind": "reinforce", "until": {"steps": 1}, "batch": 2, "loss": f"{file}:ROW"}
    recipe = desk_recipe(stage | {"tree": {"plan": 2, "act": 2}})
    said = (
        r"^stopped at step 0: stage\.0\.loss: .*mine\.py:ROW raised KeyError: 'w' \(.*mine\.py:4\); nothing"
    )
    with pytest.raises(FaultStop, match=said):
        run.train(recipe, tmp_path / "run", nothing, fake_desk())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("t.logp * float('nan'), {}", "nan"),
        ("(t.logp * -1e6).exp(), {}", "inf"),
        ("t.logp / (t.logp - t.logp), {}", "nan"),
        ("(t.logp * 1e6).log(), {}", "nan"),
        ("(t.logp * 0).log(), {}", "-inf"),
    ],
)
def test_a_loss_that_is_not_finite_refuses_the_update(tmp_path, body, said):
    file = tmp_path / "mine.py"
    file.write_text(
        "from forethought.learn.losses.row import Loss\n\n"
        f"def wild(t):\n    return {body}\n\n"
        "ROW = Loss(per_token=wild, needs={'advantage'})\n"
    )
    stage = {"kind": "reinforce", "until": {"steps": 3}, "batch": 2, "loss": f"{file}:ROW"}
    recipe = desk_recipe(stage | {"tree": {"plan": 2, "act": 2}}, max_bad_updates=2)
    with pytest.raises(Diverged, match=f"2 updates were refused, the last because the loss .* is {said};"):
        run.train(recipe, tmp_path / "run", nothing, fake_desk())


def test_numbers_of_the_fake_engine_leave_the_finite_ones_as_a_tensors_do():
    torch = pytest.importorskip("torch")
    values = [-800.0, -2.0, 0.0, 3.0, 800.0]
    for name in ("exp", "expm1", "log", "sigmoid"):
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        y = getattr(x, name)()
        y.sum().backward()
        own = getattr(Numbers(values, [{i: 1.0} for i in range(5)]), name)()
        assert own.values == pytest.approx(y.tolist(), nan_ok=True)
        slopes = [slope.get(i, 0.0) for i, slope in enumerate(own.slopes)]
        assert slopes == pytest.approx(x.grad.tolist(), nan_ok=True)


def test_its_gradient_by_hand():
    """Ratio 1 with A = 2: -2. Ratio 2 with A = -1 and tau = 2: s = sigmoid(2), 4 s (1 - s) x 2."""
    segment = pg([-1.0, -2.0], [1.0, 2.0], [2.0, -1.0], [1.0, 1.0])
    own = term(ROW, 1.0, options={"negative": 2.0})
    leaves = Numbers([-1.0, -2.0], [{0: 1.0}, {1: 1.0}])
    total, _ = measure(own, Tokens(Batch(policy="base", segments=(segment,)), (0,), own, leaves))
    s = 1 / (1 + exp(-2.0))
    assert total.item() == pytest.approx(-4 * 2 / 2 + 2 * s)
    assert [total.slopes[0][i] for i in (0, 1)] == pytest.approx([-2.0, 8 * s * (1 - s)])
