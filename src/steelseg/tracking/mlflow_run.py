"""Experiment tracking with MLflow: a run per experiment, and under it a run per executed stage.

No run id is written into any output that DVC hashes: a cached stage would then write into an old
run. The parent is found by its key instead, and a stage that DVC does not execute logs nothing.
"""

import fcntl
import hashlib
import logging
import os
import shlex
import socket
import sqlite3
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steelseg.core.errors import SteelsegError
from steelseg.core.files import read_json, repository_root, sha256, write_json
from steelseg.core.params import PARAMS, read_yaml
from steelseg.tracking import orphans
from steelseg.tracking.provenance import experiment_tags, run_tags, stage_tags

EXPERIMENT = "steelseg"
KEY_TAG = "steelseg.key"
STAGE_TAG = "steelseg.tracking.stage"
SWITCH = "STEELSEG_TRACKING"  # `off` runs without MLflow
TOKEN_TAG, TOKEN_FILE = "steelseg.token", "mlflow_run.json"
LOCK_SECONDS = 60.0  # that the store may be locked by another
SERVER_SECONDS = 10.0  # that a tracking server may take to pick up
SAMPLING_SECONDS = 10.0  # between two looks at the machine


class Tracker:
    """Logs nothing: for when tracking is off, and for processes other than the first."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that mattered."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores, once however often they are told, to the experiment's run too."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the numbers that an experiment is compared by, to the experiment's own run too."""

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's own run, where people look."""


class MlflowTracker(Tracker):
    """Logs to the run of one stage, and summaries to the run of its experiment."""

    def __init__(self, client: Any, run_id: str, parent_id: str) -> None:
        """Write to runs that exist."""
        self.client = client
        self.run_id = run_id
        self.parent_id = parent_id
        self._epochs: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; those that a resumed run has already must be the same."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in sorted(values.items())]
        self.client.log_batch(self.run_id, params=entries)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._metrics(self.run_id, values, 0)

    def epoch(self, scores: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's scores to the stage's run, and to the experiment's, which charts compare.

        A run that has them already, from before an interruption, is left as it is.
        """
        curves = {name: value for name, value in scores.items() if name != "epoch"}
        for run_id in (self.run_id, self.parent_id):
            if run_id not in self._epochs:
                known = self.client.get_metric_history(run_id, min(curves))
                self._epochs[run_id] = {metric.step for metric in known}
            if epoch not in self._epochs[run_id]:
                self._metrics(run_id, curves, epoch)
                self._epochs[run_id].add(epoch)

    def summary(self, values: Mapping[str, float]) -> None:
        """Log numbers to the stage's run and to the experiment's."""
        for run_id in (self.run_id, self.parent_id):
            self._metrics(run_id, values, 0)

    def tag(self, name: str, value: str) -> None:
        """Tag the stage's run."""
        self.client.set_tag(self.run_id, name, value)

    def artifact(self, path: Path) -> None:
        """Log a file to the experiment's own run."""
        self.client.log_artifact(self.parent_id, str(path))

    def _metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        entries = [Metric(name, value, now, step) for name, value in sorted(values.items())]
        try:
            self.client.log_batch(run_id, metrics=entries)
        except MlflowException as error:  # hours of training are worth more than a curve
            message = "MLflow lost the metrics of step %s: %s"
            logging.getLogger(__name__).warning(message, step, error)


def store_uri() -> str:
    """Return the tracking store: MLFLOW_TRACKING_URI, or mlflow.db of the (parent) repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _local_store()


def ui_command() -> str:
    """Return the command that shows the runs in a browser."""
    return f"mlflow ui --host 127.0.0.1 --backend-store-uri {shlex.quote(store_uri())}"


@contextmanager
def stage_run(stage: str, folder: Path | None = None, *, active: bool = True) -> Iterator[Tracker]:
    """Yield the tracker of a stage that is being executed.

    The run ends FINISHED, or FAILED with the traceback as a tag when the block raises. With a
    `folder` that survives an interruption, a resumed stage goes on with the run that it began.

    Raises:
        SteelsegError: the tracking store cannot be reached.
    """
    if not active or os.environ.get(SWITCH) == "off":
        yield Tracker()
        return
    tracker = _start(stage, folder)
    try:
        with _system_metrics(tracker):
            yield tracker
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _end(tracker, "KILLED" if is_stopped else "FAILED", traceback.format_exc()[-5000:])
        raise
    _end(tracker, "FINISHED")


def _end(tracker: MlflowTracker, status: str, trace: str | None = None) -> None:
    """Close both runs; what the stage has written counts more than a store that has gone away."""
    from mlflow.exceptions import MlflowException

    try:
        if trace:
            tracker.client.set_tag(tracker.run_id, "traceback", trace)
        for run_id in (tracker.run_id, tracker.parent_id):
            tracker.client.set_terminated(run_id, status)
    except MlflowException as error:
        message = "MLflow does not know that the stage is %s: %s"
        logging.getLogger(__name__).warning(message, status, error)


def _start(stage: str, folder: Path | None) -> MlflowTracker:
    import mlflow
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(store_uri())
    try:
        with _first_come():
            _look_at(store_uri())
            client = mlflow.MlflowClient(store_uri())
            experiment = _experiment(client)
            orphans.bury(client, experiment)
            parent = _parent(client, experiment)
            token = _token(folder)
            run_id = _resumed(client, experiment, token) or _child(
                client, experiment, parent, {STAGE_TAG: stage, TOKEN_TAG: token}
            )
            orphans.mark(client, run_id)
    except (MlflowException, OSError, sqlite3.Error) as error:
        reason = " ".join(str(error).split())[:300]
        raise SteelsegError(
            f"the MLflow store {store_uri()} cannot be used: {reason}. Set MLFLOW_TRACKING_URI, "
            f"or {SWITCH}=off to run without tracking"
        ) from error
    return MlflowTracker(client, run_id, parent)


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


@contextmanager
def _first_come() -> Iterator[None]:
    """Let one process at a time create the store, the experiment and the parent run."""
    with (repository_root() / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _look_at(uri: str) -> None:
    """See whether a store is there: MLflow tries again for minutes where that is in vain.

    Raises:
        OSError: no server listens where it should be.
        sqlite3.Error: the file is no database, or another process has kept it locked for a minute.
    """
    server = urlsplit(uri)
    if server.scheme in {"http", "https"}:
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname or "", port), SERVER_SECONDS).close()
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and path.exists():
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            database.execute("PRAGMA schema_version").fetchone()


def _experiment(client: Any) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # not by the environment: MLflow puts there what it is told
    is_local = store_uri() == _local_store()
    location = (repository_root() / "mlartifacts").as_uri() if is_local else None
    tags = {"mlflow.experimentKind": "custom_model_development"}  # what the UI opens with
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags))


def _parent(client: Any, experiment: str) -> str:
    from mlflow.entities import Param

    name = os.environ.get("DVC_EXP_NAME")
    key = _key(name)
    runs = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if runs:
        client.update_run(runs[0].info.run_id, status="RUNNING")
        return str(runs[0].info.run_id)
    tags = {KEY_TAG: key, "mlflow.runName": name or f"repro-{key[:6]}", **experiment_tags()}
    run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    params = [Param(key, value) for key, value in _flatten(read_yaml(PARAMS))]
    client.log_batch(run_id, params=params)
    return run_id


def _key(name: str | None) -> str:
    """Tell experiments apart: by name and params, and by the code where DVC gives no name."""
    parts = [str(name), sha256(PARAMS)]
    if name is None:
        code = Path(__file__).parents[1].rglob("*.py")
        parts += [sha256(path) for path in sorted(code)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _child(client: Any, experiment: str, parent: str, own_tags: Mapping[str, str]) -> str:
    # with the experiment in its name, since a chart shows the children of many side by side
    name, stage = client.get_run(parent).info.run_name, own_tags[STAGE_TAG]
    tags = {
        "mlflow.parentRunId": parent,
        "mlflow.runName": f"{name}/{stage}",
        **own_tags,
        **run_tags(),
        **stage_tags(stage),
    }
    return str(client.create_run(experiment, tags=tags).info.run_id)


def _token(folder: Path | None) -> str:
    """Return what a stage's run is found again by; it outlives an interruption in the folder.

    It is written before the run is created, so that no moment leaves a run that nobody goes on
    with.
    """
    if folder is None:
        return uuid.uuid4().hex
    path = folder / TOKEN_FILE
    if not path.is_file():
        write_json(path, {"token": uuid.uuid4().hex})
    return str(read_json(path)["token"])


def _resumed(client: Any, experiment: str, token: str) -> str | None:
    runs = client.search_runs([experiment], f"tags.`{TOKEN_TAG}` = '{token}'", max_results=1)
    if not runs:
        return None
    run_id = str(runs[0].info.run_id)
    client.update_run(run_id, status="RUNNING")
    return run_id


def _local_store() -> str:
    return f"sqlite:///{repository_root() / 'mlflow.db'}"
