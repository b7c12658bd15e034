"""Outlines and run lengths in pixels, against pycocotools and OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from annotated import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from steelseg.core.errors import BadInput
from steelseg.formats import outlines

Mask = npt.NDArray[np.uint8]
MASKS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)
)
RING = drawn(
    "########",
    "#..##.##",
    "#.######",
    "########",
    ".......#",
    "###.##.#",
)


def painted(mask_hw: Mask) -> Mask:
    """Paint the outlines of a mask, each on its own."""
    again = np.zeros_like(mask_hw)
    for outline in outlines.trace(mask_hw):
        part = np.zeros_like(mask_hw)
        cv2.fillPoly(part, [outline], 1)
        again |= part
    return again


@given(MASKS)
@settings(max_examples=200)
def test_outlines_are_exact(mask_hw: Mask) -> None:
    """What is traced and painted again is the same mask, with its holes."""
    np.testing.assert_array_equal(painted(mask_hw), mask_hw)


def test_an_outline_is_one_polygon_per_part() -> None:
    """Holes, also two in one row, do not make further polygons, nor are straight steps kept."""
    traced = list(outlines.trace(RING))
    assert len(traced) == 3
    np.testing.assert_array_equal(painted(RING), RING)
    assert all(len(outline) >= 3 for outline in outlines.trace(np.eye(2, dtype=np.uint8)))
    (square,) = outlines.trace(np.ones((50, 60), dtype=np.uint8))
    assert len(square) == 4


def test_a_large_part_with_many_holes_is_exact() -> None:
    """Slits from hole to hole never cross background."""
    mask_hw = (np.random.default_rng(1).random((120, 150)) < 0.9).astype(np.uint8)
    np.testing.assert_array_equal(painted(mask_hw), mask_hw)


@given(MASKS)
def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(mask_hw: Mask) -> None:
    """Its encoder is the oracle."""
    counts = coco_mask.encode(np.asfortranarray(mask_hw))["counts"].decode("ascii")
    again = outlines.from_counts(outlines.decompress(counts), mask_hw.shape)
    np.testing.assert_array_equal(again, mask_hw)


def test_long_runs_are_read() -> None:
    """Numbers of several characters, and differences below zero."""
    mask_hw = np.zeros((3000, 2000), dtype=np.uint8)
    mask_hw[:, 900:1000] = mask_hw[5:2000, 1200] = mask_hw[:2, 1201:] = 1
    counts = coco_mask.encode(np.asfortranarray(mask_hw))["counts"].decode("ascii")
    again = outlines.from_counts(outlines.decompress(counts), mask_hw.shape)
    np.testing.assert_array_equal(again, mask_hw)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=300), max_size=20))
def test_damaged_run_lengths_are_refused(text: str) -> None:
    """Any text is either refused or numbers; none is read past its end."""
    try:
        numbers = outlines.decompress(text)
    except BadInput:
        return
    assert 0 < len(numbers) <= len(text)


@pytest.mark.parametrize(
    "counts",
    [[5, 2], [10, -2, 4], [1.5, 10.5], "abc", None, [[1, 2], 3], [2**70], [True], {"a": 1}],
)
def test_counts_that_do_not_fill_the_image_are_refused(counts: object) -> None:
    """Before a mask is made of them."""
    with pytest.raises(BadInput, match="expected runs"):
        outlines.from_counts(counts, (3, 4))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([1, 2, 3], "pairs of numbers"),
        ([[1, 2], [3]], "pairs of numbers"),
        ([1, 2, float("nan"), 4], "NaN or infinity"),
        ([1, 2, 1e999, 4], "NaN or infinity"),
        ([1, 2, 1e9, 4], "far outside the image of 3x4"),
        ([1, -4, 1, 1], "far outside"),
        (["1", "2"], "pairs of numbers"),
        ([True, False], "pairs of numbers"),
        (None, "pairs of numbers"),
        ({"x": 1}, "pairs of numbers"),
        ([2**80, 2], "pairs of numbers"),
    ],
)
def test_points_that_are_none_are_refused(points: object, message: str) -> None:
    """With what was expected."""
    with pytest.raises(BadInput, match=message):
        outlines.to_points(points, (3, 4))
