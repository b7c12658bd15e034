"""Converts attributes of CVAT's shape elements to pixels, and masks to attributes."""

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, quote
from steelseg.formats import outlines
from steelseg.formats.outlines import TOO_FEW, LeftOut


def _paint_polygon(attributes: Mapping[str, str], size_hw: tuple[int, int]) -> Uint8:
    pairs = [pair.split(",") for pair in attributes.get("points", "").split(";")]
    try:
        points = [[float(value) for value in pair] for pair in pairs]
    except ValueError:
        raise BadInput(f"expected points, but got {quote(attributes.get('points'))}") from None
    points_xy = outlines.to_points(points, size_hw)
    if len(points_xy) < 3:
        raise LeftOut(TOO_FEW)
    return outlines.fill([points_xy], size_hw)


def _paint_box(attributes: Mapping[str, str], size_hw: tuple[int, int]) -> Uint8:
    left, top, right, bottom = numbers(attributes, "xtl", "ytl", "xbr", "ybr")
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    points_xy = outlines.to_points(corners, size_hw)
    angle = math.radians(numbers({"rotation": "0"} | dict(attributes), "rotation")[0])
    if not angle:
        return outlines.fill_box([left, top, right - left, bottom - top], size_hw)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = (points_xy[0] + points_xy[2]) / 2
    return outlines.fill([(points_xy - middle) @ turn.T + middle], size_hw)


def _paint_ellipse(attributes: Mapping[str, str], size_hw: tuple[int, int]) -> Uint8:
    x, y, radius_x, radius_y = numbers(attributes, "cx", "cy", "rx", "ry")
    angle = numbers({"rotation": "0"} | dict(attributes), "rotation")[0]
    outlines.to_points([[x - radius_x, y - radius_y], [x + radius_x, y + radius_y]], size_hw)
    region_hw = np.zeros(size_hw, dtype=np.uint8)
    axes = round(abs(radius_x)), round(abs(radius_y))
    cv2.ellipse(region_hw, (round(x), round(y)), axes, angle, 0, 360, 1, thickness=-1)
    return region_hw


def _paint_mask(attributes: Mapping[str, str], size_hw: tuple[int, int]) -> Uint8:
    """Paint alternating runs of background and foreground, row by row in a window of the image."""
    left, top, width, height = map(int, numbers(attributes, "left", "top", "width", "height"))
    fits = left >= 0 and top >= 0 and left + width <= size_hw[1] and top + height <= size_hw[0]
    if not fits or width < 1 or height < 1:
        raise BadInput(f"the window of {height}x{width} at {left}, {top} leaves the image")
    runs = [run.strip() for run in attributes.get("rle", "").split(",")]
    if not all(run.isdecimal() and len(run) < 12 for run in runs):
        raise BadInput(f"expected `rle` as whole numbers, but got {quote(attributes.get('rle'))}")
    part_wh = outlines.from_counts([int(run) for run in runs], (width, height))
    region_hw = np.zeros(size_hw, dtype=np.uint8)
    region_hw[top : top + height, left : left + width] = part_wh.T
    return region_hw


PAINTERS = {
    "polygon": _paint_polygon,
    "box": _paint_box,
    "ellipse": _paint_ellipse,
    "mask": _paint_mask,
}


def numbers(attributes: Mapping[str, str], *keys: str) -> list[float]:
    """Return attributes as finite numbers.

    Raises:
        BadInput: one is missing, or is not a number.
    """
    numbers = []
    for key in keys:
        try:
            numbers.append(float(attributes[key]))
        except (KeyError, ValueError):
            got = quote(attributes.get(key))
            raise BadInput(f"expected a number as `{key}`, but got {got}") from None
        if not math.isfinite(numbers[-1]):
            raise BadInput(f"expected a finite number as `{key}`, but got {numbers[-1]}")
    return numbers


def encode(left: int, top: int, part_hw: Uint8) -> dict[str, Any]:
    """Write a part of a mask as the attributes of a `mask` element."""
    flat = part_hw.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=np.uint8(0))).tolist()
    runs = np.diff([0, *edges, flat.size]).tolist()
    window = {"left": left, "top": top, "width": part_hw.shape[1], "height": part_hw.shape[0]}
    extras = {"source": "manual", "occluded": 0, "z_order": 0}
    return {**extras, "rle": ", ".join(map(str, runs)), **window}
