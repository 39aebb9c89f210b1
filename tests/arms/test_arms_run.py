"""Jobs in processes of their own, with the fake engine: side by side, killed, broken, interrupted, resumed,
refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import arms_kit
import pytest
from arms_kit import write_files
from conftest import fake_desk, lines_of, nothing

from forethought import cli
from forethought.arms.command import Options, arms
from forethought.arms.declare import read
from forethought.arms.jobs import Job, jobs_of
from forethought.arms.pool import ONE_THREAD
from forethought.arms.progress import Progress, clock
from forethought.arms.state import Outcome, log_of, read_outcome, state_of
from forethought.core.cores import usable
from forethought.core.errors import Interrupted, UserError
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.schema import Recipe, UntilSpec
from forethought.runs import run


def go(folder: Path, breaks: str = "", **fields) -> tuple[int, str]:
    """(exit code, what was printed). `breaks`: see `arms_kit.Fragile`."""
    plan = folder / "breaks"
    if breaks:
        plan.write_text(breaks)
    engine = partial(arms_kit.fragile, str(plan), os.getpid()) if plan.exists() else arms_kit.engine_of
    options = Options(
        **{"file": folder / "arms.toml", "out": folder / "out", "workers": 2, "engine": {"engine_of": engine}}
        | fields
    )
    stream = io.StringIO()
    try:
        return arms(options, stream), stream.getvalue()
    finally:
        go.printed = stream.getvalue()


def at_once(workers: int) -> str:
    """As the command says how many runs it does at a time."""
    said = (
        f"{workers} worker{'s' * (workers > 1)} of one thread each on {usable()} core{'s' * (usable() > 1)}"
    )
    return said + ", which they share" * (workers > usable())


def numbers(out: Path) -> list[dict]:
    clocks = ("seconds", "tokens_per_second", "memory/")
    return [
        {k: v for k, v in line.items() if not k.startswith(clocks)}
        for line in lines_of(out / "metrics.jsonl")
    ]


@pytest.fixture
def file(tmp_path):
    return write_files(tmp_path)


def test_every_arm_is_what_a_run_of_its_own_would_be(file, tmp_path):
    code, printed = go(tmp_path)
    assert code == 0, printed
    first, *told = printed.splitlines()
    assert first == f"6 jobs, {at_once(2)}"
    assert [line.split()[1].split("/")[0] for line in told[:2]] == ["prefix", "prefix"] and len(told) == 7
    assert sorted(" ".join(line.split()[1:4]) for line in told[2:6]) == [
        f"desk/{a} seed {s}" for a in ("adapters", "shared") for s in (0, 1)
    ]
    assert all(" plan " in line and " act " in line for line in told[2:6]) and told[6] == str(
        tmp_path / "out" / "arms.html"
    )
    _, recipes = read(file)
    for (group, arm, seed), recipe in recipes.items():
        run.train(recipe, tmp_path / "straight" / arm / str(seed), nothing, fake_desk())
        assert numbers(tmp_path / "out" / group / arm / f"seed-{seed}") == numbers(
            tmp_path / "straight" / arm / str(seed)
        )
    assert "eval step" in (tmp_path / "out/desk/shared/seed-1.log").read_text()
    results = json.loads((tmp_path / "out/arms.json").read_text())
    assert [arm["finished"] for arm in results["groups"][0]["arms"]] == [2, 2] and results["notes"] == []
    # the same command again has nothing to do
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/*/*/metrics.jsonl")}
    assert go(tmp_path) == (0, f"{tmp_path / 'out' / 'arms.html'}\n")
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 4


def test_a_killed_run_leaves_the_others_alone_and_is_resumed(file, tmp_path):
    code, printed = go(tmp_path, breaks="k")
    hurt = tmp_path / "out/desk/adapters/seed-1"
    assert (
        code == 1
        and "desk/adapters seed 1" in printed
        and f"KILLED  killed by signal 9  see {log_of(hurt)}" in printed
    )
    assert "1 of 6 jobs failed; the same command tries them again" in printed
    assert (
        read_outcome(hurt).status == "killed"
        and [p.name for p in (tmp_path / "out/desk").glob("*/seed-?/report.html")].count("report.html") == 3
    )
    results = json.loads((tmp_path / "out/arms.json").read_text())
    assert results["notes"] == ["desk/adapters, seed 1: killed by signal 9."]
    checkpoints = sorted(p.name for p in (hurt / "checkpoints").iterdir())
    assert "step-000003" in checkpoints  # one step beyond what the arms share
    code, printed = go(tmp_path)
    assert code == 0 and printed.startswith(f"1 job, {at_once(1)}\n[1/1] desk/adapters seed 1")
    assert '"resume"' in (hurt / "decisions.jsonl").read_text()
    run.train(read(file)[1]["desk", "adapters", 1], tmp_path / "straight", nothing, fake_desk())
    assert numbers(hurt) == numbers(tmp_path / "straight")


def test_a_broken_run_is_told_with_its_traceback_and_done_again(file, tmp_path):
    code, printed = go(tmp_path, breaks="e")
    hurt = tmp_path / "out/desk/adapters/seed-1"
    assert code == 1 and "FAILED  unexpected ValueError: it broke" in printed
    assert (
        "Traceback (most recent call last)" in log_of(hurt).read_text()
        and "ValueError: it broke" in log_of(hurt).read_text()
    )
    assert (
        go(tmp_path)[0] == 0
        and "resume" not in [d["outcome"] for d in lines_of(hurt / "decisions.jsonl")][3:]
    )
    assert "Traceback" not in log_of(hurt).read_text()  # written anew with the run


def test_shared_stages_that_fail_take_only_their_arms_along(file, tmp_path):
    code, printed = go(tmp_path, engine={"engine_of": arms_kit.poor})
    told = printed.splitlines()
    assert code == 1 and sum("FAILED  no room for this model" in line for line in told) == 1
    assert (
        sum(
            "seed 0" in line and "FAILED  the stages that it shares failed: no room for this model" in line
            for line in told
        )
        == 2
    )
    assert "3 of 6 jobs failed" in printed
    assert [path.parent.name for path in sorted(tmp_path.glob("out/desk/*/seed-?/summary.json"))] == [
        "seed-1",
        "seed-1",
    ]


def test_arms_whose_shared_stages_a_gate_stopped_meet_that_gate_themselves(file, tmp_path):
    gate = '\nset = ["stage.0.gates=[{metric=\\"eval/act\\",at_most=0.0}]"]\nbaseline'
    file.write_text(file.read_text().replace("\nbaseline", gate))
    code, printed = go(tmp_path, seeds=(0,))
    told = printed.splitlines()
    assert code == 0 and sum("  stopped  gate 0 of stage 0 stopped the run" in line for line in told) == 3, (
        printed
    )
    assert go(tmp_path, seeds=(0,))[1].count("\n") == 1  # stopped runs are finished, and so are shared stages


def test_every_process_has_one_thread_whatever_its_user_says_of_others(file, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    (tmp_path / "said").mkdir()
    code, printed = go(
        tmp_path,
        engine={"engine_of": partial(arms_kit.told, str(tmp_path / "said"))},
        seeds=(0,),
        workers=usable() + 1,
    )
    assert code == 0 and printed.startswith("3 jobs, ")
    assert [path.read_text().split() for path in (tmp_path / "said").iterdir()] == [
        ["1"] * (len(ONE_THREAD) + 1)
    ] * 3
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_by_default_there_is_a_worker_a_core(file, tmp_path, monkeypatch):
    monkeypatch.setattr("forethought.arms.command.usable", lambda: 3)
    said = [
        go(tmp_path, workers=n, dry_run=True)[1].splitlines()[0].rpartition("runs, ")[2] for n in (0, 1, 4)
    ]
    assert said == [
        "3 workers of one thread each on 3 cores",
        "1 worker of one thread each on 3 cores",
        "4 workers of one thread each on 3 cores, which they share",
    ]


def test_ctrl_c_saves_what_runs_and_says_how_to_go_on(file, tmp_path):
    with pytest.raises(
        Interrupted,
        match=f"the same command goes on: forethought arms {tmp_path}/arms.toml --out {tmp_path}/out "
        "--seeds 0,1 --workers 1$",
    ) as caught:
        go(tmp_path, breaks="s", workers=1, seeds=(0, 1))
    assert (
        caught.value.exit_code == 130 and "desk/adapters seed 1" in go.printed and "interrupted" in go.printed
    )
    hurt = tmp_path / "out/desk/adapters/seed-1"
    assert (
        read_outcome(hurt).status == "interrupted"
        and json.loads((hurt / "summary.json").read_text())["status"] == "interrupted"
    )
    assert (tmp_path / "out/arms.html").is_file()
    code, printed = go(tmp_path)
    assert code == 0, printed
    run.train(read(file)[1]["desk", "adapters", 1], tmp_path / "straight", nothing, fake_desk())
    assert numbers(hurt) == numbers(tmp_path / "straight")


def test_a_command_that_is_killed_leaves_runs_that_are_saved_and_go_on(file, tmp_path):
    script = f"""
import sys
import time
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
if __name__ == "__main__":
    from test_arms_run import go
    go(Path(sys.argv[1]), breaks="K", workers=1)
"""
    (tmp_path / "killed.py").write_text(script)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "killed.py"), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    hurt = tmp_path / "out/desk/adapters/seed-1"
    for _ in range(600):  # its worker saves and ends, as if it had been asked to
        if (outcome := read_outcome(hurt)) and outcome.status == "interrupted":
            break
        time.sleep(0.05)
    assert json.loads((hurt / "summary.json").read_text())["status"] == "interrupted"
    code, printed = go(tmp_path)
    assert code == 0, printed
    run.train(read(file)[1]["desk", "adapters", 1], tmp_path / "straight", nothing, fake_desk())
    assert numbers(hurt) == numbers(tmp_path / "straight")


def test_another_recipe_in_the_same_place_is_refused(file, tmp_path):
    only = {"only": ("shared",), "seeds": (0,)}
    assert go(tmp_path, **only)[0] == 0
    file.write_text(file.read_text().replace('about = "one set of weights"', 'set = ["stage.1.batch=3"]'))
    with pytest.raises(UserError) as refused:
        go(tmp_path)
    run_dir = tmp_path / "out/desk/shared/seed-0"
    assert str(refused.value) == (
        f"{run_dir} was trained with another recipe (stage.1.batch: 2 -> 3); "
        f"choose another --out, "
        "or train it again with --redo desk/shared"
    )
    code, printed = go(tmp_path, redo=("shared",), **only)
    assert code == 0 and "desk/shared seed 0" in printed
    assert json.loads((run_dir / "recipe.json").read_text())["stage"][1]["batch"] == 3


def test_a_dry_run_lists_the_jobs_and_touches_nothing(file, tmp_path):
    code, printed = go(tmp_path, dry_run=True, only=("desk/adapters",))
    lines = printed.splitlines()
    assert code == 0 and lines[
        0
    ] == "trial: 2 runs, 0 of them finished; to train: 2 shared prefixes and 2 runs, " + at_once(2)
    assert lines[1].startswith("prefix/") and lines[1].endswith(" seed 0: imitate 2 steps")
    assert lines[3].startswith("desk/adapters seed 0: learn to plan 4 steps, after ") and len(lines) == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "sharde"], "--only: unknown arm 'sharde'"),
        (["--redo", "x"], "--redo: unknown arm 'x'"),
        (["--model", ""], "--model is empty"),
        (["--model", "/no/such"], "--model: /no/such is not a model: nothing is there; give a folder"),
        (["--seeds", "0,7"], "--seeds: seed 7 is not declared (seeds: 0, 1); add it to "),
    ],
)
def test_what_is_not_declared_is_refused(file, tmp_path, capsys, argv, message):
    assert cli.main(["arms", str(file), "--out", str(tmp_path / "out"), *argv]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_bad_file_is_one_line(tmp_path, capsys):
    assert cli.main(["arms", str(tmp_path / "none.toml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("forethought: ") and error.count("\n") == 1


def test_two_commands_do_not_work_in_one_place(file, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `forethought arms` works in "):
            go(tmp_path)


def test_states_of_a_folder(file, tmp_path):
    _, recipes = read(file)
    job = next(job for job in jobs_of(recipes, tmp_path / "out") if not job.is_prefix)
    assert state_of(job) == "new"
    job.out.mkdir(parents=True)
    assert state_of(job) == "failed"  # a copy that was cut off: there is no recipe in it
    arms_kit.write_resolved(job.recipe, job.out / "recipe.json")
    assert state_of(job) == "begun"
    (job.out / "summary.json").write_text('{"status": "stopped", "stages": [{}]}')
    assert state_of(job) == "finished"  # a gate may stop a run in its first stage
    (job.out / "recipe.json").write_text("{}")
    assert state_of(job) == "changed"


def test_the_time_left_follows_the_pace(tmp_path):
    def job(steps: int) -> Job:
        return Job(
            name="g/a", recipe=Recipe(stage=(Imitate(until=UntilSpec(steps=steps), batch=1),)), out=tmp_path
        )

    progress = Progress(io.StringIO(), None, [job(1)] * 4, workers=2)
    assert progress.left([job(10)], 0.0) is None  # nothing has ended yet
    progress.work, progress.seconds = 10.0, 20.0  # two seconds a step
    # 80 s - 10 s, on two workers
    assert progress.left([job(10), job(10), job(20)], under_way=10.0) == pytest.approx(35.0)
    assert progress.left([job(10)], under_way=5.0) == pytest.approx(15.0)
    assert progress.left([], 0.0) is None
    assert (clock(41.4), clock(200), clock(3725)) == ("41 s", "3:20", "1:02:05")


def test_the_real_engine_in_its_own_processes(file, tmp_path):
    """One whole command, from a shell: two small models at once, torch in the processes of the runs alone."""
    recipe = tmp_path / "made.toml"
    recipe.write_text(
        recipe.read_text().replace("optim = { lr = 0.5 }", "optim = { lr = 1e-3 }")
        + "[model]\nlayers = 2\nwidth = 32\nheads = 4\nmlp = 32\n"
    )
    script = (
        "import sys; from forethought import cli; code = cli.main(sys.argv[1:]); "
        "print('torch' in sys.modules, file=sys.stderr); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "arms", "arms.toml", "--workers", "2", "--only", "adapters"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "False\n"), done.stdout + done.stderr
    summaries = [
        json.loads(path.read_text())
        for path in sorted(tmp_path.glob("arms/trial/desk/adapters/seed-?/summary.json"))
    ]
    assert [(s["status"], s["seed"], s["machine"]["threads"]) for s in summaries] == [
        ("done", 0, 1),
        ("done", 1, 1),
    ]


def test_a_failure_is_a_line_with_its_reason(file, tmp_path):
    declared, recipes = read(file)
    jobs = [job for job in jobs_of(recipes, tmp_path / "out") if not job.is_prefix]
    stream = io.StringIO()
    Progress(stream, declared, jobs, workers=1).tell(
        jobs[0], Outcome(status="failed", reason="no room", seconds=2.0), jobs[1:], 0.0
    )
    assert stream.getvalue() == "[1/4] desk/shared seed 0  2 s  FAILED  no room\n"


ROW = """
from forethought.learn.losses.row import Loss

calls = 0

def mine(t):
    global calls
    calls += 1
    if calls == 2:
        {does}
    return -(t.logp - t.old).exp() * t.advantage, {{}}

MINE = Loss(per_token=mine, needs={{"advantage", "old"}})
"""


def test_a_run_whose_code_broke_goes_on_with_the_mended_code(tmp_path):
    own = 'set = ["stage.1.loss=mine.py:MINE", "stage.1.skip_zero=false"]'
    file = write_files(tmp_path)
    text = file.read_text().replace('set = ["layout=adapters", "stage.1.weights=adapter"]', own)
    file.write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    (tmp_path / "mine.py").write_text(ROW.format(does="raise KeyError('w')"))
    code, printed = go(tmp_path)
    hurt = tmp_path / "out/desk/adapters/seed-0"
    assert code == 1 and "BROKEN  stopped at step 3: stage.1.loss: " in printed
    assert printed.splitlines()[-2] == "those that broke have saved; mended code goes on with --changed-code"
    (tmp_path / "mine.py").write_text(ROW.format(does="pass"))
    with pytest.raises(UserError, match=r"mine\.py has changed since the run began .* with --changed-code"):
        go(tmp_path)
    assert (hurt / "checkpoints/step-000003").is_dir()  # nothing was lost
    code, printed = go(tmp_path, changed_code=True)
    assert code == 0 and "desk/adapters seed 0" in printed
    assert [d["step"] for d in lines_of(hurt / "decisions.jsonl") if d["outcome"] == "changed code"] == [3]


def test_shared_stages_are_not_continued_with_other_code(tmp_path):
    file = write_files(tmp_path)
    file.write_text(file.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    recipe = tmp_path / "made.toml"
    recipe.write_text(recipe.read_text().replace("batch = 2\n", 'batch = 2\nloss = "mine.py:SFT"\n', 1))
    row = "from forethought.learn.losses.row import Loss\n"
    row += "SFT = Loss(per_token=lambda t: (-t.logp, {}), stream='sft')\n"
    (tmp_path / "mine.py").write_text(row)
    assert go(tmp_path, only=("shared",))[0] == 0
    (tmp_path / "mine.py").write_text(row + "# other\n")
    with pytest.raises(UserError, match=r"prefix/.* cannot go on: stage\.0\.loss: .*mine\.py has changed"):
        go(tmp_path)
