"""Where metrics go beside the run's own log: TensorBoard event files, by TensorBoard's own writer (no torch
needed), where the extra `tensorboard` is installed. The one place that imports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class EventFiles:
    """Failing to open the writer stops the run; failing to write a line never does. Without TensorBoard
    nothing is written."""

    def __init__(self, folder: Path, step: int):
        self.failures, self._writer = 0, None
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            return

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))
        # Tells TensorBoard to drop what a killed run wrote after the checkpoint that this one continues from.
        self._writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, line: Mapping[str, object]) -> None:
        """Write the numbers of one metrics line; a full disk is counted in `failures`, the run goes on."""
        if self._writer is None:
            return
        values = [
            self._summary.Value(tag=k, simple_value=v) for k, v in line.items() if isinstance(v, (int, float))
        ]
        try:
            self._writer.add_event(self._event(step=step, summary=self._summary(value=values)))
        except OSError:
            self.failures += 1

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError:
            self.failures += 1
