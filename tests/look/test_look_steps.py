"""Checkpoints of a run, looked at one by one."""

from __future__ import annotations

import json

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought import cli, look
from forethought.core.errors import CheckpointError, UserError
from forethought.display.tables import steps_table
from forethought.look import evaluate, find, find_all, sample, steps_of, swap
from forethought.runs import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that keeps each of its checkpoints; planning and acting are learned step by step."""
    recipe = desk_recipe(
        {"kind": "imitate", "until": {"steps": 4}, "batch": 4, "optim": {"lr": 1.0, "warmup": 0}},
        eval={"tasks": 2, "every": 1},
        save={"every": 1, "keep": 9},
    )
    out = tmp_path_factory.mktemp("steps") / "run"
    run.train(recipe, out, nothing, fake_desk())
    return out


def test_every_checkpoint_is_measured_as_the_run_measured_itself(trained):
    lines = {line["step"]: line for line in lines_of(trained / "metrics.jsonl")}
    assert steps_of(trained) == [0, 1, 2, 3, 4]
    found = {n: evaluate(find(trained, step=n), engine_of=fake_desk()) for n in steps_of(trained)}
    for n, one in found.items():
        assert [one[side]["value"] for side in ("plan", "act", "e2e")] == [
            lines[n][f"eval/{side}"] for side in ("plan", "act", "e2e")
        ]
        assert one["settings"]["step"] == n
    assert found[0]["e2e"]["value"] < found[4]["e2e"]["value"] == 1.0  # or nothing would have been compared
    table = steps_table(found).splitlines()
    assert table[0].split() == ["step", "plan", "act", "e2e"] and len(table) == 6
    low, high = (found[4]["plan"][key] for key in ("low", "high"))
    assert table[5].startswith(f"      4  1.000 [{low:.3f}, {high:.3f}]")


def test_a_checkpoint_may_be_named_by_its_folder(trained):
    folder = trained / "checkpoints" / "step-000002"
    by_step, by_folder = find(trained, step=2), find(folder)
    assert (by_folder.checkpoint, by_folder.path, by_folder.step) == (folder / "engine", folder, 2)
    assert by_step.checkpoint == by_folder.checkpoint
    assert find(trained / "checkpoints" / "step-2").step == 2  # without its zeros
    assert find(folder, step=2).step == 2
    assert find(trained).step == 4
    assert sample(by_folder, n=1, engine_of=fake_desk()) == sample(by_step, n=1, engine_of=fake_desk())


def test_planners_and_actors_of_two_checkpoints_change_places(trained):
    early, late = (trained / "checkpoints" / f"step-00000{n}" for n in (0, 4))
    (table,) = swap(find_all([early, late]), engine_of=fake_desk())
    assert list(table["valid"])[:2] == ["step-000000", "step-000004"]
    assert (
        table["e2e"]["step-000000"]["step-000004"]["value"]
        < table["e2e"]["step-000004"]["step-000004"]["value"]
    )


@pytest.mark.parametrize(
    ("path", "step", "message"),
    [
        ("", 7, "has no checkpoint of step 7; it has those of 0, 1, 2, 3, 4"),
        ("checkpoints/step-000009", None, "has no checkpoint of step 9; it has those of 0, 1, 2, 3, 4"),
        ("checkpoints/step-000002", 3, "is the checkpoint of step 2, and --step says 3; give one"),
        ("checkpoints", None, "is neither a run"),
        ("checkpoints", 3, "is not a run, so it has no checkpoint of step 3"),
    ],
)
def test_a_step_that_is_not_there_is_refused_by_name(trained, path, step, message):
    with pytest.raises(UserError, match=message):
        find(trained / path, step=step)


def test_a_damaged_checkpoint_is_refused_and_the_others_are_read(trained):
    damaged = next((trained / "checkpoints" / "step-000003" / "engine").glob("*"))
    whole = damaged.read_bytes()
    try:
        damaged.write_bytes(whole + b" ")
        with pytest.raises(CheckpointError, match="step-000003 is damaged"):
            find(trained, step=3)
        assert find(trained, step=2).step == 2
    finally:
        damaged.write_bytes(whole)


def test_only_a_run_has_steps(trained, tmp_path):
    for path in (tmp_path, trained / "checkpoints" / "step-000002"):
        with pytest.raises(UserError, match="is not a run directory"):
            steps_of(path)


def test_the_command_line_measures_one_step_or_all(trained, monkeypatch, capsys):
    measure = look.evaluate
    monkeypatch.setattr(look, "evaluate", lambda s, **kw: measure(s, **kw, engine_of=fake_desk()))
    assert cli.main(["eval", str(trained), "--step", "1", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert cli.main(["eval", str(trained), "--all-steps", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["steps"]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert {key: value for key, value in rows[1].items() if key != "step"} == one
    assert cli.main(["eval", str(trained), "--all-steps"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_trees_of_a_checkpoints_step(trained, tmp_path, capsys):
    recipe = desk_recipe(
        {"kind": "imitate", "until": {"steps": 1}, "batch": 2},
        {"kind": "reinforce", "until": {"steps": 2}, "batch": 2},
    )
    out = tmp_path / "run"
    run.train(recipe, out, nothing, fake_desk())
    assert cli.main(["traces", str(out), "--step", "3", "--json"]) == 0
    wanted = capsys.readouterr().out
    assert wanted and all(json.loads(line)["step"] == 3 for line in wanted.splitlines())
    assert cli.main(["traces", str(out / "checkpoints" / "step-000003"), "--json"]) == 0
    assert capsys.readouterr().out == wanted
