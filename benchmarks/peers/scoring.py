"""Scores a peer's answers as the pipeline scores its own: cross-fitted over the same parts.

A peer has one number to tune, the threshold (or the confidence) of each class. As for the pipeline,
the threshold that counts for an image is chosen on other groups of validation images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.job import Job, read_maps
from benchmarks.peers.project import open_data, test_names
from steelseg.core.arrays import Int64
from steelseg.core.params import read_yaml
from steelseg.data import image_table, label_csv
from steelseg.predict.postprocess import ClassRule, postprocess_maps
from steelseg.predict.predictions import PredictionRow
from steelseg.predict.tiles import as_maps
from steelseg.submit import answers
from steelseg.tune import headline, search
from steelseg.tune.components import ComponentTable
from steelseg.tune.metrics import pair_dice, summarise
from steelseg.tune.search import TuneConfig

THRESHOLDS = [0.01, 0.02, *(round(i / 20, 2) for i in range(1, 20))]
THRESHOLD_ONLY = TuneConfig(
    thresholds=THRESHOLDS, min_component_areas=[0], min_areas=[0], gates=[0.0]
)
ALL_RULES = TuneConfig(thresholds=THRESHOLDS)


def score(job: Job) -> tuple[dict[str, float], list[ClassRule]]:
    """Return the figures of the validation images, and the thresholds for other images.

    `pair_dice_by_our_rules` is what areas and gates would add.
    """
    cache, folds = open_data(job.folder.parent)
    rows = [int(name[1:]) for name in job.validation]
    table = ComponentTable(THRESHOLDS, len(job.classes))
    for name, row in zip(job.validation, rows, strict=True):
        maps = as_maps(read_maps(job, name)).outside(cache.ignored(row))
        table.add(maps.whole(), cache.masks(row))
    groups: Int64 = folds["group"].to_numpy(dtype=np.int64)[rows]
    return figures(table, groups, job.classes), search.search(table, THRESHOLD_ONLY)


def figures(table: ComponentTable, groups: Int64, classes: Sequence[int]) -> dict[str, float]:
    """Return the cross-fitted figures of a table."""
    counts = search.cross_fit(table, THRESHOLD_ONLY, groups).counts
    by_our_rules = search.cross_fit(table, ALL_RULES, groups).counts
    return {
        **summarise(counts, classes),
        **headline.figures(counts, groups),
        "pair_dice_by_our_rules": float(pair_dice(by_our_rules).mean()),
    }


def submit(job: Job, rules: Sequence[ClassRule]) -> Path:
    """Write the answers for the test images as the stage `submit` does."""
    project = job.folder.parent / "project"
    params = read_yaml(project / "params.yaml")
    rows = []
    for name, image in zip(job.test, test_names(job.folder.parent), strict=True):
        found = postprocess_maps(as_maps(read_maps(job, name)), rules)
        pairs = zip(job.classes, found, strict=True)
        rows += [PredictionRow(image, c, f.rle, f.area, f.confidence) for c, f in pairs]
    where = Path(params["data_root"]) / params["dataset"] / "sample_submission.csv"
    sample = label_csv.read(where) if where.exists() else answers.ask_for_all(rows)
    images = image_table.read(project / "data" / "test_images.parquet")
    sizes = dict(zip(images.names, images.sizes_hw, strict=True))
    out = job.folder / "submission.csv"
    answers.write_submission(out, sample, answers.answer(sample, where, rows, sizes))
    return out
