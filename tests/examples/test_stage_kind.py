"""`examples/stage_kind.py`: a run that names it, its numbers by hand, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought.core.errors import RecipeError
from forethought.estimate.tokens import Assumptions, lengths_of, work_of
from forethought.recipe.check import check
from forethought.recipe.convert import to_toml
from forethought.recipe.load import load
from forethought.runs import run
from forethought.runs.rundata import changed

FILE = Path(__file__).parents[2] / "examples" / "stage_kind.py"
STAGE = {
    "kind": f"{FILE}:ExpertIteration",
    "name": "experts",
    "roles": ["plan"],
    "until": {"steps": 3},
    "batch": 4,
    "tree": {"plan": 4, "act": 0},
    "reward": {"plan": {"valid": 1}},
    "optim": {"lr": 0.5, "warmup": 0},
}


def test_it_has_at_most_forty_lines():
    assert FILE.read_text().count("\n") <= 40


def test_a_recipe_that_names_it_trains_and_resumes(tmp_path):
    run.train(desk_recipe(STAGE), tmp_path / "run", nothing, fake_desk())
    steps = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "experts" in line]
    assert len(steps) == 3 and all(0 < line["experts"] < 4 for line in steps)
    # each of the 4 plans of a task is rewarded with 0 or 1, and those with 1 are imitated
    assert all(line["experts"] == pytest.approx(4 * line["reward/plan"]) for line in steps)
    assert all(line["loss/sft"] > 0 and line["tokens/trained"] > 0 for line in steps)
    resolved = load(tmp_path / "run")
    assert type(resolved.stage[0]).__name__ == "ExpertIteration" and resolved.stage[0].at_least == 1.0


def test_it_costs_what_reinforcement_costs():
    own, theirs = (desk_recipe(STAGE | {"kind": kind}) for kind in (STAGE["kind"], "reinforce"))
    assume = Assumptions()
    lengths = lengths_of(own, assume)
    assert work_of(own.stage[0], own, lengths, assume) == work_of(theirs.stage[0], theirs, lengths, assume)


def test_a_file_beside_the_recipe_is_found_and_watched(tmp_path):
    shutil.copy(FILE, tmp_path / "mine.py")
    text = to_toml(desk_recipe(STAGE)).replace(str(FILE), "mine.py")
    (tmp_path / "r.toml").write_text(text)
    recipe = load(tmp_path / "r.toml")
    assert recipe.stage[0].kind == f"{tmp_path / 'mine.py'}:ExpertIteration"
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    (tmp_path / "mine.py").write_text(FILE.read_text() + "# other\n")
    [said] = changed(tmp_path / "run", recipe)
    assert said.startswith(f"stage.0.kind: {tmp_path / 'mine.py'} has changed since the run began")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (STAGE | {"at_least": 2.0}, "stage.0.at_least: must be between 0 and 1, found 2.0"),
        (STAGE | {"at_most": 1.0}, "stage.0.at_most: unknown key 'at_most'; did you mean 'at_least'?"),
        (STAGE | {"loss": "grpo"}, 'stage.0.loss: "grpo" needs advantages'),
        (STAGE | {"kind": f"{FILE}:Mean"}, f"stage.0.kind: {FILE}:Mean is no kind of stage"),
        (STAGE | {"kind": f"{FILE}:Reinforce"}, f"stage.0.kind: {FILE}:Reinforce has no step"),
        (STAGE | {"kind": f"{FILE}:Absent"}, f"stage.0.kind: {FILE} has no Absent"),
        (STAGE | {"kind": "/nowhere.py:X"}, "stage.0.kind: /nowhere.py does not exist"),
    ],
)
def test_what_it_cannot_use_is_refused(stage, said):
    with pytest.raises(RecipeError) as caught:
        check(desk_recipe(stage))
    assert str(caught.value).startswith(said)
