"""Where a run's metrics go beside its own log: a row each, in the recipe's list `trackers`.

A tracker is made once a process and told the run's start; then it hears numbers, texts and the end. Whatever
fails in it is told once, and it is left out from then on: no tracker ends a run. A row, or `file.py:name` of
your own, is a function of `Begun` that gives an object with three methods (`Tracker`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from forethought.core.errors import RecipeError
from forethought.core.named import find
from forethought.core.places import described
from forethought.core.types import Tree
from forethought.recipe.convert import to_dict
from forethought.recipe.ranges import listed
from forethought.recipe.schema import Recipe
from forethought.runs.trackers.begun import Begun

Tell = Callable[[str], None]


class Tracker(Protocol):
    """What every row gives."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one line of the log, by tag (`tags`)."""

    def text(self, step: int, tag: str, text: str) -> None:
        """A sample of what the roles said, as Markdown."""

    def close(self, status: str) -> None:
        """The end of this process's part of the run: done, interrupted or stopped."""


Make = Callable[[Begun], Tracker]


def _event_files(begun: Begun) -> Tracker:
    from forethought.runs.trackers.event_files import EventFiles

    return EventFiles(begun)


def _wandb(begun: Begun) -> Tracker:
    from forethought.runs.trackers.wandb_runs import WandbRun

    return WandbRun(begun)


def _trackio(begun: Begun) -> Tracker:
    from forethought.runs.trackers.trackio_runs import TrackioRun

    return TrackioRun(begun)


def _mlflow(begun: Begun) -> Tracker:
    from forethought.runs.trackers.mlflow_runs import MlflowRun

    return MlflowRun(begun)


ROWS: dict[str, tuple[Make, str]] = {
    "tensorboard": (_event_files, "tensorboard"),
    "wandb": (_wandb, "wandb"),
    "trackio": (_trackio, "trackio"),
    "mlflow": (_mlflow, "mlflow"),
}
"""Name -> (how to begin, the package it needs, which is also the name of its extra)."""
AUTO = "auto"  # event files where TensorBoard is installed, else nothing


def makers(names: Sequence[str]) -> dict[str, Make]:
    """Name -> how to begin, of every tracker that a recipe names. RecipeError, before anything is loaded, for
    code that is not there and for a package that is not installed."""
    found: dict[str, Make] = {}
    for i, name in enumerate(names):
        if name == AUTO:
            if _installed("tensorboard"):
                found["tensorboard"] = ROWS["tensorboard"][0]
            continue
        where = f"trackers.{i}"
        if name in ROWS and not _installed(ROWS[name][1]):
            raise RecipeError(
                where, f'{name!r} needs its package: pip install "forethought[{ROWS[name][1]}]"'
            )
        made = find("trackers", name, {n: row[0] for n, row in ROWS.items()}, where, "tracker", more=(AUTO,))
        if not callable(made):
            raise RecipeError(where, f"{name!r} is no function of a run's start (docs/trackers.md)")
        if isinstance(made, type) and (missing := lacking(made)):
            raise RecipeError(where, f"{name} has no {listed(missing, 'or')} (docs/trackers.md)")
        found[name] = made
    return found


def lacking(tracker: object) -> list[str]:
    """The methods of a tracker that it has not."""
    names = ("numbers", "text", "close")
    return [f"{name}()" for name in names if not callable(getattr(tracker, name, None))]


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class Trackers:
    """All of a run's. Open it with `open`, close it by leaving the context."""

    def __init__(self, makers: Mapping[str, Make], out: Path, recipe: Recipe):
        self._makers, self._out, self._recipe = makers, out, recipe
        self._alive: dict[str, Tracker] = {}
        self._tell: Tell = lambda text: None

    def open(self, step: int, tell: Tell) -> None:
        """Begin each; `tell` hears, once each, of those that fail."""
        self._tell = tell
        begun = begun_of(self._recipe, self._out, step)
        for name, make in self._makers.items():
            made = self._guarded(name, make, "__call__", begun)
            if made is not None and (missing := lacking(made)):
                said = f"{described(made)} has no {listed(missing, 'or')}"
                tell(f"the tracker {name} cannot be used ({said}); the run goes on without it")
            elif made is not None:
                self._alive[name] = made

    def write(self, step: int, line: Mapping[str, object]) -> None:
        """The numbers of one line of metrics."""
        values = tags(line)
        for name, tracker in list(self._alive.items()):
            self._guarded(name, tracker, "numbers", step, values)

    def sample(self, step: int, trees: Sequence[Tree]) -> None:
        """What the roles said on the first path of the first tree."""
        if not self._alive or not trees:
            return
        text = sample_text(trees[0])
        for name, tracker in list(self._alive.items()):
            self._guarded(name, tracker, "text", step, "sample", text)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and kind.__name__ in ("Interrupted", "KeyboardInterrupt")
        status = "done" if kind is None else "interrupted" if interrupted else "stopped"
        for name, tracker in list(self._alive.items()):
            self._guarded(name, tracker, "close", status)

    def _guarded(self, name: str, of: object, method: str, *args: Any) -> Any:
        """What a method of somebody's tracker gives; None where it fails, and the tracker is not asked
        again."""
        try:
            return getattr(of, method)(*args)
        except (Exception, SystemExit) as error:
            self._alive.pop(name, None)
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._tell(f"the tracker {name} stopped ({said}); the run goes on without it")
            return None


def begun_of(recipe: Recipe, out: Path, step: int) -> Begun:
    """The start of a run in `out`, as trackers hear it."""
    whole = out.resolve()
    config = dict(_flat(to_dict(recipe), ""))
    said = json.dumps([str(whole), config], sort_keys=True, default=str)
    return Begun(
        out=whole,
        name=whole.name,
        project=recipe.name,
        id=hashlib.sha256(said.encode()).hexdigest()[:16],
        step=step,
        config=config,
    )


_ENDS = re.compile(r"[^/]+_(low|high|n)/")


def tags(line: Mapping[str, object]) -> dict[str, float]:
    """Tag -> number: a line of the log without the ends of intervals and their counts, which the report has;
    levels stand in a group of their own (`eval/plan@3` -> `eval_by_level/plan/3`)."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or _ENDS.match(name):
            continue
        family, _, rest = name.partition("/")
        what, at, level = rest.partition("@")
        found[f"{family}_by_level/{what}/{level}" if at else name] = float(value)
    return found


def sample_text(tree: Tree) -> str:
    """The first path of a tree as Markdown: the prompt, then each turn with its reward."""
    leaf, parents = tree.nodes[0], {n.parent for n in tree.nodes}
    while leaf.id in parents:
        leaf = tree.children(leaf.id)[0]
    lines = []
    for node in tree.path(leaf):
        name = node.role or ("prompt" if node.parent is None else "seen")
        reward = "" if node.reward is None else f" (reward {node.reward:.3g})"
        lines.append(f"**{name}**{reward}\n\n```\n{node.text.replace('```', '` ` `')}\n```")
    return "\n\n".join(lines)


def _flat(value: Any, at: str) -> Iterator[tuple[str, str | float | bool]]:
    if isinstance(value, Mapping):
        for key, inside in value.items():
            yield from _flat(inside, f"{at}.{key}" if at else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inside, Mapping) for inside in value):
            for i, inside in enumerate(value):
                yield from _flat(inside, f"{at}.{i}")
        else:
            yield at, " ".join(map(str, value))
    elif value is not None:
        yield at, value
