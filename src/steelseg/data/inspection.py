"""Inspects every image of a folder: whether it is sound, its size, brightness and thumbnail.

The pixel format of a data set depends on all of its files. A few of them tell which it will be, so
that files are read once, and again only if the others lead to another.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from steelseg.core.arrays import Float16, Float32
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.pixels import COLOURS, GREY, PixelFormat, own_limits, size_of
from steelseg.data.decoding import Look, look, read_levels
from steelseg.data.images import read_bytes
from steelseg.data.listing import Listing, check_image_name, list_files, name_key
from steelseg.data.near_duplicates import thumbnail

UNLABELLED = "unlabelled"
COLOUR, PAGES, TRANSPARENCY = "colour", "pages", "transparency"
FEW = 20  # files that tell the pixel format, usually
Channels = Literal["auto", "grey", "rgb"]


class Inspected(NamedTuple):
    """One image: file hash, size, mean and deviation of the levels of each channel, thumbnail.

    The levels are those of the file, clipped at the image's own `limits` unless it has 8 bits.
    `losses` name what the pixels do not keep of the file: colour, further pages, transparency.
    """

    image: str
    sha256: str
    size_hw: tuple[int, int]
    mean: list[float]
    std: list[float]
    limits: tuple[float, float]
    thumbnail_hw: Float16 | Float32
    coloured: bool
    losses: set[str]


class Inspection(NamedTuple):
    """The sound images of a folder, sorted by name, and why others were left out.

    `listing` is of the folder: its images, sound or not, and other files. `unlabelled` images are
    not inspected. `pixels` is the format that the images were read in.
    """

    images: list[Inspected]
    skipped: dict[str, str]
    listing: Listing
    pixels: PixelFormat
    unlabelled: list[str]

    @property
    def left_out(self) -> dict[str, str]:
        """The reason for each image that was left out, by name."""
        return self.skipped | dict.fromkeys(self.unlabelled, UNLABELLED)


def inspect_folder(
    folder: Path,
    pixels: Channels | PixelFormat = "auto",
    *,
    skip_bad: bool,
    unlabelled: Collection[str] = (),
    may_be_empty: bool = False,
) -> Inspection:
    """Decode every image of a folder, on all cores, with one image in memory per core.

    Args:
        folder: the images, of any sizes, in folders of any depth.
        pixels: the format of the training images, or the channels to look for in them.
        skip_bad: leave unsound images out and say why, instead of refusing the folder.
        unlabelled: the name keys of images to leave out.
        may_be_empty: whether the folder may be missing or empty.

    Raises:
        BadInput: an image is unsound or has another pixel format than most (unless `skip_bad`), or
            no sound image is left.
    """
    listing = list_files(folder, may_be_empty=may_be_empty)
    names = [name for name in listing.names if name_key(name) not in unlabelled]
    few = names[:: len(names) // FEW + 1] if isinstance(pixels, str) else []
    looks, _ = _read_all(folder, few, GREY)
    expected = choose_format(looks, pixels)
    looks, results = _read_all(folder, names, expected)
    chosen = choose_format(looks, pixels)
    if chosen != expected:
        _, results = _read_all(folder, names, chosen)
    sound = [one for one in results if isinstance(one, Inspected)]
    faults = {
        n: str(one) for n, one in zip(names, results, strict=True) if isinstance(one, BadInput)
    }
    if not skip_bad or not sound:
        with Faults(str(folder)) as report:
            for name in sorted(faults):
                shown = name if name.isprintable() else quote(name)
                report.add(f"{shown}: {faults[name]}")
    if listing.names and not names:
        raise BadInput(f"{folder}: expected labelled images, but none of {len(listing.names)} is")
    if isinstance(pixels, str):
        chosen = _with_limits(chosen, sound)
    looked_at = set(names)
    left = [name for name in listing.names if name not in looked_at]
    return Inspection(sound, faults, listing, chosen, left)


def choose_format(looks: Sequence[Look], pixels: Channels | PixelFormat) -> PixelFormat:
    """Choose the pixel format of a data set, without its limits; one that is given is kept.

    The depth is that of most images, since levels of another depth cannot be compared. With `auto`
    there are as many channels as most images have pages; with one page, three channels if any image
    is coloured, and one otherwise.
    """
    if isinstance(pixels, PixelFormat):
        return pixels
    if not looks:
        return GREY
    depth = Counter(one.depth for one in looks).most_common(1)[0][0]
    lights = Counter(one.lights for one in looks).most_common(1)[0][0]
    found = lights if lights > 1 else COLOURS if any(one.coloured for one in looks) else 1
    number = {"auto": found, "grey": 1, "rgb": COLOURS}[pixels]
    return PixelFormat.model_validate({"channels": number, "depth": depth})


def _with_limits(pixels: PixelFormat, images: Sequence[Inspected]) -> PixelFormat:
    if pixels.depth == 8:
        return pixels
    low = min(image.limits[0] for image in images)
    high = max(image.limits[1] for image in images)
    return pixels.model_copy(update={"low": low, "high": high if high > low else low + 1})


def _read_all(
    folder: Path, names: Sequence[str], pixels: PixelFormat
) -> tuple[list[Look], list[Inspected | BadInput]]:
    """Inspect files in a format; those that cannot be opened have no look."""
    if not names:
        return [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(partial(_read, folder, pixels), names)
        # `disable=None` draws on a terminal only, to keep bars out of log files
        bar = tqdm(read, f"reading {folder.name}", len(names), unit="image", disable=None)
        looks, results = zip(*bar, strict=True)
        return [seen for seen in looks if seen], list(results)


def _read(folder: Path, pixels: PixelFormat, name: str) -> tuple[Look | None, Inspected | BadInput]:
    seen = None
    try:
        check_image_name(name)  # a csv could not contain other names
        data = read_bytes(folder / name)
        seen = look(data)
        return seen, _inspect(name, data, seen, pixels)
    except BadInput as error:
        return seen, error


def _inspect(name: str, data: bytes, seen: Look, pixels: PixelFormat) -> Inspected:
    levels = read_levels(data, pixels)
    limits = (pixels.low, pixels.high)
    if pixels.depth != 8:
        limits = own_limits(levels)
        levels = levels.clip(*limits)
    height, width = size_of(levels)
    planes = levels.reshape(-1, height, width)
    small_hw = thumbnail(levels if levels.ndim == 2 else planes.mean(axis=0))
    return Inspected(
        name,
        hashlib.sha256(data).hexdigest(),
        (height, width),
        [float(plane.mean(dtype=float)) for plane in planes],
        [float(plane.std(dtype=float)) for plane in planes],
        limits,
        # half the memory; other levels are scaled before they are rounded
        small_hw.astype(np.float16) if pixels.depth == 8 else small_hw,
        seen.coloured,
        set(losses(seen, pixels)),
    )


def losses(seen: Look, pixels: PixelFormat) -> Iterator[str]:
    """Yield what the pixels lose of a file: colour, further pages, transparency."""
    if seen.coloured and pixels.channels == 1:
        yield COLOUR
    if seen.has_pages and (pixels.channels == 1 or seen.lights != pixels.channels):
        yield PAGES
    if seen.transparent:
        yield TRANSPARENCY
