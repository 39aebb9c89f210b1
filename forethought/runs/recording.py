"""What a step leaves in the run directory: its line, and which of its trees."""

from __future__ import annotations

from pathlib import Path

from forethought.core.metrics import reduce
from forethought.grams.lists import FOLDER as GRAMS
from forethought.recipe.schema import SaveSpec
from forethought.runs import idle
from forethought.runs.progress import Progress
from forethought.stages.outcome import Step
from forethought.store import Store
from forethought.workflows.rollout import Rollouts


def save_trees_of(
    store: Store, save: SaveSpec, at: Progress, step: Step, rollouts: Rollouts, last: bool
) -> bool:
    """Save the step's first `save.trees` trees (0: all) where it is one of every `save.trees_every`, or the
    stage's first or `last`: then True.

    Only reads what the step has left, so that a run is the same whatever it keeps. Images that no saved tree
    shows are let go.
    """
    images = rollouts.taskset.episodes.images
    due = bool(
        step.trees
        and save.trees_every
        and (last or at.stage_step == 1 or at.stage_step % save.trees_every == 0)
    )
    if due:
        n = save.trees or len(step.trees)
        store.save_images(images.of(step.trees[:n]))
        store.save_trees(
            at.step,
            at.stage,
            step.trees[:n],
            step.advantages[:n],
            rollouts.oracle_plan,
            free_text=not rollouts.words.spaced,
        )
    images.clear()
    return due


def step_line(record: dict, step: Step, seconds: float, success: bool = True) -> dict[str, float]:
    """The numbers of a step that took so long; the stage's `record` counts it. `success`: see `idle.note`."""
    line = reduce(step.metrics)
    tokens = line.get("tokens/sampled", 0) + line.get("tokens/forward", 0)
    record["steps"] += 1
    record["seconds"] += seconds
    record["tokens_sampled"] += int(line.get("tokens/sampled", 0))
    record["tokens_trained"] += int(line.get("tokens/trained", 0))
    idle.note(record, line, success)
    return line | {"seconds/step": seconds, "tokens_per_second": tokens / seconds if seconds else 0.0}


GUIDED = ("guided.jsonl", "guided.parquet", "provenance.json")  # what a distillation ends with
CACHE = "cache.jsonl"  # grows, and only the distillation itself reads it: it is on no record


def record_guided(store: Store, folder: Path) -> None:
    """What was distilled is on record."""
    for name in GUIDED:
        if (folder / name).is_file():
            store.record(folder / name)


def strange_guided(out: Path) -> list[Path]:
    """What lies among the guided data and no distillation writes."""
    own = (*GUIDED, *(f"{name}.part" for name in GUIDED), CACHE)
    return sorted(path for path in (out / "guided").glob("stage-*/*") if path.name not in own)


def record_lists(store: Store) -> None:
    """The lists of grams that the run has kept are on record."""
    for path in sorted((store.out / GRAMS).glob("stage-*.txt")):
        store.record(path)
