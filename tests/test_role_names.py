"""Nothing in the library knows the name of a role but the data of the shipped workflows, task families, and
what reads the recipes of before."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import forethought
from forethought.recipe.speaking import SPEAKING

ROOT = Path(forethought.__file__).parent
NAMES = {
    "plan",
    "act",
    "think",
    "blink",
    "link",
    *(role for said in SPEAKING.values() for role in said.roles),
}
MAY = (
    "tasks/",
    "workflows/",
    "recipe/speaking.py",
    "recipe/earlier.py",
    "recipe/options/texts.py",  # defaults of two task families
    "envs/web/page.js",  # where a link is an element of a page
    "envs/web/aria.py",  # likewise
)


def named(path: Path) -> list[int]:
    """Lines of a Python or JavaScript file with a literal that is a role's name; docstrings are none."""
    text = path.read_text("utf-8")
    if path.suffix == ".js":
        quoted = re.compile(rf"[\"'`]({'|'.join(NAMES)})[\"'`]")
        return [n for n, line in enumerate(text.splitlines(), 1) if quoted.search(line.split("//")[0])]
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return sorted(node.lineno for node in nodes if isinstance(node.value, str) and node.value in NAMES)


def files() -> list[str]:
    found = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.suffix in (".py", ".js"))
    return sorted(name for name in found if not name.startswith(MAY))


@pytest.mark.parametrize("name", files())
def test_no_room_names_a_role(name):
    lines = named(ROOT / name)
    assert not lines, f"{name}: lines {lines}; ask the recipe for its roles (recipe/roles.py)"


def test_a_literal_is_found_where_there_is_one(tmp_path):
    (tmp_path / "a.py").write_text('"""plan"""\nx = {"plan": 1, "planner": 2}\n')
    (tmp_path / "a.js").write_text('const a = n.role === "act"; // "plan"\n// "act"\n')
    assert named(tmp_path / "a.py")[-1:] == [2] and named(tmp_path / "a.js") == [1]
