"""The command line: `python -m steelseg summary` and `python -m steelseg ui`."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from steelseg.errors import SteelsegError
from steelseg.summary import summarise
from steelseg.tracking import ui_command


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m steelseg", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("summary", help="say how good the last run is and where its results lie")
    ui = commands.add_parser("ui", help="serve the MLflow UI on this machine")
    ui.add_argument("--port", type=int, default=5000, help="of the server (default: 5000)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "summary":
            print(summarise(Path()))
        else:
            serve_ui(arguments.port)
    except SteelsegError as error:
        sys.exit(f"error: {error}")


def serve_ui(port: int) -> None:
    """Replace this process by the MLflow server."""
    print(f"MLflow UI: http://127.0.0.1:{port}", flush=True)
    command = [*shlex.split(ui_command()), "--port", str(port)]
    os.execvp(command[0], command)  # noqa: S606 - our own command, without a shell


if __name__ == "__main__":
    main()
