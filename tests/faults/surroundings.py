"""A disk that is full, and a tracking store that is out of reach or locked."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from faults.outcome import Trial
from faults.workplace import Workplace

SMALL_FILES = ("bash", "-c", 'ulimit -f 1; exec "$@"', "bash")  # none over 1 KiB can be written
LOCKED_S = 8.0


def full_disk(place: Workplace, stages: tuple[str, ...]) -> Iterator[Trial]:
    """Run stages that cannot write files of the size they need."""
    for stage in stages:
        yield place.try_fault("disk full", "files end at 1 KiB", stage, _nothing, SMALL_FILES)


def store_out_of_reach(place: Workplace, stage: str = "predict") -> Iterator[Trial]:
    """Run a stage with a tracking store that cannot be used."""
    kind = "store unreachable"
    (place.folder / "mlflow.db").unlink(missing_ok=True)
    nowhere = {"MLFLOW_TRACKING_URI": "sqlite:////proc/no/such/place.db"}
    yield place.try_fault(
        kind, "no such folder", stage, _nothing, STEELSEG_TRACKING="on", **nowhere
    )
    unknown = {"MLFLOW_TRACKING_URI": "nosuch://store"}
    yield place.try_fault(kind, "no such kind", stage, _nothing, STEELSEG_TRACKING="on", **unknown)
    silent = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}  # a port that nobody listens on
    yield place.try_fault(kind, "no server", stage, _nothing, STEELSEG_TRACKING="on", **silent)
    yield place.try_fault(kind, "a folder is in its place", stage, _folder, STEELSEG_TRACKING="on")
    (place.folder / "mlflow.db").rmdir()
    yield place.try_fault(kind, "no database", stage, _no_database, STEELSEG_TRACKING="on")
    (place.folder / "mlflow.db").unlink()


def store_locked(place: Workplace, stage: str = "predict") -> Iterator[Trial]:
    """Run a stage while another process holds the store's lock, for a while."""
    assert place.run(stage, STEELSEG_TRACKING="on").returncode == 0  # which creates the store
    yield place.try_fault("store locked", f"{LOCKED_S} s", stage, _lock, STEELSEG_TRACKING="on")


def _nothing(_: Path) -> None:
    """Leave the files as they are."""


def _folder(folder: Path) -> None:
    (folder / "mlflow.db").mkdir()


def _no_database(folder: Path) -> None:
    (folder / "mlflow.db").write_bytes(b"no database " * 1000)


def _lock(folder: Path) -> None:
    def hold() -> None:
        with sqlite3.connect(folder / "mlflow.db", isolation_level=None) as db:
            db.execute("BEGIN EXCLUSIVE")
            time.sleep(LOCKED_S)
            db.execute("ROLLBACK")

    threading.Thread(target=hold).start()
