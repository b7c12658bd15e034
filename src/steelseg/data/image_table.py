"""Tables of images: one row per image, sorted by name, as Parquet files between the stages."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelseg.core.arrays import Float16
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput
from steelseg.core.pixels import PixelFormat
from steelseg.core.sealed import content_digest, read_sealed_table, write_sealed_table

# Arrow's own allocator does not return the memory that reading a table needed
pa.set_memory_pool(pa.system_memory_pool())

METADATA = b"steelseg"
CLEAN = "clean"
IGNORED = "rle_ignored"


@dataclass(frozen=True)
class ImageTable:
    """Images of any size; `table` has one row per image, sorted by name.

    Columns: image, sha256, height and width in pixels, mean and std (of the levels of each channel,
    as in the files), thumbnail (float16 bytes, 0 to 255), and for annotated images group (of
    images.csv, empty for none) and `rle_<class>` for each class, null where the image does not show
    it. `rle_ignored` is present only if the data set has ignored regions.
    """

    table: pa.Table
    class_infos: list[ClassInfo]

    @property
    def classes(self) -> list[int]:
        """The ids of the classes, sorted; empty for test images."""
        return [one.id for one in self.class_infos]

    @property
    def pixels(self) -> PixelFormat:
        """The pixel format that the images are read in."""
        return PixelFormat(**json.loads(self.table.schema.metadata[METADATA])["pixels"])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        return self.column("image")

    @property
    def sizes_hw(self) -> list[tuple[int, int]]:
        """Height and width of each image in pixels."""
        return list(zip(self.column("height"), self.column("width"), strict=True))

    @property
    def thumbnails(self) -> Float16:
        """(N, T, T), as `near_duplicates.thumbnail` made them, rounded to float16."""
        column = self.table.column("thumbnail").combine_chunks()
        side = math.isqrt(column.type.byte_width // 2)
        flat = np.frombuffer(column.buffers()[1] or b"", dtype=np.float16)
        start = column.offset * side * side
        return flat[start : start + len(self) * side * side].reshape(-1, side, side)

    @property
    def identity(self) -> str:
        """SHA-256 of the content, by which files made from these annotations are recognised."""
        return content_digest(self.table).decode()

    def column(self, name: str) -> list[Any]:
        """One column as a list."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def rles(self, class_id: int) -> list[str | None]:
        """The RLE of every image for one class, None where it does not show the class."""
        return self.column(f"rle_{class_id}")

    @property
    def groups(self) -> list[str]:
        """The group of each image by images.csv, empty for none."""
        if "group" not in self.table.column_names:
            return [""] * len(self)
        return self.column("group")

    @property
    def ignored(self) -> list[str | None]:
        """The RLE of the ignored region of every image, None where there is none."""
        if IGNORED not in self.table.column_names:
            return [None] * len(self)
        return self.column(IGNORED)

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
    write_sealed_table(path, images.table)


def read(path: Path) -> ImageTable:
    """Read what `write` wrote.

    Raises:
        BadInput: the file is missing, damaged, or not from this pipeline.
    """
    table = read_sealed_table(path)
    try:
        meta = json.loads(table.schema.metadata[METADATA])
        return ImageTable(table, [ClassInfo(**one) for one in meta["classes"]])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: was not written by pivot_csv: {error}") from error
