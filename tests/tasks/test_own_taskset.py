"""Tasksets that a recipe names as code: how they are called, and what is said of code that is none."""

from __future__ import annotations

import pytest

from forethought.core.errors import RecipeError
from forethought.envs.guard import Fault
from forethought.recipe.load import load
from forethought.recipe.paths import files
from forethought.recipe.schema import TaskSpec
from forethought.tasks import families

SOURCE = """
from forethought.tasks.base import Taskset

class Plain(Taskset):
    name, levels, budgets = "plain", (1, 2), {"act": 2}

class Options(Plain):
    paths = ("file",)
    def __init__(self, levels=(), *, most, file=""):
        super().__init__(levels)
        self.most = most

class NoLevels(Plain):
    def __init__(self): pass

class Any(Plain):
    def __init__(self, levels=(), **options):
        super().__init__(levels)
        self.options = options

class Bare(Taskset): pass
class Breaks(Plain):
    def __init__(self, levels=()): raise OSError("no disk")
class Other: pass
def made(levels, most=1): return Options(levels, most=most)
def number(): return 3
three = 3
"""


@pytest.fixture
def named(tmp_path):
    (tmp_path / "t.py").write_text(SOURCE)
    return lambda name, levels=(), **options: families.build(
        TaskSpec(name=f"{tmp_path}/t.py:{name}", levels=levels, options=options)
    )


def test_it_is_called_with_levels_and_its_options(named):
    assert named("Plain").levels == (1, 2) and named("Plain", (2,)).levels == (2,)
    assert named("Options", (1,), most=3).most == 3
    assert named("made", (1,)).most == 1 and named("NoLevels").levels == (1, 2)
    assert named("Any", anything=1).options == {"anything": 1}


@pytest.mark.parametrize(
    ("name", "levels", "options", "said"),
    [
        ("three", (), {}, r"^task\.name: .*t\.py:three is no taskset, but 3; name a class"),
        ("Other", (), {}, r"^task\.name: .*is no taskset, but a class that does not derive from Taskset"),
        ("number", (), {}, r"^task\.name: .*number gave 3, no Taskset"),
        ("Plian", (), {}, r"^task\.name: .*unknown name 'Plian'; did you mean 'Plain'"),
        ("Bare", (), {}, r"^task\.name: .*Bare has no name; write name = \"sums\" in it"),
        ("Plain", (7,), {}, r"^task\.levels: plain has no level 7; its levels are 1, 2"),
        ("Plain", (), {"slip": 1}, r"^task\.slip: unknown option of .*Plain 'slip' \(known: none\)"),
        ("Options", (), {"mots": 1}, r"^task\.mots: unknown option of .* 'mots'; did you mean 'most'"),
        ("Options", (), {}, r"^task: .*Options needs most: task = \{"),
        ("NoLevels", (1,), {}, r"^task\.levels: .*NoLevels takes no levels"),
    ],
)
def test_what_is_none_is_said(named, name, levels, options, said):
    with pytest.raises(RecipeError, match=said):
        named(name, levels, **options)


def test_one_that_breaks_when_it_is_made_is_a_fault(named):
    with pytest.raises(Fault, match=r"^task: OSError: no disk \(in the constructor of .*t\.py:\d+\)"):
        named("Breaks")


def test_its_files_are_relative_to_the_recipe_and_held(named, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "r.toml").write_text(
        'task = { name = "t.py:Options", most = 1, file = "d.jsonl" }\n[[stage]]\n'
    )
    assert files(load(tmp_path / "r.toml")) == {
        "task.name": tmp_path / "t.py",
        "task.file": tmp_path / "d.jsonl",
    }
