"""Predictions as rows of a Parquet file."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_table, write_sealed_table

_BATCH_ROWS = 1024


class PredictionRow(NamedTuple):
    """One class of one image: its mask as RLE (empty for none), area and confidence.

    `confidence` and `alarm` are those of `Finding`.
    """

    image: str
    class_id: int
    rle: str
    area: int
    confidence: float
    alarm: bool | None = None


SCHEMA = pa.schema(
    {
        "image": pa.string(),
        "class_id": pa.int32(),
        "rle": pa.string(),
        "area": pa.int64(),
        "confidence": pa.float32(),
        "alarm": pa.bool_(),
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
