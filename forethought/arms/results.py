"""The numbers of all arms, from run directories alone: means over seeds with t intervals, and differences
paired by seed.

Everything is about a run's last stage: `start` is its first evaluation, `end` the last one of the run (after
a roll back: what was restored). Only finished runs count; the others are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought import __version__
from forethought.arms.claims import judge
from forethought.arms.declare import Arm, Declared
from forethought.arms.jobs import Job
from forethought.arms.seeds import Runs, curve, interval, paired_ends, possible
from forethought.arms.state import FINISHED, read_outcome, state_of, status_of
from forethought.core.errors import UserError
from forethought.report.load import Run, finite
from forethought.report.load import load as load_run
from forethought.report.words import join

Line = Mapping[str, Any]


def collect(declared: Declared, jobs: Sequence[Job], out: Path) -> dict[str, Any]:
    """What arms.json holds. `jobs`: of every declared run, whether it was made or not."""
    by_run = {(job.name, job.seed): job for job in jobs}
    groups, notes = [], []
    for name, group in declared.group.items():
        metrics = list(
            dict.fromkeys([*group.metrics, *(c.metric for c in declared.claim if c.group == name)])
        )
        arms = [
            _arm(arm, [by_run[f"{name}/{arm.name}", seed] for seed in declared.seeds], metrics, out)
            for arm in declared.arms(name)
        ]
        runs = {arm["name"]: finished_runs(arm) for arm in arms}
        for arm in arms:
            against = None if arm["name"] == group.baseline else runs.get(group.baseline)
            arm["metrics"] = {m: _statistics(m, runs[arm["name"]], against) for m in metrics}
            notes += _notes(f"{name}/{arm['name']}", arm["runs"])
        claims = [judge(claim, runs) for claim in declared.claim if claim.group == name]
        groups.append(
            {
                "name": name,
                "about": group.about,
                "baseline": group.baseline,
                "metrics": list(group.metrics),
                "claims": claims,
                "arms": arms,
            }
        )
    return {
        "name": declared.name,
        "about": declared.about,
        "seeds": list(declared.seeds),
        "forethought": __version__,
        "groups": groups,
        "notes": notes,
    }


def _notes(arm: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why runs do not count, one sentence for the seeds that share a reason."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        if run["reason"]:
            seeds.setdefault(run["reason"], []).append(str(run["seed"]))
    return [
        f"{arm}, seed{'s' * (len(which) > 1)} {join(which)}: {reason}." for reason, which in seeds.items()
    ]


def finished_runs(arm: Mapping[str, Any]) -> Runs:
    """The finished runs of an arm by seed. One that a gate ended before its last stage has no number of that
    stage."""
    return {run["seed"]: run for run in arm["runs"] if _counts(run)}


def _counts(run: Mapping[str, Any]) -> bool:
    return run["status"] in FINISHED and not run["early"]


def _arm(arm: Arm, jobs: Sequence[Job], metrics: Sequence[str], out: Path) -> dict[str, Any]:
    runs = [_run(job, metrics, out) for job in jobs]
    good = [run for run in runs if _counts(run)]
    stage = jobs[0].recipe.stage[-1]
    costs = ("tokens_sampled", "tokens_trained", "seconds", "run_seconds")
    return {
        "name": arm.name,
        "about": arm.about or jobs[0].recipe.about,
        "stage": stage.title,
        "runs": runs,
        "finished": len(good),
        "failed": sum(run["status"] in ("failed", "broken", "killed") for run in runs),
        "costs": {key: interval([run[key] for run in good]) for key in costs},
        "curves": {m: curve([run["curve"][m] for run in good], possible(m)) for m in metrics},
    }


def _run(job: Job, metrics: Sequence[str], out: Path) -> dict[str, Any]:
    """One run. Without a finished run there is a reason instead of numbers."""
    status, reason = _standing(job)
    record: dict[str, Any] = {
        "seed": job.seed,
        "status": status,
        "reason": reason,
        "path": job.out.relative_to(out).as_posix(),
        "early": False,
    }
    if status not in FINISHED:
        return record
    try:
        found = load_run(job.out)
    except UserError as error:
        return record | {"status": "failed", "reason": str(error)}
    numbers = last_stage(found, metrics)
    if numbers["stage"] < len(job.recipe.stage) - 1:
        record |= {
            "early": True,
            "reason": f"ended in stage {numbers['stage'] + 1} of "
            f"{len(job.recipe.stage)}, so it has no end to compare",
        }
    return record | {"report": (job.out / "report.html").is_file()} | numbers


def _standing(job: Job) -> tuple[str, str]:
    """(status, reason): done, stopped, or why the run does not count."""
    state = state_of(job)
    if state == "finished":
        return status_of(job.out, len(job.recipe.stage)), ""
    if state == "changed":
        return "changed", "was trained with another recipe"
    last = read_outcome(job.out)
    if last and last.bad:
        return last.status, last.reason
    return ("unfinished", "is not finished") if state == "begun" else ("missing", "was not run")


def last_stage(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    """Start, end and curve of each metric along the run's last stage, and what the stage cost. Steps count
    from the stage's start."""
    stage = run.lines[-1]["stage"] if run.lines else 0
    lines = [line for line in run.lines if line["stage"] == stage]
    before = [line for line in run.lines if line["stage"] < stage]
    first = {m: next((line[m] for line in lines if _known(line, m)), None) for m in metrics}
    last = {m: next((line[m] for line in reversed(run.lines) if _known(line, m)), None) for m in metrics}
    origin = lines[0]["step"] if lines else 0
    seconds = float(run.lines[-1].get("seconds") or 0.0) if run.lines else 0.0
    return {
        "stage": stage,
        "rolled_back": any(d["outcome"] == "roll_back" and d["stage"] == stage for d in run.decisions),
        "start": first,
        "end": last,
        "change": {m: None if first[m] is None or last[m] is None else last[m] - first[m] for m in metrics},
        "tokens_sampled": sum(line.get("tokens/sampled") or 0 for line in lines),
        "tokens_trained": sum(line.get("tokens/trained") or 0 for line in lines),
        "seconds": seconds - float(before[-1].get("seconds") or 0.0) if before else seconds,
        "run_seconds": seconds,
        "curve": {
            m: [[line["step"] - origin, line[m]] for line in lines if _known(line, m)] for m in metrics
        },
    }


def _statistics(metric: str, runs: Runs, baseline: Runs | None) -> dict[str, Any]:
    """Intervals over seeds. `baseline`: what `difference` is taken from, None where there is none or it is
    this arm."""
    of = {
        key: interval([run[key][metric] for run in runs.values()], possible(metric, key == "change"))
        for key in ("start", "end", "change")
    }
    return of | {
        "difference": interval(paired_ends(runs, baseline, metric), possible(metric, True))
        if baseline is not None
        else None
    }


def _known(line: Line, metric: str) -> bool:
    """Whether an evaluation's line has the metric, as a finite number (steps in between have metrics of their
    own)."""
    return finite(line.get(metric)) and any(key.startswith("eval/") for key in line)
