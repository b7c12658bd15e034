"""The fold table: which fold, near-duplicates and class combination an image belongs to."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from steelseg.errors import BadInput
from steelseg.sealed_parquet import read_sealed, write_sealed


def write(path: Path, table: pd.DataFrame) -> None:
    """Write the table as Parquet, whole or not at all."""
    write_sealed(path, pa.Table.from_pandas(table, preserve_index=False))


def read(path: Path, names: list[str]) -> pd.DataFrame:
    """Read a table that must list exactly the images `names`, in this order.

    Raises:
        BadInput: the file is missing or damaged, or is of other images.
    """
    table: pd.DataFrame = read_sealed(path).to_pandas()
    if not {"image", "fold", "group", "combination"} <= set(table):
        raise BadInput(f"{path}: was not written by stratified_split")
    if table["image"].tolist() != names:
        raise BadInput(f"{path}: lists other images than the cache; run `dvc repro`")
    return table


def fold_numbers(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The fold of every image: (N,)."""
    return table["fold"].to_numpy(dtype=np.int64)
