"""Looks at every image of a folder once: is it sound, how large, how bright, what does it show."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.images import decode_grey, find_losses, read_bytes
from steelseg.data.listing import Listing, check_image_name, list_files
from steelseg.data.near_duplicates import thumbnail


class Inspected(NamedTuple):
    """One image: file hash, size, mean and deviation of its grey levels (0 to 255), thumbnail.

    `losses` are what of the file its grey pixels do not hold, see `images.find_losses`.
    """

    image: str
    sha256: str
    size_hw: tuple[int, int]
    mean: float
    std: float
    thumbnail_hw: npt.NDArray[np.float16]
    losses: set[str]


class Inspection(NamedTuple):
    """The sound images of a folder, sorted by name, and why each of the others was left out.

    `listing` is of the folder: its images, sound or not, and what else is there.
    """

    images: list[Inspected]
    skipped: dict[str, str]
    listing: Listing


def inspect_folder(folder: Path, *, skip_bad: bool) -> Inspection:
    """Decode every image of a folder, on all cores, one at a time in memory.

    Args:
        folder: the images, of any sizes.
        skip_bad: leave unsound images out and say why, instead of refusing the folder.

    Raises:
        BadInput: an image is unsound (unless `skip_bad`), or no sound image is left.
    """
    listing = list_files(folder)
    names = listing.names
    sound: list[Inspected] = []
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(_inspect, (folder / name for name in names))
        for name, result in zip(names, _progress(results, folder, len(names)), strict=True):
            if isinstance(result, Inspected):
                sound.append(result)
            else:
                faults[name] = str(result)
    if not skip_bad or not sound:
        with Faults(str(folder)) as report:
            for name in sorted(faults):
                shown = name if name.isprintable() else quote(name)
                report.add(f"{shown}: {faults[name]}")
    return Inspection(sound, faults, listing)


def _inspect(path: Path) -> Inspected | BadInput:
    try:
        check_image_name(path.name)  # another one could be in no row of a csv
        data = read_bytes(path)
        image_hw = decode_grey(data)
        losses = find_losses(data)
    except BadInput as error:
        return error
    height, width = image_hw.shape
    return Inspected(
        path.name,
        hashlib.sha256(data).hexdigest(),
        (height, width),
        float(image_hw.mean()),
        float(image_hw.std()),
        thumbnail(image_hw).astype(np.float16),
        losses,
    )


def _progress(results: Iterator[Any], folder: Path, total: int) -> Iterator[Any]:
    # `disable=None` draws on a terminal only, so that a log file holds messages and no bars
    bar = tqdm(results, f"reading {folder.name}", total, unit="image", disable=None)
    return iter(bar)
