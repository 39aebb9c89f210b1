"""`ft.open`: a run directory, read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.core.consent import trusting
from forethought.core.errors import UserError
from forethought.recipe.schema import Recipe
from forethought.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from forethought.engines.torch.export.folders import Opened
    from forethought.exports import Exported


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of a run; `path` is a source for `ft.evaluate`, `ft.sample` and `ft.swap`."""

    step: int
    path: Path


def open(run: str | PathLike[str], *, trust_code: bool = False) -> Run:
    """The run in this directory. UserError where there is none. A run that still goes on is read as far as it
    has come. `trust_code`: the code that somebody else's run names may run here."""
    return Run(Path(run), trust_code)


class Run:
    """A run directory. Reading it changes nothing in it."""

    def __init__(self, path: Path, trust_code: bool = False):
        self.path, self._trust = path, trust_code
        self._store = Store.open(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    @cached_property
    def recipe(self) -> Recipe:
        """What it trains, as recipe.json has it."""
        from forethought.recipe.load import load

        with trusting(self._trust):
            return load(self.path)

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: status, steps, seconds, what each stage did, the machine. UserError where it is
        damaged."""
        summary, damage = self._store.read_summary()
        if damage:
            raise UserError(f"{self.path}: {damage}")
        return summary

    @property
    def status(self) -> str:
        """done, stopped, interrupted or running; the last also stands for a run that was killed."""
        return str(self._store.read_summary()[0].get("status", "running"))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in order: "step", "stage", "kind", "seconds" and the numbers of each.
        `pandas.DataFrame(run.metrics())` is a frame of them."""
        return self._read().lines

    def frame(self) -> DataFrame:
        """The same as a data frame of pandas. UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError(
                "a data frame needs pandas: pip install pandas; run.metrics() needs none"
            ) from None
        return pandas.DataFrame(self.metrics())

    def decisions(self) -> list[dict[str, Any]]:
        """The lines of decisions.jsonl: every gate, hand-over and guard, with reason and numbers."""
        return self._read().decisions

    def trees(self, step: int | None = None) -> Iterator[dict[str, Any]]:
        """The saved trees, of all steps or of one, as docs/traces.md describes them: task, nodes with text,
        reward and advantage, verdicts. UserError where the run has saved none."""
        from forethought.traces.find import Filter, find

        for tree, _ in find(self.path, Filter(step=step), []):
            yield tree

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are there, the newest last."""
        return [Checkpoint(step, self._store.folder(step)) for step in self._store.steps()]

    def evaluate(self, **settings: Any) -> dict[str, Any]:
        """`ft.evaluate` of this run."""
        from forethought.api.looking import evaluate

        return evaluate(self, **self._trusting(settings))

    def sample(self, **settings: Any) -> list[dict[str, Any]]:
        """`ft.sample` of this run."""
        from forethought.api.looking import sample

        return sample(self, **self._trusting(settings))

    def export(self, **settings: Any) -> Exported:
        """`ft.export` of this run."""
        from forethought.api.looking import export

        return export(self, **self._trusting(settings))

    def model(self, role: str, step: int | None = None, *, merge: bool = False) -> Opened:
        """(model, tokenizer) that speak a role, at the newest checkpoint or that of a step: of
        `transformers`, or of PEFT with the adapter on its base (`merge`: added in). UserError for a role or a
        step that is not there."""
        from forethought.exports.opened import open_role

        with trusting(self._trust):
            return open_role(self.path, role, step, merge)

    def report(self) -> Path:
        """Write report.html anew, and return its path."""
        from forethought import report

        return report.write(self.path)

    def _trusting(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"trust_code": self._trust} | settings

    def _read(self) -> Any:
        from forethought.report.load import load

        with trusting(self._trust):
            return load(self.path)
