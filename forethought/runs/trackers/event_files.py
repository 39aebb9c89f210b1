"""TensorBoard event files in the run's folder, by TensorBoard's own writer (no torch needed): scalars, the
recipe as hyperparameters, samples as text. The one place that imports it."""

from __future__ import annotations

from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from forethought.runs.trackers.begun import Begun


class EventFiles:
    """In RUN/tensorboard."""

    def __init__(self, begun: Begun):
        self._writer = EventFileWriter(str(begun.out / "tensorboard"))
        # Tells TensorBoard to drop what a killed run wrote after the checkpoint that this one continues from.
        self._writer.add_event(Event(step=begun.step + 1, session_log=SessionLog(status=SessionLog.START)))
        if begun.step == 0:
            hparams = hparams_pb(dict(begun.config), trial_id=begun.id, start_time_secs=0)
            self._writer.add_event(Event(step=0, summary=Summary.FromString(hparams.SerializeToString())))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar each."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.add_event(Event(step=step, summary=Summary(value=scalars)))

    def text(self, step: int, tag: str, text: str) -> None:
        """In the page of texts."""
        value = Summary.Value(
            tag=f"{tag}/text_summary",
            metadata=metadata.create_summary_metadata(display_name=tag, description=""),
            tensor=tensor_util.make_tensor_proto([text.encode()]),
        )
        self._writer.add_event(Event(step=step, summary=Summary(value=[value])))

    def close(self, status: str) -> None:
        """Write what is left; event files know no status."""
        self._writer.close()
