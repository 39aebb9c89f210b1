"""The code of the pages on workflows, tasksets and recipes does what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forethought.recipe.speaking import SPEAKING
from forethought.workflows.table import WORKFLOWS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["workflows.md", "screens.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    known = set(SPEAKING)
    try:
        for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S):
            exec(compile(block, f"docs/{page}", "exec"), names)
    finally:
        for table in (WORKFLOWS, SPEAKING):
            for name in set(table) - known:
                del table[name]
    assert len(names) > 10
