"""The examples of workflows and tasksets run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from forethought.recipe.speaking import OPTIONS, SPEAKING
from forethought.workflows.table import WORKFLOWS

ROOT = Path(__file__).parents[2]


def test_a_workflow_of_ones_own_in_forty_lines(capsys):
    path = ROOT / "examples" / "workflow_think_twice.py"
    try:
        assert len(path.read_text().splitlines()) <= 40
        runpy.run_path(str(path), run_name="__main__")
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [row[2] for row in rows if row[3] == "1"] == ["think", "None", "think", "act"]
    finally:
        for table in (WORKFLOWS, SPEAKING, OPTIONS):
            table.pop("think_twice", None)


def test_the_small_taskset_of_the_page_works():
    page = (ROOT / "docs" / "tasksets.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code, "docs/tasksets.md", "exec"), {"__name__": "page"})
