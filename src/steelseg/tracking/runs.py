"""The runs in MLflow: one per experiment, with one child run per executed stage.

No run id is in any output that DVC hashes, or else a cached stage would log to an old run. The
experiment's run is found by its key instead, and a stage that DVC does not execute logs nothing.
"""

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from steelseg.core.files import read_json, sha256, write_json
from steelseg.core.params import PARAMS
from steelseg.tracking import provenance

KEY_TAG = "steelseg.key"
STAGE_TAG = "steelseg.stage"
TOKEN_TAG, TOKEN_FILE = "steelseg.token", "mlflow_run.json"
PROCESS_TAG = "process"  # of a stage's run: process id and start time


def experiment_run(client: Any, experiment: str, trained: Mapping[str, Any]) -> str:
    """Find or create the run of the experiment that is running, and return its id.

    Args:
        client: MLflow's client.
        experiment: the id of the MLflow experiment.
        trained: the facts of the training, as in `models/model.json`.
    """
    from mlflow.entities import Param

    name = os.environ.get("DVC_EXP_NAME")
    key = _key(name, trained)
    runs = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if runs:
        run_id = str(runs[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {KEY_TAG: key, "mlflow.runName": name or f"repro-{key[:6]}"}
        tags |= provenance.experiment_tags(trained)
        run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    # even if the run exists: it may have been killed before it got here
    values = provenance.experiment_params(trained)
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])
    return run_id


def _key(name: str | None, trained: Mapping[str, Any]) -> str:
    """Return a hash that identifies an experiment: of name, params, data, and code if unnamed."""
    used = [trained.get(entry) for entry in ("training", "cache", "folds")]
    parts = [str(name), sha256(PARAMS), json.dumps(used, sort_keys=True)]
    if name is None:
        parts += [provenance.code_digest("train"), provenance.code_digest("tune_threshold")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def stage_run(client: Any, experiment: str, parent: str, stage: str, folder: Path | None) -> str:
    """Find the run of an interrupted stage, or create one, and return its id.

    The run is tagged as this process's.
    """
    token = _token(folder)
    runs = client.search_runs([experiment], f"tags.`{TOKEN_TAG}` = '{token}'", max_results=1)
    if runs:
        run_id = str(runs[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        # includes the experiment's name, since charts show children of several experiments
        name = client.get_run(parent).info.run_name
        tags = {"mlflow.parentRunId": parent, "mlflow.runName": f"{name}/{stage}"}
        tags |= {STAGE_TAG: stage, TOKEN_TAG: token, **provenance.stage_tags(stage)}
        run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    client.set_tag(run_id, PROCESS_TAG, f"{os.getpid()} {psutil.Process().create_time()}")
    return run_id


def _token(folder: Path | None) -> str:
    """Return the token by which a stage's run is found again; the folder keeps it.

    It is written before the run is created, so that a kill never leaves a run that cannot be
    resumed.
    """
    if folder is None:
        return uuid.uuid4().hex
    path = folder / TOKEN_FILE
    if not path.is_file():
        write_json(path, {"token": uuid.uuid4().hex})
    return str(read_json(path)["token"])


def bury(client: Any, experiment: str) -> None:
    """Mark this machine's RUNNING runs without a process as KILLED, with their experiments' runs.

    A stage that resumes such a run sets it to RUNNING again.
    """
    query = f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment], query):
        process = run.data.tags.get(PROCESS_TAG)
        if process is not None and not _is_alive(process):
            client.set_terminated(run.info.run_id, "KILLED")
            client.set_terminated(run.data.tags["mlflow.parentRunId"], "KILLED")


def _is_alive(process: str) -> bool:
    number, started = process.split()
    try:
        return str(psutil.Process(int(number)).create_time()) == started
    except psutil.Error:
        return False
