"""Synthetic defects of the four Severstal classes, each in a loose polygon like a manual label.

Class 1 is faint small pits, sometimes a raised nodule; class 2 a thin, wandering dark line; class 3
straight vertical streaks, bright or dark, a small gritty patch, or a field of slanting scrapes;
class 4 a large lump of metal in relief, torn or smooth. The label is drawn first and the defect
inside it, so that areas come out as intended. `area` is in pixels of the image, `frame_hw` is the
largest window that fits on the steel.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Uint8
from steelseg.sample.surface import Layer, SizeHW, grid_around, noise, rise


@dataclass(frozen=True)
class Defect:
    """One piece in its own window: change of log grey (h, w), and label of 0 and 1 (h, w)."""

    change_hw: Layer
    label_hw: Uint8


def draw_pits(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 1: one or a few pits with a glint above, in a loose quadrilateral."""
    size_hw = _shape_window(area / 0.78, rng.lognormal(0.5, 0.35), frame_hw)
    height, width = size_hw
    pits = np.zeros(size_hw, np.float32)
    for _ in range(1 + rng.poisson(0.7 + height / (45 * scale))):
        y, x = grid_around(rng.uniform(0.25, 0.7) * height, rng.uniform(0.3, 0.7) * width, size_hw)
        y = y / max(0.8, min(rng.uniform(4, 9) * scale, 0.2 * height))
        x = x / max(0.8, min(rng.uniform(3, 7) * scale, 0.25 * width))
        tail = np.exp(-8 * x**2) * rise(y, 0.3) * rise(rng.uniform(1, 5) - y, 0.3)
        glint = np.exp(-3 * (y + 0.9) ** 2 - x**2)
        pits += rng.uniform(0.7, 1.3) * (rng.uniform(1, 2) * glint - 0.4 * tail)
        pits -= rng.uniform(0.4, 0.9) * np.exp(-(y**2) - x**2)
    ragged = 1 + 0.6 * noise(rng, size_hw, (2 * scale, 2 * scale))
    return Defect(min(rng.lognormal(0.0, 0.4), 1.6) * ragged * pits, _strip(rng, size_hw, 0.3))


def draw_nodule(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 1: raised chips, lit from above, that fill a loose quadrilateral."""
    size_hw = _shape_window(area / 0.78, rng.lognormal(0.5, 0.35), frame_hw)
    height, width = size_hw
    chips = np.zeros(size_hw, np.float32)
    for _ in range(2 + rng.poisson(1 + height / (40 * scale))):
        y, x = grid_around(rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width, size_hw)
        y = y / max(1.0, min(rng.uniform(0.13, 0.22) * height, 11 * scale))
        x = x / max(1.0, min(rng.uniform(0.16, 0.26) * width, 9 * scale))
        chips -= np.where(y < 0, np.float32(2.4), np.float32(1.2)) * y * np.exp(-(y**2) - x**2)
        chips -= 0.1 * np.exp(-(y**2 + x**2) / 6)
    ragged = 1 + 0.7 * noise(rng, size_hw, (2.5 * scale, 2 * scale))
    return Defect(min(rng.lognormal(0.0, 0.3), 1.4) * ragged * chips, _strip(rng, size_hw, 0.3))


def draw_line(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 2: one thin dark line that wanders down a narrow, leaning label."""
    height = min(max(rng.normal(165, 45), 85), 250) * scale
    width = min(max(area / (0.75 * height), 10 * scale), 36 * scale)
    size_hw = _round_window(max(height, area / (0.75 * width)), width, frame_hw)
    height, width = size_hw
    lean = rng.uniform(-0.5, 0.5) * width
    y, x = grid_around(height / 2, width / 2, size_hw)
    wander = (width - abs(lean)) * 0.12 * noise(rng, (height, 1), (40 * scale, 1))
    across = (x + lean * y / height + wander) / (rng.uniform(1.1, 2.1) * max(scale, 0.6))
    line = np.exp(-(across**2) / 2) - 0.25 * np.exp(-((across - 3) ** 2) / 2)
    tips = rise(height / 2 - 6 * scale - np.abs(y), 3 * scale)
    return Defect(-rng.uniform(0.7, 1.4) * tips * line, _strip(rng, size_hw, 0.06, lean))


def draw_streaks(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 3: a sheaf of straight vertical streaks, bright with dark flanks, or dark."""
    width = min(rng.lognormal(3.3, 0.4) * scale, 0.7 * math.sqrt(area))
    width = max(width, area / frame_hw[0])
    height = area / (0.87 * width)
    if height > 0.93 * frame_hw[0]:
        height = frame_hw[0]  # long ones extend beyond the image, above and below
    size_hw = _round_window(height, width, frame_hw)
    n_streaks = max(1, round(rng.uniform(0.4, 1.1) * size_hw[1] / (13 * scale)))
    sheaf = np.zeros(size_hw, np.float32)
    brights = 0.1 if rng.random() < 0.25 else 0.9
    for k in range(n_streaks):
        share = (k + rng.uniform(0.05, 0.95)) / n_streaks
        sign = 1.0 if rng.random() < brights else -0.7
        place = (0.2 + 0.6 * share) * size_hw[1]
        sheaf += sign * _streak(rng, size_hw, place, scale, frame_hw)
    broken = 1 + 0.3 * noise(rng, size_hw, (20 * scale, 3 * scale))
    broken += 0.3 * noise(rng, size_hw, (4 * scale, 2 * scale))
    return Defect(rng.uniform(0.5, 1.1) * broken * sheaf, _strip(rng, size_hw, 0.18))


def draw_grit(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 3: a patch of bright grains and dark gaps in a small loose polygon."""
    size_hw = _shape_window(area / 0.67, rng.lognormal(0.1, 0.3), frame_hw)
    label = _polygon(rng, size_hw)
    deep = _depth(label)
    inside = rise(deep - rng.uniform(0.15, 0.45) * float(deep.max()), 1.5 * scale)
    grains = noise(rng, size_hw, (3 * scale, 3 * scale)) + noise(
        rng, size_hw, (6 * scale, 5 * scale)
    )
    bright, dark = np.maximum(grains - 0.6, 0), np.maximum(-grains - 0.9, 0)
    return Defect(rng.uniform(0.5, 1.0) * inside * (bright.clip(0, 1.6) - 0.6 * dark), label)


def draw_scrapes(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 3: a field of parallel bright scrapes, some on dull ground, in a loose polygon."""
    size_hw = _shape_window(area / 0.65, rng.lognormal(-0.1, 0.4), frame_hw)
    label = _polygon(rng, size_hw)
    side = max(size_hw) * 3 // 2
    scrapes = noise(rng, (side, side), (2.5 * scale, 22 * scale))
    scrapes += 0.8 * noise(rng, (side, side), (25 * scale, 60 * scale))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(5, 75), 1)
    turned = np.asarray(cv2.warpAffine(scrapes, turn, (side, side)), np.float32)
    top, left = (side - size_hw[0]) // 2, (side - size_hw[1]) // 2
    turned = turned[top : top + size_hw[0], left : left + size_hw[1]]
    inside = rise(_depth(label) - 9 * scale, 3 * scale)
    dull = rng.uniform(0.1, 0.6) * rise(noise(rng, size_hw, (50 * scale, 70 * scale)) - 0.5, 0.1)
    scraped = rng.uniform(0.6, 1.2) * (rise(turned - 1.0, 0.15) - 0.15)
    return Defect(inside * (scraped - dull), label)


def draw_lump(rng: np.random.Generator, area: float, scale: float, frame_hw: SizeHW) -> Defect:
    """Draw class 4: metal in relief, torn or smooth, lit from above, in an irregular polygon."""
    size_hw = _shape_window(area / 0.67, rng.lognormal(-0.25, 0.35), frame_hw)
    label = _polygon(rng, size_hw)
    folds = min(max(rng.uniform(0.15, 0.4) * math.sqrt(area), 10 * scale), 50 * scale)
    light = _relief(rng, size_hw, folds) if rng.random() < 0.8 else _dome(rng, label, folds)
    ragged = np.abs(noise(rng, size_hw, (10 * scale, 10 * scale)))
    inside = rise(_depth(label) - (4 + 5 * ragged) * scale, 1.2 * scale)
    rim = 4 * inside * (1 - inside)
    change = inside * (light - rng.uniform(-0.15, 0.5)) - 0.5 * rim
    return Defect(rng.uniform(0.6, 1.0) * change, label)


def _streak(
    rng: np.random.Generator, size_hw: SizeHW, place: float, scale: float, frame_hw: SizeHW
) -> Layer:
    """Draw a vertical streak at a column; it has no ends if the window is as tall as the frame."""
    height = size_hw[0]
    y, x = grid_around(0, place, size_hw)
    sway = 0.6 * scale * noise(rng, (height, 1), (20 * scale, 1))
    across = (x + sway) / (rng.uniform(0.8, 2.8) * max(scale, 0.5))
    core = np.exp(-(across**2) / 2) - 0.5 * np.exp(-((np.abs(across) - 2.5) ** 2))
    first, last = rng.uniform(0.03, 0.2) * height, height * rng.uniform(0.8, 0.97)
    if height < frame_hw[0]:
        core = core * rise(y - first, 4 * scale) * rise(last - y, 4 * scale)
    return rng.uniform(0.5, 1.1) * core


def _relief(rng: np.random.Generator, size_hw: SizeHW, folds: float) -> Layer:
    """Shade a crumpled surface (h, w), 0 where flat; `folds` is the fold size in pixels."""
    height_map = np.zeros(size_hw, np.float32)
    for octave in range(4):
        cell = folds / 2**octave
        height_map += rng.uniform(0.3, 0.6) ** octave * noise(rng, size_hw, (cell, cell))
    bend_y, bend_x = (0.35 * folds * noise(rng, size_hw, (folds, folds)) for _ in range(2))
    y, x = grid_around(0, 0, size_hw)
    crumpled = cv2.remap(
        height_map, x + bend_x, y + bend_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    slope = cv2.Sobel(crumpled, cv2.CV_32F, 0, 1) + 0.4 * cv2.Sobel(crumpled, cv2.CV_32F, 1, 0)
    light = np.asarray(slope, np.float32) / (float(slope.std()) + 1e-6)
    return 0.6 * light.clip(-2, 2.4) + 0.1 * noise(rng, size_hw, (2, 2))


def _dome(rng: np.random.Generator, label_hw: Uint8, folds: float) -> Layer:
    """Shade a smooth lump of a few lobes (h, w), higher where its label is deep."""
    size_hw = (label_hw.shape[0], label_hw.shape[1])
    lobes = 1.2 + 0.8 * noise(rng, size_hw, (1.2 * folds, 1.2 * folds))
    height_map = np.sqrt(np.minimum(_depth(label_hw), 1.5 * folds) * folds) * lobes
    smooth = cv2.GaussianBlur(height_map, (0, 0), max(folds / 8, 0.6))
    light = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 0, 1), np.float32)
    light /= float(light.std()) + 1e-6
    return 0.7 * light.clip(-2, 2.4) + 0.1 * noise(rng, size_hw, (2, 2))


def _shape_window(area: float, aspect: float, frame_hw: SizeHW) -> SizeHW:
    """Return a window of `area` pixels, with height / width near `aspect`, inside the frame."""
    height = min(math.sqrt(area * aspect), frame_hw[0])
    return _round_window(height, area / height, frame_hw)


def _round_window(height: float, width: float, frame_hw: SizeHW) -> SizeHW:
    """Return a size in whole pixels, at least 4 and at most the frame's."""
    side_hw = [
        max(4, min(round(side), most)) for side, most in zip((height, width), frame_hw, strict=True)
    ]
    return side_hw[0], side_hw[1]


def _strip(rng: np.random.Generator, size_hw: SizeHW, slack: float, lean: float = 0) -> Uint8:
    """Fill an upright quadrilateral whose corners are inset by up to `slack` of the width.

    `lean` shifts the upper side to the right of the lower one, in pixels, within the window.
    """
    height, width = size_hw
    left, right, up, down = max(lean, 0), max(-lean, 0), 0, height - 1
    inset = rng.uniform(0, slack, 4) * width
    corners = [
        (left + inset[0], up),
        (width - 1 - right - inset[1], up),
        (width - 1 - left - inset[2], down),
        (right + inset[3], down),
    ]
    return _fill(corners, size_hw)


def _polygon(rng: np.random.Generator, size_hw: SizeHW) -> Uint8:
    """Fill an irregular polygon of 8 to 14 corners that touches all sides of the window."""
    n_corners = int(rng.integers(8, 15))
    angles = (np.arange(n_corners) + rng.uniform(-0.3, 0.3, n_corners)) * 2 * np.pi / n_corners
    radii = rng.uniform(0.6, 1.05, n_corners)
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    corners -= corners.min(0)
    corners *= (np.array(size_hw[::-1]) - 1) / corners.max(0)
    return _fill(corners, size_hw)


def _fill(corners_xy: npt.ArrayLike, size_hw: SizeHW) -> Uint8:
    label = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(label, [np.rint(corners_xy).astype(np.int32)], 1)
    return label


def _depth(label_hw: Uint8) -> Layer:
    """Return each pixel's distance to the outside of its label; the window's rim is outside."""
    padded = cv2.copyMakeBorder(label_hw, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    return np.asarray(depth, np.float32)[1:-1, 1:-1]
