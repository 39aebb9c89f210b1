"""The processes that math-verify runs in: one that is asked, and a spare one that stands ready for when the
first has to be ended."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence

from forethought.core.errors import ForethoughtError

START_SECONDS = 120.0  # most time until a worker is ready: importing sympy on a busy machine


class Workers:
    """`ask` from one thread at a time. Nothing starts before the first question."""

    def __init__(self, command: Sequence[str]):
        self._command = command
        self._worker: _Worker | None = None
        self._spare: _Worker | None = None

    def ask(self, pair: list[str], seconds: float) -> dict:
        """What the worker says. TimeoutError after `seconds`, EOFError where its process has ended; either
        way the next question goes to the spare. ForethoughtError where no worker starts."""
        if self._worker is None:
            self._worker, self._spare = self._spare or _Worker(self._command), None
        worker = self._worker
        worker.wait()
        # started now, ready by the time that it is needed; its start is not waited for
        if self._spare is None:
            self._spare = _Worker(self._command)
        try:
            return worker.ask(pair, seconds)
        except (TimeoutError, EOFError):
            self._worker = None
            worker.end()
            raise

    def close(self) -> None:
        """End both processes; the next question starts new ones."""
        for worker in (self._worker, self._spare):
            if worker is not None:
                worker.end()
        self._worker = self._spare = None


class _Worker:
    """One process and a thread that reads its lines: a pipe has no time limit of its own on every system, a
    queue has."""

    def __init__(self, command: Sequence[str]):
        self._command = command
        self._ready = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is the parent's to handle
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # pipes
        self._asks, self._answers = self._process.stdin, self._process.stdout
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self) -> None:
        """Until it is ready."""
        if self._ready:
            return
        try:
            self._next(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.end()
            command = " ".join(self._command)
            raise ForethoughtError(
                f"the process that compares answers did not start; by hand it says why: {command}"
            ) from error
        self._ready = True

    def ask(self, pair: list[str], seconds: float) -> dict:
        try:
            self._asks.write(json.dumps(pair) + "\n")
            self._asks.flush()
        except OSError as error:
            raise EOFError from error
        return json.loads(self._next(seconds))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        try:
            self._asks.close()
        except OSError:  # what was not yet written
            pass

    def _listen(self) -> None:
        with self._answers as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _next(self, seconds: float) -> str:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not line:
            raise EOFError
        return line
