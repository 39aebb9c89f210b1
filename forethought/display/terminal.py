"""The live display: a picture at the bottom of the terminal, redrawn twice a second; no alternate screen."""

from __future__ import annotations

import threading
import time

from rich.console import Console, Group, RenderableType
from rich.live import Live

from forethought.core.types import Event
from forethought.display.observer import Observer
from forethought.display.picture import ASCII, FANCY, picture, summary
from forethought.display.seen import Seen


class Terminal(Observer):
    """Folds Events on the run's thread and draws on its own, so that the clock goes on during a long step.

    Drawing is our own thread's and not rich's, because an exception there would print a traceback into the
    picture.
    """

    def __init__(self, console: Console, period: float = 0.5):
        self.console, self.clock, self.period = console, time.monotonic, period
        self.signs = ASCII if console.options.ascii_only else FANCY
        self.seen = Seen()
        # Held while folding and while building rows, never while writing: rich takes its own locks there.
        self.lock = threading.Lock()
        self.closing = threading.Event()
        # after a failure: rich draws once more when it stops, and that must not fail again
        self.blank = False
        self.live: Live | None = None
        self.thread: threading.Thread | None = None

    def see(self, event: Event) -> None:
        """Fold the event in; the first one opens the picture, the last one closes it."""
        with self.lock:
            self.seen.see(event, self.clock())
        if event.kind == "end":
            self.close()
        elif self.live is None and not self.closing.is_set():
            self._open()

    def close(self) -> None:
        """Take the picture away and leave the summary; a second call does nothing."""
        if self.live is None or self.closing.is_set():
            return
        self._stop()
        if not self.dead:
            for row in summary(self.seen, self.clock(), self.signs):
                self.console.print(row, soft_wrap=True)

    def drop(self, error: Exception) -> None:
        """Close the picture before the message, so that the cursor comes back."""
        self.blank = True
        try:
            self._stop()
        except Exception:
            pass  # the terminal is gone, so there is no cursor to put back
        super().drop(error)

    def draw(self) -> RenderableType:
        """What `rich` prints at each refresh: the picture at the terminal's present size."""
        if self.blank:
            return Group()
        with self.lock:
            width, height = self.console.size
            return Group(*picture(self.seen, self.clock(), width, max(height - 2, 1), self.signs))

    def _open(self) -> None:
        self.live = Live(get_renderable=self.draw, console=self.console, auto_refresh=False, transient=True)
        self.live.start()
        self.thread = threading.Thread(target=self._tick, name="forethought-display", daemon=True)
        self.thread.start()

    def _tick(self) -> None:
        while not self.closing.is_set():
            try:
                self.live.refresh()
            except Exception as error:
                self.drop(error)
            self.closing.wait(self.period)

    def _stop(self) -> None:
        self.closing.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout=2.0)
        if self.live is not None:
            self.live.stop()
