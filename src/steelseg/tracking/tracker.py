"""Trackers, through which a stage logs to MLflow, or nowhere."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelseg.tracking.experiment import METRICS

LOG = logging.getLogger(__name__)


class Tracker:
    """Logs nothing: used when tracking is off, and in processes other than the first."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that the stage read."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores, also to the experiment's run; repeated calls log them once."""

    def summary(self, values: Mapping[str, float], model_id: str | None = None) -> None:
        """Log the numbers to compare experiments by, also to the experiment's run.

        A model that the stage has logged gets them too, so that models can be ranked.
        """

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's run, where users look for it."""


class MlflowTracker(Tracker):
    """Logs to the run of one stage, and summaries to the run of its experiment.

    Losing the store is only a warning, since it must not end hours of training.
    """

    def __init__(self, client: Any, run_id: str, parent_id: str, dataset: Any = None) -> None:
        """Log to existing runs; `dataset` is MLflow's entity of their data, if known."""
        self.client = client
        self.run_id = run_id
        self.parent_id = parent_id
        self.dataset = dataset
        self._epochs: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; those that a resumed run already has must be equal."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in sorted(values.items())]
        with survived("lost the parameters"):
            self.client.log_batch(self.run_id, params=entries)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._log(self.run_id, values, 0)

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores to the stage's run, and to the experiment's for comparing charts.

        A run that already has them, from before an interruption, is left unchanged.
        """
        # `lr` is also a parameter, and charts would list it twice
        curves = {{"lr": "epoch_lr"}.get(k, k): v for k, v in scores.items() if k != "epoch"}
        for run_id in (self.run_id, self.parent_id):
            if epoch not in self._known_epochs(run_id, min(curves)):
                self._log(run_id, curves, epoch)
                self._epochs[run_id].add(epoch)

    def summary(self, values: Mapping[str, float], model_id: str | None = None) -> None:
        """Log numbers to the runs of the stage and the experiment, and the main ones to the model.

        The model also gets the experiment's parameters, and is shown on the experiment's page.
        """
        from mlflow.entities import LoggedModelOutput

        self._log(self.parent_id, values, 0)
        # the page Models has one column per metric, and few can be seen at once
        of_model = {name: value for name, value in values.items() if name in METRICS}
        self._log(self.run_id, of_model, 0, model_id)
        self._log(self.run_id, {k: v for k, v in values.items() if k not in of_model}, 0)
        if model_id:
            with survived("lost the parameters of the model"):
                self.client.log_outputs(self.parent_id, [LoggedModelOutput(model_id, 0)])
                known = self.client.get_logged_model(model_id).params
                params = self.client.get_run(self.parent_id).data.params
                new = {name: value for name, value in params.items() if name not in known}
                self.client.log_model_params(model_id, new)

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""
        with survived(f"lost the tag {name}"):
            self.client.set_tag(self.run_id, name, value)

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's run."""
        with survived(f"lost {path}"):
            self.client.log_artifact(self.parent_id, str(path))

    def _known_epochs(self, run_id: str, metric: str) -> set[int]:
        """Return the epochs that a run already has; looked up once per process."""
        if run_id not in self._epochs:
            known: list[Any] = []
            with survived("did not return its epochs"):
                known = self.client.get_metric_history(run_id, metric)
            self._epochs[run_id] = {entry.step for entry in known}
        return self._epochs[run_id]

    def _log(
        self, run_id: str, values: Mapping[str, float], step: int, model_id: str | None = None
    ) -> None:
        from mlflow.entities import Metric

        data = (self.dataset.name, self.dataset.digest) if self.dataset else ()
        shared = (int(time.time() * 1000), step, model_id, *data)
        entries = [Metric(name, value, *shared) for name, value in sorted(values.items())]
        with survived(f"lost the metrics of step {step}"):
            self.client.log_batch(run_id, metrics=entries)


@contextmanager
def survived(what: str) -> Iterator[None]:
    """Log any exception from the store as a warning that begins with `MLflow {what}`."""
    try:
        yield
    except Exception as error:
        LOG.warning("MLflow %s: %s", what, " ".join(str(error).split())[:300])
