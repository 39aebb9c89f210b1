"""The example of a third role runs as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

from forethought.recipe.speaking import CONTINUES, OPTIONS, SPEAKING
from forethought.workflows.table import WORKFLOWS

PATH = Path(__file__).parents[2] / "examples" / "role_of_its_own.py"


def test_a_role_of_ones_own_speaks_between_plan_and_act(capsys):
    assert len(PATH.read_text().splitlines()) <= 40
    try:
        runpy.run_path(str(PATH), run_name="__main__")
    finally:
        for table in (WORKFLOWS, SPEAKING, OPTIONS, CONTINUES):
            table.pop("criticised", None)
    rows = capsys.readouterr().out.splitlines()
    assert sum("'plan'" in row for row in rows) == 2
