"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end a run between two steps, a distillation between two
answers; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HANG_UP = getattr(signal, "SIGHUP", None)  # not on Windows
NUMBERS = [signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP else [])]


class Wish:
    """How an observer asks a run to stop, and hears of its checkpoints; the run looks after each
    step."""

    def __init__(self) -> None:
        self.why = ""
        self.saved: Callable[[Path], None] = lambda folder: None

    def ask(self, why: str) -> None:
        """Stop after this step, for this reason; the first one holds."""
        self.why = self.why or why


class Interrupts:
    """While this context is open, `caught` is the number of the first signal that asked to stop, else 0."""

    def __init__(self) -> None:
        self.caught = 0
        self._now = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        # elsewhere Python refuses handlers; the main thread has its own
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                if number == HANG_UP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # `nohup`: the run is to outlive its terminal
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self, leave: Callable[[int], object]) -> Iterator[None]:
        """Inside, the first signal ends what is done, for long work without steps that keeps what it has;
        then `leave(number)`."""
        self._now = True
        try:
            if self.caught:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            if self.caught:
                leave(self.caught)
            raise
        finally:
            self._now = False

    def _catch(self, number: int, frame: object) -> None:
        again, self.caught = self.caught, self.caught or number
        if self._now or again:
            raise KeyboardInterrupt
