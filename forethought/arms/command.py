"""`forethought arms FILE`: reads the file, works off what is missing, writes the results. The same command
again goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from forethought.arms.declare import Declared, read
from forethought.arms.jobs import Job, jobs_of
from forethought.arms.pool import WRITER, Pool
from forethought.arms.progress import Progress
from forethought.arms.results import collect
from forethought.arms.state import forget, refuse_changed, refuse_changed_code, state_of
from forethought.arms.tables import markdown
from forethought.core import consent
from forethought.core.cores import usable
from forethought.core.errors import Interrupted, UserError, quoted, unknown
from forethought.recipe.code import code_in
from forethought.recipe.convert import to_dict
from forethought.report import arms as page
from forethought.report.words import count
from forethought.store import Store
from forethought.store.locks import writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    file: Path
    out: Path | None = None  # default: arms/<name>
    model: str | None = None  # what all arms train; None: what their recipes say
    workers: int = 0  # 0: one a usable core
    only: tuple[str, ...] = ()  # arms, as `arm` or `group/arm`; empty: all
    seeds: tuple[int, ...] = ()  # empty: all
    redo: tuple[str, ...] = ()  # arms whose runs are thrown away first
    changed_code: bool = False  # runs that broke go on with code that was mended
    dry_run: bool = False
    page: bool = False  # only write the results of what is there
    engine: Mapping[str, Callable] = field(default_factory=dict)  # see `worker.work`


def arms(options: Options, stream: IO[str]) -> int:
    """Exit code: 0 every run is finished, 1 a run failed. UserError before anything runs; Interrupted when
    asked to stop."""
    declared, recipes = read(options.file, options.model)
    for recipe in recipes.values():  # the file is the user's, and so is what it names: runs of it may be read
        consent.remember(code_in(to_dict(recipe)))
    out = options.out or Path("arms") / declared.name
    jobs = jobs_of(recipes, out)
    runs = [job for job in jobs if not job.is_prefix]
    redo = _names("--redo", options.redo, runs)
    chosen = _chosen(options, runs, declared)
    if options.page:
        print(_write(declared, runs, out, stream), file=stream)
        return 0
    if left_out := redo - {job.name for job in chosen}:
        raise UserError(f"--redo: {sorted(left_out)[0]} is not among what --only chooses; name it there too")
    refuse_changed(chosen, redo)
    todo = _to_do(jobs, chosen, redo)
    if options.dry_run:
        print("\n".join(_plan(declared, todo, chosen, options.workers or usable())), file=stream)
        return 0
    refuse_changed_code([job for job in todo if job.name not in redo], options.changed_code)
    _folder(out)
    with writing(out, "is in use by {}: another `forethought arms` works in it; choose another --out"):
        for job in todo:
            if job.name in redo:
                forget(job)
        return _work(declared, runs, todo, out, options, stream)


def _work(
    declared: Declared, runs: Sequence[Job], todo: Sequence[Job], out: Path, options: Options, stream: IO[str]
) -> int:
    workers = options.workers or usable()
    if todo:
        print(f"{count(len(todo), 'job')}, {_at_once(min(workers, len(todo)))}", file=stream, flush=True)
    progress = Progress(stream, declared, todo, workers)
    fields = (
        {"options": options.engine, "preload": ("forethought.arms.worker", WRITER)} if options.engine else {}
    )
    pool = Pool(workers=workers, tell=progress.tell, changed_code=options.changed_code, **fields)
    try:
        outcomes = pool.run(todo)
    finally:
        path = _write(declared, runs, out, stream)
    if pool.caught:
        raise Interrupted(
            f"interrupted, the runs have saved; the same command goes on: {_same(options, out)}",
            pool.caught,
        )
    if failed := sum(outcome.bad for outcome in outcomes.values()):
        print(f"{failed} of {count(len(todo), 'job')} failed; the same command tries them again", file=stream)
        if any(outcome.status == "broken" for outcome in outcomes.values()):
            print("those that broke have saved; mended code goes on with --changed-code", file=stream)
    print(path, file=stream)
    return 1 if failed else 0


def _same(options: Options, out: Path) -> str:
    """The command that goes on: with the same model, and no more arms than before."""
    given = {
        "--out": out,
        "--model": options.model,
        "--only": ",".join(options.only),
        "--seeds": ",".join(map(str, options.seeds)),
        "--workers": options.workers,
    }
    said = [f"{name} {quoted(value)}" for name, value in given.items() if value]
    return " ".join(["forethought arms", quoted(options.file), *said])


def _names(option: str, given: Collection[str], runs: Sequence[Job]) -> set[str]:
    """Whole names (group/arm) for what --only or --redo were given."""
    names = dict.fromkeys(job.name for job in runs)
    found: set[str] = set()
    for text in given:
        hits = {name for name in names if text in (name, name.split("/", 1)[1])}
        if not hits:
            raise UserError(f"{option}: {unknown('arm', text, names)}")
        found |= hits
    return found


def _chosen(options: Options, runs: Sequence[Job], declared: Declared) -> list[Job]:
    only = _names("--only", options.only, runs)
    for seed in options.seeds:
        if seed not in declared.seeds:
            known = ", ".join(map(str, declared.seeds))
            raise UserError(
                f"--seeds: seed {seed} is not declared (seeds: {known}); add it to {options.file}"
            )
    return [
        job
        for job in runs
        if (not only or job.name in only) and (not options.seeds or job.seed in options.seeds)
    ]


def _to_do(jobs: Sequence[Job], chosen: Sequence[Job], redo: Collection[str]) -> list[Job]:
    """The chosen runs that are not finished, and before them the shared stages that they still need."""
    prefixes = {job.out: job for job in jobs if job.is_prefix}
    needed: dict[Path, Job] = {}
    runs = []
    for job in chosen:
        state = "new" if job.name in redo else state_of(job)
        if state == "finished":
            continue
        if state == "begun":  # it has gone beyond what it shares
            runs.append(replace(job, after=None))
            continue
        runs.append(job)
        before = job.after
        while before is not None and before not in needed and state_of(prefixes[before]) != "finished":
            needed[before] = prefixes[before]
            before = prefixes[before].after
    return [job for out, job in prefixes.items() if out in needed] + runs


def _plan(declared: Declared, todo: Sequence[Job], chosen: Sequence[Job], workers: int) -> list[str]:
    """What a dry run prints: every job, in the order of dependence."""
    shared = [job for job in todo if job.is_prefix]
    runs = [job for job in todo if not job.is_prefix]
    lines = [
        f"{declared.name}: {count(len(chosen), 'run')}, {len(chosen) - len(runs)} of them finished; to "
        f"train: {len(shared)} shared prefix{'' if len(shared) == 1 else 'es'} and "
        f"{count(len(runs), 'run')}, {_at_once(workers)}"
    ]
    for job in todo:
        stages = job.recipe.stage[job.shared :]
        what = ", ".join(f"{stage.title} {stage.steps} steps" for stage in stages)
        after = f", after {job.after.name}" if job.after else ""
        resumed = ", resumed" if state_of(job) == "begun" else ""
        lines.append(f"{job.name} seed {job.seed}: {what}{after}{resumed}")
    return lines


def _at_once(workers: int) -> str:
    """How many runs, each a process: what all of them do in a second is most with one thread each
    (benchmarks/threads.py)."""
    here = usable()
    return f"{count(workers, 'worker')} of one thread each on {count(here, 'core')}" + (
        ", which they share" if workers > here else ""
    )


def _write(declared: Declared, runs: Sequence[Job], out: Path, stream: IO[str]) -> Path:
    """arms.json, arms.md and arms.html in `out`; the verdicts also on the stream. Returns the page."""
    results = collect(declared, runs, out)
    _folder(out)
    Store(out).write_json("arms.json", results)
    beside = out / ".arms.md.tmp"
    beside.write_text(markdown(results), encoding="utf-8")
    beside.replace(out / "arms.md")
    for line in _verdicts(results):
        print(line, file=stream)
    return page.write(results, out / "arms.html")


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    """Claims of groups of which something was run."""
    groups = [group for group in results["groups"] if any(arm["finished"] for arm in group["arms"])]
    return [
        f"{claim['verdict']}: {claim['text']} ({claim['sentence']})"
        for group in groups
        for claim in group["claims"]
    ]


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from error
