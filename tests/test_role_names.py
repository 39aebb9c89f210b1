"""Nothing in the library knows the name of a role but the data of the shipped workflows, task families, and what
reads the recipes of before."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent
NAMES = {"plan", "act", "think"}
MAY = ("tasks/", "workflows/", "recipe/speaking.py", "recipe/earlier.py")
# rooms that are still to be asked for their words: sections of free text, and what looks at plans of one family
STILL = {
    "display/show.py",
    "display/tables.py",
    "grams/sources.py",
    "interface/tags.py",
    "look/quality.py",
    "look/samples.py",
    "look/swap.py",
    "stages/distill/rules.py",
    "stages/distill/solvers.py",
    "stages/distill/stage.py",
}


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
    assert bool(lines) == (name in STILL), (
        f"{name}: lines {lines}; ask the recipe for its roles (recipe/roles.py)"
    )


def test_a_literal_is_found_where_there_is_one(tmp_path):
    (tmp_path / "a.py").write_text('"""plan"""\nx = {"plan": 1, "planner": 2}\n')
    (tmp_path / "a.js").write_text('const a = n.role === "act"; // "plan"\n// "act"\n')
    assert named(tmp_path / "a.py")[-1:] == [2] and named(tmp_path / "a.js") == [1]
