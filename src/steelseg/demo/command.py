"""The command `demo`: serves `page.py` on this machine by Streamlit (an extra)."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from steelseg.core.errors import SteelsegError

PAGE = Path(__file__).with_name("page.py")
SETTINGS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",  # do not open a browser or ask for an e-mail address
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
}


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `demo` to a parser and return the function that runs it."""
    parser.description = (
        "Serve a page at 127.0.0.1: click an image of the data set or drop one of your own, see "
        "what the model finds, move thresholds and areas, and download the RLE rows."
    )
    add = parser.add_argument
    add("--port", type=int, default=8501, help="port of the server (default: 8501)")
    add(
        "--model", default="models", help="a folder (default: models), or models:/steelseg@champion"
    )
    add(
        "--runtime",
        choices=["auto", "torch", "onnx"],
        default="auto",
        help="what runs the network (default: torch on a GPU, else onnx)",
    )
    return _serve


def _serve(arguments: Namespace) -> Iterator[str]:
    """Replace this process by the server of Streamlit."""
    if find_spec("streamlit") is None:
        raise SteelsegError("the demo needs the extra packages: `make setup-extras` installs them")
    yield f"demo: http://127.0.0.1:{arguments.port}"
    settings = {**SETTINGS, "server.port": str(arguments.port)}
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    words = [sys.executable, "-m", "streamlit", "run", str(PAGE), *options]
    words += ["--", arguments.model, arguments.runtime]
    os.execv(words[0], words)  # noqa: S606 - our own command, without a shell
