"""Code that a recipe names."""

from __future__ import annotations

import json

import pytest

from forethought.core.errors import RecipeError
from forethought.core.named import digest_of, find, is_named, load_named


def wrong(text, base, *words):
    with pytest.raises(RecipeError) as caught:
        load_named(text, base, "stage.0.reward")
    said = str(caught.value)
    assert said.startswith("stage.0.reward: ") and "\n" not in said and all(word in said for word in words), (
        said
    )


def test_a_module_and_a_file_beside_the_recipe(tmp_path):
    (tmp_path / "near.py").write_text("TWO = 2\n")
    (tmp_path / "rewards.py").write_text("from near import TWO\nclass A:\n    b = TWO\n")
    assert load_named("json:dumps", tmp_path, "") is json.dumps
    assert load_named("rewards.py:A.b", tmp_path, "") == 2
    assert load_named("rewards.py:A", tmp_path, "") is load_named("rewards.py:A", tmp_path, "")
    assert len(digest_of("rewards.py:A", tmp_path)) == 64 and digest_of("json:dumps", tmp_path) == ""
    assert is_named("a:b") and not is_named("outcome")


def test_two_files_of_one_name_are_two_modules_and_a_changed_one_is_a_new_one(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rewards.py").write_text(f"X = {value}\n")
    assert [load_named("rewards.py:X", tmp_path / name, "") for name in "ab"] == [1, 2]
    (tmp_path / "a" / "rewards.py").write_text("X = 3\n")
    assert load_named("rewards.py:X", tmp_path / "a", "") == 3


def test_a_dataclass_of_a_file_can_be_made(tmp_path):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\n"
    source += "class D:\n    x: int\n"
    (tmp_path / "d.py").write_text(source)
    assert load_named("d.py:D", tmp_path, "")(1).x == 1


@pytest.mark.parametrize(
    "text", ["rewards.py:", ":f", "a b:f", "rewards.py:f()", "os.system('x'):f", "x-y:f"]
)
def test_what_names_no_code_is_said(text, tmp_path):
    wrong(text, tmp_path, "package.module:name or file.py:name")


def test_what_cannot_be_imported_is_said_with_its_line(tmp_path):
    wrong("absent.py:f", tmp_path, "does not exist")
    wrong("no_such_package.here:f", tmp_path, "no module 'no_such_package.here'")
    (tmp_path / "breaks.py").write_text("x = 1\nraise ValueError('on purpose')\n")
    wrong("breaks.py:f", tmp_path, "ValueError: on purpose", "breaks.py:2")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    wrong("leaves.py:f", tmp_path, "SystemExit: 3", "leaves.py:2")
    (tmp_path / "syntax.py").write_text("x = 1\ny = (\n")
    wrong("syntax.py:f", tmp_path, "SyntaxError", "syntax.py:2")
    (tmp_path / "needs.py").write_text("import no_such_thing\n")
    wrong("needs.py:f", tmp_path, "no_such_thing", "needs.py:1")
    (tmp_path / "fine.py").write_text("def length(x): ...\n")
    wrong("fine.py:lenght", tmp_path, "did you mean 'length'?")
    (tmp_path / "folder.py").mkdir()
    wrong("folder.py:f", tmp_path, "cannot be read")


def test_ctrl_c_while_importing_is_the_users(tmp_path):
    (tmp_path / "stop.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_named("stop.py:f", tmp_path, "")


def test_what_was_found_is_held_until_it_is_asked_for_again(tmp_path, monkeypatch):
    file = tmp_path / "held.py"
    file.write_text("X = 1\n")
    ask = lambda again=False: find("credits", f"{file}:X", {}, "credit", "credit", again=again)
    assert ask() == 1
    file.write_text("X = 22\n")
    assert ask() == 1 and ask(again=True) == 22 and ask() == 22
    file.unlink()
    assert ask() == 22  # a run that is under way does not need the file
    monkeypatch.chdir(tmp_path)
    file.write_text("X = 3\n")
    assert find("credits", "held.py:X", {}, "credit", "credit", again=True) == 3
    assert find("credits", "row", {"row": 4}, "credit", "credit") == 4
    with pytest.raises(
        RecipeError, match=r"^credit: unknown credit 'rwo'; did you mean 'row'\? \(known: more, row\)"
    ):
        find("credits", "rwo", {"row": 4}, "credit", "credit", more=["more"])


def test_a_folder_that_python_takes_for_the_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "shadows").mkdir()
    (tmp_path / "shadows" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError) as error:
        load_named("shadows.rewards:short", tmp_path, "task.name")
    assert f"('shadows' is {tmp_path / 'shadows'}, which has no rewards)" in str(error.value)
