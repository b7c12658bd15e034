"""Commands that are killed while they run."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from clones import environment

PATIENCE_S = 240.0
Stop = Callable[[], bool]


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    output: str


def start(folder: Path, command: Sequence[str], log: Path, **variables: str) -> subprocess.Popen:
    """Start a command as the head of a process group of its own, as a shell does."""
    with log.open("w") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, log: Path, patience: float = PATIENCE_S) -> Ended:
    """Wait for a command; one that hangs is killed and counts as failed without a message."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Ended(-signal.SIGKILL, f"Traceback: hung for {patience} s\n{log.read_text()}")
    return Ended(process.returncode, log.read_text(errors="replace"))


def interrupt(process: subprocess.Popen, number: signal.Signals, when: Stop) -> bool:
    """Send a signal to a command's process group at the moment `when`; False if it ended before."""
    while not when():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def after(seconds: float) -> Stop:
    """Return a condition that becomes true after some seconds."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def random_signal(rng: random.Random) -> signal.Signals:
    """Draw a signal: mostly the one that leaves no time for anything."""
    return rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [3, 1, 1])[0]
