"""Image sizes as (height, width) in pixels, and padding to multiples a network can halve."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from steelseg.core.arrays import Pixels

Size = tuple[int, int]
MULTIPLE = 32  # five halvings, the maximum depth of smp's encoders


def usual_size(sizes_hw: Sequence[Size]) -> Size:
    """Return the most common size; the first of equally common ones."""
    return Counter(sizes_hw).most_common(1)[0][0]


def typical_size(sizes_hw: Sequence[Size]) -> Size:
    """Return the median height and the median width."""
    height, width = np.median(np.array(sizes_hw), axis=0).astype(int).tolist()
    return height, width


def largest_size(sizes_hw: Sequence[Size]) -> Size:
    """Return the largest height and the largest width, possibly of different images."""
    height, width = np.max(np.array(sizes_hw), axis=0).tolist()
    return height, width


def describe_sizes(sizes_hw: Sequence[Size]) -> str:
    """Return the one size of images, or the range of their sizes, as text; empty without images."""
    distinct = set(sizes_hw)
    if not distinct:
        return ""
    heights, widths = zip(*distinct, strict=True)
    if len(distinct) == 1:
        return f"{heights[0]}x{widths[0]}"
    smallest, largest = (f"{of(heights)}x{of(widths)}" for of in (min, max))
    return f"{len(distinct)} sizes from {smallest} to {largest}"


def padded_size(size_hw: Sequence[int]) -> Size:
    """Return a size rounded up to multiples of 32."""
    height, width = (side + -side % MULTIPLE for side in size_hw)
    return height, width


def pad(image: Pixels, size_hw: Sequence[int] | None = None) -> Pixels:
    """Pad (..., H, W) to a size, by default multiples of 32, with its last row and column.

    Crop predictions with `[..., :height, :width]`. An image that fits is returned unchanged.
    """
    height, width = image.shape[-2:]
    wanted_hw = tuple(size_hw or padded_size((height, width)))
    if (height, width) == wanted_hw:
        return image
    margin = ((0, wanted_hw[0] - height), (0, wanted_hw[1] - width))
    return np.pad(image, ((0, 0),) * (image.ndim - 2) + margin, mode="edge")
