"""The command line, with a scripted `forethought.runs.run` and `forethought.look` behind it: what reaches
them, what is printed, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
import types
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import forethought
from forethought import cli, runs
from forethought.core.errors import CheckpointError, GateStop, Interrupted
from forethought.core.types import Event
from forethought.recipe.convert import from_dict
from forethought.recipe.load import load, write_resolved
from forethought.recipe.schema import TreeSpec

THE_SOURCE = SimpleNamespace(path=Path("r"), notes=())
ODD = SimpleNamespace(path=Path("r"), notes=("a checkpoint is a link",))


@dataclass
class Result:
    out: Path
    status: str = "done"
    values: dict = field(default_factory=dict)
    exit_code: int = 0


class FakeRun(types.ModuleType):
    """Records its calls; `does` is called inside train with the run's directory and may raise."""

    def __init__(self):
        super().__init__("forethought.runs.run")
        self.calls, self.does, self.answer = [], lambda out: None, None

    def train(self, recipe, out, observe, notes=()):
        self.calls.append(("train", recipe, out))
        self.told = notes
        observe(Event(kind="start", text=str(out), steps=3, stages=1))
        out.mkdir(parents=True)
        self.does(out)
        return Result(out)

    def resume(self, out, observe):
        self.calls.append(("resume", out))
        return Result(out, exit_code=3)

    def find(self, *args):
        self.calls.append(("find", *args))
        return THE_SOURCE

    def find_all(self, *args):
        self.calls.append(("find_all", *args))
        return [ODD]

    def evaluate(self, source, tell, **settings):
        self.calls.append(("evaluate", source, settings))
        print("a library prints this")
        tell(1, 2)  # nothing is said where stderr is no terminal
        return self.answer

    def sample(self, source, **settings):
        self.calls.append(("sample", source, settings))
        return self.answer

    def swap(self, sources, tell, **settings):
        self.calls.append(("swap", sources, settings))
        return self.answer


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fake = FakeRun()
    for parent, name in ((runs, "run"), (forethought, "look")):  # one fake plays both
        monkeypatch.setitem(sys.modules, f"{parent.__name__}.{name}", fake)
        monkeypatch.setattr(parent, name, fake, raising=False)
    return fake


def fails(error):
    def does(out):
        raise error

    return does


# train ------------------------------------------------------------------------------------------------------


def test_train_without_a_word_trains_desk_into_the_first_free_directory(run, capsys):
    assert cli.main(["train"]) == 0
    assert cli.main(["train"]) == 0
    assert [(name, recipe == load("desk"), str(out)) for name, recipe, out in run.calls] == [
        ("train", True, "runs/desk-1"),
        ("train", True, "runs/desk-2"),
    ]
    assert (
        capsys.readouterr().out
        == "start runs/desk-1: stages 1, steps 3\nstart runs/desk-2: stages 1, steps 3\n"
    )


OPENING = """
import contextlib, io, json, sys
from forethought import cli
from forethought.runs import run

def begins(*args):
    print(json.dumps([out.getvalue(), "torch" in sys.modules]), file=sys.__stdout__)
    raise SystemExit

run.train = run.resume = begins
with contextlib.redirect_stdout(io.StringIO()) as out:
    cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["desk-shared", "--plain"], "desk-shared: loading PyTorch\n"),
        (["--resume", "r", "--plain"], "desk: loading PyTorch\n"),
        ([], ""),
    ],
)
def test_something_is_said_before_pytorch_is_loaded(words, line, tmp_path):
    (tmp_path / "r").mkdir()
    write_resolved(load("desk"), tmp_path / "r/recipe.json")
    done = subprocess.run(
        [sys.executable, "-c", OPENING, "train", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [line, False]


def test_the_command_line_changes_the_recipe(run):
    argv = [
        "train",
        "desk-shared",
        "--set",
        "stage.0.until.steps=5",
        "--set",
        "seed=3",
        "--model",
        'odd "name',
        "--seed",
        "4",
        "--no-gates",
        "--out",
        "here",
    ]
    assert cli.main(argv) == 0
    [(_, recipe, out)] = run.calls
    assert (
        out == Path("here")
        and recipe.stage[0].until.steps == 5
        and recipe.seed == 4
        and recipe.model.path == 'odd "name'
    )
    assert [stage.gates for stage in recipe.stage] == [(), ()]
    assert (recipe.layout, recipe.stage[0].optim.name) == ("adapter", "adamw")  # it is no model from scratch
    assert "--as-written" in run.told[0]


def test_a_dry_run_prints_a_recipe_that_trains_the_same(run, capsys):
    changed = ["--set", "stage.1.until.steps=7"]
    assert cli.main(["train", "--dry-run", *changed]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["train", "--print-recipe", *changed]) == 0
    alone = capsys.readouterr().out
    assert cli.main(["train", "--dry-run", "--print-recipe", *changed]) == 0
    out = capsys.readouterr().out
    assert out == f"{alone}\n{shown}"  # the summary comes last: a terminal shows the end
    assert shown.startswith(
        "# desk: stages 2, steps at most 307, layout adapters, seed 0\n"
        "# stage 1/2 imitate: trains plan and act (base), 300 steps of 128 tasks, levels 1 2 3 4 5\n"
        "# stage 2/2 reinforce: trains plan (adapter), frozen act, 7 steps of 32 tasks, levels 3 4 5, 8 "
        "plan x 0 act, credit grpo\n"
        "#   gate: eval/act@5 max_drop 0.01, else roll_back\n"
    )
    assert all(line.startswith("# ") for line in shown.splitlines())
    assert from_dict(tomllib.loads(out)) == load("desk", ["stage.1.until.steps=7"])
    assert run.calls == [] and list(Path().iterdir()) == []


def test_resume_takes_the_run_as_it_is(run, capsys):
    Path("r").mkdir()
    write_resolved(load("desk"), Path("r/recipe.json"))
    assert cli.main(["train", "--resume", "r"]) == 3  # the exit code is the run's
    assert run.calls == [("resume", Path("r"))]
    assert cli.main(["train", "desk", "--resume", "r", "--seed", "0"]) == 2
    assert capsys.readouterr().err == (
        "forethought: --resume continues a run with the recipe it began with, so it takes no RECIPE, --seed\n"
    )
    assert cli.main(["train", "--resume", "nowhere"]) == 2
    assert "--resume nowhere: no run there" in capsys.readouterr().err


def test_an_out_that_is_no_folder_is_no_run_to_continue(run, capsys):
    Path("file").write_text("")
    for out in ("file", os.devnull):
        assert cli.main(["train", "--out", out]) == 2
        assert (
            capsys.readouterr().err
            == f"forethought: --out: {out} is not a folder; give one that is new or empty\n"
        )
    assert run.calls == []


def test_a_recipe_of_a_run_that_was_broken_is_named_by_its_file(run, capsys):
    Path("r").mkdir()
    Path("r/recipe.json").write_text('{"seed": 0.5}')
    assert cli.main(["train", "--resume", "r"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("forethought: r/recipe.json does not hold the run's recipe (seed: ")
        and "put it back as it was" in said
    )
    assert run.calls == []


@pytest.mark.parametrize("text", ["{}", "\ufeff{}", '{"stage": [{"batch": 0}]}'])
def test_a_recipe_of_a_run_that_cannot_work_is_named_by_its_file(run, capsys, text):
    Path("r").mkdir()
    Path("r/recipe.json").write_text(text, encoding="utf-8")
    assert cli.main(["train", "--resume", "r"]) == 2
    assert capsys.readouterr().err.startswith("forethought: r/recipe.json: stage")
    assert run.calls == []


def test_train_never_writes_into_a_directory_that_holds_something(run, capsys):
    for name, holds in (("full", "x"), ("begun", "recipe.json")):
        Path(name).mkdir()
        (Path(name) / holds).touch()
        assert cli.main(["train", "--out", name]) == 2
    assert capsys.readouterr().err == (
        "forethought: full is not empty; choose another --out, or clear it "
        "(it holds no run that could go on)\n"
        "forethought: begun is not empty; continue that run with --resume begun, or choose another --out\n"
    )
    assert run.calls == []


def test_a_recipe_that_cannot_work_never_reaches_the_run(run, capsys):
    assert cli.main(["train", "--set", "stage.1.tree.plans=1"]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("forethought: stage.1.tree: one rollout is a group of size 1")
        and error.count("\n") == 1
    )
    assert run.calls == []


# What goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateStop("eval/act fell by 0.2"), 3),
        (CheckpointError("step-50 is\ndamaged"), 2),
        (Interrupted("saved; continue with: forethought train --resume runs/desk-1", 15), 143),
    ],
)
def test_an_error_on_purpose_is_one_line_and_its_code(run, capsys, error, code):
    run.does = fails(error)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == f"forethought: {str(error).replace(chr(10), ' ')}\n"


def test_a_full_disk_says_so_and_how_to_go_on(run, capsys):
    def does(out):
        (out / "checkpoints").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device", "runs/desk-1/x")

    run.does = does
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == (
        "forethought: No space left on device: runs/desk-1/x; free some space; "
        "continue with: forethought train --resume runs/desk-1\n"
    )
    # nothing saved: nothing to resume
    run.does = fails(PermissionError(errno.EACCES, "Permission denied", "x"))
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == "forethought: Permission denied: x; check the permissions\n"


def test_our_fault_is_kept_in_the_run_and_spares_the_terminal(run, capsys):
    run.does = fails(ValueError("lengths 3 and 4\nand more"))
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == (
        "forethought: unexpected ValueError: lengths 3 and 4\nThis is a bug: please report it with "
        "runs/desk-1/error.txt\n"
    )
    kept = Path("runs/desk-1/error.txt").read_text()
    assert kept.startswith("Traceback (most recent call last):\n") and kept.endswith(
        "ValueError: lengths 3 and 4\nand more\n"
    )


def test_our_fault_without_a_run_shows_the_traceback(run, capsys):
    run.sample = lambda *args, **settings: 1 // 0
    assert cli.main(["sample", "r"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("forethought: Traceback (most recent call last):\n")
    assert error.endswith("This is a bug: please report it with the lines above\n")


def test_ctrl_c_before_anything_runs(run, capsys):
    run.does = fails(KeyboardInterrupt())
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "forethought: interrupted\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["trian"],
        ["eval", "r", "--tasks", "0"],
        ["eval", "r", "--levels", "3-"],
        ["eval", "r", "--samples", "0"],
        ["sample"],
        ["swap"],
        ["eval", "r", "--temperature", "-1"],
        ["eval", "r", "--temperature", "nan"],
        ["sample", "r", "--top-p", "0"],
        ["sample", "r", "--top-p", "x"],
        ["sample", "r", "--top-k", "-1"],
        ["eval", "r", "--top-k", "1.5"],
        ["eval", "r", "--top-k", "9" * 5000],
        ["eval", "r", "--min-p", "1.5"],
        ["sample", "r", "--min-p", "nan"],
    ],
)
def test_a_wrong_command_line_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("forethought") and err.endswith("--help\n") and err.count("\n") == 1


def test_a_verb_that_is_not_known_has_a_neighbour(capsys):
    with pytest.raises(SystemExit):
        cli.main(["trian"])
    assert capsys.readouterr().err.startswith(
        "forethought: unknown verb 'trian'; did you mean 'train'? (known: arms, "
    )


def test_a_run_to_resume_that_is_not_there(capsys):
    assert cli.main(["train", "--resume", "/nowhere"]) == 2
    assert capsys.readouterr().err == (
        "forethought: --resume /nowhere: no run there (a run directory has a recipe.json)\n"
    )


def test_shipped_arms_are_listed_and_printed(capsys):
    assert cli.main(["recipes"]) == 0
    assert "interference: for `forethought arms interference`." in capsys.readouterr().out
    assert cli.main(["recipes", "interference"]) == 0
    assert "[[arm]]" in capsys.readouterr().out
    assert cli.main(["arms", "interferense"]) == 2
    assert "(shipped: curriculum, few-demonstrations, interference" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "forethought.cli", "recipes"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, "")


# eval, sample, report, compare, recipes ---------------------------------------------------------------------


def share(value: float, low: float, high: float, n: int, **by_level: float) -> dict:
    levels = {
        name.removeprefix("level"): {"value": part, "low": 0.0, "high": 1.0, "n": n // 2}
        for name, part in by_level.items()
    }
    return {"value": value, "low": low, "high": high, "n": n, "by_level": levels}


ANSWER = {
    "plan": share(0.5, 0.25, 0.75, 20, level3=0.25, level10=0.75),
    "e2e": share(0.125, 0.0625, 0.25, 20, level3=0.0, level10=0.25),
    "tokens": {"plan": 4.5, "act": None},
    "refused": 0.125,
    "settings": {"model": "r", "samples": 1},
}


def test_eval_json_is_one_object_and_nothing_else(run, capsys):
    run.answer = ANSWER
    argv = [
        "eval",
        "Qwen/Qwen3",
        "--task",
        "math",
        "--json",
        "--levels",
        "3-5,9",
        "--tasks",
        "7",
        "--problems",
        "p.jsonl",
        "--set",
        "eval.seed=1",
    ]
    assert cli.main(argv) == 0
    assert run.calls == [
        ("find", Path("Qwen/Qwen3"), "math", ["eval.seed=1"], None),
        (
            "evaluate",
            THE_SOURCE,
            {
                "problems": Path("p.jsonl"),
                "tasks": 7,
                "levels": (3, 4, 5, 9),
                "tree": TreeSpec(temperature=0.0),
                "samples": 1,
                "alone": 0,
            },
        ),
    ]
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(ANSWER)) and printed.out.count("\n") == 1
    assert printed.err == "a library prints this\n"


def test_eval_prints_a_table(run, capsys):
    run.answer = ANSWER
    assert cli.main(["eval", "r"]) == 0
    assert run.calls[0] == ("find", Path("r"), None, [], None)
    assert capsys.readouterr().out == (
        "                value   95 % interval       n\n"
        "plan            0.500  0.250 to 0.750      20\n"
        "e2e             0.125  0.062 to 0.250      20\n"
        "\n"
        "by level            n     plan      e2e\n"
        "3                  10    0.250    0.000\n"
        "10                 10    0.750    0.250\n"
        "\n"
        "tokens        plan 4.5, act -\n"
        "refused       0.125\n"
        "settings      model r, samples 1\n"
    )


def test_a_wide_evaluation_goes_on_below_and_files_and_plans_have_their_own_tables(run, capsys):
    names = ["plan", "avg@64", *(f"pass@{1 << i}" for i in range(7)), "maj@64"]
    files = {f"{'long' * 9}/{year}": {"value": 0.5, "n": 30} for year in (2024, 2025)}
    run.answer = {
        name: {"value": 0.5, "low": None, "high": None, "n": 60, "by_level": {}, "by_file": files}
        for name in names
    }
    run.answer["references"] = {"problems": 60, "f1": {"value": 0.25, "low": 0.2, "high": 0.3}}
    assert cli.main(["eval", "r", "--samples", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    heads = [line.split()[2:] for line in lines if line.startswith("by file")]
    assert heads[0][0] == "n" and [name for head in heads for name in head if name != "n"] == names
    assert lines[-2:] == ["references      value   95 % interval", "f1              0.250  0.200 to 0.300"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], (1, 0.0, 1.0)),
        (["--samples", "64"], (64, 0.6, 0.95)),
        (["--temperature", "0.3"], (1, 0.3, 1.0)),
        (["--samples", "4", "--temperature", "1", "--top-p", "0.5"], (4, 1.0, 0.5)),
        (["--samples", "4", "--top-k", "20", "--min-p", "0.1"], (4, 0.6, 0.95, 20, 0.1)),
    ],
)
def test_samples_have_the_settings_of_the_published_validation(run, argv, expected):
    run.answer = ANSWER
    assert cli.main(["eval", "r", *argv]) == 0
    asked = run.calls[-1][2]
    tree = asked["tree"]
    found = (asked["samples"], tree.temperature, tree.top_p, tree.top_k, tree.min_p)
    assert found == (*expected, 0, 0.0)[:5]


@pytest.mark.parametrize("option", ["--top-p", "--top-k", "--min-p"])
def test_what_narrows_says_nothing_where_all_is_greedy(option, run, capsys):
    assert cli.main(["eval", "r", option, "1"]) == 2
    assert capsys.readouterr().err.startswith(f"forethought: {option} says nothing at temperature 0")
    assert run.calls == []


@pytest.mark.parametrize("option", [["--top-p", "0.5"], ["--top-k", "5"], ["--min-p", "0.1"]])
def test_a_greedy_sample_is_not_narrowed(option, run, capsys):
    assert cli.main(["sample", "r", "--temperature", "0", *option]) == 2
    assert capsys.readouterr().err.startswith(f"forethought: {option[0]} says nothing at temperature 0")
    assert run.calls == []


def test_swap_takes_several_sources(run, capsys):
    cell = {"value": 0.5, "low": 0.25, "high": 0.75}
    run.answer = [
        {
            "home": "a",
            "task": "math",
            "n": 9,
            "levels": [0],
            "exact": False,
            "planner": ["plan"],
            "actor": "act",
            "valid": {"a": cell},
            "e2e": {"a": {"a": cell}},
            "tokens": {"a": 3.0},
        }
    ]
    assert cli.main(["swap", "a", "b", "--tasks", "3", "--set", "eval.seed=1", "--json"]) == 0
    assert run.calls == [
        ("find_all", [Path("a"), Path("b")], None, ["eval.seed=1"]),
        ("swap", [ODD], {"tasks": 3}),
    ]
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"tables": run.answer}
    assert printed.err == "note: r: a checkpoint is a link\n"
    assert cli.main(["swap", "a", "b", "--task", "math"]) == 0
    assert capsys.readouterr().out == (
        "tasks of a: math, 9 tasks, levels 0; a row says plan, a column act\n"
        "\n"
        "planner / actor plan's form                a\n"
        "a                0.500 [0.250, 0.750]       0.500 [0.250, 0.750]\n"
        "                 home                       home\n"
    )


def turn(role: str, text: str, valid: float | None = None, reason: str = "") -> dict:
    return {"role": role, "text": text, "status": "finished", "reason": reason, "tokens": 2, "valid": valid}


def test_sample_shows_plans_and_acts_with_verdicts(run, capsys):
    run.answer = [
        {
            "task": "t-1",
            "level": 3,
            "context": "c desk x1 y2",
            "prompt": "GOAL c v3 <plan>",
            "oracle": {"plan": "c </plan>"},
            "turns": [
                turn("plan", "[bold]c\x1b[31m </plan>", 0.0, "word 1 is not a name"),
                turn("act", "c x1"),
                turn("act", "v3 </act>"),
            ],
            "success": True,
            "reason": "",
        },
        {
            "task": "t-2",
            "level": 4,
            "context": "",
            "prompt": "GOAL d",
            "oracle": {"plan": "d"},
            "turns": [turn("plan", "d", 1.0), turn("act", "<think>\nso\n</think>")],
            "success": None,
            "reason": "not run",
        },
    ]
    assert cli.main(["sample", "r", "--n", "2", "--level", "3", "--temperature", "0", "--seed", "5"]) == 0
    run.calls[1][2].pop("tell")
    assert run.calls == [
        ("find", Path("r"), None, [], None),
        (
            "sample",
            THE_SOURCE,
            {
                "n": 2,
                "level": 3,
                "seed": 5,
                "problems": None,
                "tree": TreeSpec(temperature=0.0),
            },
        ),
    ]
    assert capsys.readouterr().out == (
        "task t-1  level 3\n"
        "  context c desk x1 y2\n"
        "  prompt  GOAL c v3 <plan>\n"
        "  oracle  c </plan>\n"
        # what a model writes cannot steer the terminal
        "  plan    [bold]c\\x1b[31m </plan>  [wrong: word 1 is not a name]\n"
        "  act     c x1\n"
        "  act     v3 </act>\n"
        "  result    [right]\n"
        "\n"
        "task t-2  level 4\n"
        "  prompt  GOAL d\n"
        "  oracle  d\n"
        "  plan    d  [right]\n"
        "  act     <think>\n"
        "          so\n"
        "          </think>\n"
        "  result    [not judged: not run]\n"
        "\n"
    )
    assert cli.main(["sample", "r", "--json"]) == 0
    assert [json.loads(line)["task"] for line in capsys.readouterr().out.splitlines()] == ["t-1", "t-2"]


def test_report_and_compare_need_runs(run, monkeypatch, capsys):
    calls = []
    report = types.ModuleType("forethought.report")
    report.write = lambda run_dir: calls.append(("write", run_dir)) or run_dir / "report.html"
    report.compare = lambda run_dirs, out: calls.append(("compare", run_dirs, out)) or out
    monkeypatch.setitem(sys.modules, "forethought.report", report)
    monkeypatch.setattr(forethought, "report", report, raising=False)
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "recipe.json").touch()
    assert cli.main(["report", "a"]) == cli.main(["compare", "a", "b", "--out", "c.html"]) == 0
    assert calls == [("write", Path("a")), ("compare", [Path("a"), Path("b")], Path("c.html"))]
    assert capsys.readouterr().out == "a/report.html\nc.html\n"
    assert cli.main(["report", "c"]) == cli.main(["compare", "a"]) == 2
    assert capsys.readouterr().err == (
        "forethought: c: no run here (a run directory has a recipe.json)\nforethought: compare needs at "
        "least two run directories\n"
    )


def test_recipes_are_listed_and_printed(capsys):
    assert cli.main(["recipes"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": for `forethought arms" not in line]
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert f"desk           {load('desk').about}" in lines
    assert cli.main(["recipes", "desk"]) == 0
    assert from_dict(tomllib.loads(capsys.readouterr().out)) == load("desk")
    assert cli.main(["recipes", "dsk"]) == 2
    assert capsys.readouterr().err.startswith("forethought: unknown recipe 'dsk'; did you mean 'desk'?")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("task.levels=[9]", "task.levels: desk has levels 1 to 7 and needs a widget for each; found 9"),
        ("task.levels=[6]", "stage.0.easy_levels.0: level 1 is not one of task.levels: 6"),
        (
            "stage.0.easy_levels=[7]",
            "stage.0.easy_levels.0: level 7 is not one of task.levels: 1, 2, 3, 4, 5",
        ),
        ("stage.1.levels=[9]", "stage.1.levels.0: level 9 is not one of task.levels: 1, 2, 3, 4, 5"),
    ],
)
def test_a_level_that_the_task_has_not_is_the_fault_of_who_names_it(said, line, capsys):
    assert cli.main(["train", "--dry-run", "--set", said]) == 2
    assert capsys.readouterr().err == f"forethought: {line}\n"


def test_a_folder_that_is_no_run_lists_its_recipes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples" / "own").mkdir(parents=True)
    (tmp_path / "examples" / "own" / "recipe.toml").write_text("")
    assert cli.main(["train", "examples"]) == 2
    assert capsys.readouterr().err.endswith("a name; recipes in it: examples/own/recipe.toml\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert cli.main(["train", "--out", "full"]) == 2
    assert "it holds no run that could go on" in capsys.readouterr().err
