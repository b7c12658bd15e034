"""Draws the window of a crop: anywhere, over a defect, or away from black areas."""

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Pixels
from steelseg.core.pixels import is_black, size_of

BLACK_DRAWS = 10


def random_window(
    rng: np.random.Generator, size_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Draw the rows and columns of a crop; an axis shorter than the crop is used whole."""
    top, left = (
        int(rng.integers(max(size - crop, 0) + 1))
        for size, crop in zip(size_hw, crop_hw, strict=True)
    )
    return slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1])


def lit_window(
    rng: np.random.Generator,
    image: Pixels,
    crop_hw: tuple[int, int],
    max_black: float,
) -> tuple[slice, slice]:
    """Draw a crop with at most a share of `max_black` black pixels, or the least black of ten."""
    size_hw = size_of(image)
    best = random_window(rng, size_hw, crop_hw)
    least = black_share(image[..., *best]) if max_black < 1 else 0.0
    for _ in range(BLACK_DRAWS - 1):
        if least <= max_black:
            break
        window = random_window(rng, size_hw, crop_hw)
        if (share := black_share(image[..., *window])) < least:
            best, least = window, share
    return best


def black_share(image: Pixels) -> float:
    """Return the share of pixels outside the plate: levels of at most 10 of 255."""
    black_hw = is_black(image)
    return np.count_nonzero(black_hw) / black_hw.size


def defect_window(
    rng: np.random.Generator, mask_hw: npt.NDArray[np.uint8], crop_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Draw a crop that contains a random pixel of a non-empty mask at a random position."""
    pixels = np.flatnonzero(mask_hw.view(bool))  # several times as fast as on uint8
    pixel_hw = divmod(int(pixels[rng.integers(len(pixels))]), mask_hw.shape[1])
    top, left = (
        min(max(pixel - int(rng.integers(crop)), 0), max(size - crop, 0))
        for pixel, crop, size in zip(pixel_hw, crop_hw, mask_hw.shape, strict=True)
    )
    return slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1])


def unpack_window(
    packed: npt.NDArray[np.uint8], width: int, window: tuple[slice, slice]
) -> npt.NDArray[np.uint8]:
    """Unpack the pixels of a window, and few others: (C, h, w) uint8 of 0 and 1.

    Args:
        packed: (C, H, ceil(W / 8)) as `Cache.packed_masks` returns them.
        width: W, in pixels.
        window: rows and columns.
    """
    rows, columns = window
    left, right = columns.start, min(columns.stop, width)
    first = left // 8  # byte
    unpacked = np.unpackbits(packed[:, rows, first : -(-right // 8)], axis=-1)
    return unpacked[..., left - 8 * first : right - 8 * first]
