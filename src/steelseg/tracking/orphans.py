"""Runs whose process was killed without a word, and which would be RUNNING for ever."""

import os
import socket
from typing import Any

import psutil

PROCESS_TAG = "process"  # of a stage's run: process id and start time


def mark(client: Any, run_id: str) -> None:
    """Note in a run that this process works on it."""
    client.set_tag(run_id, PROCESS_TAG, f"{os.getpid()} {psutil.Process().create_time()}")


def bury(client: Any, experiment: str) -> None:
    """End the runs of this machine that are RUNNING without a process, and their experiments'.

    A stage that goes on with such a run sets it RUNNING again.
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
