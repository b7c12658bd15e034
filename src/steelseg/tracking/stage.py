"""Entry point of the stage scripts: prints errors as one message, and ends when DVC ends."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import psutil

from steelseg.core.errors import SteelsegError, in_words

WATCH_SECONDS = 2.0


def run(main: Callable[[], None]) -> None:
    """Run a stage's main function; exit with status 1 and a message if the user can fix the error.

    A SIGTERM ends the stage like a keyboard interrupt, so that its resources are closed. Under DVC,
    the stage ends by itself soon after dvc was killed.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_end_with_dvc, daemon=True).start()
    try:
        main()
    except SteelsegError as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # a full disk, a read-only folder, a missing file
        if error.strerror is None:  # raised by a library, not by the system
            raise
        sys.exit(f"error: {in_words(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _interrupt(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _end_with_dvc() -> None:
    """Interrupt this process when dvc, or a shell between them, has ended.

    DVC starts a stage through a shell, which may or may not replace itself by the stage.
    """
    with suppress(psutil.NoSuchProcess):  # a process may end while it is inspected
        parents = psutil.Process().parents()
        are_dvc = (any("dvc" in word for word in parent.cmdline()[:3]) for parent in parents)
        dvc = next((i for i, is_dvc in enumerate(are_dvc) if is_dvc), 0)
        while all(ancestor.is_running() for ancestor in parents[: dvc + 1]):
            time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
