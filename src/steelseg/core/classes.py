"""Defect classes: their ids, names and colours, which are safe for colour-blind readers."""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np

from steelseg.core.arrays import Float32, Uint8

Colour = tuple[int, int, int]

# after Okabe and Ito, without black and grey, which steel has itself
PALETTE: list[Colour] = [
    *((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115)),
    *((240, 228, 66), (213, 94, 0), (0, 114, 178)),
]
LEVELS = range(0, 256, 17)  # of red, green and blue in additional colours
LIGHTNESS = 35, 90  # their range, of 0 to 100: others are hard to see on steel or on the page
# linear RGB as seen with deuteranopia and protanopia (Machado et al. 2009)
BLINDNESS = (
    ((0.3673, 0.8607, -0.228), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689)),
    ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.052)),
)


class ClassInfo(NamedTuple):
    """A defect class: its id, its display name, and its colour as `#rrggbb`.

    Lists of classes are sorted by id and follow the order of the channels.
    """

    id: int
    name: str
    color: str

    @property
    def label(self) -> str:
        """Its name for use after the word `class`: the id if it has no name."""
        return self.name if self.is_named else str(self.id)

    @property
    def is_named(self) -> bool:
        """Whether it has a name other than the default one."""
        return self.name != default_name(self.id)

    @property
    def rgb(self) -> Colour:
        """Its colour as (red, green, blue), 0 to 255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


def default_name(class_id: int) -> str:
    """Return the name of a class that was not given one."""
    return f"class {class_id}"


def enumerated(classes: Sequence[ClassInfo]) -> str:
    """Return classes as text for a sentence: `class 3`, `classes 3, 7`, or `scratch, pit`."""
    if any(one.is_named for one in classes):
        return ", ".join(one.name for one in classes)
    return f"class{'es' * (len(classes) > 1)} {', '.join(one.label for one in classes)}"


def capitalised(text: str) -> str:
    """Return text with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


def default_classes(ids: Iterable[int]) -> list[ClassInfo]:
    """Return classes named like `class 3`, with palette colours in the order of the ids."""
    ordered = sorted(ids)
    colors = map(hexadecimal, palette(len(ordered)))
    return [ClassInfo(c, default_name(c), color) for c, color in zip(ordered, colors, strict=True)]


@cache
def palette(n_colours: int) -> tuple[Colour, ...]:
    """Return colours that are as distinct as possible; the first ones are those of `PALETTE`.

    Each additional one is the candidate furthest from its nearest neighbour (greys included), as
    seen by the kind of vision that separates the two least.
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
    """Map N colours (N, 3) to CIELAB (3, N, 3), as seen by three kinds of colour vision.

    A distance of about 2 is just noticeable side by side.
    """
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    eyes = [linear, *(np.clip(linear @ np.transpose(matrix), 0, 1) for matrix in BLINDNESS)]
    return np.asarray(cv2.cvtColor(np.array(eyes, np.float32), cv2.COLOR_LRGB2LAB), np.float32)


def hexadecimal(colour: Colour) -> str:
    """Return a colour as `#rrggbb`."""
    return "#" + bytes(colour).hex()


def _distance(colours: Float32, other: Float32) -> Float32:
    """Return the distances (N,) of colours (3, N, 3) from another (3, 1, 3), least of three."""
    nearest: Float32 = np.linalg.norm(colours - other, axis=2).min(axis=0)
    return nearest
