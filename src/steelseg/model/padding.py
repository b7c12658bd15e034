"""Padding of images to what an encoder can halve, and never any stretching."""

import numpy as np

from steelseg.core.arrays import Uint8

MULTIPLE = 32  # five halvings, the deepest that smp's encoders go


def pad(image_hw: Uint8) -> Uint8:
    """Repeat the last row and column until height and width are multiples of 32.

    Predictions are cut back by `[..., :height, :width]`. An image that fits is returned as it is.
    """
    height, width = image_hw.shape
    margin = ((0, -height % MULTIPLE), (0, -width % MULTIPLE))
    return np.pad(image_hw, margin, mode="edge") if margin != ((0, 0), (0, 0)) else image_hw
