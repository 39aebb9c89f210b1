"""Code that a run names runs from Python as it does from the command line: with consent."""

from __future__ import annotations

import pytest
from conftest import desk_recipe, fake_desk

import forethought as ft
from forethought.core import consent
from forethought.recipe.convert import to_dict


def test_code_of_somebody_elses_run_asks_first(tmp_path, monkeypatch):
    (tmp_path / "rows.py").write_text("def mine(tree, parts):\n    return {}\n")
    stage = {"kind": "imitate", "until": {"steps": 1}, "batch": 2}
    tables = to_dict(desk_recipe(stage))
    tables["task"] |= {"name": f"{tmp_path / 'tasks.py'}:Mine"}
    (tmp_path / "tasks.py").write_text(
        "from forethought.tasks.desk.taskset import Desk\n\n\nclass Mine(Desk):\n    name = 'mine'\n"
    )
    settings = {"progress": False, "engine_of": fake_desk()}
    run = ft.train(tables, out=tmp_path / "run", **settings)
    assert ft.open(run.path).recipe.task.name.endswith("tasks.py:Mine")  # what one trains one has allowed
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    with pytest.raises(ft.UserError, match="has not run here before.*trust_code=True"):
        ft.open(run.path).recipe  # noqa: B018
    with pytest.raises(ft.UserError, match="trust_code=True"):
        ft.evaluate(run.path, engine_of=fake_desk())
    with pytest.raises(ft.UserError, match="trust_code=True"):
        ft.train(resume=run.path, **settings)
    assert ft.open(run.path, trust_code=True).evaluate(engine_of=fake_desk())["e2e"]["n"] == 4
    assert consent.ledger().is_file() and not consent.is_given()  # written down, for this run alone
