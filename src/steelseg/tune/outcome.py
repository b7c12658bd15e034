"""The results of tune_threshold on the validation images, for the report and users.

`data/validation.parquet` has one row per image and class, `data/landscape.json` each class's
score over the grid of thresholds and smallest components.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from steelseg.core import sealed
from steelseg.core.arrays import Float64, Int64
from steelseg.core.errors import BadInput
from steelseg.predict.postprocess import ClassRule
from steelseg.tune import search
from steelseg.tune.components import ComponentTable
from steelseg.tune.matching import Matching
from steelseg.tune.metrics import PREDICTED, TRUE, TRUE_POSITIVE
from steelseg.tune.search import TuneConfig


def _list(of: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", of))  # as Parquet reads it back, which the checksum covers


_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("group", pa.int64()),
        ("class_id", pa.int64()),
        ("confidence", pa.float32()),
        ("raw_confidence", pa.float32()),
        ("true", pa.int64()),
        ("predicted", pa.int64()),
        ("true_positive", pa.int64()),
        ("honest_predicted", pa.int64()),
        ("honest_true_positive", pa.int64()),
        ("honest_rle", pa.string()),
        ("defect_sizes", _list(pa.int64())),
        ("defects_found", _list(pa.bool_())),
        ("false_components", pa.int64()),
    ]
)


class Landscape(NamedTuple):
    """The mean Dice of each class over thresholds and component areas: a (T, A) array each."""

    thresholds: list[float]
    min_component_areas: list[int]
    by_class: dict[int, Float64]


def write_validation(
    path: Path,
    names: Sequence[str],
    groups: Int64,
    rules: Mapping[int, ClassRule],
    table: ComponentTable,
    honest: Int64,
    confidences: Float64,
    matchings: Sequence[Sequence[Matching]],
) -> None:
    """Write the table as Parquet, whole or not at all.

    Args:
        path: the file.
        names: N images.
        groups: (N,) labels.
        rules: the tuned rule of each of C classes, in channel order.
        table: of the images.
        honest: (N, C, 3) pixels under rules chosen without the image, see `search.cross_fit`.
        confidences: (N, C), calibrated without the image, see `headline.calibrated`.
        matchings: of N images, C classes each, under rules chosen without the image; what is kept
            is the RLE of what was found, the longer side of each true component in pixels, whether
            it was found, and how many found components are false.
    """
    every = [one for of_image in matchings for one in of_image]
    raw = np.stack([table.confidences(c) for c in range(len(rules))], axis=1)
    counts = search.count(table, list(rules.values()))
    columns = [
        np.repeat(names, len(rules)),
        np.repeat(groups, len(rules)),
        np.tile(list(rules), len(names)),
        confidences.ravel(),
        raw.ravel(),
        counts[..., TRUE].ravel(),
        counts[..., PREDICTED].ravel(),
        counts[..., TRUE_POSITIVE].ravel(),
        honest[..., PREDICTED].ravel(),
        honest[..., TRUE_POSITIVE].ravel(),
        [one.found for one in every],
        [one.true_sizes for one in every],
        [one.coverage > 0 for one in every],
        [one.n_false for one in every],
    ]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, _SCHEMA, strict=True)]
    sealed.write_sealed_table(path, pa.table(arrays, schema=_SCHEMA))


def read_validation(path: Path) -> pd.DataFrame:
    """Read what `write_validation` wrote, images in their order and the classes of each together.

    Raises:
        BadInput: the file is missing, damaged, or has other columns.
    """
    table = sealed.read_sealed_table(path)
    if table.schema != _SCHEMA:
        raise BadInput(f"{path}: was not written by tune_threshold; run `dvc repro`")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def counts_of(table: pd.DataFrame, *, honest: bool = False) -> Int64:
    """Return the pixel counts (N, C, 3) of a table."""
    prefix = "honest_" if honest else ""
    columns = [f"{prefix}true_positive", f"{prefix}predicted", "true"]
    n_classes = table["class_id"].nunique()
    counts: Int64 = table[columns].to_numpy(dtype=np.int64).reshape(-1, n_classes, 3)
    return counts


def landscape_of(table: ComponentTable, classes: Sequence[int], config: TuneConfig) -> Landscape:
    """Compute each class's landscape over the grid of a search."""
    heights = [search.landscape(table, c, config) for c in range(len(classes))]
    by_class = dict(zip(classes, heights, strict=True))
    return Landscape(config.thresholds, config.min_component_areas, by_class)


def write_landscape(path: Path, landscape: Landscape) -> None:
    """Write a landscape as JSON with a checksum."""
    by_class = {str(c): scores.tolist() for c, scores in landscape.by_class.items()}
    sealed.write_sealed_json(path, {**landscape._asdict(), "by_class": by_class})


def read_landscape(path: Path) -> Landscape:
    """Read what `write_landscape` wrote.

    Raises:
        BadInput: the file is missing, damaged, or was written by another stage.
    """
    document: dict[str, Any] = sealed.read_sealed_json(path)
    try:
        by_class = {int(c): np.array(scores) for c, scores in document["by_class"].items()}
        return Landscape(document["thresholds"], document["min_component_areas"], by_class)
    except KeyError as error:
        raise BadInput(f"{path}: was not written by tune_threshold: no {error}") from error
