"""MLflow: the server that MLFLOW_TRACKING_URI names, else files in `mlruns` beside the run's folder. The one
place that imports it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

# A database needs more packages than files do, and files are what works without a server. MLflow refuses them
# since 3.7 unless told.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

from mlflow.entities import Metric  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from forethought.runs.trackers.begun import Begun  # noqa: E402

STATUS = {"done": "FINISHED", "interrupted": "KILLED", "stopped": "FAILED"}
OF = "forethought.id"  # the tag by which a resumed run finds itself
AT_ONCE = 500  # metrics of one call; MLflow takes 1,000


class MlflowRun:
    """A run in the experiment that the recipe names; a resumed run goes on in the same one."""

    def __init__(self, begun: Begun):
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (begun.out.parent / "mlruns").as_uri()
        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(begun.project)
        experiment = known.experiment_id if known else self._created(begun.project)
        found = self._client.search_runs([experiment], f"tags.`{OF}` = '{begun.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        run = self._client.create_run(experiment, run_name=begun.name, tags={OF: begun.id})
        self._id = run.info.run_id
        for key, value in begun.config.items():
            self._client.log_param(self._id, _name(key), str(value)[:500] or "-")

    def _created(self, project: str) -> str:
        try:
            return self._client.create_experiment(project)
        except MlflowException:  # another process was quicker
            known = self._client.get_experiment_by_name(project)
            if known is None:
                raise
            return known.experiment_id

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """A metric each."""
        now = int(time.time() * 1000)
        metrics = [Metric(_name(tag), value, now, step) for tag, value in values.items()]
        for i in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[i : i + AT_ONCE])

    def text(self, step: int, tag: str, text: str) -> None:
        """A file among the run's artifacts."""
        self._client.log_text(self._id, text, f"{tag}/step-{step:06d}.md")

    def close(self, status: str) -> None:
        """With the status that MLflow has for it."""
        self._client.set_terminated(self._id, STATUS[status])


def _name(tag: str) -> str:
    """With the characters that MLflow takes in a name."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in tag)
