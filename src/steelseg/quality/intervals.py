"""Confidence intervals for images in groups (coils, parts, exposures of one tile).

Images of a group are alike, so each carries less information than an independent one. All intervals
are about new groups, drawn like the observed ones. An image without a group is its own group; then
the intervals are the textbook's. tests/test_quality_intervals.py simulates their coverage, and the
effect of ignoring the groups.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, logit, stdtrit

from steelseg.core.arrays import Float64

CONFIDENCE = 0.95
_FEW = 5  # groups with (or without) an event, below which their variance is unreliable


class Estimate(NamedTuple):
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


class Sums(NamedTuple):
    """Numerators and denominators of a ratio, summed by group: (G,) each, no denominator 0."""

    top: Float64
    bottom: Float64

    @property
    def ratio(self) -> float:
        """The sum of the numerators over that of the denominators."""
        return float(self.top.sum() / self.bottom.sum())

    @property
    def error(self) -> float:
        """The ratio's standard error, from the variance among groups (NaN for a single group).

        That of a jackknife that leaves out one group at a time, to first order: CR3 of Bell and
        McCaffrey, Survey Methodology 28 (2002). Unlike the plain sum of squares it is not too small
        where a few groups have most of the images.
        """
        n, whole = len(self.top), self.bottom.sum()
        if n < 2:
            return float("nan")
        return float(np.sqrt((n - 1) / n * np.sum(self.residuals**2)) / whole)

    @property
    def residuals(self) -> Float64:
        """How far each of the groups, two or more, is from the ratio, as `error` counts it."""
        whole = self.bottom.sum()
        return np.asarray((self.top - self.ratio * self.bottom) / (1 - self.bottom / whole))

    @property
    def effective(self) -> float:
        """The equivalent number of groups of one size: (sum of sizes)^2 / sum of squared sizes.

        The groups are worth at least so many independent images, namely if all images of a group
        are the same (Kish, Survey Sampling, 1965). Student's degrees of freedom are one fewer.
        """
        return float(self.bottom.sum() ** 2 / np.sum(self.bottom**2))


def sum_groups(top: npt.ArrayLike, bottom: npt.ArrayLike, groups: npt.ArrayLike) -> Sums:
    """Sum numerators and denominators, (N,) each, by group; empty groups are left out."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    n = int(group.max(initial=-1)) + 1
    tops: Float64 = np.bincount(group, np.asarray(top, np.float64), n).astype(np.float64)
    bottoms: Float64 = np.bincount(group, np.asarray(bottom, np.float64), n).astype(np.float64)
    return Sums(tops[bottoms > 0], bottoms[bottoms > 0])


def binomial(events: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact interval of a probability after some events in n independent trials.

    Clopper and Pearson (1934), by quantiles of the beta distribution, so that effective counts
    need not be whole numbers. (0, 1) for no trials.
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(events, n - events + 1, tail)) if events > 0 else 0.0
    return low, upper_bound(events, n, 1 - tail)


def upper_bound(events: float, n: float, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper confidence bound of a probability: see `binomial`.

    Without events it is 1 - (1 - confidence)^(1/n), at 95% nearly 3/n (the rule of three).
    """
    return float(betaincinv(events + 1, n - events, confidence)) if events < n else 1.0


def rate(
    events: npt.ArrayLike, groups: npt.ArrayLike, confidence: float = CONFIDENCE
) -> Estimate | None:
    """Estimate the rate of an event: its share of N images, and the interval.

    Clopper and Pearson's with the equivalent number of independent images: Korn and Graubard,
    Survey Methodology 24 (1998), used for US health statistics. That number follows from the
    variance among groups, or, if fewer than five groups have (or lack) an event, is the number of
    groups. If every image is its own group, the interval is exact.

    Args:
        events: (N,) whether it happened in the image.
        groups: (N,) labels.
        confidence: of the interval.

    Returns:
        None without images.
    """
    happened = np.asarray(events, dtype=bool)
    if not happened.size:
        return None
    sums = sum_groups(happened, np.ones(len(happened)), groups)
    size = _effective_size(sums, confidence)
    return Estimate(sums.ratio, *binomial(sums.ratio * size, size, confidence))


def ratio(
    top: npt.ArrayLike,
    bottom: npt.ArrayLike,
    groups: npt.ArrayLike,
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """Estimate a ratio of sums in 0..1, such as a mean Dice or a share of pixels.

    Student's interval of its logit, from the variance among groups. Its coverage is better than
    that of the percentile bootstrap over groups, which is too narrow for few groups, and as good as
    that of corrected bootstraps, which need a thousand times the work. If the groups do not differ,
    it is as in `rate` with the groups as units.

    Args:
        top: (N,) numerators, such as the Dice of the images that show a defect, and 0 of others.
        bottom: (N,) denominators, such as 1 for images that show a defect, and 0.
        groups: (N,) labels.
        confidence: of the interval.

    Returns:
        None if all denominators are 0.
    """
    sums = sum_groups(top, bottom, groups)
    if not len(sums.top):
        return None
    value, error = sums.ratio, sums.error
    if not 0 < value < 1 or not error > 0:
        return Estimate(value, *binomial(value * sums.effective, sums.effective, confidence))
    reach = student(confidence, sums.effective - 1) * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-reach, reach])).tolist()
    return Estimate(value, low, high)


def mean(
    values: npt.ArrayLike, groups: npt.ArrayLike, confidence: float = CONFIDENCE
) -> Estimate | None:
    """Estimate the mean of N values of any size and sign, such as paired differences.

    Student's interval, from the variance among groups; infinite for a single group. None without
    values.
    """
    sums = sum_groups(values, np.ones(len(np.asarray(values))), groups)
    if not len(sums.top):
        return None
    is_alone = len(sums.top) < 2
    reach = np.inf if is_alone else student(confidence, sums.effective - 1) * sums.error
    return Estimate(sums.ratio, sums.ratio - reach, sums.ratio + reach)


def _effective_size(sums: Sums, confidence: float) -> float:
    """Return the equivalent independent images, from `sums.effective` to the number of images."""
    n, n_groups = float(sums.bottom.sum()), len(sums.top)
    with_events, without = np.sum(sums.top > 0), np.sum(sums.top < sums.bottom)
    if n_groups == n or min(with_events, without) < _FEW:
        return sums.effective
    size = sums.ratio * (1 - sums.ratio) / sums.error**2
    size *= (student(confidence, n - 1) / student(confidence, sums.effective - 1)) ** 2
    return float(np.clip(size, sums.effective, n))


def student(confidence: float, degrees: float) -> float:
    """Return how many standard errors Student's two-sided interval reaches to either side."""
    return float(stdtrit(degrees, (1 + confidence) / 2))
