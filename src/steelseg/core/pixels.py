"""What the pixels of a data set are: how many channels, of how many bits, between which limits.

It is decided once, by what all training images show (`data/inspection.py`), and stands in the
tables, the cache and the model's card, so that every reader makes the same of a file.
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
BLACK = 10  # levels of 255 up to which there is no plate; JPEG makes the black beside it that light

Levels = npt.NDArray[np.number[Any]]
"""(H, W) for one channel, (C, H, W) for several, as a file has them: nothing is scaled yet."""


class PixelFormat(Config):
    """What the files of a data set hold, and what becomes of it: 8 bits stay, others are scaled."""

    channels: Annotated[int, Field(ge=1)] = 1
    """1 is grey; 3 are red, green and blue, or, like any other number, one for each light"""
    depth: Literal[8, 16, 32] = 8
    """bits a channel of the files; 32 are numbers of any size, floating point among them"""
    low: float = 0.0
    high: float = 255.0
    """levels of the files that become black and white, where they have not 8 bits"""

    @property
    def white(self) -> int:
        """The highest level of scaled pixels: 255 of uint8, 65535 of uint16."""
        return WHITE_OF_BYTES if self.depth == 8 else WHITE

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of scaled pixels."""
        return np.uint8 if self.depth == 8 else np.uint16

    @property
    def bytes_a_pixel(self) -> int:
        """Of scaled pixels, all channels together."""
        return self.channels * np.dtype(self.dtype).itemsize

    def scale(self, levels: Levels) -> Pixels:
        """Spread levels between the limits over 16 bits; what is beyond them is cut off."""
        if self.depth == 8:
            return np.asarray(levels, np.uint8)
        if self.depth == 16:  # by a table, which takes no memory for numbers between
            return np.asarray(self._spread(np.arange(WHITE + 1))[levels])
        return self._spread(levels)

    def _spread(self, levels: Levels) -> Uint16:
        shares = (levels.astype(np.float32) - np.float32(self.low)) / np.float32(self.span)
        return (shares * WHITE).round().clip(0, WHITE).astype(np.uint16)

    @property
    def span(self) -> float:
        """From black to white, in levels of the files."""
        return self.high - self.low

    def describe(self) -> str:
        """Name it for people."""
        kind = {1: "grey", COLOURS: "3 channels"}.get(self.channels, f"{self.channels} channels")
        if self.depth == 8:
            return f"{kind}, 8 bits"
        bits = "16 bits" if self.depth == 16 else "numbers"
        return f"{kind}, {bits}, of which {self.low:g} to {self.high:g} are scaled"


GREY, RGB = PixelFormat(), PixelFormat(channels=COLOURS)


def own_limits(levels: Levels) -> tuple[float, float]:
    """Return the lowest and highest level of an image, apart from a few dead or hot pixels.

    They are the percentiles 0.01 and 99.99: a defect is larger than that, and a sensor's faults are
    not. A data set's limits are the lowest and the highest of its images', so that no image is cut
    off; what is between them is never lost, as 16 bits hold it all.
    """
    low, high = np.percentile(levels, (0.01, 99.99), method="nearest")
    return float(low), float(high)


def is_black(image: Pixels) -> npt.NDArray[np.bool_]:
    """Say of each pixel (H, W) whether it is too dark for steel, in all channels."""
    white = np.iinfo(image.dtype).max
    dark: npt.NDArray[np.bool_] = image <= BLACK * white // WHITE_OF_BYTES
    return np.asarray(dark.all(axis=0)) if image.ndim > 2 else dark


def size_of(image: Levels) -> tuple[int, int]:
    """Return the height and width of (H, W) or (C, H, W)."""
    height, width = image.shape[-2:]
    return height, width


def batch_of(images: Sequence[Pixels]) -> Pixels:
    """Stack images of one size, (H, W) or (C, H, W), to (B, C, H, W)."""
    stacked = np.stack(images)
    return stacked if stacked.ndim > COLOURS else stacked[:, None]


def to_picture(image: Pixels) -> Uint8:
    """Make of an image what a screen shows: (H, W, 3) uint8.

    Three channels are shown as red, green and blue, and the mean of any other number as grey.
    """
    levels = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    if levels.ndim > 2 and len(levels) == COLOURS:
        return np.ascontiguousarray(np.moveaxis(levels, 0, -1), dtype=np.uint8)
    grey = levels if levels.ndim == 2 else levels.mean(axis=0).round()
    return np.repeat(grey.astype(np.uint8)[..., None], COLOURS, axis=-1)
