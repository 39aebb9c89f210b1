"""Ctrl-C and SIGTERM end a run between two steps; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading


class Interrupts:
    """While this context is open, `caught` is the number of the first signal that asked to stop, else 0."""

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses handlers; the main thread has its own
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: object) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = number
