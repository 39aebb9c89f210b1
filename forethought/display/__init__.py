"""What a person sees while a run works: a live picture on a terminal, plain lines elsewhere. Watching never
changes a run.

    with choose(sys.stdout, plain=False) as observe:
        run.train(recipe, out, observe)

The values of an Event that are shown: of an evaluation `eval/<name>` and `eval/<name>@<level>`; of a step
`loss...`, `reward...` with `reward_std...`, `groups/zero`, `tokens/ROLE`, `kl...`, `entropy...`,
`clip/share`, `grad_norm...`, and `tokens_per_second`, or else the rates of `tokens/trained` and
`tokens/sampled`.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING

from forethought.display.lines import Lines
from forethought.display.observer import Observer

if TYPE_CHECKING:
    from rich.console import Console


def choose(stream: IO[str], plain: bool) -> Observer:
    """The live display where `stream` is a terminal that can show it, plain lines otherwise or when asked
    for."""
    if plain or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Lines(stream)
    from rich.console import Console

    return live(Console(file=stream, highlight=False))


def opening(stream: IO[str], plain: bool, text: str) -> None:
    """A line before a run has anything to show: to a person at a terminal, or where plain lines are asked
    for."""
    if plain or stream.isatty():
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: no reason to fail
            stream.write(" ".join(text.split()) + "\n")
            stream.flush()


def plain(stream: IO[str]) -> Observer:
    """One line per stage, evaluation, decision and note, and a step line at most every 5 s or 25 steps."""
    return Lines(stream)


def live(console: Console) -> Observer:
    """A picture redrawn in place; when the run ends (or the observer closes) a summary stays in the
    scrollback."""
    from forethought.display.terminal import Terminal

    return Terminal(console)
