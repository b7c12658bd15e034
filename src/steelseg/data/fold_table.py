"""The fold table: the fold, group of near-duplicates and class combination of each image."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from steelseg.core.arrays import Int64
from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_table, write_sealed_table

HELD_OUT = -2
"""The fold of the images of the test set, which nothing is trained, tuned or validated on."""

_ANNOTATIONS = b"annotations"


def write(path: Path, table: pd.DataFrame, annotations: str) -> None:
    """Write the table as Parquet, with the identity of the annotations that it was made from."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**arrow.schema.metadata, _ANNOTATIONS: annotations.encode()}
    write_sealed_table(path, arrow.replace_schema_metadata(metadata))


def read(path: Path, names: list[str], annotations: str) -> pd.DataFrame:
    """Read a table that must list exactly the images `names`, in this order.

    Args:
        path: the file.
        names: the images of the cache.
        annotations: the identity of the annotations that the cache was made from.

    Raises:
        BadInput: the file is missing or damaged, or is of other images or other annotations.
    """
    arrow = read_sealed_table(path)
    table: pd.DataFrame = arrow.to_pandas()
    if not {"image", "fold", "group", "combination"} <= set(table):
        raise BadInput(f"{path}: was not written by stratified_split")
    if table["image"].tolist() != names:
        raise BadInput(f"{path}: does not list the images of the cache; run `dvc repro`")
    if (arrow.schema.metadata or {}).get(_ANNOTATIONS) != annotations.encode():
        raise BadInput(f"{path}: was made from other annotations than the cache; run `dvc repro`")
    return table


def trained_on(folds: npt.NDArray[np.integer[Any]], fold: int) -> Int64:
    """The training rows when `fold` is validated: all other rows except the test set."""
    return np.flatnonzero((folds != fold) & (folds != HELD_OUT))


def fold_numbers(table: pd.DataFrame) -> Int64:
    """The fold of every image: (N,)."""
    return table["fold"].to_numpy(dtype=np.int64)
