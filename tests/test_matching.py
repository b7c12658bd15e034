"""Components are matched as dense masks would be, by both rules."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelseg.data import rle
from steelseg.tune.matching import defects, match, score


def rows(*lines):
    """Draw a mask by rows of text, `#` for foreground."""
    return np.array([[letter == "#" for letter in line] for line in lines], dtype=np.uint8)


def match_masks(true, found):
    return match(rle.encode(true), rle.encode(found), true.shape)


@st.composite
def pairs_of_masks(draw):
    """Two masks of one size, of few pixels or many."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
    true, found = (rng.random((2, height, width)) < share).astype(np.uint8)
    return true, found


@settings(max_examples=150, deadline=None)
@given(pairs_of_masks())
def test_components_are_those_of_dense_masks(masks):
    """Areas, sizes and overlaps are what OpenCV's labels of the dense masks give."""
    matching = match_masks(*masks)
    (_, true, stats, _), (n_found, found, _, _) = (
        cv2.connectedComponentsWithStats(m, connectivity=8) for m in masks
    )
    sides = np.maximum(stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT])
    expected = sorted(zip(stats[1:, cv2.CC_STAT_AREA].tolist(), sides.tolist(), strict=True))
    areas, sizes = matching.true_areas.tolist(), matching.true_sizes.tolist()
    assert sorted(zip(areas, sizes, strict=True)) == expected
    both = (true > 0) & (found > 0)
    keys, overlaps = np.unique(true[both] * n_found + found[both], return_counts=True)
    areas_of_found = np.bincount(found.ravel(), minlength=n_found)
    expected_pairs = sorted(
        (int(stats[t, cv2.CC_STAT_AREA]), int(areas_of_found[f]), int(n))
        for (t, f), n in zip((divmod(k, n_found) for k in keys), overlaps, strict=True)
    )
    got = [
        (int(matching.true_areas[t]), int(matching.found_areas[f]), int(n))
        for (t, f), n in zip(matching.pairs, matching.overlaps, strict=True)
    ]
    assert sorted(got) == expected_pairs
    assert matching.n_false == len(set(range(1, n_found)) - set(found[both].tolist()))


@settings(max_examples=50, deadline=None)
@given(pairs_of_masks())
def test_a_mask_is_found_by_itself(masks):
    """Against itself everything matches wholly, at any overlap."""
    matching = match_masks(masks[0], masks[0])
    n = len(matching.true_areas)
    assert score([matching], 0.99) == (n, 0, 0, n)
    assert matching.coverage.tolist() == [1] * n
    assert matching.n_false == 0


def test_quality_by_hand():
    """One of two is matched by IoU 3/4; one is missed, one is false: SQ 3/4, RQ 1/2, PQ 3/8."""
    true = rows("####..#", "......#", ".......")
    found = rows(".###...", ".......", "#......")
    scores = score([match_masks(true, found)])
    assert scores == (1, 1, 1, 0.75)
    assert (scores.precision, scores.recall) == (0.5, 0.5)
    assert scores.segmentation_quality == 0.75
    assert scores.recognition_quality == 0.5
    assert scores.panoptic_quality == pytest.approx(0.375)
    assert score([match_masks(true, found)], 0.75).matched == 0


def test_one_region_over_two_scratches():
    """By touch it finds both; one to one it can match at most one of them."""
    true = rows("###.....", "........", "########")
    found = rows("########", "########", "########")
    matching = match_masks(true, found)
    assert matching.coverage.tolist() == [1, 1]
    assert matching.n_false == 0
    assert score([matching], 0.1) == (1, 1, 0, pytest.approx(8 / 24))


def test_as_many_as_possible_are_matched():
    """Below an overlap of 0.5 a found component goes where both can be matched."""
    true = rows("######..##")
    found = rows("##.#######")
    matching = match_masks(true, found)
    # the long found one overlaps both true ones; the short one only the first
    assert score([matching], 0.2).matched == 2


def test_touch_and_coverage():
    """A defect of four pixels of which one was found counts as found by any, not by half."""
    matching = match_masks(rows("####"), rows("#..."))
    assert (matching.coverage > 0).tolist() == [True]
    assert (matching.coverage > 0.5).tolist() == [False]


def test_defects_of_many_images():
    """All true components with their longer side, whether found, and the group of their image."""
    first = match_masks(rows("###.#", "....#"), rows("#....", "....."))
    none = match_masks(rows(".."), rows("##"))
    second = match_masks(rows("####"), rows("###."))
    sizes, found, groups = defects([first, none, second], [7, 8, 9])
    assert sizes.tolist() == [3, 2, 4]
    assert found.tolist() == [True, False, True]
    assert groups.tolist() == [7, 7, 9]
    assert defects([first, none, second], [7, 8, 9], 0.5)[1].tolist() == [False, False, True]
    assert defects([], [])[0].tolist() == []


def test_runs_that_go_on_in_the_next_column_do_not_touch():
    """The end of a column and the beginning of the next are one run, but far apart."""
    true = rows("..#", "...", "...", ".#.")
    assert rle.encode(true) == "8 2"
    matching = match_masks(true, true)
    assert matching.true_areas.tolist() == [1, 1]


def test_corners():
    """Nothing to find, nothing found, and what a diagonal joins."""
    empty, full = np.zeros((3, 4), np.uint8), np.ones((3, 4), np.uint8)
    assert match_masks(empty, full).n_false == 1
    assert match_masks(full, empty).coverage.tolist() == [0]
    assert score([match_masks(empty, empty)]) == (0, 0, 0, 0)
    assert np.isnan(score([]).panoptic_quality)
    assert match_masks(np.eye(3, dtype=np.uint8), empty).true_sizes.tolist() == [3]
