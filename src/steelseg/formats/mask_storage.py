"""Reads the stored numbers of mask files, and the colours shown for them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from steelseg.core.arrays import Bool, Int32, Int64, Uint8
from steelseg.core.errors import BadInput
from steelseg.data.images import TURNS, opened, orientation_of, read_bytes

SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})  # of lossless formats
FORMATS = ("PNG", "BMP", "TIFF", "GIF")
MODES = frozenset({"1", "L", "P"})
DEEP = frozenset({"I;16", "I;16L", "I;16B", "I"})  # 16 bits, and TIFFs of 32
RGB = frozenset({"RGB", "RGBA"})
_JPEG = b"\xff\xd8\xff"
_SHOWN = 12  # colours in a message
_TRANSPARENT = (
    "expected transparency only where black; put it on a black background and save it without "
    "transparency"
)

Colour = tuple[int, ...]


class Stored(NamedTuple):
    """A mask as stored in its file.

    `numbers_hw` (H, W) are the stored numbers, `used` the distinct ones, `shown` (256, 4) the RGBA
    of each number. `step` is the grey difference of successive numbers: 1 for 8 bits and palettes.
    """

    numbers_hw: Uint8
    used: Int64
    shown: Uint8
    step: int


class Opened(NamedTuple):
    """A mask as stored, and as shown; for `step`, see `Stored`."""

    image: Image.Image
    upright: Image.Image
    step: int


@contextmanager
def open_upright(
    path: Path,
    size_hw: tuple[int, int] | None,
    modes: frozenset[str],
    threshold: int | None = None,
) -> Iterator[Opened]:
    """Open a mask of one page in one of Pillow's modes, and turn it upright.

    Args:
        path: of the file.
        size_hw: of its image, or None for any size.
        modes: the accepted modes.
        threshold: None to refuse JPEG.

    Raises:
        BadInput: it is something else; the message has no path.
    """
    data = read_bytes(path)
    if data.startswith(_JPEG) and threshold is None:
        raise BadInput(
            "cannot be read as PNG, BMP, TIFF or GIF: it is a JPEG, which blurs the values; draw "
            "it again, or apply a threshold, and save it as PNG"
        )
    with opened(data, FORMATS if threshold is None else (*FORMATS, "JPEG")) as image:
        if image.mode not in modes or (image.mode in RGB and ";16" in str(image.tile)):
            raise BadInput(
                f"expected 8-bit grey values or a palette, but got {image.mode}; save it as grey"
            )
        if getattr(image, "n_frames", 1) > 1:
            raise BadInput("expected one page, but got several")
        step = _step(str(image.tile), image.mode)  # loading clears `tile`
        image.load()
        turn = TURNS.get(orientation_of(image))
        upright: Image.Image = image if turn is None else image.transpose(turn)
        height, width = upright.height, upright.width
        if size_hw not in {None, (height, width)}:
            assert size_hw is not None
            raise BadInput(
                f"expected {size_hw[0]}x{size_hw[1]} like its image, but got {height}x{width}"
            )
        yield Opened(image, upright, step)


def store(file: Opened) -> Stored:
    """Read the numbers of a mask in one of `MODES`.

    Raises:
        BadInput: its palette is too short, or a transparent pixel is not black.
    """
    image, upright, step = file
    numbers_hw = np.asarray(upright).astype(np.uint8)
    if image.mode == "L":
        numbers_hw //= step
    used = np.unique(numbers_hw).astype(np.int64)
    if image.mode == "P" and used[-1] >= len(image.getpalette() or []) // 3:
        # Pillow writes images of mode P without a palette like this, and their values are lost
        raise BadInput("has pixels beyond the end of its palette; save it as grey")
    stored = Stored(numbers_hw, used, _shown(image, step), step)
    _refuse_transparency(stored)
    return stored


def describe_colours(counts: Counter[str]) -> str:
    """List the most frequent colours with their pixel counts."""
    shown = [f"{colour} ({count:,} pixels)" for colour, count in counts.most_common(_SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" * (len(counts) > _SHOWN))


def count_colours(packed_hw: Int32) -> Counter[str]:
    """Count the pixels of each colour (`#rrggbb`) of an image from `pack`."""
    values, counts = np.unique(packed_hw, return_counts=True)
    return Counter(dict(zip(map(hexadecimal, values.tolist()), counts.tolist(), strict=True)))


def pack(upright: Image.Image) -> Int32:
    """Return the colours of an image, (H, W) int32, red in the highest of three bytes.

    Raises:
        BadInput: a transparent pixel is not black.
    """
    rgba = np.asarray(upright.convert("RGBA")).astype(np.int32)
    packed_hw: Int32 = rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]
    if ((rgba[..., 3] < 255) & (packed_hw > 0)).any():
        raise BadInput(_TRANSPARENT)
    return packed_hw


def _step(tile: str, mode: str) -> int:
    """Return the difference between successive greys as Pillow decodes 1, 2 or 4 bits."""
    if mode == "1":
        return 255
    return next((step for bits, step in (("L;2", 85), ("L;4", 17)) if bits in tile), 1)


def _shown(image: Image.Image, step: int) -> Uint8:
    """Return the colour shown for each number: (256, 4) RGBA."""
    shown = np.full((256, 4), 255, dtype=np.uint8)
    if image.mode == "P":
        image.apply_transparency()
        colours = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
        shown[: len(colours)] = colours
        return shown
    shown[:, :3] = (np.arange(256, dtype=np.uint8) * step)[:, None]
    if "transparency" in image.info:
        shown[image.info["transparency"], 3] = 0
    return shown


def _refuse_transparency(stored: Stored) -> None:
    shown = stored.shown[stored.used]
    if ((shown[:, 3] < 255) & ~is_black(shown)).any():
        raise BadInput(_TRANSPARENT)


def hexadecimal(packed: int) -> str:
    """Write a colour as `#rrggbb`."""
    return f"#{packed:06x}"


def is_grey(colours: Uint8) -> Bool:
    """Whether each of N colours (N, 3 or 4) is grey, black or white: (N,)."""
    equal: Bool = np.all(colours[:, :3] == colours[:, :1], axis=1)
    return equal


def is_black(colours: Uint8) -> Bool:
    """Whether each of N colours (N, 3 or 4) is black: (N,)."""
    dark: Bool = np.all(colours[:, :3] == 0, axis=1)
    return dark
