"""The runs of MLflow: one per experiment, and below it one per stage that was executed.

No run id is written into any output that DVC hashes: a cached stage would then write into an old
run. The experiment's run is found by its key instead, and a stage that DVC does not execute logs
nothing.
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
    """Find the run of the experiment that is being executed, or create it; returns its id.

    Args:
        client: of MLflow.
        experiment: where the runs are kept.
        trained: what the model is trained with, as `models/model.json` has it.
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
    # again if they are there: a kill may have come between
    values = provenance.experiment_params(trained)
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])
    return run_id


def _key(name: str | None, trained: Mapping[str, Any]) -> str:
    """Tell experiments apart: by name, params and data, and by the code where DVC gives no name."""
    used = [trained.get(entry) for entry in ("training", "cache", "folds")]
    parts = [str(name), sha256(PARAMS), json.dumps(used, sort_keys=True)]
    if name is None:
        parts += [provenance.code_digest("train"), provenance.code_digest("tune_threshold")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def stage_run(client: Any, experiment: str, parent: str, stage: str, folder: Path | None) -> str:
    """Find the run that an interrupted stage began, or create one; returns its id.

    It is marked as this process's.
    """
    token = _token(folder)
    runs = client.search_runs([experiment], f"tags.`{TOKEN_TAG}` = '{token}'", max_results=1)
    if runs:
        run_id = str(runs[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        # with the experiment in its name, since a chart shows the children of many side by side
        name = client.get_run(parent).info.run_name
        tags = {"mlflow.parentRunId": parent, "mlflow.runName": f"{name}/{stage}"}
        tags |= {STAGE_TAG: stage, TOKEN_TAG: token, **provenance.stage_tags(stage)}
        run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    client.set_tag(run_id, PROCESS_TAG, f"{os.getpid()} {psutil.Process().create_time()}")
    return run_id


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


def bury(client: Any, experiment: str) -> None:
    """End the runs of this machine that are RUNNING without a process, and their experiments'.

    Their process was killed without a word. A stage that goes on with one sets it RUNNING again.
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
