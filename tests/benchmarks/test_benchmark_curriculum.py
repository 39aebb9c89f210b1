"""benchmarks/curriculum.py: its arms are recipes, and its table pairs by seed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.load import load

_spec = importlib.util.spec_from_file_location(
    "curriculum", Path(__file__).parents[2] / "benchmarks" / "curriculum.py"
)
curriculum = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(curriculum)


@pytest.mark.parametrize("name", curriculum.ARMS)
def test_every_arm_is_a_stage_of_as_many_rollouts(name):
    stage = load("webrl", ["stage.1.until.steps=40", *curriculum.ARMS[name]]).stage[1]
    assert isinstance(stage, WebRL) and (stage.batch, stage.phases, stage.tree.counts) == (
        64,
        4,
        {"plan": 1, "act": 0},
    )


def test_differences_are_paired_by_seed():
    row = lambda arm, seed, x: {"arm": arm, "seed": seed, "plan@3": x, "plan@4": x, "plan@5": x, "plan": x}  # noqa: E731
    rows = [row("uniform", i, 0.1 * i) for i in range(3)] + [
        row("evolve", i, 0.1 * i + 0.02 * i) for i in range(3)
    ]
    text = curriculum.table(rows)
    # differences 0, 2, 4 points: 2 +- 4.303 x 2 / sqrt 3
    assert text.endswith("| evolve (3) | 12.0 | 12.0 | 12.0 | 12.0 | +2.0 [-3.0, +7.0] |")


def test_the_control_draws_the_levels_that_evolving_drew():
    same = curriculum.Same((3, 5), [[5, 5, 3], [3]])
    assert [same.draw(None, 3, 0), same.draw(None, 1, 1)] == [[5, 5, 3], [3]]
    with pytest.raises(UserError, match="step 1 of evolve drew 1 tasks, not 2"):
        same.draw(None, 2, 1)
    with pytest.raises(UserError, match="name evolve before it"):
        curriculum.arm("levels", Path("none"), 0, 4, 1, [None, None], {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arms", "evolv"], "--arms: unknown arm 'evolv'; did you mean 'evolve'"),
        (["--arms", "band,band"], "--arms: band is named twice"),
        (["--arms", "levels,evolve"], "name evolve before it"),
        (["--start", "no/where"], "--start: no/where is no checkpoint"),
        (["--seeds", "0"], "--seeds: expected a whole number of at least 1"),
        (["--steps", "-4"], "--steps: expected a whole number of at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(options, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        curriculum.main(["--start", "none", *options])
    assert stopped.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
