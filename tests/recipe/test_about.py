"""What is told of the keys of a recipe: complete, up to date, and true of the shipped recipes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from forethought.cli import main
from forethought.recipe import about, reference
from forethought.recipe.load import load, shipped

DOCS = Path(__file__).parents[2] / "docs"


def test_every_key_says_what_it_means():
    silent = [key.where for key in about.keys() if not key.about]
    assert silent == []
    assert len({key.where for key in about.keys()}) == len(about.keys()) > 150
    assert all(key.about.endswith((".", ":")) for key in about.keys())


def test_the_page_and_the_schema_are_those_of_the_code(tmp_path, capsys):
    """Made anew by: forethought explain --write docs"""
    assert main(["explain", "--write", str(tmp_path)]) == 0
    for name in (reference.PAGE, reference.SCHEMA):
        assert (tmp_path / name).read_text() == (DOCS / name).read_text(), name
    capsys.readouterr()
    assert main(["explain", "--json-schema"]) == 0
    assert capsys.readouterr().out == (DOCS / reference.SCHEMA).read_text()


TYPES = {"string": str, "integer": int, "number": int | float, "boolean": bool, "object": dict, "array": list}


def wrong(schema: dict[str, Any], value: Any, where: str = "") -> list[str]:
    """What a JSON schema refuses, for the words that ours uses."""
    if "anyOf" in schema:
        found = [wrong(one, value, where) for one in schema["anyOf"]]
        return [] if [] in found else [f"{where}: none of {len(found)}: {min(found, key=len)}"]
    if value in schema.get("not", {}).get("enum", []):
        return [f"{where}: {value!r} is another"]
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where}: no {kind}"]
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return [f"{where}: {value!r} is not a choice"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return [f"{where}: pattern"]
    if isinstance(value, list):
        size = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 1 << 30)
        inside = [
            w for i, one in enumerate(value) for w in wrong(schema.get("items", {}), one, f"{where}.{i}")
        ]
        return inside if size else [f"{where}: length"]
    if not isinstance(value, dict):
        return []
    found = [f"{where}.{key}: missing" for key in schema.get("required", []) if key not in value]
    known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, one in value.items():
        if key not in known and more is False:
            found.append(f"{where}.{key}: unknown")
        else:
            found += wrong(known.get(key, more if isinstance(more, dict) else {}), one, f"{where}.{key}")
    return found


@pytest.mark.parametrize("name", [name for name, _, _ in shipped()])
def test_shipped_recipes_fit_the_schema(name):
    files = {name: path for name, path, _ in shipped()}
    assert wrong(reference.schema(), tomllib.loads(files[name].read_text())) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("layuot = 'shared'", ".layuot"),
        ("layout = 'share'", ".layout"),
        ("seed = 'a'", ".seed"),
        ("[[stage]]\nkind = 'reinforce'\nloss_share = { act = [0.5] }", ".stage.0"),
        ("[[stage]]\noptim = { betas = [0.9] }", ".stage.0"),
        ("[[stage]]\nkind = 'reinforce'\ntree = { plan = 'many' }", ".stage.0"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text, where, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    assert [one for one in wrong(reference.schema(), tomllib.loads(text)) if one.startswith(where)]
    with pytest.raises(Exception, match=r"(?i)unknown|expected"):
        from forethought.recipe.check import check

        check(load(tmp_path / "r.toml"))


def test_a_kind_of_ones_own_fits_the_schema():
    own = {"stage": [{"kind": "mine.py:Best", "anything": 1}]}
    assert wrong(reference.schema(), own) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("stage.1.optim.lr", ["stage.N.optim.lr", "a number; default 0.0003", "Learning rate of AdamW."]),
        (
            "gates.on_fail",
            ['one of "stop", "roll_back", "warn"; default "stop"', "gates.0.on_fail=roll_back"],
        ),
        ("stage.0.tree.plan", ["stage.N.tree.ROLE", "a whole number"]),
        ("roles.think.budget", ["roles.ROLE.budget"]),
        ("task.slip", ["the taskset desk", "the taskset blocksworld"]),
        ("task.mine", ["task.OPTION"]),
        ("save", ["a table", "save.every", "save.trees"]),
        ("stage.0.loss_share", ["stages of kind imitate"]),
        ("reinforce", ['stage.N.kind = "reinforce"\n', "\n    stage.N.tree ", "\n    stage.N.optim "]),
        ("imitate", ['stage.N.kind = "imitate"\n', "\n    stage.N.loss_share ", "\n    stage.N.until "]),
        ("distill", ['stage.N.kind = "distill"\n', "\n    stage.N.distill ", "stage.N.distill.problems"]),
    ],
)
def test_a_key_is_explained(asked, said, capsys):
    assert main(["explain", asked]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in said), out


def test_a_kind_of_stage_lists_its_own_keys_first_and_no_other_kinds(capsys):
    from forethought.cli.explain import KINDS as SAID
    from forethought.recipe.kinds import KINDS

    assert SAID.keys() == KINDS.keys()
    for kind, own, others in (("reinforce", "tree", "loss_share"), ("imitate", "loss_share", "tree")):
        main(["explain", kind])
        _, _, first, *rest = capsys.readouterr().out.splitlines()
        assert first.split()[0] == f"stage.N.{own}"
        assert not any(line.split()[0] == f"stage.N.{others}" for line in rest)
        assert all(line.split()[0].count(".") == 2 for line in rest)


def test_every_example_can_be_set(tmp_path):
    recipe = load("desk")
    from forethought.recipe.load import override

    tried = 0
    for key in about.keys():
        text = about.example(key).removeprefix("--set ").strip("'")
        stage = "1" if "reinforce" in key.kinds else "0"
        if text and not key.where.startswith(("stage.N.distill", "stage.N.gates.N", "stage.N.kind")):
            if (
                key.where.startswith("stage.N.")
                and "imitate" not in key.kinds
                and "reinforce" not in key.kinds
            ):
                continue
            text = text.replace("stage.0.", f"stage.{stage}.", 1)
            if not text.startswith(("task.name", "workflow")):
                override(recipe, [text])
                tried += 1
    assert tried > 80


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("optm.lr", "did you mean stage.N.optim.lr"),
        ("stage.0.tree.temprature", "did you mean stage.N.tree.temperature"),
        ("workflow.max_tunrs", "did you mean workflow.max_turns"),
        ("quite_another", "forethought explain lists the tables"),
        ("", "unknown key ''"),
    ],
)
def test_an_unknown_key_is_said_with_what_is_near(asked, said, capsys):
    assert main(["explain", asked]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"forethought: unknown key {asked!r}") and said in line


def test_where_nothing_can_be_written_is_said(tmp_path, capsys):
    assert main(["explain", "--write", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err
