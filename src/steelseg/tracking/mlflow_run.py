"""Tracking with MLflow for the stages: `with stage_run("train") as tracker`."""

import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelseg.tracking import provenance, runs
from steelseg.tracking.experiment import open_experiment
from steelseg.tracking.store import first_come, open_store, store_uri
from steelseg.tracking.tracker import MlflowTracker, Tracker, survived

SWITCH = "STEELSEG_TRACKING"  # `off` runs without MLflow
SAMPLING_SECONDS = 10.0  # between two samples of the system metrics


@contextmanager
def stage_run(
    stage: str,
    folder: Path | None = None,
    trained: Mapping[str, Any] | None = None,
    *,
    active: bool = True,
) -> Iterator[Tracker]:
    """Yield the tracker of the stage that is running.

    The run ends FINISHED, or FAILED with the traceback as a tag when the block raises.

    Args:
        stage: its name in dvc.yaml.
        folder: survives an interruption, so that a resumed stage continues its run.
        trained: the facts of the training, as in `models/model.json`, which is read if this is
            not given.
        active: False yields a tracker that logs nothing.

    Raises:
        SteelsegError: the tracking store cannot be reached.
    """
    if not active or os.environ.get(SWITCH) == "off":
        yield Tracker()
        return
    tracker = _start(stage, folder, provenance.card() if trained is None else trained)
    try:
        with _system_metrics(tracker):
            yield tracker
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _end(tracker, "KILLED" if is_stopped else "FAILED", traceback.format_exc()[-5000:])
        raise
    _end(tracker, "FINISHED")


def _end(tracker: MlflowTracker, status: str, trace: str | None = None) -> None:
    """Close both runs; a store that has gone away must not fail a finished stage."""
    with survived(f"did not record that the stage is {status}"):
        if trace:
            tracker.client.set_tag(tracker.run_id, "traceback", trace)
        for run_id in (tracker.run_id, tracker.parent_id):
            tracker.client.set_terminated(run_id, status)


def _start(stage: str, folder: Path | None, trained: Mapping[str, Any]) -> MlflowTracker:
    advice = f". Set MLFLOW_TRACKING_URI, or {SWITCH}=off to run without tracking"
    with open_store(advice) as client, first_come():
        experiment = open_experiment(client)
        runs.bury(client, experiment)
        parent_id = runs.experiment_run(client, experiment, trained)
        run_id = runs.stage_run(client, experiment, parent_id, stage, folder)
        dataset = provenance.dataset(trained)
        if dataset:
            client.log_inputs(parent_id, provenance.inputs(dataset, "train"))
            client.log_inputs(run_id, provenance.inputs(dataset, stage))
    return MlflowTracker(client, run_id, parent_id, dataset)


@contextmanager
def _system_metrics(tracker: MlflowTracker) -> Iterator[None]:
    """Log the use of processors, memory, disk and network while the block runs."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    make: Any = SystemMetricsMonitor  # which ships no types
    monitor = make(tracker.run_id, SAMPLING_SECONDS, resume_logging=True, tracking_uri=store_uri())
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
