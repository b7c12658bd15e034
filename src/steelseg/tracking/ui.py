"""The command `ui`: MLflow's server on this machine, with the right store."""

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator

from steelseg.tracking.mlflow_run import ui_command


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `ui` to a parser and return what runs it."""
    parser.description = (
        "Serve the MLflow UI at 127.0.0.1, with the store that the stages log to: "
        "MLFLOW_TRACKING_URI if that is set, else mlflow.db in this folder."
    )
    parser.add_argument("--port", type=int, default=5000, help="of the server (default: 5000)")
    return _serve


def _serve(arguments: Namespace) -> Iterator[str]:
    """Replace this process by the MLflow server."""
    yield f"MLflow UI: http://127.0.0.1:{arguments.port}"
    words = [*shlex.split(ui_command()), "--port", str(arguments.port)]
    os.execvp(words[0], words)  # noqa: S606 - our own command, without a shell
