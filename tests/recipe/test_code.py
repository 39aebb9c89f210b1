"""Code that a recipe names: a workflow in a file, what an installed package declares, and whose code runs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, nothing

from forethought.cli import main
from forethought.core import consent, named
from forethought.core.errors import RecipeError, UserError
from forethought.learn.losses import row
from forethought.recipe.check import check
from forethought.recipe.code import code_in
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import load, override
from forethought.recipe.paths import anchored, files
from forethought.recipe.schema import TaskSpec
from forethought.runs import changes, run, rundata
from forethought.store import Store
from forethought.tasks import families

FLOW = """
from forethought.workflows import workflow

@workflow(
    roles=("think", "act"), continues={"act": "think"}, options={"again": 1, "share": 0.5, "loud": False}
)
async def think(t, task, n):
    for one in await t.fork("think", n["think"]):
        if one.accepted and not (await one.generate("act")).ended:
            await one.step()

@workflow(roles=("plan", "act"))
async def plain(t, task, n):
    for plan in await t.fork("plan", n["plan"]):
        if not plan.taskset.parse_plan(task, plan.text).score:
            plan.refuse("no plan")
        for act in await plan.fork("act", n["act"]) if plan.accepted else []:
            if not act.ended and (outcome := await act.step()):
                act.reward(outcome=float(outcome.success))

async def bare(t, task, n): ...
def sync(t, task, n): ...
@workflow(roles=("act",))
async def narrow(t): ...
three = 3
"""
STAGE = {"kind": "reinforce", "batch": 2, "until": {"steps": 2}, "tree": {"plan": 2, "act": 2}}


@pytest.fixture
def flow(tmp_path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    return tmp_path / "flow.py"


def recipe_of(flow: Path, name: str = "think", **options) -> dict:
    return {"workflow": {"name": f"{flow}:{name}", **options}, "task": {"name": "desk"}, "stage": [{}]}


# a workflow in a file --------------------------------------------------------------------------------------


def test_a_workflow_in_a_file_says_its_roles_and_options(flow):
    recipe = from_dict(recipe_of(flow, again=2))
    assert recipe.workflow.roles == recipe.stage[0].roles == ("think", "act")
    check(recipe)
    assert from_dict(to_dict(recipe)) == recipe
    assert override(recipe, ["workflow=react"]).workflow.roles == ()
    for key, value, said in (
        ("agian", 1, "unknown option of .*flow.py:think 'agian'; did you mean 'again'"),
        ("again", 1.5, "expected a whole number from 0, found 1.5"),
        ("share", "x", "expected a number, found 'x'"),
        ("loud", 1, "expected true or false, found 1"),
    ):
        with pytest.raises(RecipeError, match=rf"^workflow\.{key}: {said}"):
            check(from_dict(recipe_of(flow, **{key: value})))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("thinc", "has no thinc: unknown name 'thinc'; did you mean 'think'?"),
        ("three", "is no workflow, but 3; write async def"),
        ("sync", "is no workflow, but the function sync; write async def"),
        ("bare", r"declares no roles; put @workflow\(roles="),
        ("narrow", r"takes \(t, task, n\), found narrow\(t\)"),
    ],
)
def test_what_is_no_workflow_is_said(flow, name, said):
    with pytest.raises(RecipeError, match=f"^workflow: .*{said}"):
        from_dict(recipe_of(flow, name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('on import')", r"raised RuntimeError: on import \(.*flow\.py:1\)"),
        ("import no_such_thing", "raised ModuleNotFoundError"),
        ("import json\njson.loads('{')", r"raised JSONDecodeError: .* \(\S*flow\.py:2\)$"),
        ("def f(:", "raised SyntaxError"),
        (
            "from forethought.workflows import workflow\n@workflow(roles=('a', 'a'))\nasync def think(): ...",
            r"raised ValueError: @workflow of think: a workflow speaks some roles.* \(\S*flow\.py:3\)$",
        ),
        (
            "from forethought.workflows import workflow\n"
            "@workflow(\n  roles=('a',),\n  continues={'b': 'a'},\n)\n"
            "async def think(): ...\n@workflow(roles=('a',))\nasync def fine(): ...",
            r"raised ValueError: @workflow of think: continues: unknown role 'b'.* \(\S*flow\.py:6\)$",
        ),
        (
            "from forethought.workflows import workflow\n"
            "@workflow(roles=('a', 'b'), continues={'b': 'a', 'a': 'b'})\nasync def think(): ...",
            r"raised ValueError: .*continues: b -> a -> b is a cycle; remove one of these",
        ),
    ],
)
def test_a_file_that_does_not_load_is_said_with_its_line(tmp_path, text, said):
    (tmp_path / "flow.py").write_text(text)
    with pytest.raises(RecipeError, match=f"^workflow: importing flow.py {said}"):
        from_dict(recipe_of(tmp_path / "flow.py"))
    with pytest.raises(RecipeError, match=r"^workflow: .*absent\.py does not exist"):
        from_dict(recipe_of(tmp_path / "absent.py"))
    with pytest.raises(RecipeError, match=r"unknown workflow 'reakt'; did you mean 'react'\?"):
        check(from_dict({"workflow": "reakt", "stage": [{}]}))


def test_a_run_keeps_the_code_that_it_began_with_and_a_new_recipe_reads_it_anew(flow):
    recipe = from_dict(recipe_of(flow))
    flow.write_text(FLOW.replace('("think", "act")', '("muse", "act")').replace('"think"}', '"muse"}'))
    check(recipe)  # the file has changed meanwhile; what is under way does not read it
    assert from_dict(recipe_of(flow)).workflow.roles == ("muse", "act")


def test_a_file_may_lie_outside_of_the_recipes_folder(flow, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "r.toml").write_text('workflow = "../flow.py:think"\n[[stage]]\n')
    assert load(tmp_path / "deep" / "r.toml").workflow.name == f"{flow}:think"


def test_a_credit_that_takes_something_else_is_said(tmp_path):
    (tmp_path / "c.py").write_text("def few(trees): ...\nthree = 3\n")
    for name, said in (
        ("few", r"takes \(trees, spec, state\), found \(trees\)"),
        ("three", "is no function, but 3"),
    ):
        recipe = desk_recipe(STAGE | {"credit": {"name": f"{tmp_path}/c.py:{name}"}}, layout="shared")
        with pytest.raises(RecipeError, match=rf"^stage\.0\.credit\.name: .*{said}"):
            run.build(recipe, fake_desk())


def test_paths_and_digests(flow, monkeypatch, tmp_path):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    (tmp_path / "r.toml").write_text(
        'workflow = "flow.py:think"\n[task]\nname = "desk"\nenvironment = "trl:env.py:Lamp"\n'
        'grader = "g.py:f"\n[[stage]]\n'
    )
    recipe = load(Path("../r.toml"))
    assert recipe.workflow.name == f"{flow}:think" and recipe.task.options["grader"] == f"{tmp_path}/g.py:f"
    assert recipe.task.options["environment"] == f"trl:{tmp_path}/env.py:Lamp"
    assert {where: path.name for where, path in files(recipe).items()} == {
        "workflow": "flow.py",
        "task.environment": "env.py",
        "task.grader": "g.py",
    }
    assert anchored(recipe, Path("/")) == recipe


# an installed package --------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch, flow) -> None:
    """A package that declares names, as pip would have installed it."""
    info = tmp_path / "site" / "mypack-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypack\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[forethought.workflows]\nmusing = mypack:think\ngone = mypack:gone\n"
        "[forethought.tasks]\nsums = mypack_tasks:Sums\n[forethought.losses]\nmine = mypack:three\n"
        "[forethought.credits]\nold = mypack:credit\n[forethought.rewards]\nshort = mypack:short\n"
    )
    extra = (
        "\ndef credit(trees, spec, state): return [{} for _ in trees]\ndef short(task, path): return 1.0\n"
    )
    (tmp_path / "site" / "mypack.py").write_text(FLOW + extra)
    example = Path(__file__).parents[2] / "examples" / "taskset.py"
    (tmp_path / "site" / "mypack_tasks.py").write_text(example.read_text())
    monkeypatch.syspath_prepend(tmp_path / "site")
    named.installed.cache_clear()
    yield
    named.installed.cache_clear()
    named._HELD.clear()


def test_a_name_of_an_installed_package_is_as_good_as_a_shipped_one(package, tmp_path):
    recipe = from_dict({"workflow": "musing", "task": {"name": "sums", "base": 4}, "stage": [{}]})
    check(recipe)
    assert recipe.workflow.roles == ("think", "act") and code_in(to_dict(recipe)) == {}
    [task] = families.build(recipe.task).family(random.Random(0), [2], "train")
    assert task.taskset == "sums"
    paid = STAGE | {"credit": {"name": "old"}, "parts": {"short": "short"}, "reward": {"act": {"short": 1.0}}}
    run.train(desk_recipe(paid, layout="shared"), tmp_path / "run", nothing, fake_desk())
    with pytest.raises(RecipeError, match=r"unknown taskset 'smus'; did you mean 'sums'|unknown task 'smus'"):
        families.build(TaskSpec(name="smus"))
    with pytest.raises(RecipeError, match=r"unknown credit 'odl'; did you mean 'old'\? \(known: .*old"):
        check(desk_recipe(STAGE | {"credit": {"name": "odl"}}))


def test_an_entry_point_that_does_not_load_is_said(package):
    with pytest.raises(
        RecipeError, match=r"^workflow: workflow 'gone' of the package mypack 1\.2 does not load"
    ):
        from_dict({"workflow": "gone", "stage": [{}]})
    with pytest.raises(RecipeError, match="^stage.0.loss: mine is a int, not a row of losses"):
        row("mine", "stage.0.loss")


# consent ---------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(flow, tmp_path, monkeypatch) -> Path:
    """A run of somebody who trained with code of his own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "rewards.py").write_text("def short(task, path): return 1.0\n")
    parts = {"parts": {"short": f"{tmp_path}/rewards.py:short"}, "reward": {"act": {"short": 1.0}}}
    recipe = desk_recipe(STAGE | parts, layout="shared", workflow=f"{flow}:plain")
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    return tmp_path / "run"


def forgotten(monkeypatch, tmp_path) -> None:
    """From here on somebody else's machine: no code of these runs has run on it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))


def test_ones_own_run_asks_for_nothing(begun):
    assert load(begun).workflow.name.endswith("flow.py:plain")
    with pytest.raises(UserError, match="is finished"):
        run.resume(begun, nothing, fake_desk())


@pytest.mark.parametrize("verb", ["eval", "sample", "swap", "resume", "train"])
def test_somebody_elses_run_asks_before_its_code_runs(begun, tmp_path, monkeypatch, capsys, verb):
    forgotten(monkeypatch, tmp_path)
    (tmp_path / "flow.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + FLOW)
    commands = {
        "resume": ["train", "--resume", str(begun)],
        "swap": ["swap", str(begun), str(begun)],
        "train": ["train", str(begun), "--dry-run"],
    }
    assert main(commands.get(verb, [verb, str(begun)])) == 2
    [line] = capsys.readouterr().err.splitlines()
    if verb == "resume":  # it could not go on in any case
        assert "workflow: " in line and "has changed since the run began" in line
    else:
        assert (
            f"{begun} names code that has not run here before" in line and "flow.py:plain (workflow)" in line
        )
        assert "--trust-code" in line and ("rewards.py" in line) == (verb == "train")
    assert not (tmp_path / "ran").exists()


def test_the_records_of_somebody_elses_run_are_read_without_its_code(begun, tmp_path, monkeypatch):
    forgotten(monkeypatch, tmp_path)
    (tmp_path / "flow.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + FLOW)
    other = shutil.copytree(begun, tmp_path / "copy")
    assert main(["report", str(begun)]) == 0 and main(["traces", str(begun)]) == 0
    assert main(["compare", str(begun), str(other), "--out", str(tmp_path / "c.html")]) == 0
    assert not (tmp_path / "ran").exists()


def test_consent_is_kept_for_this_code_and_no_other(begun, tmp_path, monkeypatch, capsys):
    forgotten(monkeypatch, tmp_path)
    assert main(["train", str(begun), "--dry-run", "--trust-code"]) == 0
    assert main(["train", str(begun), "--dry-run"]) == 0
    capsys.readouterr()
    (tmp_path / "rewards.py").write_text("def short(task, path): return 2.0\n")
    assert load(begun, trains=False).name == "made"  # rewards only run where something trains
    assert main(["train", str(begun), "--dry-run"]) == 2
    assert "rewards.py:short (stage.0.parts.short)" in (said := capsys.readouterr().err)
    assert "has changed since it last ran here" in said
    assert consent.ledger().stat().st_mode & 0o77 == 0


def test_a_checkpoint_cannot_bring_code_of_its_own(begun, tmp_path, monkeypatch):
    state = Store(begun).folder(2) / "state.json"
    tables = json.loads(state.read_text())
    tables["recipe"]["stage"][0]["kind"] = "os:system"
    named_there = code_in(tables["recipe"])
    assert named_there["stage.0.kind"] == "os:system"
    with pytest.raises(UserError, match=r"os:system \(stage\.0\.kind\)"):
        consent.need(named_there, state)


def test_what_counts_as_code():
    tables = {
        "about": "a:b",
        "workflow": {"name": "pack.flow:x"},
        "task": {
            "name": "desk",
            "environment": "mcp:npx server",
            "prompt": "Q:a",
            "train": "hub:a",
            "parse": "m.n:f",
        },
        "model": {"path": "somebody/model", "trust_remote_code": True},
        "stage": [
            {
                "reward": {"act": {"r.py:short": 1, "outcome": 1}},
                "loss": {"name": "l.py:ROW"},
                "x": ["y.py:z"],
            }
        ],
    }
    assert code_in(tables) == {
        "workflow": "pack.flow:x",
        "task.environment": "mcp:npx server",
        "task.parse": "m.n:f",
        "model.trust_remote_code": "the code of the model somebody/model",
        "stage.0.reward.act.r.py:short": "r.py:short",
        "stage.0.loss": "l.py:ROW",
        "stage.0.x.0": "y.py:z",
    }
    assert list(code_in(tables, trains=False)) == [
        "workflow",
        "task.environment",
        "task.parse",
        "model.trust_remote_code",
    ]


@pytest.mark.parametrize(
    ("tables", "where"),
    [
        ({"task": {"observe": "a\nb.py:f"}}, "task.observe"),
        ({"task": {"observe": "b.py:\u2118"}}, "task.observe"),  # an identifier, and no letter
        ({"task": {"deep": {"er": ["os:system"]}}}, "task.deep.er.0"),
        ({"under": {"react": {"task.name": "os:system"}}}, "task.name"),
        ({"under": {"react": {"stage.0.kind": "x.py:K"}}}, "stage.0.kind"),
        ({"stage": [{"kind": "x.y:K"}]}, "stage.0.kind"),
        ({"stage": [{"distill": {"model": {"path": "p", "trust_remote_code": True}}}]}, "trust_remote_code"),
        ({"anything": {"at": ["all.py:f"]}}, "anything.at.0"),
    ],
)
def test_no_spelling_hides_code(tables, where):
    assert [key for key in code_in(tables) if key.endswith(where)]


def test_the_record_of_a_run_knows_its_code(begun, flow):
    assert rundata.changed(begun, load(begun)) == []
    flow.write_text(FLOW + "# other\n")
    with pytest.raises(UserError, match=r"workflow: .*flow\.py has changed since the run began"):
        run.resume(begun, nothing, fake_desk())


def test_a_change_on_record_brings_no_code(begun, tmp_path):
    file = begun / "recipe.json"
    tables = json.loads(file.read_text())
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    tables["changes"] = [{"step": 1, "set": {"stage.0.kind": [f"{tmp_path}/evil.py:K", "reinforce"]}}]
    file.write_text(json.dumps(tables))
    store = Store(begun)
    with pytest.raises(UserError, match=r"evil\.py:K \(stage\.0\.kind\)"):
        changes.earlier(store, load(begun))
    assert not (tmp_path / "ran").exists()
