"""Synthetic scenes: a strip with defects, how many of each class and where, and their masks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.sample.defects import (
    Defect,
    draw_grit,
    draw_line,
    draw_lump,
    draw_nodule,
    draw_pits,
    draw_scrapes,
    draw_streaks,
)
from steelseg.sample.surface import SizeHW, Surface, expose, find_scale, make_surface


@dataclass(frozen=True)
class Habit:
    """How much of a class an image shows, from the real labels at 256x1600.

    `area` gives the 5%, 50% and 95% quantiles in pixels. `pieces` is the typical number of
    components at the median area; it grows with the area to the power of `growth`.
    """

    area: tuple[float, float, float]
    pieces: float
    growth: float


@dataclass(frozen=True)
class Place:
    """The top left corner of a window in the image, and the share of its label that is taken."""

    y: int
    x: int
    taken: float


_HABITS = {
    1: Habit((811, 3317, 11501), pieces=2.7, growth=0.8),
    2: Habit((983, 2949, 7147), pieces=1.2, growth=0.5),
    3: Habit((1843, 11960, 94011), pieces=2.4, growth=0.3),
    4: Habit((5120, 25354, 98549), pieces=2.0, growth=0.3),
}
CLASSES = tuple(_HABITS)

_MOST_PIECES = 14
_FIELD_AREA = 10_000  # above it, class 3 may be a field of scrapes; below it, a patch of grit
_NODULES, _SCRAPES, _GRIT = 0.5, 0.5, 0.2  # shares of those pieces
_PLACES_TRIED = 25
_Z_95 = 1.645  # 95% quantile of the normal distribution


def make_scene(
    rng: np.random.Generator, size_hw: SizeHW, classes: tuple[int, ...]
) -> tuple[Uint8, dict[int, Uint8]]:
    """Draw an image with defects of the given classes, or a clean one if there are none.

    Returns:
        grey image (H, W) uint8, and per class a mask (H, W) of 0 and 1; masks do not overlap.
    """
    surface = make_surface(rng, size_hw, clean=not classes)
    log_grey = surface.log_grey_hw.copy()
    taken = np.zeros(size_hw, np.uint8)
    masks = {c: np.zeros(size_hw, np.uint8) for c in classes}
    for c in sorted(classes, reverse=True):  # large ones first; the others fit in between
        strength = rng.uniform(0.7, 1.3)
        for defect in _draw_pieces(rng, c, surface):
            place = _find_place(rng, c, defect.label_hw, surface, taken)
            if place.taken > 0.5 and masks[c].any():
                continue
            there, part = _cut(place, defect.label_hw.shape, size_hw)
            log_grey[there] += strength * defect.change_hw[part]
            masks[c][there] |= defect.label_hw[part] & (1 - taken[there])
            taken[there] |= defect.label_hw[part]
    return expose(rng, Surface(log_grey, surface.left, surface.right)), masks


def _draw_pieces(rng: np.random.Generator, c: int, surface: Surface) -> Iterator[Defect]:
    """Draw the components of a class for one image, with a total area typical of the class."""
    height, width = surface.log_grey_hw.shape
    steel_hw = (height, surface.right - surface.left)
    scale = find_scale((height, width))
    low, median, high = np.log(_HABITS[c].area)
    z = rng.standard_normal()
    surplus = z * (high - median if z > 0 else median - low) / _Z_95
    area = min(np.exp(median + surplus) * scale**2, 0.5 * steel_hw[0] * steel_hw[1])
    pieces = _HABITS[c].pieces * np.exp(surplus * _HABITS[c].growth) * rng.lognormal(0, 0.5)
    for share in rng.dirichlet(np.full(int(np.clip(round(pieces), 1, _MOST_PIECES)), 3.0)):
        yield _draw_piece(rng, c, max(area * share, 16.0), scale, steel_hw)


def _draw_piece(
    rng: np.random.Generator, c: int, area: float, scale: float, steel_hw: SizeHW
) -> Defect:
    chance = rng.random()
    if c == 1:
        draw = draw_nodule if chance < _NODULES else draw_pits
    elif c == 2:
        draw = draw_line
    elif c == 3 and area > _FIELD_AREA * scale**2:
        draw = draw_scrapes if chance < _SCRAPES else draw_streaks
    elif c == 3:
        draw = draw_grit if chance < _GRIT else draw_streaks
    else:
        draw = draw_lump
    return draw(rng, area, scale, steel_hw)


def _find_place(
    rng: np.random.Generator, c: int, label_hw: Uint8, surface: Surface, taken_hw: Uint8
) -> Place:
    """Return a place on the steel where a label overlaps other labels least."""
    area = max(1, int(label_hw.sum()))
    best = Place(0, 0, np.inf)
    for _ in range(_PLACES_TRIED):
        y, x = _propose(rng, c, label_hw.shape, surface)
        there, part = _cut(Place(y, x, 0), label_hw.shape, taken_hw.shape)
        overlap = int((taken_hw[there] & label_hw[part]).sum()) / area
        if overlap < best.taken:
            best = Place(y, x, overlap)
        if overlap == 0:
            break
    return best


def _propose(
    rng: np.random.Generator, c: int, window_hw: SizeHW, surface: Surface
) -> tuple[int, int]:
    """Return a random place; class 1 stays near an edge, and one in four is cut by the frame."""
    height, width = surface.log_grey_hw.shape
    overhang = window_hw[0] // 3 if window_hw[0] < height and rng.random() < 0.25 else 0
    y = rng.integers(-overhang, max(height - window_hw[0], 0) + overhang + 1)
    room = max(surface.right - surface.left - window_hw[1], 0)
    x = rng.integers(0, room + 1)
    if c == 1:
        from_edge = min(room, round(rng.gamma(1.5, 0.1 * width)))
        x = from_edge if rng.random() < 0.6 else room - from_edge
    return int(y), int(surface.left + x)


def _cut(
    place: Place, window_hw: SizeHW, frame_hw: SizeHW
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the frame that a window covers, and the part of the window inside it."""
    there, part = [], []
    for start, side, limit in zip((place.y, place.x), window_hw, frame_hw, strict=True):
        first, last = max(start, 0), min(start + side, limit)
        there.append(slice(first, last))
        part.append(slice(first - start, last - start))
    return (there[0], there[1]), (part[0], part[1])
