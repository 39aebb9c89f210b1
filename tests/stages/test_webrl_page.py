"""The code of docs/webrl.md does what the page says, and its recipe can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.recipe.kinds.webrl import WebRL

PAGE = (Path(__file__).parents[2] / "docs" / "webrl.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs():
    names: dict = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    for block in blocks:
        exec(compile(block, "docs/webrl.md", "exec"), names)
    assert len(blocks) == 3


def test_the_stage_of_the_page_is_a_stage():
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    stage = from_dict({"task": {"name": "desk"}, **tomllib.loads(block)})
    check(stage)
    assert isinstance(stage.stage[0], WebRL) and stage.stage[0].outcome.trust
