"""Tables of images: one row per image, sorted by name, as Parquet files between the stages."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from steelseg.errors import BadInput
from steelseg.files import atomic_path

METADATA = b"steelseg"
CLEAN = "clean"
_SEAL = b"sha256"


@dataclass(frozen=True)
class ImageTable:
    """Images of one size; `table` has a row per image, sorted by name.

    Columns: image, sha256, mean and std (of the grey levels, 0 to 255), thumbnail (bytes), and for
    annotated images `rle_<class>` for each class, null where the image does not show it.
    """

    table: pa.Table
    size_hw: tuple[int, int]
    classes: list[int]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        return self.column("image")

    @property
    def thumbnails(self) -> npt.NDArray[Any]:
        """(N, T, T), as `near_duplicates.thumbnail` made them."""
        raw = self.column("thumbnail")
        meta = json.loads(self.table.schema.metadata[METADATA])["thumbnail"]
        flat = np.frombuffer(b"".join(raw), dtype=meta["dtype"])
        return flat.reshape(len(raw), *meta["shape"])

    def column(self, name: str) -> list[Any]:
        """One column as a list."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def rles(self, class_id: int) -> list[str | None]:
        """The RLE of every image for one class, None where it does not show the class."""
        return self.column(f"rle_{class_id}")

    def combinations(self) -> list[str]:
        """The classes that each image shows, as `3+4`; `clean` for none."""
        shown = [[r is not None for r in self.rles(c)] for c in self.classes]
        named = (
            "+".join(str(c) for c, s in zip(self.classes, row, strict=True) if s)
            for row in zip(*shown, strict=True)
        )
        return [name or CLEAN for name in named]


def write(path: Path, images: ImageTable) -> None:
    """Write a table as Parquet, whole or not at all."""
    write_sealed(path, images.table)


def read(path: Path) -> ImageTable:
    """Read what `write` wrote.

    Raises:
        BadInput: the file is missing, damaged, or not of this pipeline.
    """
    table = read_sealed(path)
    try:
        meta = json.loads(table.schema.metadata[METADATA])
        height, width = meta["size_hw"]
        return ImageTable(table, (height, width), meta["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: was not written by pivot_csv: {error}") from error


def write_sealed(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet with a checksum of its content, whole or not at all."""
    sealed = {**(table.schema.metadata or {}), _SEAL: _digest(table)}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(sealed), temporary)


def read_sealed(path: Path) -> pa.Table:
    """Read what `write_sealed` wrote.

    Raises:
        BadInput: the file is missing, or its content is not what was written.
    """
    try:
        with pq.ParquetFile(path) as file:  # `read_table` makes columns of folders named `a=b`
            table = file.read()
        table.validate(full=True)
        metadata = dict(table.schema.metadata)
        seal = metadata.pop(_SEAL)
        table = table.replace_schema_metadata(metadata or None)
        if seal != _digest(table):
            raise BadInput(
                f"{path}: is damaged (its checksum differs); delete it and run `dvc repro`"
            )
        return table
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"{path}: is damaged, or not of this pipeline ({reason}); delete it and run `dvc repro`"
        ) from error


def _digest(table: pa.Table) -> bytes:
    """SHA-256 of columns and values; a format's own checksums leave out how the bytes are read."""
    metadata = sorted((table.schema.metadata or {}).items())
    columns = [(field.name, str(field.type)) for field in table.schema]
    digest = hashlib.sha256(repr((metadata, columns)).encode())
    for column in table.columns:
        for value in column.to_pylist():
            digest.update(f"{value!r},".encode())
    return digest.hexdigest().encode()
