"""From run directories to numbers, verdicts, tables and the page; everything that is a number is worked out
by hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from arms_kit import finished, write_files

from forethought import cli
from forethought.arms.claims import judge
from forethought.arms.declare import Claim, read
from forethought.arms.jobs import jobs_of
from forethought.arms.results import collect, finished_runs
from forethought.arms.seeds import curve, interval, paired_ends
from forethought.arms.state import Outcome, write_outcome
from forethought.arms.tables import markdown, table
from forethought.core.metrics import mean_interval, t_quantile
from forethought.report import arms as page

# Student's t ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980)]
)
def test_the_t_of_the_tables(df, t):
    assert t_quantile(df) == pytest.approx(t, abs=5e-4)


def test_other_confidences_of_the_tables():
    assert (t_quantile(1, 0.5), t_quantile(4, 0.99), t_quantile(7, 0.9)) == pytest.approx(
        (1.0, 4.6041, 1.8946), abs=5e-5
    )
    for df, confidence in ((0, 0.95), (3, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match="needs df >= 1 and a confidence inside"):
            t_quantile(df, confidence)


def test_a_mean_with_its_interval():
    # standard deviation 1, so 4.30265 / sqrt(3) to each side
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - 2.48414, 2.0 + 2.48414), abs=1e-5)
    assert mean_interval([0.25, 0.25]) == (0.25, 0.25, 0.25)
    assert mean_interval([0.5]) == (0.5, None, None)  # one seed tells nothing of how seeds scatter
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_what_is_not_known_is_left_out_and_counted():
    assert interval([None, 0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert interval([None]) == {"mean": None, "low": None, "high": None, "n": 0}


def test_a_difference_is_paired_by_seed():
    ours = {0: {"end": {"m": 0.5}}, 1: {"end": {"m": 0.25}}, 2: {"end": {"m": None}}}
    theirs = {1: {"end": {"m": 1.0}}, 2: {"end": {"m": 1.0}}, 3: {"end": {"m": 0.0}}}
    assert paired_ends(ours, theirs, "m") == [-0.75]


def test_a_run_that_ended_early_keeps_its_last_value():
    found = curve([[[0, 1.0], [2, 0.0]], [[0, 1.0], [2, 0.5], [4, 1.0]], []])
    assert (
        found["step"] == [0, 2, 4]
        and found["mean"] == [1.0, 0.25, 0.5]
        and found["low"][0] == found["high"][0] == 1.0
    )
    assert curve([]) == {"step": [], "mean": [], "low": [], "high": []}


# Claims -----------------------------------------------------------------------------------------------------

ENDS = {"a": (0.2, 0.25, 0.3), "b": (0.5, 0.55, 0.6), "c": (0.2, 0.3, 0.1), "one": (0.9,), "none": ()}
RUNS = {
    arm: {
        seed: {"end": {"eval/act": end}, "change": {"eval/act": end - 1.0}} for seed, end in enumerate(ends)
    }
    for arm, ends in ENDS.items()
}


def claimed(arm="a", **bound):
    found = judge(Claim(group="g", text="so", arm=arm, metric="eval/act", **bound), RUNS)
    return found["verdict"], found["sentence"]


def test_a_claim_holds_where_the_interval_lies_on_its_side():
    a = "eval/act of a is 25.0 % [12.6, 37.4] over 3 seeds; claimed is at "
    assert claimed(at_most=0.4) == ("holds", f"{a}most 40.0 %")
    assert claimed(at_most=0.1) == ("does not hold", f"{a}most 10.0 %")
    assert claimed(at_most=0.3) == ("undecided", f"{a}most 30.0 %")
    assert claimed(at_least=0.1) == ("holds", f"{a}least 10.0 %")
    assert claimed(at_least=0.4)[0] == "does not hold" and claimed(at_least=0.2)[0] == "undecided"
    assert claimed(at_least=0.0)[0] == "holds"  # a bound of 0 is a bound


def test_a_claim_about_a_change():
    assert claimed(change_at_most=-0.5) == (
        "holds",
        "the change of eval/act of a is -75.0 points [-87.4, -62.6] over 3 seeds; claimed is at "
        "most -50.0 points",
    )
    assert claimed(change_at_least=-0.5)[0] == "does not hold"


def test_no_worse_than_each_paired_by_seed():
    # b - a is 0.3 for every seed, so its interval is a point; a - c is 0, -0.05, 0.2
    assert claimed("b", than=("a",)) == (
        "holds",
        "eval/act of b: the difference from a is +30.0 points [+30.0, +30.0] over 3 seeds; claimed "
        "is at least 0.0 points",
    )
    assert claimed("a", than=("b",))[0] == "does not hold"
    assert claimed("a", than=("b",), margin=0.31)[0] == "holds"
    assert claimed("a", than=("c",))[0] == "undecided"
    assert claimed("a", than=("c", "b"))[0] == "does not hold"  # the worst of the two comparisons
    assert claimed("b", than=("a", "none"))[0] == "undecided"


def test_one_seed_decides_nothing():
    assert claimed("one", at_least=0.1) == (
        "undecided",
        "eval/act of one is 90.0 % (one seed, so no interval); claimed is at least 10.0 %",
    )
    assert claimed("none", at_least=0.1) == (
        "undecided",
        "no finished run of none measured eval/act; claimed is at least 10.0 %",
    )


# Runs that are there ----------------------------------------------------------------------------------------

CLAIM = (
    '[[claim]]\ngroup = "desk"\ntext = "Sharing loses acting"\narm = "shared"\nmetric = '
    '"eval/act"\nchange_at_most = -0.1\n'
)


@pytest.fixture
def made(tmp_path):
    """Two arms, two seeds: seed 0 and 1 of shared, seed 0 and 1 of adapters."""
    declared, recipes = read(write_files(tmp_path, CLAIM))
    jobs = [job for job in jobs_of(recipes, tmp_path / "out") if not job.is_prefix]
    ends = [(0.5, 0.9), (0.7, 0.9), (0.8, 0.9), (0.9, 0.9)]
    for job, (end, start) in zip(jobs, ends, strict=True):
        finished(
            job,
            {"eval/plan": 0.25, "eval/act": start},
            {"eval/plan": 0.5, "eval/act": 0.4},
            {"eval/plan": 1.0, "eval/act": end},
            **{"tokens/sampled": 100, "tokens/trained": 30},
        )
    return declared, jobs, tmp_path / "out"


def test_the_last_stage_in_numbers(made):
    declared, jobs, out = made
    [group] = collect(declared, jobs, out)["groups"]
    shared, adapters = group["arms"]
    run = shared["runs"][1]
    # of the last stage: 0.9 of planning was measured before
    assert run["start"] == {"eval/plan": 0.25, "eval/act": 0.9}
    assert run["end"] == {"eval/plan": 1.0, "eval/act": 0.7} and run["change"]["eval/act"] == pytest.approx(
        -0.2
    )
    assert (run["path"], run["status"], run["seconds"], run["run_seconds"]) == (
        "desk/shared/seed-1",
        "done",
        10.0,
        13.0,
    )
    assert (run["tokens_sampled"], run["tokens_trained"], run["curve"]["eval/act"]) == (
        200,
        60,
        [[0, 0.9], [1, 0.4], [2, 0.7]],
    )
    act = shared["metrics"]["eval/act"]
    # 12.7062 * 0.1 is 1.27: beyond what a share can be
    assert act["end"] == pytest.approx({"mean": 0.6, "low": 0.0, "high": 1.0, "n": 2})
    assert act["change"]["mean"] == pytest.approx(-0.3) and act["difference"] is None  # it is the baseline
    assert adapters["metrics"]["eval/act"]["difference"] == pytest.approx(
        # 0.3 and 0.2: 12.7062 * 0.05
        {"mean": 0.25, "low": 0.25 - 0.635310, "high": 0.25 + 0.635310, "n": 2}
    )
    assert shared["curves"]["eval/act"]["step"] == [0, 1, 2] and shared["curves"]["eval/act"][
        "mean"
    ] == pytest.approx([0.9, 0.4, 0.6])
    assert shared["costs"]["tokens_sampled"]["mean"] == 200 and (shared["finished"], shared["failed"]) == (
        2,
        0,
    )
    assert [claim["verdict"] for claim in group["claims"]] == ["undecided"]


def test_only_finished_runs_count_and_the_others_are_named(made):
    declared, jobs, out = made
    shutil.rmtree(jobs[0].out)
    write_outcome(jobs[0].out, Outcome(status="killed", reason="killed by signal 9"))
    (jobs[1].out / "summary.json").write_text(json.dumps({"status": "interrupted", "stages": [{}, {}]}))
    (jobs[2].out / "metrics.jsonl").write_text("{}\n")
    jobs[3] = replace(jobs[3], recipe=replace(jobs[3].recipe, max_bad_updates=9))
    results = collect(declared, jobs, out)
    shared, adapters = results["groups"][0]["arms"]
    assert [run["status"] for run in shared["runs"] + adapters["runs"]] == [
        "killed",
        "unfinished",
        "failed",
        "changed",
    ]
    assert (shared["finished"], shared["failed"], adapters["failed"]) == (0, 1, 1)
    assert shared["metrics"]["eval/act"]["end"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert results["notes"][:2] == [
        "desk/shared, seed 0: killed by signal 9.",
        "desk/shared, seed 1: is not finished.",
    ]
    assert "metrics.jsonl line 1" in results["notes"][2] and results["notes"][3].endswith(
        "was trained with another recipe."
    )


def test_a_run_that_is_about_to_be_extended_is_not_finished(made):
    """It has the summary of the shared stages, which are done."""
    declared, jobs, out = made
    (jobs[0].out / "summary.json").write_text(json.dumps({"status": "done", "stages": [{}]}))
    assert collect(declared, jobs, out)["groups"][0]["arms"][0]["runs"][0]["status"] == "unfinished"


def test_a_run_that_a_gate_ended_before_its_last_stage_is_noted_and_does_not_count(made):
    declared, jobs, out = made
    (jobs[0].out / "summary.json").write_text(json.dumps({"status": "stopped", "stages": [{}]}))
    (jobs[0].out / "metrics.jsonl").write_text(
        '{"step": 0, "stage": 0, "eval/act": 0.5}\n{"step": 2, "stage": 0, "eval/act": 0.25}\n'
    )
    results = collect(declared, jobs, out)
    run = results["groups"][0]["arms"][0]["runs"][0]
    assert (run["status"], run["start"]["eval/act"], run["end"]["eval/act"], run["end"]["eval/plan"]) == (
        "stopped",
        0.5,
        0.25,
        None,
    )
    assert results["notes"] == ["desk/shared, seed 0: ended in stage 1 of 2, so it has no end to compare."]
    assert (
        0 not in finished_runs(results["groups"][0]["arms"][0])
        and results["groups"][0]["arms"][0]["finished"] == 1
    )


def test_tables_in_markdown(made):
    declared, jobs, out = made
    text = markdown(collect(declared, jobs, out))
    assert (
        "\n- **undecided**: Sharing loses acting (the change of eval/act of shared is -30.0 points [-100.0, "
        "+97.1] over 2 seeds; " in text
    )
    start = text.index("### eval/act")
    assert text[start:].splitlines()[2:6] == [
        "| arm | start | end | change | difference from shared |",
        "| --- | --- | --- | --- | --- |",
        "| shared | 90.0 % [90.0, 90.0] (2 seeds) | 60.0 % [0.0, 100.0] (2 seeds) | -30.0 [-100.0, +97.1] "
        "(2 seeds) | — |",
        "| adapters | 90.0 % [90.0, 90.0] (2 seeds) | 85.0 % [21.5, 100.0] (2 seeds) | -5.0 [-68.5, +58.5] "
        "(2 seeds) | +25.0 [-38.5, +88.5] (2 seeds) |",
    ]
    assert "| adapters | 2 | 0 | 200 | 60 | 10 | 13 | two \\| of them |" in text
    assert table(["a"], [["x|y\nz"]]) == ["| a |", "| --- |", "| x\\|y z |"]


def test_the_page_holds_everything_and_reaches_nowhere(made, tmp_path):
    declared, jobs, out = made
    (jobs[0].out / "report.html").write_text("")
    evil = replace(declared, name="x", about="</script><script>alert(1)</script>")
    path = page.write(collect(evil, jobs, out), out / "arms.html")
    text = path.read_text(encoding="utf-8")
    assert text.count("</script") == 2 and "<script>alert" not in text
    assert not re.search(r"https?://|url\((?!#)|@import|\bfetch\(|innerHTML|document\.write", text)
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL).group(1)
    )
    assert [run.get("report") for run in data["groups"][0]["arms"][0]["runs"]] == [True, False]
    assert data["groups"][0]["arms"][1]["metrics"]["eval/act"]["difference"]["n"] == 2
    assert "<p>Sharing loses acting: undecided. " in text  # for a reader without JavaScript
    if shutil.which("node"):
        script = tmp_path / "page.js"
        script.write_text(re.search(r"<script>\n(.*)</script>", text, re.DOTALL).group(1))
        subprocess.run(["node", "--check", str(script)], check=True, timeout=60)


def test_page_writes_what_is_there_and_trains_nothing(made, tmp_path, capsys):
    _, jobs, out = made
    shutil.rmtree(jobs[3].out)
    assert cli.main(["arms", str(tmp_path / "arms.toml"), "--out", str(out), "--page"]) == 0
    assert capsys.readouterr().out.endswith(f"{out / 'arms.html'}\n")
    assert (
        not jobs[3].out.exists()
        and (out / "arms.html").is_file()
        and "seed 1: was not run" in (out / "arms.md").read_text()
    )
    assert json.loads((out / "arms.json").read_text())["groups"][0]["arms"][1]["finished"] == 1


def test_nothing_of_a_page_is_left_half_written(made):
    declared, jobs, out = made
    page.write(collect(declared, jobs, out), out / "arms.html")
    assert [p.name for p in Path(out).iterdir() if p.is_file()] == ["arms.html"]
