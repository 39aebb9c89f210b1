"""`forethought runs` and `forethought watch`, on real run directories."""

from __future__ import annotations

import json
import re
import threading

import pytest
from conftest import desk_recipe, fake_desk, nothing

from forethought import cli, report
from forethought.cli import runs as verbs
from forethought.runs import run

IMITATE = {"kind": "imitate", "until": {"steps": 2}, "batch": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "group/b"):
        run.train(desk_recipe(IMITATE, name=name[-1]), folder / name, nothing, fake_desk())
    (folder / "begun").mkdir()
    (folder / "begun" / "recipe.json").write_text("{}")
    (folder / "bad <b>").mkdir()
    (folder / "bad <b>" / "recipe.json").write_text("[")
    (folder / "bad <b>" / "metrics.jsonl").write_text("")
    return folder


def test_runs_are_listed_and_linked(folder, capsys):
    assert cli.main(["runs", str(folder)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["run", "recipe", "status", "step", "seconds", "plan", "act", "e2e"]
    rows = {line.split()[0]: line.split() for line in lines[1:5]}
    assert rows["a"][1:4] == ["a", "done", "2"] and rows["group/b"][1] == "b"
    assert rows["begun"][1] == "begun" and "unreadable" in rows["bad"]
    assert "recipe.json is not JSON" in err
    page = (folder / "index.html").read_text()
    assert lines[-1] == str(folder / "index.html")
    assert '<a href="a/report.html">a</a>' in page and "<td>begun</td>" in page
    assert "bad &lt;b&gt;" in page and "<b>" not in page
    assert len(re.findall("<tr>", page)) == 5 and "4 runs" in page


def test_runs_are_sorted_by_a_number(folder, capsys):
    change = json.loads((folder / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "eval/plan" in change
    assert cli.main(["runs", str(folder), "--sort", "plan"]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert first == ["a", "group/b"]  # those that measured it come first
    assert cli.main(["runs", str(folder), "--sort", "speed"]) == 2
    assert (
        "--sort speed: no run measured it; sort by name, step, time, plan, act, e2e"
        in capsys.readouterr().err
    )


def test_what_holds_no_runs(tmp_path, capsys):
    assert cli.main(["runs", str(tmp_path)]) == 2 and "no runs here" in capsys.readouterr().err
    assert cli.main(["runs", str(tmp_path / "none")]) == 2 and "is no folder" in capsys.readouterr().err
    assert cli.main(["watch", str(tmp_path)]) == 2 and "no run here" in capsys.readouterr().err


def test_a_watched_page_loads_itself_again_until_the_run_is_over(tmp_path, capsys, monkeypatch):
    out, pages, steps = tmp_path / "run", [], threading.Event()

    def look(seconds: float) -> None:  # in place of sleeping
        pages.append((out / "report.html").read_text())
        steps.set()
        watched.join(60)

    monkeypatch.setattr(verbs.time, "sleep", look)

    def hold(event) -> None:
        if event.kind == "step":
            reached.set()
            steps.wait(60)

    reached = threading.Event()
    watched = threading.Thread(
        target=lambda: run.train(desk_recipe(IMITATE), out, hold, fake_desk()), daemon=True
    )
    watched.start()
    assert reached.wait(60)
    assert cli.main(["watch", str(out), "--every", "7"]) == 0
    assert '<meta http-equiv="refresh" content="7">' in pages[0]
    assert 'http-equiv="refresh"' not in (out / "report.html").read_text()
    said = capsys.readouterr().out
    assert said.startswith("open file://") and "the run is over (done)" in said


def test_a_report_by_itself_does_not_refresh(folder):
    assert 'http-equiv="refresh"' not in report.write(folder / "a").read_text()
