"""Hypothesis strategies, and makers of small images and data sets."""

import io
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from PIL import Image

from steelseg.core.classes import default_classes
from steelseg.data import annotations, label_csv
from steelseg.data.image_table import ImageTable
from steelseg.data.inspection import Inspection, inspect_folder

SIZE_HW = (6, 8)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a PNG's colour type and its channels

TRAIN_CSV = """ImageId,ClassId,EncodedPixels
a.png,1,1 3 10 2
a.png,2,48 1
b.png,1,7 6
"""
SAMPLE_CSV = """ImageId_ClassId,EncodedPixels
t.png_1,1 48
t.png_2,1 48
u.png_1,1 48
u.png_2,1 48
"""
PIVOT_PARAMS = """data_root: raw
dataset: tiny
channels: auto
pivot_csv:
  csv: train.csv
  on_bad_image: stop
"""


def noise(seed: int, size_hw: tuple[int, int] = SIZE_HW) -> npt.NDArray[np.uint8]:
    """Grey noise, another one for every seed."""
    return np.random.default_rng(seed).integers(0, 256, size_hw, dtype=np.uint8)


def to_bytes(image: Image.Image | npt.NDArray[Any], file_format: str, **options: Any) -> bytes:
    """Write an image into the bytes of a file."""
    stream = io.BytesIO()
    pillow = image if isinstance(image, Image.Image) else Image.fromarray(image)
    pillow.save(stream, file_format, **options)
    return stream.getvalue()


def png(
    size_hw: tuple[int, int], depth: int, colour_type: int, pixels: bytes | None = None
) -> bytes:
    """Write a PNG chunk by chunk, since encoders refuse what tests need.

    Args:
        size_hw: as the header says.
        depth: bits a channel.
        colour_type: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA.
        pixels: with a filter byte before each row; zeros for the whole image if not given.
    """
    height, width = size_hw
    if pixels is None:
        pixels = bytes(height * (1 + -(-width * depth * CHANNELS[colour_type] // 8)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    framed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def write_dataset(root: Path) -> Path:
    """Write three training images (c.png is clean), two test images and both csv files."""
    for folder, names in (("train_images", "abc"), ("test_images", "tu")):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / f"{name}.png").write_bytes(to_bytes(noise(ord(name)), "PNG"))
    (root / "train.csv").write_text(TRAIN_CSV)
    (root / "sample_submission.csv").write_text(SAMPLE_CSV)
    return root


def write_project(root: Path) -> Path:
    """Write a folder in which the stage `pivot_csv` can run; returns that of the data set."""
    (root / "params.yaml").write_text(PIVOT_PARAMS)
    return write_dataset(root / "raw" / "tiny")


def pivoted(root: Path, *, skip_bad: bool = False) -> tuple[ImageTable, Inspection]:
    """Pivot a data set with the classes 1 and 2, as `pivot_csv` does."""
    inspection = inspect_folder(root / "train_images", skip_bad=skip_bad)
    labels = label_csv.read(root / "train.csv")
    classes = default_classes([1, 2])
    return annotations.build(inspection, labels, classes, root / "train.csv"), inspection


def join_columns(csv_text: str) -> str:
    """Turn plain three-column csv text into the layout of 2019."""
    rows = (line.split(",", 2) for line in csv_text.splitlines())
    return "".join(f"{image}_{class_id},{rle}\n" for image, class_id, rle in rows)


def masks(max_side: int = 12) -> st.SearchStrategy[npt.NDArray[np.uint8]]:
    """Masks of 0 and 1, (H, W) uint8."""
    side = st.integers(1, max_side)
    return st.tuples(side, side).flatmap(
        lambda size_hw: st.lists(
            st.integers(0, 1), min_size=prod(size_hw), max_size=prod(size_hw)
        ).map(lambda bits: np.array(bits, np.uint8).reshape(size_hw))
    )


def image_names() -> st.SearchStrategy[str]:
    """File names that are legal, however odd: quotes, commas, underscores, HTML, other scripts."""
    letters = st.sampled_from("abXZ019._-,;:'\"<>&%$#*?~ =+|äß\u0436\u6570\u00bd")
    stems = st.text(letters, min_size=1, max_size=12).map(str.strip)
    return stems.map(lambda stem: f"{stem}.jpg")


def label_rows() -> st.SearchStrategy[list[tuple[str, int, str]]]:
    """Rows of image, class id and RLE, each pair once."""
    row = st.tuples(image_names(), st.integers(1, 1000), st.sampled_from(["", "1 1", "1 3 10 2"]))
    return st.lists(row, min_size=1, max_size=8, unique_by=lambda r: r[:2])
