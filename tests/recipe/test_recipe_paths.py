"""What the paths in a recipe are relative to, and which files a run began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import desk_recipe

from forethought.core.errors import UserError
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import load, override
from forethought.recipe.paths import anchored, files, splits
from forethought.runs import rundata

MATH = """
name = "m"
model = { path = "own" }
task = { name = "math", train = "train.jsonl", eval = [
  "test.jsonl", "hub:a/b:test", "/abs/c.jsonl"
], demos = { source = "../demos.jsonl", most = 3 } }
[[stage]]
kind = "reinforce"
credit = { grams = "lists/grams.txt" }
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A recipe in a folder of its own, and a working directory that is another."""
    (tmp_path / "project" / "own").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "project" / "m.toml").write_text(MATH)
    return tmp_path / "project"


def test_paths_in_a_recipe_are_relative_to_it(project):
    recipe = load(project / "m.toml")
    assert {where: str(path) for where, path in files(recipe).items()} == {
        "task.train": f"{project}/train.jsonl",
        "task.eval.0": f"{project}/test.jsonl",
        "task.eval.2": "/abs/c.jsonl",
        "task.demos.source": f"{project.parent}/demos.jsonl",
        "stage.0.credit.grams": f"{project}/lists/grams.txt",
    }
    assert recipe.task.options["eval"][1] == "hub:a/b:test" and recipe.task.options["demos"]["most"] == 3
    assert recipe.model.path == f"{project}/own"
    assert load(Path("../project/m.toml")) == recipe


def test_paths_on_the_command_line_are_relative_to_the_working_directory(project):
    here = Path.cwd()
    recipe = load(
        project / "m.toml", ["task.train=mine.jsonl", 'task.eval=["a.jsonl"]', "task.demos=~/d.jsonl"]
    )
    assert [str(path) for path in files(recipe).values()] == [
        f"{here}/mine.jsonl",
        f"{here}/a.jsonl",
        str(Path.home() / "d.jsonl"),
        f"{project}/lists/grams.txt",
    ]
    assert (
        load(project / "m.toml", ["task.train=mine.jsonl"], beside=project).task.options["train"]
        == f"{project}/mine.jsonl"
    )
    shipped = load("gsm8k", ["task.train=mine.jsonl"])
    assert shipped.task.options["train"] == f"{here}/mine.jsonl" and shipped.task.options["eval"] == (
        "hub:openai/gsm8k:main:test",
    )


def test_a_name_on_the_hub_stays_one(project):
    assert (
        override(load(project / "m.toml"), ["model.path=Qwen/Qwen2.5-7B-Instruct"]).model.path
        == "Qwen/Qwen2.5-7B-Instruct"
    )


def test_the_recipe_of_an_older_run_is_read_from_the_working_directory(project):
    """It holds paths as they were written, which were relative to the working directory."""
    (project / "recipe.json").write_text(
        json.dumps({"task": {"name": "math", "train": "train.jsonl", "eval": "e.jsonl"}, "stage": [{}]})
    )
    assert load(project / "recipe.json").task.options["train"] == str(Path.cwd() / "train.jsonl")


def test_a_split_of_the_hub_is_said_to_have_no_digest():
    task = {"name": "math", "train": "hub:a/b:train", "eval": ["x.jsonl", "hub:a/b:test"]}
    recipe = from_dict({"task": task, "stage": [{}]})
    assert splits(recipe) == {"task.train": "hub:a/b:train", "task.eval.1": "hub:a/b:test"}
    assert splits(anchored(recipe, Path("/x"))) == splits(recipe)
    assert rundata.unheld(recipe) == [
        "task.train (and 1 more): hub:a/b:train has no digest here; a resume reads what the hub gives then"
    ]
    assert rundata.unheld(desk_recipe()) == []


@pytest.mark.parametrize("odd", [5, None, True, ["a", 5], {"train": 1}, {"source": 5}, ""])
def test_what_is_no_path_is_left_to_the_task(odd):
    recipe = from_dict({"task": {"name": "math", "train": odd, "eval": odd, "demos": odd}, "stage": [{}]})
    assert set(files(recipe)) <= {"task.train.0", "task.eval.0", "task.demos.0"}
    assert set(to_dict(anchored(recipe, Path("/x")))["task"]) == set(to_dict(recipe)["task"])


def test_the_option_of_blocksworld():
    recipe = from_dict({"task": {"name": "blocksworld", "exclude": "b.jsonl"}, "stage": [{}]})
    assert anchored(recipe, Path("/x")).task.options["exclude"] == "/x/b.jsonl"
    assert files(from_dict({"task": {"name": "desk", "train": "b.jsonl"}, "stage": [{}]})) == {}


# what a run began with --------------------------------------------------------------------------------------


def of_math(folder: Path):
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text(f"{name}\n")
    return anchored(
        from_dict({"task": {"name": "math", "train": "train.jsonl", "eval": "test.jsonl"}, "stage": [{}]}),
        folder,
    )


def test_a_changed_file_is_named_with_its_key(tmp_path):
    recipe, out = of_math(tmp_path), tmp_path / "run"
    out.mkdir()
    rundata.record(recipe, out)
    assert rundata.changed(out, recipe) == []
    (tmp_path / "train.jsonl").write_text("tr@in\n")  # as long as before
    with pytest.raises(UserError) as error:
        rundata.refuse_changed(out, recipe)
    assert str(error.value) == (
        f"{out} cannot go on: task.train: {tmp_path}/train.jsonl has changed since "
        f"the run began (6 bytes then, 6 now, "
        "with other content). Put the file back as it was, or start a new run"
    )
    (tmp_path / "train.jsonl").write_text("train\n")
    assert rundata.changed(out, recipe) == []


def test_a_file_that_is_gone_is_named_with_the_path_that_was_looked_for(tmp_path):
    recipe, out = of_math(tmp_path), tmp_path / "run"
    out.mkdir()
    rundata.record(recipe, out)
    (tmp_path / "test.jsonl").unlink()
    assert rundata.changed(out, recipe) == [
        f"task.eval: {tmp_path}/test.jsonl: no such file (the run began with it)"
    ]


def test_an_older_run_wrote_nothing_down_and_a_damaged_record_is_refused(tmp_path):
    recipe, out = of_math(tmp_path), tmp_path / "run"
    out.mkdir()
    assert rundata.changed(out, recipe) == []
    for text in ("", "[]", "{", "[" * 100_000):
        (out / "data.json").write_text(text)
        with pytest.raises(UserError, match="data.json"):
            rundata.changed(out, recipe)
    rundata.record(recipe, out)
    whole = (out / "data.json").read_text()
    (out / "data.json").write_text(whole.replace('"task.train"', '"task.trail"'))  # still well formed
    with pytest.raises(UserError, match="data.json is not what was written"):
        rundata.changed(out, recipe)
    (out / "data.json").unlink()
    said = "data.json is missing: whether task.train is the file that the run began with is not known"
    assert rundata.unwatched(out, recipe) == [said]
    assert rundata.unwatched(out, desk_recipe()) == []  # which reads no files
    rundata.record(recipe, out)
    assert rundata.unwatched(out, recipe) == []
    rundata.record(desk_recipe(), out / "desk")
    assert not (out / "desk").exists()  # nothing to write down


def test_the_memories_of_a_workflow_are_a_file_of_the_recipe(project):
    (project / "memory.jsonl").write_text("")
    (project / "r.toml").write_text(
        'task = { name = "desk" }\nworkflow = { name = "remembering", memory = "memory.jsonl" }\n'
    )
    assert files(load(project / "r.toml")) == {"workflow.memory": project / "memory.jsonl"}
    here = load(project / "r.toml", ["workflow.memory=own.jsonl", "workflow.episodic=false"])
    assert here.workflow.options == {"memory": f"{Path.cwd()}/own.jsonl", "episodic": False}
