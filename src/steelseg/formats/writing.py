"""Shared code of exports: placing images, and cutting masks into parts."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cv2

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, quote
from steelseg.formats.files import place
from steelseg.formats.record import Record


def place_image(record: Record, folder: Path) -> Path:
    """Link or copy the image of a record into a folder, and return its path there."""
    path = folder / record.name
    place(record.path, path)
    return path


def refuse_twins(name: str, stems: dict[str, str]) -> None:
    """Refuse an image that differs from another only in its suffix: they would share a label file.

    Args:
        name: of the image.
        stems: the images so far, by name without suffix; this one is added.

    Raises:
        BadInput: there is such another image.
    """
    other = stems.setdefault(PurePosixPath(name).with_suffix("").as_posix(), name)
    if other != name:
        raise BadInput(f"{quote(name)} and {quote(other)} would share a label file")


def components(mask_hw: Uint8) -> Iterator[tuple[int, int, Uint8]]:
    """Yield the 8-connected parts of a mask: left, top and the pixels of each."""
    _, labels_hw, boxes, _ = cv2.connectedComponentsWithStats(mask_hw)
    for label, (left, top, width, height, _) in enumerate(boxes.tolist()):
        part_hw = labels_hw[top : top + height, left : left + width] == label
        if label:
            yield left, top, part_hw.astype("uint8")
