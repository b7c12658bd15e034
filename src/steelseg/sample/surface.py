"""Synthetic strip surfaces without defects, as a line camera sees rolled steel.

A surface is a sum of layers in log grey (natural logarithm of grey in 0..1), because light, stains
and wear multiply. Lengths are in pixels at the 256 rows of the Severstal camera, times `scale`.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Int32, Uint8

Layer = npt.NDArray[np.floating[Any]]  # float32 in fact
SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Surface:
    """A strip: (H, W) log grey, and the columns left <= x < right that are steel."""

    log_grey_hw: Layer
    left: int
    right: int


def find_scale(size_hw: SizeHW) -> float:
    """Return how many pixels of this size one pixel of the 256x1600 camera spans."""
    height, width = size_hw
    return min(height, width / 2) / 256


def make_surface(rng: np.random.Generator, size_hw: SizeHW, *, clean: bool) -> Surface:
    """Draw a strip, in four of ten images with a black band next to it.

    A clean one may be mostly band, or show the torn end of a coil: neither is labelled.
    """
    scale = find_scale(size_hw)
    left, right = _place_band(rng, size_hw[1], 0.92 if clean else 0.5)
    layers = (
        (1.0, _light),
        (1.0, _streaks),
        (1.0, _grain),
        (0.6, _stains),
        (0.5, _specks),
        (0.35, _drips),
        (0.3, _ripples),
        (0.4, _smudges),
        (0.25, _wipes),
        (0.1, _dust),
        (0.15, _splashes),
        (0.4 if clean else 0.0, _torn),
    )
    brightness = np.clip(rng.normal(0.37, 0.08), 0.16, 0.55)
    log_grey = np.full(size_hw, np.log(brightness), np.float32)
    for chance, draw in layers:
        if rng.random() < chance:
            log_grey += draw(rng, size_hw, scale)
    if left > 0 or right < size_hw[1]:
        log_grey += _edge_strip(rng, size_hw, scale, (left, right))
    return Surface(log_grey, left, right)


def expose(rng: np.random.Generator, surface: Surface) -> Uint8:
    """Return the camera's image (H, W) uint8: black next to the sheet, with sensor noise."""
    height, width = surface.log_grey_hw.shape
    grey = np.exp(surface.log_grey_hw) * 255
    wander = noise(rng, (height, 1), (12, 1)) * 0.6  # a sheet's edge is not quite straight
    columns = np.arange(width, dtype=np.float32) + wander
    if surface.left > 0:
        grey *= rise(columns - surface.left, 1.2)
    if surface.right < width:
        grey *= rise(surface.right - columns, 1.2)
    grey += 1.5 + 1.3 * rng.standard_normal((height, width), dtype=np.float32)
    return grey.clip(0, 255).astype(np.uint8)


def noise(rng: np.random.Generator, size_hw: SizeHW, cell_hw: tuple[float, float]) -> Layer:
    """Draw smooth noise (H, W), about N(0, 1), that varies over cells of `cell_hw` pixels."""
    grid_hw = [
        max(2, round(side / max(cell, 1))) for side, cell in zip(size_hw, cell_hw, strict=True)
    ]
    grid = rng.standard_normal(grid_hw, dtype=np.float32)
    height, width = size_hw
    resized = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32).reshape(size_hw)


def rise(distance: Layer, softness: float) -> Layer:
    """Return a rise from 0 to 1 around distance 0: a logistic function of width `softness`."""
    risen: Layer = 1 / (1 + np.exp((distance / -softness).clip(-30, 30)))
    return risen


def _place_band(rng: np.random.Generator, width: int, widest: float) -> tuple[int, int]:
    """Return the columns of steel: all, or those next to a band of up to a share `widest`."""
    if rng.random() > 0.4:
        return 0, width
    band = round(width * min(0.02 + 0.9 * rng.beta(0.6, 1.6), widest))
    return (band, width) if rng.random() < 0.5 else (0, width - band)


def _light(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Light, uneven over the width and less so over the height, sometimes with glare."""
    height, width = size_hw
    light = noise(rng, size_hw, (4 * height, width / 6)) * rng.uniform(0.05, 0.25)
    light += noise(rng, size_hw, (height, width / 3)) * rng.uniform(0.03, 0.12)
    light += np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.normal(0, 0.12)
    if rng.random() < 0.25:
        y, x = grid_around(rng.uniform(0, height), rng.uniform(0, width), size_hw)
        spread_y, spread_x = rng.uniform(0.5, 1.5) * height, rng.uniform(0.06, 0.2) * width
        light += rng.uniform(0.25, 0.75) * np.exp(-((y / spread_y) ** 2) - (x / spread_x) ** 2)
    return light


def _streaks(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Fine vertical streaks from rolling, stronger in some columns."""
    height = size_hw[0]
    streaks = np.zeros(size_hw, np.float32)
    for cell in (2, 5, 25):
        where = np.exp(0.8 * noise(rng, size_hw, (height, 120 * scale)) - 0.3)
        amount = rng.uniform(0.005, 0.035)
        length = rng.uniform(0.2, 1.5) * height
        streaks += amount * where * noise(rng, size_hw, (length, cell * scale))
    return streaks


def _grain(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """The grain of the metal, rougher in some columns."""
    rough: Layer = np.exp(0.35 * noise(rng, size_hw, (size_hw[0], 60 * scale)))
    grain = rng.uniform(0.03, 0.07) * rng.standard_normal(size_hw, dtype=np.float32)
    grain += rng.uniform(0.02, 0.06) * noise(rng, size_hw, (3 * scale, 2 * scale))
    return rough * grain


def _stains(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Water marks: speckled tongues with a ragged rim, lighter or darker than the sheet."""
    tongues = noise(rng, size_hw, (110 * scale, 16 * scale))
    tongues += 0.35 * noise(rng, size_hw, (20 * scale, 4 * scale))
    tongues += 0.25 * noise(rng, size_hw, (5 * scale, 2 * scale))
    wet = noise(rng, size_hw, (3 * size_hw[0], 200 * scale)) - rng.uniform(0.4, 1.6)
    stain = rise(tongues + 1.5 * wet, 0.12)
    sign = 1 if rng.random() < 0.6 else -1
    speckle = 0.05 * np.abs(noise(rng, size_hw, (2 * scale, 2 * scale)))
    return stain * (sign * rng.uniform(0.08, 0.28) + speckle)


def _specks(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Clusters of tiny bright specks."""
    crowd = noise(rng, size_hw, (size_hw[0], 130 * scale))
    rarity = rng.uniform(2.0, 2.8) - 0.45 * crowd
    specks = noise(rng, size_hw, (2.2 * scale, 3.2 * scale)) - rarity
    return np.minimum(np.maximum(specks, 0) * 1.6, 0.9)


def _drips(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Soft dark vertical marks without sharp lines."""
    marks = noise(rng, size_hw, (70 * scale, 7 * scale))
    crowd = noise(rng, size_hw, (size_hw[0], 120 * scale))
    return -rng.uniform(0.12, 0.4) * rise(marks + crowd - 2.2, 0.3)


def _ripples(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """Fine horizontal waves left by the roll."""
    height, width = size_hw
    waves = noise(rng, (2 * height, width), (3 * scale, 90 * scale))
    sway = 7 * scale * noise(rng, size_hw, (height, 250 * scale))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    swayed = np.asarray(cv2.remap(waves, x, y + height / 2 + sway, cv2.INTER_LINEAR), np.float32)
    where: Layer = np.exp(0.5 * noise(rng, size_hw, (60 * scale, 200 * scale)))
    return rng.uniform(0.02, 0.05) * where * swayed


def _smudges(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """A few flat dark stains with soft rims, like oil."""
    height, width = size_hw
    smudges = np.zeros(size_hw, np.float32)
    rim = 0.5 * noise(rng, size_hw, (18 * scale, 18 * scale))
    for _ in range(rng.integers(1, 4)):
        y, x = grid_around(rng.uniform(0, height), rng.uniform(0, width), size_hw)
        spread_y, spread_x = rng.uniform(12, 35, 2) * scale
        inside = 1 - (y / spread_y) ** 2 - (x / spread_x) ** 2 + rim
        smudges -= rng.uniform(0.12, 0.3) * rise(inside, 0.15)
    return smudges


def _wipes(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """A slanting border between a duller and a brighter part, like the trace of a wiper."""
    height, width = size_hw
    y, x = grid_around(height / 2, rng.uniform(0.1, 0.9) * width, size_hw)
    bend = 25 * scale * noise(rng, size_hw, (height, 150 * scale))
    across = y + x * rng.uniform(-0.8, 0.8) + bend
    return rng.normal(0, 0.12) * rise(across, rng.uniform(2, 15) * scale)


def _dust(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """A vertical band of bright dust over the full height, without lines."""
    height, width = size_hw
    sway = 6 * scale * noise(rng, (height, 1), (200 * scale, 1))
    _, x = grid_around(0, rng.uniform(0, width), size_hw)
    band = np.exp(-(((x + sway) / (rng.uniform(4, 12) * scale)) ** 2))
    grains = np.maximum(noise(rng, size_hw, (2 * scale, 2 * scale)), 0)
    amount: Layer = np.exp(0.6 * noise(rng, (height, 1), (60 * scale, 1)))
    return rng.uniform(0.3, 0.8) * amount * band * grains


def _splashes(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """White drops of paint: flat, ragged, without shadows; some dried to a rim."""
    height, width = size_hw
    splashes = np.zeros(size_hw, np.float32)
    rim = 0.6 * noise(rng, size_hw, (9 * scale, 6 * scale))
    rim += 0.4 * noise(rng, size_hw, (3 * scale, 3 * scale))
    for _ in range(rng.integers(1, 6)):
        y, x = grid_around(rng.uniform(0, height), rng.uniform(0, width), size_hw)
        inside = 1 - (y / (rng.uniform(5, 60) * scale)) ** 2 - (x / (8 * scale)) ** 2 + rim
        drop = rise(inside, 0.08)
        if rng.random() < 0.4:
            drop = drop * (1 - 0.9 * rise(inside - 0.5, 0.08))
        splashes = np.maximum(splashes, drop)
    return 1.3 * splashes


def _torn(rng: np.random.Generator, size_hw: SizeHW, scale: float) -> Layer:
    """The torn end of a coil: ragged plates, bright and dull, with shadows and holes."""
    height, width = size_hw
    side = max(rng.uniform(30, 110) * scale, 4)
    plates = _plates(rng, size_hw, scale, side, stretch=rng.uniform(0.7, 3))
    greys = rng.normal(0, 0.4, plates.max() + 1).astype(np.float32)
    greys[rng.random(len(greys)) < 0.15] = -2.5  # holes
    grey: Layer = greys[plates]
    above = cv2.copyMakeBorder(grey, max(1, round(side / 12)), 0, 0, 0, cv2.BORDER_REPLICATE)
    shadow = np.maximum(grey - above[:height], 0)
    torn: Layer = grey - 0.8 * shadow + 0.25 * noise(rng, size_hw, (side, side))
    reach = rng.uniform(0.15, 0.9) * width + 2 * side * noise(rng, (height, 1), (2 * side, 1))
    reach = reach + 0.2 * side * noise(rng, size_hw, (side / 2, side / 2))
    columns = np.arange(width, dtype=np.float32)
    from_end = columns if rng.random() < 0.5 else width - 1 - columns
    return torn * rise(reach - from_end, scale)


def _plates(
    rng: np.random.Generator, size_hw: SizeHW, scale: float, side: float, stretch: float
) -> Int32:
    """Return each pixel's cell number (h, w): ragged cells, `stretch` times as wide as high."""
    height, width = size_hw
    squeezed = max(4, round(width / stretch))
    seeds = np.ones((height, squeezed), np.uint8)
    n_plates = max(2, round(height * squeezed / side**2))
    seeds[rng.integers(0, height, n_plates), rng.integers(0, squeezed, n_plates)] = 0
    nearest = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    bend_y, bend_x = (
        side
        * (
            0.25 * noise(rng, size_hw, (side, side))
            + 0.06 * noise(rng, size_hw, (6 * scale, 6 * scale))
        )
        for _ in range(2)
    )
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    row = (y + bend_y).clip(0, height - 1).astype(int)
    column = ((x + bend_x) * squeezed / width).clip(0, squeezed - 1).astype(int)
    return np.asarray(nearest[row, column], np.int32)


def _edge_strip(
    rng: np.random.Generator, size_hw: SizeHW, scale: float, steel: tuple[int, int]
) -> Layer:
    """The trimmed rim of the sheet next to the band: another shade, parallel to the edge."""
    columns = np.arange(size_hw[1], dtype=np.float32)
    left, right = steel
    from_edge = columns - left if left > 0 else right - 1 - columns
    rim = 5 * scale * noise(rng, size_hw, (60 * scale, size_hw[1]))
    rim += 2 * scale * noise(rng, size_hw, (5 * scale, 5 * scale))
    strip = rise(rng.uniform(15, 70) * scale + rim - from_edge, 1.5 * scale)
    worn = rise(rng.uniform(4, 12) * scale - from_edge, scale)
    return strip * rng.normal(0, 0.2) - rng.uniform(0.3, 0.8) * worn


def grid_around(y: float, x: float, size_hw: SizeHW) -> tuple[Layer, Layer]:
    """Return the signed distances of rows (H, 1) and columns (1, W) from a point."""
    rows = np.arange(size_hw[0], dtype=np.float32)[:, None] - np.float32(y)
    columns = np.arange(size_hw[1], dtype=np.float32)[None] - np.float32(x)
    return rows, columns
