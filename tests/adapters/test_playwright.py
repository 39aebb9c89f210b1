"""Playwright's own MCP server and a real browser: examples/playwright."""

from __future__ import annotations

import json
import re
import shutil
import tomllib

import pytest
from adapters_kit import EXAMPLES, first, made, played, refused

pytest.importorskip("mcp", reason='needs the extra mcp: pip install "forethought[mcp]"')
SERVER, BROWSER = shutil.which("playwright-mcp"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not (SERVER and BROWSER), reason="needs chromium and: npm install -g @playwright/mcp"
)
ADDRESS = (
    f"mcp:{SERVER} --headless --isolated --snapshot-mode none --no-sandbox --executable-path {BROWSER} "
    "--output-dir "
)


@pytest.fixture(scope="module")
def taskset(tmp_path_factory):
    recipe = tomllib.loads((EXAMPLES / "playwright" / "recipe.toml").read_text(encoding="utf-8"))
    options = {key: value for key, value in recipe["task"].items() if key not in ("name", "environment")}
    taskset = made(ADDRESS + str(tmp_path_factory.mktemp("out")), **options)
    yield taskset
    taskset.close()


def click(button: str) -> str:
    """By a selector: ids of elements are those of the browser in which the task was drawn."""
    target = f"button:has-text('{button}')"
    return json.dumps({"name": "browser_click", "arguments": {"element": "the button", "target": target}})


def test_its_tools_are_the_act_grammar(taskset):
    assert re.search(r"^- browser_click\(element\?: string, target: string, ", taskset.system, re.M)
    assert "- finish(" in taskset.system and "- browser_navigate(" not in taskset.system
    assert len(taskset.adapter.tools) > 20


def test_a_page_is_opened_clicked_and_scored(taskset):
    """Two tasks; each episode after the first has a browser that another has left."""
    wanted = []
    for seed in (0, 1):
        task = first(taskset, seed)
        wanted.append(re.search(r'heading "Order (\w+)"', task.prompt)[1])
        wrong = {"tea": "coffee", "coffee": "tea"}[wanted[-1]]
        end = '{"name": "finish", "arguments": {"answer": "done"}}'
        seen, over = played(taskset, task, [click(wanted[-1]), end])
        assert f'button "{wanted[-1]}" [active]' in seen.observation and over.success and over.score == 1.0
        assert played(taskset, task, [click(wrong), end])[-1].score == 0.0
        missing = played(taskset, task, [click("water")])[0]
        assert missing.parts["tool_error"] == 1.0 and not missing.done


def test_arguments_of_a_part_are_checked(tmp_path):
    def said(**options) -> str:
        return refused(ADDRESS + str(tmp_path), **options)

    message = "task.reset.arguments: unknown argument of browser_navigate 'ur'; did you mean 'url'?"
    assert message in said(reset={"tool": "browser_navigate", "arguments": {"ur": "x"}})
