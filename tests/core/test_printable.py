"""What comes from a model, a file, an endpoint, a path or an exception reaches no terminal raw, and no
terminal is too narrow for it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import desk_recipe, fake_desk, nothing
from rich.console import Console

from forethought import cli, look, report
from forethought.cli.faults import explain
from forethought.core.errors import UserError
from forethought.core.printable import BIDI, Shown, one_line, printable
from forethought.core.types import Event
from forethought.display.lines import Lines
from forethought.display.show import samples
from forethought.display.terminal import Terminal
from forethought.display.trees import print_found
from forethought.report.page import island, render
from forethought.runs import run

EVIL = "a\x1b]0;T\x07b\x9b31m\x7fc\u202ed\u2066e\u200ff\u061cg\ud83dh\x00i\x0bj\x85k"
# as far as str.split() leaves alone
SHOWN = "a\\x1b]0;T\\x07b\\x9b31m\\x7fc\\u202ed\\u2066e\\u200ff\\u061cg\\ud83dh\\x00i"


def harmless(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def test_what_is_printable_stays_and_what_is_not_is_its_code():
    assert printable("Äpfel 😀 x\\y") == "Äpfel 😀 x\\y"
    assert printable(EVIL) == SHOWN + "\\x0bj\\x85k" and printable("a\nb\t", keep="\n") == "a\nb\\t"
    assert one_line(" a\n\n b\x1b ") == "a b\\x1b"
    assert all(printable(c) == f"\\u{ord(c):04x}" for c in BIDI)


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UserError(EVIL),
        ValueError(EVIL),
        OSError(5, EVIL, EVIL),
        RuntimeError(f"x\n{EVIL}"),
        type("E\x1b", (Exception,), {})(EVIL),
    ],
)
def test_an_error_does_nothing_to_the_terminal(error, capsys, tmp_path):
    try:
        raise error
    except Exception as raised:
        explain(raised, None)
        if not isinstance(error, (UserError, OSError)):
            explain(raised, tmp_path)  # the traceback is kept in a file, which holds half of a character too
            assert "Traceback" in (tmp_path / "error.txt").read_text("utf-8")
    said = capsys.readouterr().err
    assert harmless(said) and (SHOWN[:20] in said or isinstance(error, OSError))


def test_an_error_without_end_is_cut(capsys):
    explain(UserError("x" * 10**6), None)
    assert len(capsys.readouterr().err) < 30_000


@pytest.mark.parametrize(
    "argv",
    [
        [f"x{EVIL}"],
        ["train", "desk", f"--{EVIL}"],
        ["train", f"{EVIL}"],
        ["recipes", EVIL],
        ["report", EVIL],
        ["train", "--set", EVIL],
        ["eval", EVIL],
        ["traces", EVIL],
        ["grams", "show", EVIL],
        ["train", "--hardware", EVIL, "--dry-run"],
        ["eval", "x", "--levels", EVIL],
    ],
)
def test_the_command_line_is_quoted_without_effect(argv, capsys):
    try:
        code = cli.main(argv)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert code == 2 and said.err and harmless(said.err) and harmless(said.out)


# Displays ---------------------------------------------------------------------------------------------------

EVENTS = [
    Event(kind="start", text=EVIL, steps=4, stages=1),
    Event(kind="stage", text=EVIL, steps=4, stages=1, stage_steps=4),
    Event(kind="step", step=1, steps=4, stages=1, stage_step=1, stage_steps=4, values={f"loss/{EVIL}": 1.0}),
    Event(kind="eval", step=1, steps=4, stages=1, stage_step=1, stage_steps=4, values={f"eval/{EVIL}": 1.0}),
    Event(kind="decision", text=EVIL, outcome=EVIL, step=1),
    Event(kind="note", text=f"one\n{EVIL}"),
    Event(kind="end", text=EVIL),
]


def test_plain_lines_show_no_control():
    stream = io.StringIO()
    observe = Lines(stream)
    for event in EVENTS:
        observe(event)
    text = stream.getvalue()
    assert harmless(text) and text.count("\\u202e") == 8 and len(text.splitlines()) == 7 and not observe.dead


def test_the_live_display_shows_no_control_but_its_own():
    stream = io.StringIO()
    observe = Terminal(
        Console(file=stream, force_terminal=True, width=100, height=40, color_system=None), period=0.01
    )
    for event in EVENTS:
        observe(event)
    observe.close()
    text = stream.getvalue()
    assert not observe.dead and "\\u202e" in text
    assert not any(sign in text for sign in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2066", "\ud83d"))


def test_samples_trees_and_tables_show_no_control(monkeypatch, capsys):
    stream = io.StringIO()
    row = {
        "task": EVIL,
        "level": 1,
        "context": EVIL,
        "prompt": EVIL,
        "oracle": {"plan": EVIL},
        "turns": [{"role": EVIL, "text": EVIL, "status": "finished", "valid": 0.0, "reason": EVIL}],
        "success": 0.0,
        "reason": EVIL,
    }
    samples([row], stream)
    node = {
        "id": 1,
        "parent": 0,
        "role": EVIL,
        "text": EVIL,
        "status": "ok",
        "verdict": "wrong",
        "reason": EVIL,
        "policy": EVIL,
        "reward": 1.0,
        "reward_parts": {EVIL: 1.0},
        "depth": 0,
        "number": 1,
    }
    tree = {
        "step": 1,
        "task": EVIL,
        "prompt": EVIL,
        "signs": [],
        "sampled": 3,
        "nodes": [{"id": 0, "parent": None, "role": None}, node],
    }
    print_found([(tree, True)], 1, stream, full=True, as_json=False)
    assert harmless(stream.getvalue()) and stream.getvalue().count("\\u202e") > 12
    monkeypatch.setattr(look, "find", lambda *a: SimpleNamespace(path=Path("x"), notes=(EVIL,)))
    share = {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 3,
        "by_file": {EVIL: {"value": 0.5, "n": 1}, "b": {"value": 0.5, "n": 2}},
    }
    monkeypatch.setattr(
        look, "evaluate", lambda *a, **k: {"plan": share, "note": EVIL, "settings": {"model": EVIL}}
    )
    assert cli.main(["eval", "x"]) == 0
    said = capsys.readouterr().out
    assert harmless(said) and said.count("\\u202e") == 3


def test_a_stream_that_shows():
    stream = io.StringIO()
    print(f"a\t{EVIL}", file=Shown(stream), flush=True)
    assert stream.getvalue() == f"a\t{SHOWN}\\x0bj\\x85k\n" and not Shown(stream).isatty()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_that_knows_few_signs_is_no_reason_to_fail(encoding, monkeypatch):
    """PYTHONIOENCODING=ascii, or a pipe on Windows: what it cannot show comes as a code."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(look, "find", lambda *a: SimpleNamespace(path=Path("x"), notes=(EVIL,)))
    row = {
        "task": "täsk",
        "level": 1,
        "prompt": "Łódź → 😀",
        "oracle": {},
        "turns": [{"role": "plan", "text": "…", "status": "finished", "valid": 0.0, "reason": "→"}],
    }
    monkeypatch.setattr(look, "sample", lambda *a, **k: [row])
    assert cli.main(["sample", "x"]) == 0
    assert cli.main(["train", "Łódź"]) == 2
    out.flush(), err.flush()
    assert b"\\u0141\\xf3d\\u017a" in out.buffer.getvalue().replace(b"\xf3", b"\\xf3")
    assert b"\\u0141" in err.buffer.getvalue() and b"bug" not in err.buffer.getvalue()


# The page ---------------------------------------------------------------------------------------------------


def test_a_page_holds_no_control_no_half_and_no_turned_text():
    page = render("run", EVIL, {"x": [{EVIL: EVIL}]}, [EVIL])
    page.encode("utf-8")
    assert not any(sign in page for sign in ("\x1b", "\x07", "\x9b", "\x7f", "\ud83d", "\x00", *BIDI))
    assert json.loads(island({"a": EVIL}))["a"].startswith(
        "a\\x1b]0;T\\x07b\\x9b31m\\x7fc\\u202ed\\u2066e\\u200ff\\u061cg?h\\x00i\\x0bj\\x85k"
    )
    assert json.loads(island({"a": "one\n\ttwo"}))["a"] == "one\n\ttwo"


def test_a_run_with_such_names_has_its_report_and_its_comparison(tmp_path):
    for name in ("one", "two"):
        run.train(
            desk_recipe({"kind": "imitate", "until": {"steps": 1}}), tmp_path / name, nothing, fake_desk()
        )
        recipe = json.loads((tmp_path / name / "recipe.json").read_text())
        recipe["stage"][0]["name"] = recipe["about"] = EVIL
        (tmp_path / name / "recipe.json").write_text(json.dumps(recipe))
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        (tmp_path / name / "summary.json").write_text(json.dumps(summary | {"name": f"{EVIL}{name}"}))
        with (tmp_path / name / "decisions.jsonl").open("a") as file:
            file.write(
                json.dumps(
                    {
                        "step": 1,
                        "stage": 0,
                        "kind": "gate",
                        "name": EVIL,
                        "outcome": "pass",
                        "reason": EVIL,
                        "numbers": {},
                    }
                )
                + "\n"
            )
    for page in (
        report.write(tmp_path / "one"),
        report.compare([tmp_path / "one", tmp_path / "two"], tmp_path / "c.html"),
    ):
        text = page.read_text("utf-8")
        assert "\\u202e" in text and "\u202e" not in text and "\x1b" not in text
