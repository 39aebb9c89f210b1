"""The files that a recipe names, and what their paths are relative to.

A path in a recipe file is relative to the folder of that file; in a shipped recipe, on the command line
(`--set`, `--model`) and in a run's recipe.json to the working directory. A recipe that was loaded holds whole
paths, and so does the recipe.json of a run: the run can be resumed from anywhere, while its files stay where
they were.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forethought.core.named import find, is_known
from forethought.recipe.code import is_file
from forethought.recipe.options import PATHS
from forethought.recipe.references import NAMED, named_task_option
from forethought.recipe.schema import (
    Change,
    ModelSpec,
    Recipe,
    StageSpec,
    TaskSpec,
    WorkflowSpec,
    named_with,
)
from forethought.recipe.speaking import SPEAKING

HUB = "hub:"  # begins a source that is no file
TEXTS = ("prompt", "system")  # options of any taskset that say something, and name no code


def files(recipe: Recipe) -> dict[str, Path]:
    """Address -> file of everything that a recipe reads its data from: problems, demonstrations, lists of
    phrases. Models and splits of the hub are none."""
    found: dict[str, Path] = {}

    def note(where: str, path: str) -> str:
        if not path.startswith(HUB):
            file = Path(path).expanduser() if path.startswith("~") else Path(path)
            if found.get(where, file) != file:  # rewards of one role in several files
                found[f"{where}.{sum(key.startswith(where) for key in found) - 1}"] = found[where]
            found[where] = file
        return path

    _changed(recipe, note)
    return found


def splits(recipe: Recipe) -> dict[str, str]:
    """Address -> split of the hub, for everything that a recipe reads its data from."""
    found: dict[str, str] = {}

    def note(where: str, path: str) -> str:
        if path.startswith(HUB):
            found[where] = path
        return path

    _changed(recipe, note)
    return found


def anchored(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with whole paths, those that were relative taken from the folder `base`. A model's path
    stays as it is where no folder lies there: it may be a name on the hub."""
    return _models(_changed(recipe, lambda where, path: _whole(path, base)), base)


def _whole(path: str, base: Path) -> str:
    return path if path.startswith(HUB) else os.path.abspath(base / os.path.expanduser(path))


def _changed(recipe: Recipe, change: Change) -> Recipe:
    task = _task(recipe.task, change)
    stages = tuple(_stage(f"stage.{i}", stage, change) for i, stage in enumerate(recipe.stage))
    workflow = _workflow(recipe.workflow, change)
    trackers = tuple(named_with(change, f"trackers.{i}", name) for i, name in enumerate(recipe.trackers))
    return replace(recipe, task=task, workflow=workflow, stage=stages, trackers=trackers)


def _workflow(spec: WorkflowSpec, change: Change) -> WorkflowSpec:
    paths = SPEAKING[spec.name].files if spec.name in SPEAKING else ()
    options = {
        key: _option(f"workflow.{key}", value, change) if key in paths else value
        for key, value in spec.options.items()
    }
    return replace(spec, name=named_with(change, "workflow", spec.name), options=options)


def _stage(where: str, stage: StageSpec, change: Change) -> StageSpec:
    kind = named_with(change, f"{where}.kind", stage.kind)
    return replace(stage, kind=kind).with_paths(where, change)


def _task(task: TaskSpec, change: Change) -> TaskSpec:
    name = named_with(change, "task.name", task.name)
    named = _paths_of(name)

    def changed(key: str, value: Any) -> Any:
        if key in named:
            return _option(f"task.{key}", value, change)
        if name == "environment" and key in NAMED and isinstance(value, str):
            return named_task_option(change, f"task.{key}", key, value)
        return named_with(change, f"task.{key}", value) if key not in TEXTS and is_file(value) else value

    return replace(task, name=name, options={key: changed(key, value) for key, value in task.options.items()})


def _paths_of(name: str) -> Sequence[str]:
    """Options of a taskset that are paths: one of your own says it (`Taskset.paths`) and is loaded for it;
    what is none says `families`."""
    if name in PATHS or not is_known("tasks", name):
        return PATHS.get(name, ())
    return tuple(getattr(find("tasks", name, {}, "task.name", "taskset", more=PATHS), "paths", ()))


def _option(where: str, value: Any, change: Change) -> Any:
    """What is of another type the task family refuses."""
    if isinstance(value, str):
        return change(where, value) if value else value
    if isinstance(value, (list, tuple)):
        return tuple(_option(f"{where}.{i}", one, change) for i, one in enumerate(value))
    if isinstance(value, Mapping) and "source" in value:
        return {**value, "source": _option(f"{where}.source", value["source"], change)}
    return value


def _models(recipe: Recipe, base: Path) -> Recipe:
    def folder(path: str) -> str:  # or a file: a GGUF is one
        return _whole(path, base) if path and os.path.exists(_whole(path, base)) else path

    def model(spec: ModelSpec) -> ModelSpec:
        return replace(spec, path=folder(spec.path), adapter=folder(spec.adapter))

    stages = tuple(stage.with_models(model) for stage in recipe.stage)
    return replace(recipe, model=model(recipe.model), planner=model(recipe.planner), stage=stages)
