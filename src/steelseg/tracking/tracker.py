"""What a stage tells about itself: to MLflow, or to nobody."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)


class Tracker:
    """Logs nothing: for when tracking is off, and for processes other than the first."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that the stage read."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores, once however often they are told, to the experiment's run too."""

    def summary(self, values: Mapping[str, float], model_id: str | None = None) -> None:
        """Log the numbers that an experiment is compared by, to the experiment's own run too.

        A model that the stage has logged gets them as well, so that models can be ranked.
        """

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's own run, where people look."""


class MlflowTracker(Tracker):
    """Logs to the run of one stage, and summaries to the run of its experiment.

    A store that goes away is a warning: hours of training are worth more than a record of them.
    """

    def __init__(self, client: Any, run_id: str, parent_id: str, dataset: Any = None) -> None:
        """Write to runs that exist; `dataset` (of MLflow) is what they are made of, if known."""
        self.client = client
        self.run_id = run_id
        self.parent_id = parent_id
        self.dataset = dataset
        self._epochs: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; those that a resumed run has already must be the same."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in sorted(values.items())]
        with survived("lost the parameters"):
            self.client.log_batch(self.run_id, params=entries)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._log(self.run_id, values, 0)

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores to the stage's run, and to the experiment's, which charts compare.

        A run that has them already, from before an interruption, is left as it is.
        """
        # `lr` is a parameter, which charts would offer twice
        curves = {{"lr": "epoch_lr"}.get(k, k): v for k, v in scores.items() if k != "epoch"}
        for run_id in (self.run_id, self.parent_id):
            if epoch not in self._known_epochs(run_id, min(curves)):
                self._log(run_id, curves, epoch)
                self._epochs[run_id].add(epoch)

    def summary(self, values: Mapping[str, float], model_id: str | None = None) -> None:
        """Log numbers to the stage's run and to the experiment's, and both to a logged model.

        The model also gets the parameters of the experiment.
        """
        self._log(self.parent_id, values, 0)
        self._log(self.run_id, values, 0, model_id)
        if model_id:
            with survived("lost the parameters of the model"):
                known = self.client.get_logged_model(model_id).params
                params = self.client.get_run(self.parent_id).data.params
                new = {name: value for name, value in params.items() if name not in known}
                self.client.log_model_params(model_id, new)

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""
        with survived(f"lost the tag {name}"):
            self.client.set_tag(self.run_id, name, value)

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's own run."""
        with survived(f"lost {path}"):
            self.client.log_artifact(self.parent_id, str(path))

    def _known_epochs(self, run_id: str, metric: str) -> set[int]:
        """Return the epochs that a run has already, as this process remembers it."""
        if run_id not in self._epochs:
            known: list[Any] = []
            with survived("does not say which epochs it has"):
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
    """Turn the failure of a store, whatever a store may raise, into a warning."""
    try:
        yield
    except Exception as error:
        LOG.warning("MLflow %s: %s", what, " ".join(str(error).split())[:300])
