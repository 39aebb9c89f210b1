"""How a run ends, and what it says then: its summary, its page, the command that goes on, the rate to try
where it diverged."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from forethought import __version__, report
from forethought.core.errors import Asked, Diverged, ForethoughtError, Interrupted, quoted
from forethought.core.types import Event
from forethought.engines.base import Engine
from forethought.recipe.schema import OptimSpec, Recipe, TrainingSpec
from forethought.runs import handover
from forethought.runs.progress import Progress
from forethought.store import METRICS, Store

# by which a machine is another one
BITS = ("device", "chip", "threads", "precision", "kernels", "layers", "torch", "forethought")
Observer = Callable[[Event], None]
Tell = Callable[[str], None]


def close(store: Store, summary: Mapping[str, object], tell: Tell) -> Path | None:
    """Write the summary and the page. Neither can fail a run: what cannot be written is told. None: there is
    no page."""
    try:
        store.write_summary(summary)
    except OSError as error:
        tell(f"summary.json could not be written: {error}")
    if not (store.out / METRICS).exists():
        return None  # it ended before anything was measured
    try:
        return report.write(store.out)
    except Exception as error:
        tell(
            f"there is no report.html ({type(error).__name__}: {' '.join(str(error).split())}); once that is "
            f"mended: forethought report {quoted(store.out)}"
        )
        return None


def outliving(observe: Observer) -> Observer:
    """The observer, silent from when its terminal was closed: the run hears of that by SIGHUP, and has yet to
    save."""
    gone = False

    def tell(event: Event) -> None:
        nonlocal gone
        try:
            if not gone:
                observe(event)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            gone = True

    return tell


def summary_of(
    recipe: Recipe, at: Progress, status: str, seconds: float, facts: Mapping[str, object]
) -> dict[str, object]:
    """`machines` is there where the run has computed on more than one, each with the step from which on."""
    more = {"machines": at.machines} if len(at.machines) > 1 else {}
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "status": status,
        "step": at.step,
        "seconds": round(seconds, 1),
        "stages": at.records,
        "machine": dict(facts),
        **more,
    }


def idle_stages(at: Progress) -> list[str]:
    """A clause for each stage that trained nothing."""
    return [
        f"stage {i + 1} ({record['name']}) trained nothing"
        for i, record in enumerate(at.records)
        if record.get("trained_nothing")
    ]


def keep_machine(at: Progress, facts: Mapping[str, object]) -> None:
    """What the run computes on from this step on, where that is not what it was."""
    if not at.machines or any(facts.get(key) != at.machines[-1].get(key) for key in BITS):
        at.machines = [*at.machines, {"step": at.step, **facts}]


def left(store: Store, step: int, asked: int | str) -> ForethoughtError:
    """The exception that ends an interrupted run, with the command that continues it. `asked`: the signal, or
    why who watches asked for it."""
    command = f"forethought train --resume {quoted(store.out)}"
    if isinstance(asked, str):
        return Asked(f"stopped at step {step} ({asked}), everything is saved; continue with: {command}")
    return Interrupted(f"interrupted at step {step}, everything is saved; continue with: {command}", asked)


def facts_of(engine: Engine) -> dict[str, object]:
    """The engine's facts and this library's version."""
    return {**engine.facts(), "forethought": __version__}


def diverged(store: Store, recipe: Recipe, at: Progress, why: object) -> Diverged:
    """What to say where weights have diverged: the step, the rate to try, and the checkpoint that is
    whole."""
    # a stage that has not trained yet has what the one before it left
    training = [i for i, stage in enumerate(recipe.stage) if isinstance(stage, TrainingSpec)]
    begun = [i for i in training if i <= at.stage - (at.stage_step == 0)]
    i = (begun or training)[-1 if begun else 0]
    spec = handover.changed(recipe.stage[i], at.changed)
    assert isinstance(spec, TrainingSpec)
    rate, key = spec.optim.lr, f"stage.{i}.optim.lr"
    lower = min(rate / 10, OptimSpec().lr)  # far above what is usual, a tenth would not help
    steps = store.steps()
    kept = f"; the weights of step {steps[-1]} are intact in {store.checkpoints}" if steps else ""
    command = f"forethought train {quoted(store.out)} --set {key}={lower:g} --out NEW"
    return Diverged(
        f"weights have diverged at step {at.step}: {why}; lower {key} from {rate:g} to {lower:g} and check "
        f"the rewards: {command}{kept}"
    )
