"""Confidences after calibration mean what they say, keep their order, and survive JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelseg.quality.calibration import (
    AS_IT_IS,
    Calibration,
    calibration_error,
    cross_fit,
    fit,
    reliability,
)


def draw(seed, n):
    """Draw scores of which one of 0.95 is right a third of the time, and whether they are."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.4, 1.2, n)
    scores = 1 - (1 - probability) ** 6.5
    return scores, rng.random(n) < probability, probability


def test_confidences_come_to_mean_what_they_say():
    """Out of fold the error falls from a third to what chance alone would leave."""
    scores, right, probability = draw(0, 2000)
    parts = np.arange(2000) % 5
    before = reliability(scores, right)
    after = reliability(cross_fit(scores, right, parts), right)
    assert before.error > 0.2
    assert after.error < 0.03
    assert (
        np.abs(fit(scores, right)(scores) - probability).mean()
        < 0.03
        < np.abs(scores - probability).mean()
    )


def test_few_images_are_not_made_certain():
    """Scores that separate a dozen images perfectly do not become 0 and 1."""
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.99, 0.999])
    confidences = fit(scores, scores > 0.6)(scores)
    assert confidences.min() > 0.05
    assert confidences.max() < 0.95


def test_a_class_that_was_never_seen_is_never_likely():
    """However high its scores are: of 8 images none showed it, so 1 in 10 is all one can say."""
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.99, 0.999])
    assert fit(scores, scores > 2)([0.0, 0.5, 1.0]) == pytest.approx([0.1] * 3, abs=1e-4)
    assert fit(scores, scores > 0)([0.0, 0.5, 1.0]) == pytest.approx([0.9] * 3, abs=1e-4)
    assert fit([], []) == AS_IT_IS


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=30))
def test_order_is_kept(pairs):
    """A higher score never gets a lower confidence, and all lie in 0..1."""
    scores, right = np.array(pairs, dtype=float).T
    calibration = fit(scores, right)
    confidences = calibration(np.linspace(0, 1, 101))
    assert np.all(np.diff(confidences) >= 0)
    assert confidences.min() >= 0
    assert confidences.max() <= 1


def test_thresholds_can_still_be_set_between_neighbours():
    """Unlike isotonic regression it makes no two scores equal, at the ends neither."""
    scores, right, _ = draw(1, 400)
    confidences = fit(scores, right)([0.001, 0.002, 0.3, 0.31, 0.998, 0.999, 0.9999])
    assert np.all(np.diff(confidences) > 0)


def test_json_keeps_all_of_it():
    """What is kept is two short lists of numbers."""
    scores, right, _ = draw(2, 300)
    calibration = fit(scores, right)
    assert Calibration(*json.loads(json.dumps(calibration))) == (
        list(calibration.scores),
        list(calibration.confidences),
    )
    assert len(calibration.scores) <= 36
    assert AS_IT_IS([0.25]) == [0.25]


def test_histograms_of_pixels_are_the_pixels():
    """Bins with their counts give what their pixels one by one would, but for where knots lie."""
    rng = np.random.default_rng(3)
    middles = (np.arange(20) + 0.5) / 20
    bins = rng.integers(0, 20, 3000)
    right = rng.random(3000) < middles[bins] ** 2
    total, hits = np.bincount(bins, minlength=20), np.bincount(bins, right, 20)
    one_by_one, together = fit(middles[bins], right), fit(middles, hits, total)
    grid = np.linspace(0, 1, 50)
    assert together(grid) == pytest.approx(one_by_one(grid), abs=3e-3)
    assert reliability(middles, hits, total).error == pytest.approx(
        reliability(middles[bins], right).error
    )


def test_reliability_by_hand():
    """Two bins: 0.2 said where 1 of 2 is right, 0.9 where both are."""
    found = reliability([0.2, 0.2, 0.9, 0.9], [1, 0, 1, 1], n_bins=2)
    assert found.confidence.tolist() == [0.2, 0.9]
    assert found.share.tolist() == [0.5, 1]
    assert found.total.tolist() == [2, 2]
    assert found.error == pytest.approx((0.3 + 0.1) / 2)
    assert reliability([1.0], [1]).error == 0


@pytest.mark.parametrize("power", [1, 1.8])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_interval_holds_the_calibration_error(power, copies):
    """Of perfect and of overconfident scores, in coils of copies; its percentiles alone would not.

    Of perfect scores the error itself is far from 0, and ever farther the fewer the coils are.
    """
    rng = np.random.default_rng(2)
    many = rng.beta(0.5, 0.8, 200_000)
    bins = np.minimum(many * 10, 9).astype(int)
    truth = np.abs(np.bincount(bins, many - many**power)).sum() / len(many)
    held, above = 0, 0
    for _ in range(150):
        scores = np.repeat(rng.beta(0.5, 0.8, 60), copies)
        right = np.repeat(rng.random(60), copies) < scores**power
        value, low, high = calibration_error(scores, right, np.repeat(np.arange(60), copies))
        assert low <= value == reliability(scores, right).error <= high
        held += low <= truth <= high
        above += value > truth
    assert held >= 0.93 * 150
    assert above > 100
    alone = calibration_error(scores, right, np.zeros(len(scores)))
    assert alone[1:] == (0, 1)


def test_copies_tell_nothing_new_about_calibration():
    """Told that images are copies the interval stays as it is; not told, it shrinks."""
    scores, right, _ = draw(3, 80)
    alone = calibration_error(scores, right, np.arange(80))
    copies = np.repeat(np.arange(80), 4)
    told = calibration_error(scores[copies], right[copies], copies)
    naive = calibration_error(scores[copies], right[copies], np.arange(320))
    assert told == pytest.approx(alone)
    assert naive.high - naive.low < 0.7 * (told.high - told.low)
