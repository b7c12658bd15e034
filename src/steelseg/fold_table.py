"""The fold table: which fold, near-duplicates and class combination an image belongs to."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from steelseg.errors import BadInput
from steelseg.files import atomic_path


def write(path: Path, table: pd.DataFrame) -> None:
    """Write the table as Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def read(path: Path, names: list[str]) -> pd.DataFrame:
    """Read a table that must list exactly the images `names`, in this order.

    Raises:
        BadInput: the file is missing or damaged, or is of other images.
    """
    try:
        table = pd.read_parquet(path, columns=["image", "fold", "group", "combination"])
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadInput(
            f"{path}: is damaged, or was not written by stratified_split: {error}"
        ) from error
    if table["image"].tolist() != names:
        raise BadInput(f"{path}: lists other images than the cache; run `dvc repro`")
    return table


def fold_numbers(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The fold of every image: (N,)."""
    return table["fold"].to_numpy(dtype=np.int64)
