"""Intervals cover what they say, on correlated images too; simulated 1,000 times each."""

import numpy as np
import pytest
from scipy import stats

from steelseg.quality.intervals import binomial, mean, rate, ratio, upper_bound

RUNS = 1000


def draw(rng, n_groups, sizes, correlation):
    """Draw a uniform number for each image, alike within a group: groups (N,), uniforms (N,)."""
    sizes = np.resize(sizes, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    shared, own = rng.normal(size=n_groups)[groups], rng.normal(size=len(groups))
    normal = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return groups, stats.norm.cdf(normal)


def coverage(estimate, truth, seed=0, **design):
    """Return the share of the simulated intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    found = [estimate(*draw(rng, **design)) for _ in range(RUNS)]
    return np.mean([one.low <= truth <= one.high for one in found])


DESIGNS = {
    "no groups": {"n_groups": 200, "sizes": [1], "correlation": 0},
    "independent images": {"n_groups": 40, "sizes": [8], "correlation": 0},
    "alike": {"n_groups": 30, "sizes": [8], "correlation": 0.6},
    "unequal": {"n_groups": 40, "sizes": [1, 2, 4, 9, 14], "correlation": 0.5},
    "nearly the same": {"n_groups": 60, "sizes": [10], "correlation": 0.95},
    "one large in five": {"n_groups": 40, "sizes": [1, 1, 1, 2, 20], "correlation": 0.5},
}


@pytest.mark.parametrize("design", DESIGNS)
def test_rates_are_covered(design):
    """The interval of a share of images, such as recall, holds it 93 to 97 times in 100."""
    covered = coverage(lambda g, u: rate(u < 0.3, g), 0.3, **DESIGNS[design])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("design", DESIGNS)
def test_means_are_covered(design):
    """So does that of a mean Dice: skewed, with many ones and some zeros."""

    def dice(groups, uniform):
        values = np.select([uniform > 0.5, uniform < 0.1], [1.0, 0.0], uniform / 0.5)
        return ratio(values, np.ones(len(values)), groups)

    truth = 0.5 + 0.4 * 0.6  # ones, and 40% evenly between 0.2 and 1
    assert 0.93 <= coverage(dice, truth, **DESIGNS[design]) <= 0.97


@pytest.mark.parametrize("design", DESIGNS)
def test_differences_are_covered(design):
    """So does that of a mean difference, most of which are 0."""

    def gain(groups, uniform):
        values = np.select([uniform > 0.7, uniform < 0.2], [uniform - 0.6, uniform - 0.3], 0.0)
        return mean(values, groups)

    truth = 0.3 * 0.25 - 0.2 * 0.2
    assert 0.93 <= coverage(gain, truth, **DESIGNS[design]) <= 0.97


@pytest.mark.parametrize("design", ["alike", "unequal", "nearly the same"])
def test_ignoring_groups_fails(design):
    """Taken as independent, images that are alike give intervals that hold the truth far less."""
    naive = coverage(lambda g, u: rate(u < 0.3, np.arange(len(g))), 0.3, **DESIGNS[design])
    assert naive < 0.85


def test_percentiles_of_a_bootstrap_are_too_narrow_for_few_groups():
    """Why there is no bootstrap here: of 15 groups its percentiles hold the truth less often."""
    weights = np.random.default_rng(1).multinomial(15, np.full(15, 1 / 15), 400)

    def percentiles(groups, uniform):
        sums = np.bincount(groups, uniform < 0.3), np.bincount(groups)
        low, high = np.quantile(weights @ sums[0] / (weights @ sums[1]), [0.025, 0.975])
        return rate(uniform < 0.3, groups)._replace(low=low, high=high)

    design = {"n_groups": 15, "sizes": [8], "correlation": 0.6}
    assert coverage(percentiles, 0.3, **design) < 0.93
    assert coverage(lambda g, u: rate(u < 0.3, g), 0.3, **design) >= 0.93


@pytest.mark.parametrize("correlation", [0, 0.5, 0.95])
def test_rates_of_rare_events_are_covered_at_least(correlation):
    """Of events in few groups the interval is too wide rather than too narrow."""
    design = {"n_groups": 60, "sizes": [2, 5, 8], "correlation": correlation}
    assert coverage(lambda g, u: rate(u < 0.03, g), 0.03, **design) >= 0.93


def test_clopper_and_pearson():
    """The exact interval is scipy's; that of no events is the rule of three made exact."""
    for events, n in [(0, 36), (1, 10), (7, 50), (50, 50)]:
        expected = stats.binomtest(events, n).proportion_ci(0.95, "exact")
        assert binomial(events, n) == pytest.approx((expected.low, expected.high))
    assert upper_bound(0, 36) == pytest.approx(1 - 0.05 ** (1 / 36))
    assert round(1000 * upper_bound(0, 36)) == 80
    assert upper_bound(5, 5) == 1


def test_images_without_groups_are_independent():
    """Where every image is its own group, rates are exact binomial."""
    events = np.arange(50) < 7
    assert rate(events, np.arange(50)) == pytest.approx((0.14, *binomial(7, 50)))


def test_copies_of_an_image_add_nothing():
    """Twenty copies of each image give the interval of the images themselves, but for rounding."""
    events = np.arange(80) % 4 == 0
    alone = rate(events, np.arange(80))
    copied = rate(np.repeat(events, 20), np.repeat(np.arange(80), 20))
    assert copied == pytest.approx(alone, abs=0.004)


def test_corners():
    """Nothing gives nothing; no events at all count groups; a lone group says hardly anything."""
    assert rate([], []) is None
    assert ratio([0, 0], [0, 0], [1, 2]) is None
    assert mean([], []) is None
    assert rate([False] * 40, np.arange(40) // 4).high == pytest.approx(upper_bound(0, 10, 0.975))
    assert ratio([1, 1, 1], [1, 1, 1], [1, 2, 3]).high == 1
    assert ratio([0.5, 0.7], [1, 1], [3, 3]).low < 0.05
    assert mean([0.5], [3]).high == np.inf


def test_denominators_weigh():
    """A share of pixels is that of all pixels together, not a mean of shares."""
    assert ratio([1, 90], [10, 100], ["a", "b"]).value == pytest.approx(91 / 110)
