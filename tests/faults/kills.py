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
DVC_NOTE = Path(".dvc/tmp/rwlock")  # of who reads and writes what; DVC writes it in place


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
        for what, met in killed:
            yield Trial(
                "kill and resume", what, met if outcome is Outcome.SURVIVED else outcome, said
            )


def mend(folder: Path, ended: Ended) -> bool:
    """Do what docs/experiments.md says of a note of DVC's own that was cut short, if DVC names it.

    Returns:
        Whether it was so.
    """
    if ended.returncode == 0 or str(DVC_NOTE) not in ended.output:
        return False
    (folder / DVC_NOTE).unlink()
    return True


def _until_it_ends(
    folder: Path, seconds: float, most: int, rng: random.Random
) -> tuple[list[tuple[str, Outcome]], Ended]:
    killed: list[tuple[str, Outcome]] = []
    log = folder.with_suffix(".log")
    while True:
        process = start(folder, REPRO, log)
        moment, number = rng.uniform(FIRST_S, seconds), random_signal(rng)
        if len(killed) < most and interrupt(process, number, after(moment)):
            what = f"{number.name} after {moment:.1f} s, in {_stage(finish(process, log).output)}"
            killed.append((what, Outcome.SURVIVED))
            continue
        ended = finish(process, log)
        if not (killed and mend(folder, ended)):
            return killed, ended
        killed[-1] = (killed[-1][0], Outcome.REFUSED)


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
