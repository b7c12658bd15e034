"""Limits of false alarms and escapes are kept on new groups; simulated 500 times each."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from steelseg.core.errors import BadInput
from steelseg.quality.intervals import binomial, upper_bound
from steelseg.quality.operating_point import (
    OperatingPoint,
    judge,
    judge_groups,
    least_cost,
    limit_escapes,
    limit_false_alarms,
    shortfall,
)
from steelseg.tune.search import TuneConfig

RUNS = 500
LIMIT = 0.1


def alike(rng, groups, correlation):
    """Draw uniform scores, alike within a group."""
    shared, own = rng.normal(size=groups.max() + 1)[groups], rng.normal(size=len(groups))
    return stats.norm.cdf(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def bad_coils(rng, groups, share):
    """Draw scores that are uniform below 0.9, but for a few coils that are all above."""
    is_bad = (rng.random(groups.max() + 1) < share)[groups]
    return np.where(is_bad, 0.9 + 0.1 * rng.random(len(groups)), 0.9 * rng.random(len(groups)))


def rate_above(threshold, share):
    """Return how often a score of `bad_coils` is above a threshold."""
    among_bad = np.clip((1 - threshold) / 0.1, 0, 1)
    return share * among_bad + (1 - share) * np.clip((0.9 - threshold) / 0.9, 0, 1)


def broken(draw, true_rate, groups, labels=None, find=limit_false_alarms, seed=0):
    """Return how many of 500 promises are broken on images that nobody has seen."""
    rng = np.random.default_rng(seed)
    labels = groups if labels is None else labels
    thresholds = [find(draw(rng, groups), labels, LIMIT).threshold for _ in range(RUNS)]
    return np.mean([true_rate(threshold) > LIMIT for threshold in thresholds])


EQUAL = np.repeat(np.arange(80), 10)
UNEQUAL = np.repeat(np.arange(80), np.resize([1, 2, 3, 8, 12], 80))
SCENES = {
    "independent images": lambda rng, g: alike(rng, g, 0),
    "alike": lambda rng, g: alike(rng, g, 0.5),
    "nearly the same": lambda rng, g: alike(rng, g, 0.97),
}


@pytest.mark.parametrize("groups", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("scene", SCENES)
def test_the_limit_holds_on_new_groups(scene, groups):
    """However alike a group's images are, at most 5 of 100 promises are broken (and chance)."""
    assert broken(SCENES[scene], lambda t: 1 - t, groups) <= 0.06


@pytest.mark.parametrize("share", [0.02, 0.06, 0.1])
def test_the_limit_holds_where_few_coils_are_all_alarms(share):
    """It holds too where what goes wrong is whole coils, of which few have been seen or none."""
    draw = lambda rng, g: bad_coils(rng, g, share)  # noqa: E731
    assert broken(draw, lambda t: rate_above(t, share), EQUAL) <= 0.06


def test_ignoring_groups_breaks_promises():
    """Taken as independent, images that are alike are promised what does not hold."""
    images = np.arange(len(EQUAL))
    for draw, true_rate in [
        (SCENES["alike"], lambda t: 1 - t),
        (SCENES["nearly the same"], lambda t: 1 - t),
        (lambda rng, g: bad_coils(rng, g, 0.1), lambda t: rate_above(t, 0.1)),
    ]:
        assert broken(draw, true_rate, EQUAL, labels=images) > 0.12


def test_the_limit_is_used_up():
    """For independent images the promise is as tight as it can be: broken by few, not by none."""
    images = np.arange(300)
    assert 0.01 <= broken(SCENES["independent images"], lambda t: 1 - t, images) <= 0.06


def test_escapes_are_limited_as_false_alarms_are():
    """The threshold is the highest one, and what is not above it is an escape."""
    scene = SCENES["alike"]
    assert broken(scene, lambda t: t, EQUAL, find=limit_escapes) <= 0.06
    point = limit_escapes(np.arange(100) / 100, np.arange(100), 0.1)
    assert point.share == np.mean(np.arange(100) / 100 <= point.threshold) == 0.04
    assert np.mean(np.arange(100) / 100 <= 0.05) > point.share


def test_errors_allowed_are_those_of_the_exact_bound():
    """Of 100 independent images at most 4 may be alarms for a promise of 10%: 5 might be 10.2%."""
    assert upper_bound(4, 100) <= 0.1 < upper_bound(5, 100)
    point = limit_false_alarms(np.arange(100) / 100, np.arange(100), 0.1)
    assert point == (0.95, 0.04, upper_bound(4, 100), True, upper_bound(0, 100))


def test_too_few_images_are_said_to_be_too_few():
    """36 clean images promise nothing below 80 per 1,000: the threshold is kept on average only."""
    scores = np.arange(36) / 36
    point = limit_false_alarms(scores, np.arange(36), 0.05)
    assert not point.is_promised
    assert point.threshold == scores[-1]
    assert (0 * 36 + 1) / 37 <= 0.05 < point.at_most
    text = shortfall(point.least, 36, 36)
    assert text == "with 36 clean images nothing below 80 per 1,000 can be shown"
    of_groups = limit_false_alarms(np.tile(scores, 10), np.repeat(np.arange(36), 10), 0.05)
    assert of_groups.least == pytest.approx(point.least)
    assert "360 clean images of 36 groups" in shortfall(of_groups.least, 360, 36)
    assert limit_false_alarms(scores, np.arange(36), 0.08).is_promised


def test_ties_count_as_they_stand():
    """Scores that are equal are alarms together or not at all."""
    scores = np.repeat([0.2, 0.9], [60, 40])
    assert limit_false_alarms(scores, np.arange(100), 0.3) == (
        *(0.9, 0.0, upper_bound(0, 100), True, upper_bound(0, 100)),
    )
    assert limit_false_alarms(scores, np.arange(100), 0.999).threshold == 0.2
    assert limit_escapes(scores, np.arange(100), 0.7).share == 0.6
    with pytest.raises(ValueError, match=r"limit in 0\.\.1"):
        limit_false_alarms([], [], 0.1)


def test_the_least_cost_is_that_of_the_loop():
    """No threshold costs less, whatever the costs are."""
    rng = np.random.default_rng(0)
    for costs in [(1, 1), (1, 20), (5, 1), (1, 0)]:
        scores, defective = rng.random(40).round(1), rng.random(40) < 0.4

        def cost(threshold, scores=scores, defective=defective, costs=costs):
            alarms = scores > threshold
            return costs[0] * np.sum(alarms & ~defective) + costs[1] * np.sum(~alarms & defective)

        best = min(cost(t) for t in [-1, *scores])
        assert cost(least_cost(scores, defective, costs)) == best


def test_an_escape_raises_no_alarm_at_all():
    """A plate that is stopped for one defect has not slipped through with another."""
    shown = np.array([[1, 0], [1, 1], [0, 0], [0, 0], [0, 1]], dtype=bool)
    alarms = np.array([False, True, True, False, True])
    judged = judge(alarms, shown, np.arange(5))
    assert judged.false_alarms.value == 0.5
    assert judged.escapes.value == pytest.approx(1 / 3)
    assert [one.value for one in judged.escapes_of_class] == [0.5, 0]
    assert judge(alarms[:2], shown[:2], [0, 1]).false_alarms is None


def test_a_group_is_an_alarm_if_one_of_its_images_is():
    """A coil of several images is defective if one of them is; lone images say nothing of coils."""
    groups = np.array([7, 7, 4, 4, 9, 2, 2, 2])
    shown = np.array([[0, 1], [0, 0], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0], [0, 0]], dtype=bool)
    alarms = np.array([0, 1, 0, 1, 1, 0, 0, 0], dtype=bool)
    judged = judge_groups(alarms, shown, groups)
    assert judged.false_alarms == (1.0, *binomial(1, 1))  # of group 4 alone
    assert judged.escapes == (0.5, *binomial(1, 2))  # group 2; group 7 is stopped by a clean image
    assert [one.value for one in judged.escapes_of_class] == [1, 0]
    assert judge_groups(alarms, shown, np.arange(8)) is None


def test_alarms_per_square_metre_are_alarms_per_image():
    """50 for 1,000 square metres are 5 for 1,000 images of 0.1 square metres."""
    asked = OperatingPoint(false_alarms_per_1000_m2=50)
    assert asked.per_1000(0.1) == pytest.approx(5)
    assert asked.per_1000(None) is None
    assert OperatingPoint(false_alarms=50).per_1000(0.1) == 50
    with pytest.raises(BadInput, match=r"less than 50, which is an alarm in every image.* 20 m²"):
        asked.per_1000(20.0)


def test_a_limit_per_square_metre_needs_a_scale():
    """It is refused before any work is done."""
    asked = OperatingPoint(false_alarms_per_1000_m2=50)
    with pytest.raises(ValidationError, match="since `mm_per_pixel` is null"):
        TuneConfig(operating_point=asked)
    assert TuneConfig(mm_per_pixel=0.5, operating_point=asked).operating_point == asked


LIMITS = np.array([5, 10, 20, 50, 100])  # rows of the table in docs/decisions.md
SEEN = np.array([0, 1, 2, 5, 10])  # and its columns


def test_the_documents_table_is_right():
    """Each number of images promises its limit with so many alarms; one image fewer does not."""
    text = Path(__file__).parents[1].joinpath("docs/decisions.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:3] in ROWS]
    table = np.array([[int(cell.replace(",", "")) for cell in row] for row in rows])
    assert table[:, 0].tolist() == LIMITS.tolist()
    for limit, *numbers in table.tolist():
        for n, seen in zip(numbers, SEEN.tolist(), strict=True):
            assert upper_bound(seen, n) <= limit / 1000 < upper_bound(seen, n - 1)
            scores = np.arange(n) / n
            point = limit_false_alarms(scores, np.arange(n), limit / 1000)
            assert (point.is_promised, np.sum(scores > point.threshold)) == (True, seen)


ROWS = [f"| {limit}"[:3] for limit in LIMITS]
