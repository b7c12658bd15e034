"""Converts shapes of LabelMe's JSON files to pixels as LabelMe does, and masks to shapes."""

import base64
import binascii
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from steelseg.core.arrays import Float64, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, quote
from steelseg.data import images
from steelseg.formats.outlines import TOO_FEW, LeftOut, to_points
from steelseg.formats.reading import IGNORED
from steelseg.formats.record import Record
from steelseg.formats.writing import components

_LINE_WIDTH = 10  # pixels, as in `shapes_to_label`
_POINT_RADIUS = 5
_N_POINTS = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "mask": 2, "oriented_rectangle": 4}
OVERLAPS = "overlaps"  # our own flag of shapes that do not hide others; LabelMe keeps it


class Shape(NamedTuple):
    """A shape of a file; it hides shapes of lower levels."""

    label: str
    kind: str
    points: object
    mask: object
    level: int


def decode(text: object, what: str) -> bytes:
    """Decode base64.

    Raises:
        BadInput: it is not base64.
    """
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"expected {what} to be an image in base64") from None


def to_pixels(shape: Shape, size_hw: tuple[int, int]) -> Uint8:
    """Paint a shape: (H, W) uint8 of 0 and 1.

    Raises:
        BadInput: its points or its mask are damaged.
        LeftOut: it has no pixels, or its type is unknown.
    """
    points_xy = to_points(shape.points, size_hw)
    wanted = _N_POINTS.get(shape.kind)
    if wanted is not None and len(points_xy) != wanted:
        raise BadInput(f"expected {wanted} points of a {shape.kind}, but got {len(points_xy)}")
    if shape.kind == "mask":
        return _place(shape.mask, points_xy, size_hw)
    if shape.kind in {"polygon", "linestrip"} and len(points_xy) < (
        3 if shape.kind == "polygon" else 2
    ):
        raise LeftOut(TOO_FEW if shape.kind == "polygon" else "line of a single point")
    picture = Image.new("L", size_hw[::-1])
    _paint(ImageDraw.Draw(picture), shape.kind, points_xy)
    return np.array(picture)


def _paint(draw: ImageDraw.ImageDraw, kind: str, points_xy: Float64) -> None:
    path = [(x, y) for x, y in points_xy.tolist()]
    if kind in {"polygon", "oriented_rectangle"}:
        draw.polygon(path, fill=1, outline=1)
    elif kind == "rectangle":
        corners = points_xy.min(axis=0), points_xy.max(axis=0)
        draw.rectangle(np.concatenate(corners).tolist(), fill=1, outline=1)
    elif kind in {"line", "linestrip"}:
        draw.line(path, fill=1, width=_LINE_WIDTH)
    elif kind in {"circle", "point"}:
        x, y = path[0]
        radius = math.dist(path[0], path[1]) if kind == "circle" else _POINT_RADIUS
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    else:
        raise LeftOut(f"shape of the type {quote(kind)}")


def _place(mask: object, points_xy: Float64, size_hw: tuple[int, int]) -> Uint8:
    """Place a mask, a PNG in base64, between two corner pixels, both included."""
    with images.opened(decode(mask, "`mask`"), ("PNG",)) as image:
        part_hw = np.array(image) != 0
    (left, top), (right, bottom) = points_xy.astype(int).tolist()
    height, width = bottom - top + 1, right - left + 1
    fits = left >= 0 and top >= 0 and bottom < size_hw[0] and right < size_hw[1]
    if part_hw.shape != (height, width) or not fits:
        raise BadInput(
            f"the mask of {'x'.join(map(str, part_hw.shape))} does not fill {height}x{width} "
            f"pixels of the image from {left}, {top}"
        )
    region_hw = np.zeros(size_hw, dtype=np.uint8)
    region_hw[top : bottom + 1, left : right + 1] = part_hw
    return region_hw


def to_shapes(record: Record, classes: Sequence[ClassInfo]) -> list[dict[str, object]]:
    """Convert each 8-connected part to a shape; ignored regions come last, above the others."""
    regions = [(c.name, record.masks[c.name]) for c in classes if c.name in record.masks]
    if record.ignored is not None:
        regions.append((IGNORED, record.ignored))
    drawn = np.sum([region_hw for _, region_hw in regions], axis=0, dtype=np.int32)
    flags = {OVERLAPS: True} if (drawn > 1).any() else {}
    return [
        {"label": label, "flags": flags, **_to_shape(*part)}
        for label, region_hw in regions
        for part in components(region_hw)
    ]


def _to_shape(left: int, top: int, part_hw: Uint8) -> dict[str, object]:
    height, width = part_hw.shape
    encoded = cv2.imencode(".png", part_hw)[1].tobytes()
    return {
        "points": [[left, top], [left + width - 1, top + height - 1]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "mask": base64.b64encode(encoded).decode("ascii"),
    }
