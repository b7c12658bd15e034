"""Tests of steelseg.postprocess against hand-made maps and the starter notebook's loop."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from tables import clean_mask

from steelseg.core.errors import SteelsegError
from steelseg.data import rle
from steelseg.predict.postprocess import (
    ClassRule,
    confidence,
    is_open,
    postprocess,
    postprocess_maps,
)
from steelseg.predict.tiles import Block, Maps

# levels that thresholds fall on, between, below and above
LEVELS = [0.0, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0]
MAPS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from(LEVELS).map(np.float32).map(float),
)
RULES = st.builds(
    ClassRule,
    enabled=st.sampled_from([True, True, True, False]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7]),
    min_component_area=st.integers(0, 6),
    min_area=st.integers(0, 12),
    gate=st.sampled_from([0.0, 0.3, 0.7, 0.75]),
)
OPEN = ClassRule()


def draw(picture):
    """Turn a picture of digits, tenths of probability, into a (H, W) float32 map."""
    rows = [[int(digit) / 10 for digit in row] for row in picture.split()]
    return np.array(rows, dtype=np.float32)


def loop_over_components(probability_hw, rule):
    """What the rule says, pixel by pixel and component by component, as the notebook has it."""
    mask_hw = np.zeros(probability_hw.shape, dtype=np.uint8)
    foreground = cv2.threshold(probability_hw, rule.threshold, 1, cv2.THRESH_BINARY)[1]
    n_labels, labels_hw = cv2.connectedComponents(foreground.astype(np.uint8))
    for label in range(1, n_labels):
        if (labels_hw == label).sum() >= rule.min_component_area:
            mask_hw[labels_hw == label] = 1
    is_sure = probability_hw.max() > np.float32(rule.gate)
    if not rule.enabled or mask_hw.sum() < rule.min_area or not is_sure:
        mask_hw[:] = 0
    return mask_hw


@given(MAPS, RULES)
def test_agrees_with_the_loop_over_components(probability_hw, rule):
    """Mask, RLE and area are those of the slow way, for any map and rule."""
    expected = loop_over_components(probability_hw, rule)
    mask_hw = clean_mask(probability_hw, rule)
    prediction = postprocess(probability_hw, rule)
    assert mask_hw.dtype == np.uint8
    assert np.array_equal(mask_hw, expected)
    assert prediction.rle == rle.encode(expected)
    assert prediction.area == expected.sum()
    assert prediction.confidence == probability_hw.max()


@given(MAPS, RULES, st.data())
def test_blocks_agree_with_the_loop_over_components(probability_hw, rule, data):
    """However a map is cut into blocks, and in whichever order they come, it is that of one."""
    height, width = probability_hw.shape
    rows, columns = (
        [0, *sorted(data.draw(st.sets(st.integers(1, max(1, n - 1)), max_size=3)) - {n}), n]
        for n in (height, width)
    )
    blocks = [
        Block(top, left, probability_hw[None, top:bottom, left:right])
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    maps = Maps((height, width), data.draw(st.permutations(blocks)))
    expected = loop_over_components(probability_hw, rule)
    (prediction,) = postprocess_maps(maps, [rule])
    assert prediction == (rle.encode(expected), expected.sum(), probability_hw.max())


@given(MAPS, RULES)
def test_memory_order_does_not_matter(probability_hw, rule):
    """Maps that are views, such as channels-last ones, are treated as what they show."""
    expected = postprocess(probability_hw, rule)
    assert postprocess(np.asfortranarray(probability_hw), rule) == expected
    assert postprocess(np.stack([probability_hw] * 3, axis=2)[..., 1], rule) == expected
    assert postprocess(np.ascontiguousarray(probability_hw[::-1])[::-1], rule) == expected


def test_threshold_is_strict():
    """A pixel at the threshold is background, as it is for cv2.threshold."""
    assert postprocess(draw("555"), ClassRule(threshold=0.5)).area == 0
    # 0.3 and 0.7 are no float32: rounding must not let them pass either
    assert postprocess(draw("337"), ClassRule(threshold=0.3)).rle == "3 1"
    assert postprocess(draw("777"), ClassRule(threshold=0.7)).area == 0


def test_components_are_8_connected():
    """Pixels that touch at a corner only are one component."""
    assert postprocess(draw("90 09"), ClassRule(min_component_area=2)).area == 2


def test_smallest_component_is_kept_at_the_minimum():
    """A component of exactly the minimum stays, one pixel fewer goes."""
    probability_hw = draw("99090 00090 00090")
    assert postprocess(probability_hw, ClassRule(min_component_area=3)).rle == "10 3"
    assert postprocess(probability_hw, ClassRule(min_component_area=2)).area == 5
    assert postprocess(probability_hw, ClassRule(min_component_area=4)) == ("", 0, np.float32(0.9))


def test_columns_that_only_touch_in_the_rle_are_two_components():
    """The foot of a column and the head of the next are neighbours in the RLE, not in the image."""
    probability_hw = draw("09 00 90")
    assert postprocess(probability_hw, OPEN).rle == "3 2"  # one run
    assert postprocess(probability_hw, ClassRule(min_component_area=2)).rle == ""


def test_runs_of_kept_components_are_joined_across_columns():
    """Filtering leaves the RLE with runs as long as possible."""
    assert postprocess(draw("99 99 99"), ClassRule(min_component_area=2)).rle == "1 6"


def test_small_masks_are_emptied_after_small_components():
    """The total counts what the component filter has left."""
    probability_hw = draw("99099 00099")
    assert postprocess(probability_hw, ClassRule(min_area=6)).area == 6
    assert postprocess(probability_hw, ClassRule(min_area=7)).area == 0
    assert postprocess(probability_hw, ClassRule(min_component_area=3, min_area=4)).area == 4
    assert postprocess(probability_hw, ClassRule(min_component_area=3, min_area=5)).area == 0


def test_gate_is_strict_and_judges_the_whole_map():
    """The most confident pixel opens the gate, even if its component is dropped."""
    probability_hw = draw("90066")
    assert postprocess(probability_hw, ClassRule(gate=0.8)).area == 3
    assert postprocess(probability_hw, ClassRule(gate=0.9)).area == 0
    assert postprocess(probability_hw, ClassRule(gate=0.8, min_component_area=2)).rle == "4 2"


def test_confidence_is_given_for_empty_masks():
    """Whether the rule empties the mask, or nothing passes, the confidence is the map's maximum."""
    half = np.float32(0.4)
    assert postprocess(draw("0400"), OPEN) == ("", 0, half)
    assert postprocess(draw("0400"), ClassRule(enabled=False, threshold=0.1)) == ("", 0, half)
    assert postprocess(draw("0000"), OPEN) == ("", 0, 0.0)


def test_whole_image_can_be_foreground():
    """A map that is all foreground is one run, one component."""
    ones_hw = np.ones((256, 1600), dtype=np.float32)
    rule = ClassRule(min_component_area=256 * 1600, min_area=256 * 1600, gate=0.99)
    assert postprocess(ones_hw, rule) == ("1 409600", 409600, 1.0)


def test_more_components_than_a_uint16_counts():
    """Labels do not wrap: of 102,400 single pixels none is taken for another."""
    probability_hw = np.zeros((256, 1600), dtype=np.float32)
    probability_hw[::2, ::2] = 1
    probability_hw[0, 1] = 1
    assert postprocess(probability_hw, ClassRule(min_component_area=3)).area == 3


def test_maps_that_are_no_probabilities_are_refused():
    """Channels, another dtype or NaN are errors, not silent nonsense."""
    with pytest.raises(ValueError, match=r"\(H, W\) and float32, but got \(1, 2, 2\) float32"):
        postprocess(np.zeros((1, 2, 2), dtype=np.float32), OPEN)
    with pytest.raises(ValueError, match=r"but got \(2, 2\) float64"):
        confidence(np.zeros((2, 2)))
    broken_hw = draw("12 34")
    broken_hw[1, 0] = np.nan
    with pytest.raises(SteelsegError, match="NaN"):
        postprocess(broken_hw, OPEN)


def test_map_is_left_alone():
    """A read-only map, as memory-mapped ones are, is fine."""
    probability_hw = draw("19 91")
    probability_hw.flags.writeable = False
    assert postprocess(probability_hw, ClassRule(min_component_area=2)).area == 2


def test_gate_compares_as_float32():
    """A float32 of 0.3 is above the double 0.3, but no gate of 0.3 lets it through."""
    assert float(np.float32(0.3)) > 0.3
    assert not is_open(float(np.float32(0.3)), 0.3)
    assert is_open([0.2, 0.9], 0.3).tolist() == [False, True]


@pytest.mark.parametrize(
    "field",
    [{"threshold": 1.0}, {"threshold": -0.1}, {"min_area": -1}, {"gate": 1}, {"treshold": 0.5}],
)
def test_rules_refuse_what_makes_no_sense(field):
    """Values out of range and unknown names are errors."""
    with pytest.raises(ValidationError):
        ClassRule(**field)
