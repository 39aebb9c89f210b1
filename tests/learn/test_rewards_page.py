"""The functions of docs/rewards.md, as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"


def test_the_functions_of_the_page_run():
    code, judge = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    page: dict = {}
    exec(compile(code, str(PAGE), "exec"), page)
    assert page["short"](completions=["a", "b" * 80]) == [1.0, 0.0]
    logged = {}
    asked = dict(prompts=["p"] * 3, completions=["18", "17", "?"], answer=[18, 18, None])
    assert asyncio.run(page["agrees"](**asked, log_metric=logged.__setitem__)) == [1.0, 0.0, None]
    assert logged == {"judged": 2}
    exec(compile(judge, str(PAGE), "exec"), page)
    assert page["polite"].high == 10
