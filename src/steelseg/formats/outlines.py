"""Converts outlines and runs to pixels, and pixels to outlines.

Formats differ in which pixels a polygon covers. COCO, CVAT and Label Studio share the rule of
pycocotools; those of LabelMe and YOLO are in their own modules.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from steelseg.core.arrays import Float64, Int32, Int64, Uint8
from steelseg.core.errors import BadInput, quote
from steelseg.data import rle

TOO_FEW = "polygon of fewer than 3 points"
_AROUND = 1  # how far points may be outside, in heights and widths of the image
_COCO_ZERO = ord("0")  # the first of the 64 characters of a compressed RLE
_COCO_BITS, _COCO_MORE, _COCO_NEGATIVE = 0x1F, 0x20, 0x10
_COCO_LONGEST = 7  # characters of one number, for 35 bits


class LeftOut(Exception):
    """A shape that is left out; the message is a short reason, by which shapes are counted."""


def to_points(values: object, size_hw: tuple[int, int]) -> Float64:
    """Check the points of a file.

    Args:
        values: x, y pairs, or alternating x and y, in pixels.
        size_hw: of the image.

    Returns:
        (N, 2) float64 of x and y.

    Raises:
        BadInput: they are not pairs of numbers, are not finite, or are further outside than the
            image is wide or high.
    """
    points_xy = _to_pairs(values)
    if not np.isfinite(points_xy).all():
        raise BadInput("expected finite coordinates, but got NaN or infinity")
    limits = np.array(size_hw[::-1], dtype=np.float64)
    outside = (points_xy < -_AROUND * limits) | (points_xy > (1 + _AROUND) * limits)
    if outside.any():
        x, y = points_xy[outside.any(axis=1)][0]
        height, width = size_hw
        raise BadInput(f"the point {x:g}, {y:g} is far outside the image of {height}x{width}")
    return points_xy


def fill(polygons: Sequence[Float64], size_hw: tuple[int, int]) -> Uint8:
    """Paint the union of polygons, (N, 2) of x and y each, as pycocotools does: (H, W) uint8."""
    height, width = size_hw
    parts = coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], height, width)
    return _unpack(coco_mask.merge(parts))


def fill_box(xywh: Sequence[float], size_hw: tuple[int, int]) -> Uint8:
    """Paint a box as pycocotools does: (H, W) uint8."""
    height, width = size_hw
    boxes = coco_mask.frPyObjects(np.array([xywh], dtype=np.float64), height, width)
    return _unpack(boxes[0])


def from_counts(counts: object, size_hw: tuple[int, int]) -> Uint8:
    """Paint alternating runs of background and foreground, column by column.

    Raises:
        BadInput: they are not whole numbers from 0, or do not add up to the image.
    """
    lengths = _to_lengths(counts)
    height, width = size_hw
    fits = (lengths >= 0).all() and (lengths <= height * width).all()
    if not fits or lengths.sum() != height * width:
        raise BadInput(f"expected runs that add up to {height}x{width} pixels")
    starts = np.cumsum(lengths) - lengths
    return rle.fill(np.stack([starts[1::2], lengths[1::2]], axis=1), size_hw)


def decompress(text: str) -> Int64:
    """Read the run lengths of a compressed COCO RLE, which may be damaged.

    Numbers are written with 5 bits per character, the lowest first, and from the fourth on as the
    difference to the number two before. pycocotools reads past the end of a damaged text.

    Raises:
        BadInput: it is not such a text.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - _COCO_ZERO
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & _COCO_MORE:
        raise BadInput(f"expected a compressed RLE, but got {quote(text)}")
    stops = np.flatnonzero(codes & _COCO_MORE == 0) + 1
    starts = np.concatenate([[0], stops[:-1]])
    if (stops - starts).max() > _COCO_LONGEST:
        raise BadInput(f"expected a compressed RLE, but got {quote(text)}")
    places = 5 * (np.arange(len(codes)) - np.repeat(starts, stops - starts))
    numbers = np.add.reduceat((codes & _COCO_BITS) << places, starts)
    negative = codes[stops - 1] & _COCO_NEGATIVE != 0
    numbers[negative] -= 1 << (5 * (stops - starts))[negative]
    for first in (1, 2):  # each number is the sum of its own series, odd or even
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def trace(mask_hw: Uint8) -> Iterator[Int32]:
    """Trace a mask into polygons whose vertices are pixels, one per 8-connected part.

    `cv2.fillPoly`, which also paints the outline, restores the part exactly. A hole is reached
    through a slit of no width, to the left from its leftmost pixel.

    Yields:
        (N, 2) int32 of x and y.
    """
    contours, hierarchy = cv2.findContours(mask_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [ring[:, 0, :].astype(np.int32) for ring in contours]
    for i, ring in enumerate(rings):
        if hierarchy[0, i, 3] < 0:
            holes = [r for r, h in zip(rings, hierarchy[0], strict=True) if h[3] == i]
            yield _straighten(_join(ring, holes, mask_hw))


def _unpack(encoded: Mapping[str, Any]) -> Uint8:
    """Decode pycocotools' RLE; its own decoder warns under NumPy 2 (as of 2.0.11)."""
    height, width = encoded["size"]
    return from_counts(decompress(encoded["counts"].decode("ascii")), (height, width))


def _to_pairs(values: object) -> Float64:
    points = _to_array(values, "iuf")
    if points is None or points.ndim not in {1, 2} or points.size % 2:
        raise BadInput(f"expected pairs of numbers, but got {quote(values)}")
    return points.astype(np.float64).reshape(-1, 2)


def _to_lengths(counts: object) -> Int64:
    lengths = _to_array(counts, "iu")
    if lengths is None or lengths.ndim != 1:
        raise BadInput(f"expected runs as a list of whole numbers, but got {quote(counts)}")
    return lengths.astype(np.int64)


def _to_array(values: object, kinds: str) -> np.ndarray[Any, np.dtype[Any]] | None:
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # lists of unequal length
        return None
    return array if array.dtype.kind in kinds else None


def _join(outer_xy: Int32, holes: list[Int32], mask_hw: Uint8) -> Int32:
    """Insert each hole, there and back, into the ring that a ray from it to the left meets.

    From left to right, so that the ring exists already. A ring may pass a pixel several times.
    """
    ring = outer_xy
    for hole in sorted(holes, key=lambda hole: int(hole[:, 0].min())):
        leftmost = int(hole[:, 0].argmin())
        x, y = hole[leftmost]
        row = mask_hw[y, : x + 1]
        stop = x - int(np.argmin(row[::-1])) + 1 if not row.all() else 0
        at = int(np.flatnonzero((ring == (stop, y)).all(axis=1))[0])
        turned = np.concatenate([hole[leftmost:], hole[: leftmost + 1]])
        ring = np.concatenate([ring[: at + 1], turned, ring[at:]])
    return ring


def _straighten(ring_xy: Int32) -> Int32:
    """Drop the pixels inside straight segments: horizontal, vertical and diagonal.

    A ring of fewer than 3 pixels repeats the last, since a polygon needs 3.
    """
    before = ring_xy - np.roll(ring_xy, 1, axis=0)
    after = np.roll(ring_xy, -1, axis=0) - ring_xy
    ring = ring_xy[(before != after).any(axis=1)] if len(ring_xy) > 1 else ring_xy
    return np.pad(ring, ((0, max(0, 3 - len(ring))), (0, 0)), mode="edge")
