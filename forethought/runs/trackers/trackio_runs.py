"""trackio: a local dashboard with the interface of Weights & Biases (`trackio show`). The one place that
imports it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout

import trackio

from forethought.runs.trackers.begun import Begun


class TrackioRun:
    """A run in the project that the recipe names; a resumed run goes on in the one of its name."""

    def __init__(self, begun: Begun):
        with redirect_stdout(io.StringIO()):  # it tells how to look at it; docs/trackers.md does too
            self._run = trackio.init(
                project=begun.project,
                name=f"{begun.name}-{begun.id[:6]}",
                config=dict(begun.config),
                resume="allow",
                embed=False,
            )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One point of every chart."""
        self._run.log(dict(values), step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        """As Markdown."""
        self._run.log({tag: trackio.Markdown(text)}, step=step)

    def close(self, status: str) -> None:
        """Send what is left; it knows no status."""
        with redirect_stdout(io.StringIO()):
            trackio.finish()
