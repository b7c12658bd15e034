"""Masks drawn on their image, in one colour per class that colour-blind eyes tell apart too."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import cv2
import numpy as np

from steelseg.core.arrays import Float32, Uint8

Colour = tuple[int, int, int]

# after Okabe and Ito; black and grey are left out, which steel has itself
PALETTE: list[Colour] = [
    *((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115)),
    *((240, 228, 66), (213, 94, 0), (0, 114, 178)),
]
LEVELS = range(0, 256, 17)  # of red, green and blue in further colours
LIGHTNESS = 35, 90  # of these, from 0 to 100: others are lost on steel, or on the page
# what eyes without green and without red cones make of linear RGB (Machado et al. 2009)
BLINDNESS = (
    ((0.3673, 0.8607, -0.228), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689)),
    ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.052)),
)
WIDTH_PER_STROKE = 800  # of an image, for each pixel of a contour's thickness
OPACITY = 0.45
INK = (0, 0, 0)  # of the labels, on a rim of the class's colour
LABELLED = 5  # components of a class, where there are more classes than the palette has colours


def class_colours(classes: Sequence[int]) -> dict[int, Colour]:
    """Return the (red, green, blue) of each class, by its place among the sorted classes."""
    return dict(zip(sorted(classes), palette(len(classes)), strict=True))


@cache
def palette(n_colours: int) -> tuple[Colour, ...]:
    """Return colours that differ as far as so many can, the first of them those of `PALETTE`.

    Each further one is that which lies furthest from its nearest neighbour, greys among them, in
    the eyes of whoever tells least of the two apart.
    """
    colours = PALETTE[:n_colours]
    if n_colours <= len(PALETTE):
        return tuple(colours)
    candidates = np.array(list(product(LEVELS, LEVELS, LEVELS)))
    lightness = perceived(candidates)[0, :, 0]
    candidates = candidates[(lightness > LIGHTNESS[0]) & (lightness < LIGHTNESS[1])]
    seen = perceived(candidates)
    taken = perceived(np.array([*PALETTE, *((grey,) * 3 for grey in LEVELS)]))
    nearest = np.min([_distance(seen, taken[:, [i]]) for i in range(taken.shape[1])], axis=0)
    while len(colours) < n_colours:
        furthest = int(nearest.argmax())
        red, green, blue = candidates[furthest].tolist()
        colours.append((red, green, blue))
        nearest = np.minimum(nearest, _distance(seen, seen[:, [furthest]]))
    return tuple(colours)


def perceived(colours: Uint8) -> Float32:
    """Map N colours (N, 3) to CIELAB (3, N, 3), as three kinds of eyes see them.

    Distances of about 2 can just be told apart side by side.
    """
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    eyes = [linear, *(np.clip(linear @ np.transpose(matrix), 0, 1) for matrix in BLINDNESS)]
    return np.asarray(cv2.cvtColor(np.array(eyes, np.float32), cv2.COLOR_LRGB2LAB), np.float32)


def hexadecimal(colour: Colour) -> str:
    """Write a colour as `#rrggbb`."""
    return "#" + bytes(colour).hex()


def draw(
    image_hw: Uint8, masks: Mapping[int, Uint8], filled: Mapping[int, Uint8] | None = None
) -> Uint8:
    """Draw the contours of each class in its colour: (H, W, 3) uint8.

    Where there are more classes than eyes tell colours apart at a glance, the largest components
    have their class written beside them.

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
    if len(masks) > len(PALETTE):
        for class_id, colour in colours.items():
            shown = masks[class_id] | (filled or masks)[class_id]
            _label(picture, shown, str(class_id), colour, thickness)
    return picture


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


def _distance(colours: Float32, other: Float32) -> Float32:
    """Return how far colours (3, N, 3) are from another (3, 1, 3) to the eyes that tell least."""
    nearest: Float32 = np.linalg.norm(colours - other, axis=2).min(axis=0)
    return nearest
