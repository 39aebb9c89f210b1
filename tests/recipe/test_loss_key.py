"""The key `loss` of a stage: a word, a table, a row of one's own, and what earlier recipes said."""

from __future__ import annotations

import json

import pytest

from forethought.core.errors import RecipeError
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict, to_toml
from forethought.recipe.layout import compares
from forethought.recipe.load import load, write_resolved
from forethought.recipe.paths import files
from forethought.recipe.schema import LossSpec

IMITATE = {"kind": "imitate"}
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "tree": {"plans": 4, "acts": 0},
    "reward": {"plan": {"valid": 1}},
}
MINE = """
from forethought.learn.losses.row import Loss

def away(t, *, scale=1.0):
    return -scale * t.logp * t.advantage * t.ref.exp(), {}

AWAY = Loss(per_token=away, needs={"advantage", "ref"}, bounds={"scale": (0, 2)})
"""


def recipe(*stages):
    return from_dict({"layout": "shared", "stage": list(stages)})


def refused(*stages, **fields) -> str:
    with pytest.raises(RecipeError) as caught:
        check(recipe(*stages))
    return str(caught.value)


def test_a_loss_is_a_word_or_a_table_and_comes_back_as_it_was():
    made = recipe(IMITATE, PLAN | {"loss": "gspo"}, PLAN | {"loss": {"name": "dapo", "clip_high": 0.3}})
    check(made)
    assert [s.loss for s in made.stage] == [
        LossSpec(),
        LossSpec(name="gspo"),
        LossSpec(name="dapo", options={"clip_high": 0.3}),
    ]
    assert [s.loss_name for s in made.stage] == ["sft", "gspo", "dapo"]
    assert from_dict(to_dict(made)) == made and recipe(PLAN).stage[0].loss_name == "grpo"


@pytest.mark.parametrize("way", ["toml", "json"])
def test_it_survives_a_file(tmp_path, way):
    made = recipe(PLAN | {"loss": {"name": "cispo", "clip_high": 2.0}})
    if way == "toml":
        (tmp_path / "r.toml").write_text(to_toml(made))
        assert load(tmp_path / "r.toml").stage == made.stage
    else:
        write_resolved(made, tmp_path / "recipe.json")
        assert load(tmp_path).stage == made.stage


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (PLAN | {"loss": "grppo"}, "stage.0.loss: unknown loss 'grppo'; did you mean 'grpo'?"),
        (PLAN | {"loss": "sft"}, 'stage.0.loss: "sft" reads no advantages'),
        (PLAN | {"loss": "k3"}, 'stage.0.loss: "k3" reads no advantages'),
        (PLAN | {"loss": "kl"}, 'stage.0.loss: "kl" compares a policy with a reference'),
        (
            IMITATE | {"loss": "grpo"},
            'stage.0.loss: "grpo" needs advantages, and imitate reads demonstrations',
        ),
        (PLAN | {"loss": {"clip": 1}}, "stage.0.loss.clip: unknown option of the loss grpo 'clip'"),
        (PLAN | {"loss": {"clip_low": "x"}}, "stage.0.loss.clip_low: expected a number, found 'x'"),
        (PLAN | {"loss": {"clip_low": True}}, "stage.0.loss.clip_low: expected a number, found True"),
        (PLAN | {"loss": {"clip_low": 1.5}}, "stage.0.loss.clip_low: must be at most 1, found 1.5"),
        (IMITATE | {"loss": {"clip_low": 0.1}}, "stage.0.loss.clip_low: unknown option of the loss sft"),
        (IMITATE | {"dynamic_sampling": 1}, "stage.0.dynamic_sampling: unknown key of imitate"),
        (PLAN | {"dynamic_sampling": -1}, "stage.0.dynamic_sampling: must be at least 0, found -1"),
        (PLAN | {"loss": "here.py:X"}, "stage.0.loss: "),
    ],
)
def test_what_a_stage_cannot_use_is_refused(stage, message):
    assert refused(stage).startswith(message)


def test_a_list_is_no_loss():
    with pytest.raises(RecipeError, match="stage.0.loss: expected a table, found the list"):
        recipe(PLAN | {"loss": ["grpo"]})


# What earlier recipes said ----------------------------------------------------------------------------------


def test_the_bounds_of_earlier_recipes_are_options_of_the_loss():
    old = recipe(IMITATE | {"clip_low": 0.2, "clip_high": 0.2}, PLAN | {"clip_low": 0.1, "clip_high": 0.2})
    check(old)
    assert [s.loss.options for s in old.stage] == [{}, {"clip_low": 0.1}]
    # 0.2 is no default of gspo
    assert recipe(PLAN | {"loss": "gspo", "clip_high": 0.2}).stage[0].loss.options == {"clip_high": 0.2}
    with pytest.raises(
        RecipeError, match="stage.0.clip_low: is written loss.clip_low today, which is given too"
    ):
        recipe(PLAN | {"clip_low": 0.1, "loss": {"clip_low": 0.2}})


def test_an_earlier_run_is_read(tmp_path):
    data = to_dict(recipe(IMITATE, PLAN))
    for stage in data["stage"]:
        del stage["loss"]
        stage.pop("dynamic_sampling", None)
        stage |= {"clip_low": 0.2, "clip_high": 0.3 if stage["kind"] == "reinforce" else 0.2}
    (tmp_path / "recipe.json").write_text(json.dumps(data))
    assert [s.loss for s in load(tmp_path).stage] == [LossSpec(), LossSpec(options={"clip_high": 0.3})]


def test_overrides_reach_the_loss_by_either_name(tmp_path):
    (tmp_path / "r.toml").write_text(to_toml(recipe(PLAN)))
    found = load(
        tmp_path / "r.toml", ["stage.0.loss=gspo", "stage.0.loss.clip_low=0.1", "stage.0.clip_high=0.3"]
    )
    assert found.stage[0].loss == LossSpec(name="gspo", options={"clip_low": 0.1, "clip_high": 0.3})


# One's own --------------------------------------------------------------------------------------------------


def test_a_row_in_a_file_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "r.toml").write_text(to_toml(recipe(PLAN | {"loss": {"name": "mine.py:AWAY", "scale": 0.5}})))
    made = load(tmp_path / "r.toml")
    check(made)
    assert made.stage[0].loss.name == f"{tmp_path}/mine.py:AWAY"  # whole: a run is resumed from anywhere
    assert files(made) == {"stage.0.loss": tmp_path / "mine.py"}  # a resumed run looks whether it is the same
    assert compares(made, made.stage[0])  # it reads a reference: the stage holds its start
    monkeypatch.chdir(tmp_path)
    for override, message in (
        ("stage.0.loss.scale=3", "must be at most 2, found 3"),
        ("stage.0.loss.name=mine.py:away", "is a function, not a row of losses"),
        ("stage.0.loss.name=mine.py:GONE", "has no GONE"),
        ("stage.0.loss.name=gone.py:AWAY", "does not exist"),
    ):
        with pytest.raises(RecipeError, match=message):
            check(load(tmp_path / "r.toml", [override]))
