"""The pipeline killed at random moments and resumed, until it ends."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from clones import hashes

from faults.outcome import Outcome, Trial
from faults.processes import Ended, after, finish, interrupt, random_signal, start

REPRO = ("dvc", "repro")
FIRST_S = 3.0  # before that, dvc itself is still starting


def kill_repros(
    fresh_clones: Iterator[Path],
    wanted: dict[str, str],
    seconds: float,
    count: int,
    rng: random.Random,
) -> Iterator[Trial]:
    """Kill `dvc repro` `count` times in as many clones as that takes; resume with the same command.

    Args:
        fresh_clones: of the repository, with the preset that gives `wanted`.
        wanted: the hashes of the undisturbed run's outputs.
        seconds: the latest moment of a kill after a start.
        count: of kills.
        rng: draws moments and signals.
    """
    done = 0
    for folder in fresh_clones:
        if done >= count:
            return
        killed, ended = _until_it_ends(folder, seconds, count - done, rng)
        done += len(killed)
        outcome = _judge(folder, ended, wanted)
        said = "" if outcome is Outcome.SURVIVED else ended.output[-600:]
        for what in killed:
            yield Trial("kill and resume", what, outcome, said)


def _until_it_ends(
    folder: Path, seconds: float, most: int, rng: random.Random
) -> tuple[list[str], Ended]:
    killed: list[str] = []
    log = folder.with_suffix(".log")
    while True:
        process = start(folder, REPRO, log)
        moment, number = rng.uniform(FIRST_S, seconds), random_signal(rng)
        if len(killed) >= most or not interrupt(process, number, after(moment)):
            return killed, finish(process, log)
        ended = finish(process, log)
        killed.append(f"{number.name} after {moment:.1f} s, in {_stage(ended.output)}")


def _stage(output: str) -> str:
    return output.rpartition("Running stage '")[2].partition("'")[0] if "Running" in output else "-"


def _judge(folder: Path, ended: Ended, wanted: dict[str, str]) -> Outcome:
    if ended.returncode != 0:
        return Outcome.LOST
    sound = hashes(folder) == wanted and tracked_once(folder / "mlflow.db")
    return Outcome.SURVIVED if sound else Outcome.WRONG


def tracked_once(store: Path) -> bool:
    """Whether epochs are tracked, each once and none missing, and no run is left RUNNING."""
    with sqlite3.connect(store) as db:
        ((running,),) = db.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'")
        epochs = db.execute("SELECT run_uuid, step FROM metrics WHERE key = 'val_loss'").fetchall()
    by_run: dict[str, list[int]] = {}
    for run, step in epochs:
        by_run.setdefault(run, []).append(step)
    each_once = (sorted(steps) == list(range(len(steps))) for steps in by_run.values())
    return running == 0 and bool(by_run) and all(each_once)
