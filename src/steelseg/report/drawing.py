"""Draws masks on their image, in one colour per class, suited to colour-blind readers."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from steelseg.core.arrays import Pixels, Uint8
from steelseg.core.classes import PALETTE, ClassInfo, Colour
from steelseg.core.pixels import to_picture

WIDTH_PER_STROKE = 800  # image width per pixel of contour thickness
OPACITY = 0.45
INK = (0, 0, 0)  # of the labels, outlined in the colour of the class
LABELLED = 5  # components per class, if there are more classes than colours in the palette


def draw(
    image: Pixels,
    classes: Sequence[ClassInfo],
    masks: Mapping[int, Uint8],
    filled: Mapping[int, Uint8] | None = None,
    ignored_hw: Uint8 | None = None,
) -> Uint8:
    """Draw the contours of each class in its colour: (H, W, 3) uint8.

    If there are too many classes to distinguish by colour, the largest components are labelled with
    their class. Ignored regions are hatched.

    Args:
        image: (H, W) or (N, H, W) uint8 or uint16; see `to_picture`.
        classes: of the masks.
        masks: for each class (H, W) uint8 of 0 and 1.
        filled: further masks of the same classes, tinted below the contours.
        ignored_hw: (H, W) uint8 of 0 and 1.
    """
    picture = to_picture(image)
    if ignored_hw is not None:
        _hatch(picture, ignored_hw)
    colours = {one.id: one.rgb for one in classes}
    for class_id, mask_hw in (filled or {}).items():
        inside = mask_hw == 1
        tint = OPACITY * np.array(colours[class_id])
        picture[inside] = ((1 - OPACITY) * picture[inside] + tint).astype(np.uint8)
    thickness = max(1, picture.shape[1] // WIDTH_PER_STROKE)
    for class_id, mask_hw in masks.items():
        found = cv2.findContours(
            np.ascontiguousarray(mask_hw), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, found[0], -1, colours[class_id], thickness)
    if len(masks) > len(PALETTE):
        for one in classes:
            shown = masks[one.id] | (filled or masks)[one.id]
            text = one.label if one.label.isascii() else str(one.id)  # OpenCV draws ASCII only
            _label(picture, shown, text, one.rgb, thickness)
    return picture


def _hatch(picture: Uint8, mask_hw: Uint8) -> None:
    """Draw diagonal lines over a mask, alternating light and dark to be visible on any steel."""
    height, width = mask_hw.shape
    step = max(4, width // 200)
    stripes = np.add.outer(np.arange(height), np.arange(width)) // max(1, step // 4) % 8
    for stripe, grey in ((0, 0), (4, 255)):
        picture[(stripes == stripe) & (mask_hw == 1)] = grey


def _label(picture: Uint8, mask_hw: Uint8, text: str, colour: Colour, thickness: int) -> None:
    """Write a text at the top left of the largest components of a mask."""
    found = cv2.findContours(mask_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness
    width, height = cv2.getTextSize(text, font, size, thickness)[0]
    for component in sorted(found, key=cv2.contourArea, reverse=True)[:LABELLED]:
        left, top = cv2.boundingRect(component)[:2]
        at = (max(min(left, picture.shape[1] - width), 0), max(top - 2 * thickness, height))
        cv2.putText(picture, text, at, font, size, colour, 4 * thickness, cv2.LINE_AA)
        cv2.putText(picture, text, at, font, size, INK, thickness, cv2.LINE_AA)
