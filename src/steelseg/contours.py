"""Masks drawn on their image, as contours in one colour per class."""

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from steelseg.class_colours import class_colours

Bytes = npt.NDArray[np.uint8]
WIDTH_PER_STROKE = 800  # of an image, for each pixel of a contour's thickness


def draw(
    image_hw: npt.NDArray[np.uint8], masks: Mapping[int, npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """Draw the contours of each class in its colour: (H, W, 3) uint8."""
    picture = cv2.cvtColor(image_hw, cv2.COLOR_GRAY2RGB)
    colours = class_colours(list(masks))
    thickness = max(1, image_hw.shape[1] // WIDTH_PER_STROKE)
    for class_id, mask_hw in masks.items():
        found = cv2.findContours(
            np.ascontiguousarray(mask_hw), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, found[0], -1, colours[class_id], thickness)
    return np.asarray(picture, dtype=np.uint8)
