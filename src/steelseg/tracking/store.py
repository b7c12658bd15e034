"""The store of the MLflow runs, and the command `ui` that shows them."""

import fcntl
import logging
import os
import re
import shlex
import socket
import sqlite3
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steelseg.core.errors import SteelsegError
from steelseg.core.files import atomic_path, repository_root

EXPERIMENT = "steelseg"
VIEW = "scores"  # the key of the saved view that the UI opens with
UI = ["ui", "--host", "127.0.0.1", "--backend-store-uri"]
LOCK_SECONDS = 60.0  # to wait for another process that locks the store
SERVER_SECONDS = 10.0  # for a tracking server to accept a connection
HABITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # the default of 7 takes two minutes per call
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines per stage run
}


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `ui` to a parser and return the function that runs it."""
    parser.description = (
        "Show the experiments in MLflow's UI at 127.0.0.1, from the store that the stages log to: "
        "MLFLOW_TRACKING_URI if set, else mlflow.db in this folder."
    )
    parser.add_argument("--port", type=int, default=5000, help="port of the server (default: 5000)")
    return _serve


def store_uri() -> str:
    """Return the store's URI: MLFLOW_TRACKING_URI, or mlflow.db of the (original) repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _local_store()


def is_local() -> bool:
    """Whether the store is mlflow.db of the (original) repository.

    The environment variable does not tell, since MLflow sets it too.
    """
    return store_uri() == _local_store()


def ui_command() -> str:
    """Return the command that shows the runs in a browser; for a tracking server, its address."""
    if _is_server(store_uri()):
        return _shown()
    where = shlex.quote(_shown()) if is_local() else '"$MLFLOW_TRACKING_URI"'
    return f"{shlex.join(['mlflow', *UI])} {where}"


@contextmanager
def open_store(advice: str = "") -> Iterator[Any]:
    """Yield MLflow's client for the store.

    Raises:
        SteelsegError: the store cannot be reached or fails in the block; `advice` is added to the
            message.
    """
    for name, value in HABITS.items():
        os.environ.setdefault(name, value)
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = store_uri()
    try:
        _make_whole(uri)
        _look_at(uri)
        mlflow.set_tracking_uri(uri)
        yield mlflow.MlflowClient(uri)
    except (mlflow.MlflowException, SQLAlchemyError, OSError, sqlite3.Error) as error:
        reason = " ".join(str(error).split())[:300]
        raise SteelsegError(
            f"the MLflow store {_shown()} cannot be used: {reason}{advice}"
        ) from error


@contextmanager
def first_come() -> Iterator[None]:
    """Hold a lock, so that one process at a time creates store, experiment and parent run."""
    with (repository_root() / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_whole(uri: str) -> None:
    """Create the database atomically if it does not exist.

    MLflow creates its tables one by one, and rejects a database in which some are missing.
    """
    from mlflow import MlflowClient
    from sqlalchemy import make_url

    url = make_url(uri) if uri.startswith("sqlite:///") else None
    if url is None or not url.database:
        return
    path = Path(url.database)
    with first_come():
        is_there = path.exists() and path.stat().st_size > 0
        if is_there or not os.access(path.parent, os.W_OK):  # `_look_at` reports why it is unusable
            return
        with atomic_path(path) as temporary:
            # relative if the store's path is relative
            database = os.path.join(os.path.dirname(url.database), temporary.name)
            MlflowClient(url.set(database=database).render_as_string()).search_experiments()


def _look_at(uri: str) -> None:
    """Check that a store can be reached, since MLflow itself would retry for minutes.

    Raises:
        OSError: no server listens at the address.
        sqlite3.Error: the file is not a database, cannot be opened, or was locked by another
            process for a minute.
    """
    from sqlalchemy import make_url

    if _is_server(uri):
        server = urlsplit(uri)
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname or "", port), SERVER_SECONDS).close()
    elif uri.startswith("sqlite:///"):
        path = make_url(uri).database or ""
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            database.execute("PRAGMA schema_version").fetchone()


def _serve(arguments: Namespace) -> Iterator[str]:
    """Replace this process by an MLflow server, unless the store is a server already."""
    uri = store_uri()
    with open_store() as client:
        experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = f"experiments/{experiment.experiment_id}/runs" if experiment else "experiments"
    # by default MLflow opens its pages for LLMs
    page = f"#/{runs}?workflowType=machine_learning&viewStateShareKey={VIEW}"
    if _is_server(uri):
        yield f"MLflow: {_shown()}/{page}"
        return
    yield f"MLflow: http://127.0.0.1:{arguments.port}/{page}"
    yield "Where it says GenAI at the top left, click Model training: your browser remembers it"
    words = [sys.executable, "-m", "mlflow", *UI, uri, "--port", str(arguments.port)]
    # one process, without the features for LLMs: 0.5 GB of memory instead of 2.3 GB
    words += ["--workers", "1"]
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(sys.executable, words)  # noqa: S606 - our own command, without a shell


def _local_store() -> str:
    """Return the URI of mlflow.db, relative if its path has characters such as `%` and `?`.

    MLflow would create folders with the quoted names.
    """
    path = repository_root() / "mlflow.db"
    address = _sqlite(path)
    return address if address == f"sqlite:///{path}" else _sqlite(os.path.relpath(path))


def _sqlite(path: str | Path) -> str:
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in {"http", "https"}


def _shown() -> str:
    """Return the store's address to show: absolute, and without a password."""
    uri = _sqlite(repository_root() / "mlflow.db") if is_local() else store_uri()
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)
