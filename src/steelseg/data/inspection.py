"""Looks at every image of a folder once: is it sound, how large, how bright, what does it show."""

import hashlib
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.images import decode_grey, find_losses, read_bytes
from steelseg.data.listing import Listing, check_image_name, list_files, name_key
from steelseg.data.near_duplicates import thumbnail

UNLABELLED = "unlabelled"


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

    `listing` is of the folder: its images, sound or not, and what else is there. Those that are
    `unlabelled` are not looked at.
    """

    images: list[Inspected]
    skipped: dict[str, str]
    listing: Listing
    unlabelled: list[str]

    @property
    def left_out(self) -> dict[str, str]:
        """Why each image that was left out was, by name."""
        return self.skipped | dict.fromkeys(self.unlabelled, UNLABELLED)


def inspect_folder(
    folder: Path,
    *,
    skip_bad: bool,
    unlabelled: Collection[str] = (),
    may_be_empty: bool = False,
) -> Inspection:
    """Decode every image of a folder, on all cores, one at a time in memory.

    Args:
        folder: the images, of any sizes, in folders of any depth.
        skip_bad: leave unsound images out and say why, instead of refusing the folder.
        unlabelled: the keys of names of images to leave out.
        may_be_empty: whether the folder may be missing or empty.

    Raises:
        BadInput: an image is unsound (unless `skip_bad`), or no sound image is left.
    """
    listing = list_files(folder, may_be_empty=may_be_empty)
    names = [name for name in listing.names if name_key(name) not in unlabelled]
    sound: list[Inspected] = []
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(partial(_inspect, folder), names)
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
    if listing.names and not names:
        raise BadInput(f"{folder}: expected labelled images, but all {len(listing.names)} are not")
    looked_at = set(names)
    return Inspection(sound, faults, listing, [n for n in listing.names if n not in looked_at])


def _inspect(folder: Path, name: str) -> Inspected | BadInput:
    try:
        check_image_name(name)  # another one could be in no row of a csv
        data = read_bytes(folder / name)
        image_hw = decode_grey(data)
        losses = find_losses(data)
    except BadInput as error:
        return error
    height, width = image_hw.shape
    return Inspected(
        name,
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
