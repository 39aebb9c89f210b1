"""Weights & Biases. Without an account on this machine the run is kept offline in RUN/wandb (`wandb sync`
sends it later). The one place that imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import wandb

from forethought.runs.trackers.begun import Begun


class WandbRun:
    """A run in the project that the recipe names; a resumed run goes on in the same one."""

    def __init__(self, begun: Begun):
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", begun.project),
            name=begun.name,
            id=begun.id,
            resume="allow",
            dir=str(begun.out),
            mode=_mode(),
            config=dict(begun.config),
            # silent, and hands off what this process prints: the display is not its business
            settings=wandb.Settings(silent=True, console="off"),
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One point of every chart."""
        self._run.log(dict(values), step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        """As HTML, which the page shows."""
        shown = text.replace("&", "&amp;").replace("<", "&lt;")
        self._run.log({tag: wandb.Html(f"<pre>{shown}</pre>", inject=False)}, step=step)

    def close(self, status: str) -> None:
        """Exit code 0 is shown as finished, another as failed."""
        self._run.finish(exit_code=0 if status == "done" else 1)


def _mode() -> str | None:
    """None leaves it to wandb: where its variables say how, or an account is known."""
    known = any(os.environ.get(name) for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"))
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return None if known or netrc.is_file() and "wandb" in netrc.read_text(errors="replace") else "offline"
