"""The history of a training: a row of scores an epoch, as csv for plots, and the best epoch."""

import csv
from collections.abc import Sequence
from pathlib import Path

from steelseg.files import atomic_path

TIMINGS = frozenset({"train_images_per_second", "val_images_per_second"})  # differ in every run

Scores = dict[str, float]


def write_history(path: Path, history: Sequence[Scores]) -> None:
    """Write all scores but the timings as csv, a row an epoch; a score may be missing in a row."""
    names = {name for row in history for name in row} - TIMINGS - {"epoch"}
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *sorted(names)], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)


def validation_scores(row: Scores) -> Scores:
    """Return the validation scores of an epoch under plain names."""
    return {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}


def without_timings(scores: Scores) -> Scores:
    """Leave out what differs from run to run."""
    return {name: value for name, value in scores.items() if f"val_{name}" not in TIMINGS}
