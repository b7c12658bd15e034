"""Predictions as rows of a Parquet file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_table, write_sealed_table

_BATCH_ROWS = 1024


class PredictionRow(NamedTuple):
    """One class of one image: its mask as RLE (empty for none), area and confidence.

    `confidence`, `alarm` and `area_mm2` are those of `Finding`.
    """

    image: str
    class_id: int
    rle: str
    area: int
    confidence: float
    alarm: bool | None = None
    area_mm2: float | None = None


SCHEMA = pa.schema(
    {
        "image": pa.string(),
        "class_id": pa.int32(),
        "rle": pa.string(),
        "area": pa.int64(),
        "confidence": pa.float32(),
        "alarm": pa.bool_(),
        "area_mm2": pa.float64(),
    }
)


def write_predictions(path: Path, rows: Iterable[PredictionRow]) -> None:
    """Write predictions as Parquet, whole or not at all."""
    write_sealed_table(path, pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA))


def read_predictions(path: Path) -> list[PredictionRow]:
    """Read what `write_predictions` wrote.

    Raises:
        BadInput: the file is missing, damaged, or has other columns.
    """
    table = read_sealed_table(path)
    if table.schema != SCHEMA:
        raise BadInput(f"{path}: expected the columns {SCHEMA.names}, but got {table.schema.names}")
    batches = table.to_batches(max_chunksize=_BATCH_ROWS)  # few rows as dicts at a time
    return [PredictionRow(**row) for batch in batches for row in batch.to_pylist()]


def judge_groups(
    parts: Iterable[pd.DataFrame],
    groups: Mapping[str, str],
    classes: Sequence[int],
    unreadable: Iterable[str] = (),
) -> pd.DataFrame:
    """Judge whole groups of images, such as coils: one row per group and class.

    Args:
        parts: rows of predictions, with the columns image, class_id and alarm.
        groups: the group of each image; images without one are left out.
        classes: the class ids.
        unreadable: images that have no rows.

    Returns:
        `group` and `class_id`; `images`, the number of images of the group with rows, and
        `unreadable`, that of the others; `alarms`, the number of images that are an alarm by the
        class; and `in_order`, of the whole group: false if any image is an alarm, else None if
        an image is unreadable or the model has no verdicts, else true.
    """
    by = ["group", "class_id"]
    every = pd.MultiIndex.from_product([sorted(set(groups.values())), classes], names=by)
    counts = []
    for part in parts:
        named = part.assign(group=part["image"].map(groups), alarm=part["alarm"].astype("boolean"))
        counts.append(named.groupby(by)["alarm"].agg(images="size", judged="count", alarms="sum"))
    summed = pd.concat(counts).groupby(by).sum() if counts else pd.DataFrame(index=every[:0])
    table = summed.reindex(index=every, columns=["images", "judged", "alarms"]).fillna(0)
    lost = Counter(groups[image] for image in unreadable if image in groups)
    table["unreadable"] = [lost[group] for group in table.index.get_level_values("group")]
    totals = table.groupby("group").transform("sum")
    is_sure = (totals["judged"] == totals["images"]) & (totals["unreadable"] == 0)
    in_order = is_sure.astype(object).where(is_sure, None)
    table["in_order"] = in_order.where(totals["alarms"] == 0, False)
    whole = table.reset_index().astype({"images": int, "alarms": int})
    return whole[[*by, "images", "unreadable", "alarms", "in_order"]]
