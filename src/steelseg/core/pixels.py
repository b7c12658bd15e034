"""The pixel format of a data set: the number of channels, their bit depth and their limits.

It is found once, from all training images (`data/inspection.py`), and stored in the tables, the
cache and the model's card, so that all code reads a file the same way.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from steelseg.core.arrays import Pixels, Uint8, Uint16
from steelseg.core.params import Config

COLOURS = 3
WHITE_OF_BYTES, WHITE = 255, 65535
BLACK = 10  # of 255: pixels up to it are background, not steel; JPEG does not keep black at 0

Levels = npt.NDArray[np.number[Any]]
"""(H, W) for one channel, (C, H, W) for several, as in the file, not scaled"""


class PixelFormat(Config):
    """The format of a data set's files; 8-bit pixels are kept, others are scaled to 16 bits."""

    channels: Annotated[int, Field(ge=1)] = 1
    """1 is grey; 3 are red, green and blue or, like other numbers, one per light source"""
    depth: Literal[8, 16, 32] = 8
    """bits per channel in the files; 32 stands for any other numbers, including floating point"""
    low: float = 0.0
    high: float = 255.0
    """levels in the files that become black and white; unused with 8 bits"""

    @property
    def white(self) -> int:
        """The highest level of scaled pixels: 255 for uint8, 65535 for uint16."""
        return WHITE_OF_BYTES if self.depth == 8 else WHITE

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type of scaled pixels."""
        return np.uint8 if self.depth == 8 else np.uint16

    @property
    def bytes_a_pixel(self) -> int:
        """Bytes per scaled pixel, all channels together."""
        return self.channels * np.dtype(self.dtype).itemsize

    def scale(self, levels: Levels) -> Pixels:
        """Return levels scaled from the limits to 16 bits and clipped; 8-bit levels unchanged."""
        if self.depth == 8:
            return np.asarray(levels, np.uint8)
        if self.depth == 16:  # by a lookup table, which saves the memory of intermediate arrays
            return np.asarray(self._spread(np.arange(WHITE + 1))[levels])
        return self._spread(levels)

    def _spread(self, levels: Levels) -> Uint16:
        shares = (levels.astype(np.float32) - np.float32(self.low)) / np.float32(self.span)
        return (shares * WHITE).round().clip(0, WHITE).astype(np.uint16)

    @property
    def span(self) -> float:
        """The difference between white and black, in levels of the files."""
        return self.high - self.low

    def describe(self) -> str:
        """Return the format as text for users."""
        kind = {1: "grey", COLOURS: "3 channels"}.get(self.channels, f"{self.channels} channels")
        if self.depth == 8:
            return f"{kind}, 8 bits"
        bits = "16 bits" if self.depth == 16 else "numbers"
        return f"{kind}, {bits}, of which {self.low:g} to {self.high:g} are scaled"


GREY, RGB = PixelFormat(), PixelFormat(channels=COLOURS)


def own_limits(levels: Levels) -> tuple[float, float]:
    """Return the lowest and highest level of an image, apart from a few dead or hot pixels.

    They are the percentiles 0.01 and 99.99: defects are larger than that, sensor faults are not. A
    data set's limits are the lowest and highest of its images', so that no image is clipped; 16
    bits are enough for the levels between them.
    """
    low, high = np.percentile(levels, (0.01, 99.99), method="nearest")
    return float(low), float(high)


def is_black(image: Pixels) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W) of the pixels that are too dark for steel in all channels."""
    white = np.iinfo(image.dtype).max
    dark: npt.NDArray[np.bool_] = image <= BLACK * white // WHITE_OF_BYTES
    return np.asarray(dark.all(axis=0)) if image.ndim > 2 else dark


def size_of(image: Levels) -> tuple[int, int]:
    """Return the height and width of (H, W) or (C, H, W)."""
    height, width = image.shape[-2:]
    return height, width


def batch_of(images: Sequence[Pixels]) -> Pixels:
    """Return images of one size, (H, W) or (C, H, W), stacked to (B, C, H, W)."""
    stacked = np.stack(images)
    return stacked if stacked.ndim > COLOURS else stacked[:, None]


def to_picture(image: Pixels) -> Uint8:
    """Return an image for display: (H, W, 3) uint8.

    Three channels are shown as red, green and blue, and the mean of any other number as grey.
    """
    levels = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    if levels.ndim > 2 and len(levels) == COLOURS:
        return np.ascontiguousarray(np.moveaxis(levels, 0, -1), dtype=np.uint8)
    grey = levels if levels.ndim == 2 else levels.mean(axis=0).round()
    return np.repeat(grey.astype(np.uint8)[..., None], COLOURS, axis=-1)
