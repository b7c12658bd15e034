"""Masks drawn on their image, in one colour per class that colour-blind eyes tell apart too."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from steelseg.core.arrays import Uint8

Colour = tuple[int, int, int]

# after Okabe and Ito; black and grey are left out, which steel has itself
PALETTE: list[Colour] = [
    *((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115)),
    *((240, 228, 66), (213, 94, 0), (0, 114, 178)),
]
WIDTH_PER_STROKE = 800  # of an image, for each pixel of a contour's thickness
OPACITY = 0.45


def class_colours(classes: Sequence[int]) -> dict[int, Colour]:
    """Return the (red, green, blue) of each class, by its place among the sorted classes."""
    return {c: PALETTE[i % len(PALETTE)] for i, c in enumerate(sorted(classes))}


def hexadecimal(colour: Colour) -> str:
    """Write a colour as `#rrggbb`."""
    return "#" + bytes(colour).hex()


def draw(
    image_hw: Uint8, masks: Mapping[int, Uint8], filled: Mapping[int, Uint8] | None = None
) -> Uint8:
    """Draw the contours of each class in its colour: (H, W, 3) uint8.

    Args:
        image_hw: (H, W) uint8.
        masks: for each class (H, W) uint8 of 0 and 1.
        filled: further masks of the same classes, tinted below the contours.
    """
    picture = np.asarray(cv2.cvtColor(image_hw, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    colours = class_colours(list(masks))
    for class_id, mask_hw in (filled or {}).items():
        inside = mask_hw == 1
        tint = OPACITY * np.array(colours[class_id])
        picture[inside] = ((1 - OPACITY) * picture[inside] + tint).astype(np.uint8)
    thickness = max(1, image_hw.shape[1] // WIDTH_PER_STROKE)
    for class_id, mask_hw in masks.items():
        found = cv2.findContours(
            np.ascontiguousarray(mask_hw), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, found[0], -1, colours[class_id], thickness)
    return picture
