"""Who watches a run: called with every Event, closed at the end, and never a reason for the run to fail."""

from __future__ import annotations

import sys
from dataclasses import replace

from forethought.core.printable import give_up, printable
from forethought.core.types import Event


def printable_event(event: Event) -> Event:
    """The event with texts that a terminal can show: they may quote a model, a file, an endpoint or an
    exception."""
    values = {printable(name): value for name, value in event.values.items()}
    return replace(
        event, text=printable(event.text, keep="\n\t"), outcome=printable(event.outcome), values=values
    )


class Observer:
    """A callable for Events that also closes. Whatever fails inside is told once on stderr, then it stays
    silent."""

    dead = False

    def __call__(self, event: Event) -> None:
        if self.dead:
            return
        try:
            self.see(printable_event(event))
        except Exception as error:
            self.drop(error)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except Exception as error:
            self.drop(error)

    def see(self, event: Event) -> None:
        """Take one event in. What it raises ends the display (`drop`), not the run."""
        raise NotImplementedError

    def close(self) -> None:
        """Put the terminal back; may be called twice."""

    def drop(self, error: Exception) -> None:
        """Say once on stderr that the display stopped, and stay silent from then on."""
        if self.dead:
            return
        self.dead = True
        said = f"the display stopped ({type(error).__name__}: {error})"
        if isinstance(error, BrokenPipeError):  # as with `| head`
            give_up(sys.stdout)
            said = "nobody reads the output any more"
        try:
            print(printable(f"forethought: {said}; the run goes on"), file=sys.stderr)
        except Exception:
            pass  # stderr is gone as well; the run still has its files
