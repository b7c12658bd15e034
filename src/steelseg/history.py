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


def best_scores(history: Sequence[Scores], best_epoch: int) -> Scores:
    """Return the validation scores of the best epoch under plain names, and its number."""
    row = history[best_epoch]
    scores = {
        name.removeprefix("val_"): value
        for name, value in row.items()
        if name.startswith("val_") and name not in TIMINGS
    }
    return {"best_epoch": best_epoch, **scores}
