"""The taskset of docs/tasksets.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_small_taskset_of_the_page_works():
    page = (ROOT / "docs" / "tasksets.md").read_text()
    names = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(code, "docs/tasksets.md", "exec"), names)
    assert names["Colours"]
