"""Chooses the alarm threshold of image scores that keeps a limit on images of new groups.

A limit is a promise: of those who set one and use these rules, at least the stated share (95%) will
see it kept on new groups. A false alarm is a clean image with a score above the threshold, an
escape a defective image with a score that is not.

The rule: allow the largest number of errors whose upper confidence bound stays within the limit.
For independent images that is the one-sided tolerance limit of Wilks (1941), and in general risk
control by a bound: Bates et al., Distribution-Free, Risk-Controlling Prediction Sets, Journal of
the ACM 68 (2021). The *groups* are the units of the bound, since the risk is a whole coil in other
light, about which a thousand images of few coils tell no more than few images. (A group's share of
errors is in 0..1, and no such number with a given mean varies more than one that is 0 or 1.)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.quality.intervals import CONFIDENCE, Estimate, rate, sum_groups, upper_bound

ALWAYS = -1.0  # a threshold below every score


class Point(NamedTuple):
    """A threshold for a limit: an image is an alarm if its score is above it.

    `at_most` bounds the share of errors on new groups, at the stated confidence, and `least` is the
    smallest limit that this number of images could promise. If `is_promised` is false, the data are
    too few for the limit: it is only kept on average over new groups. If they are too few even for
    that, the threshold is the highest score that should not be an alarm.
    """

    threshold: float
    share: float
    at_most: float
    is_promised: bool
    least: float


class Judgement(NamedTuple):
    """The error rates of alarms: false alarms of clean images, escapes of those of a class.

    None if there is no such image. An escape is an image that shows the class and raises no alarm
    at all: one that is stopped for another defect has not slipped through.
    """

    false_alarms: Estimate | None
    escapes: Estimate | None
    escapes_of_class: list[Estimate | None]


def limit_false_alarms(
    scores: npt.ArrayLike, groups: npt.ArrayLike, limit: float, confidence: float = CONFIDENCE
) -> Point:
    """Find the lowest threshold that keeps a limit of false alarms.

    Args:
        scores: (N,) of clean images, in 0..1, by models that have not seen them.
        groups: (N,) labels.
        limit: the share of clean images that may be alarms, above 0 and below 1.
        confidence: of the promise.

    Raises:
        ValueError: there are no images, or the limit is not in 0..1.
    """
    clean = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    allowed, is_promised, units = _allowed_errors(len(clean), groups, limit, confidence)
    threshold = float(clean[allowed])
    share = float(np.mean(clean > threshold))
    return _point(threshold, share, is_promised, units, confidence)


def limit_escapes(
    scores: npt.ArrayLike, groups: npt.ArrayLike, limit: float, confidence: float = CONFIDENCE
) -> Point:
    """Find the highest threshold that keeps a limit of escapes: see `limit_false_alarms`.

    `scores` are those of the images that show the class, or any defect.
    """
    shown = np.sort(np.asarray(scores, dtype=np.float64))
    allowed, is_promised, units = _allowed_errors(len(shown), groups, limit, confidence)
    threshold = float(np.nextafter(shown[allowed], ALWAYS))  # just below that score
    share = float(np.mean(shown <= threshold))
    return _point(threshold, share, is_promised, units, confidence)


def least_cost(
    scores: npt.ArrayLike, is_defective: npt.ArrayLike, costs: tuple[float, float]
) -> float:
    """Find the threshold with the lowest total cost of false alarms and escapes.

    Of equally good ones it is the middle one. The mix of images should be that of production.
    """
    values = np.asarray(scores, dtype=np.float64)
    defective = np.asarray(is_defective, dtype=bool)
    candidates = np.concatenate([[ALWAYS], np.unique(values)])
    clean, shown = np.sort(values[~defective]), np.sort(values[defective])
    alarms = len(clean) - np.searchsorted(clean, candidates, side="right")
    cost = costs[0] * alarms + costs[1] * np.searchsorted(shown, candidates, side="right")
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    return float(candidates[best[len(best) // 2]])


def judge(
    alarms: Bool, shown: Bool, groups: npt.ArrayLike, confidence: float = CONFIDENCE
) -> Judgement:
    """Count false alarms and escapes, with intervals.

    Args:
        alarms: (N,) by thresholds that were chosen without the image.
        shown: (N, C) which classes each image truly shows.
        groups: (N,) labels.
        confidence: of the intervals.
    """
    labels, is_clean = np.asarray(groups), ~shown.any(axis=1)
    of_class = [rate(~alarms[s], labels[s], confidence) for s in shown.T]
    return Judgement(
        rate(alarms[is_clean], labels[is_clean], confidence),
        rate(~alarms[~is_clean], labels[~is_clean], confidence),
        of_class,
    )


def shortfall(least: float, n_images: int, n_groups: int, kind: str = "clean") -> str:
    """Explain that the data are too few for a limit below `least`, a share."""
    of = f" of {n_groups} groups" if n_groups < n_images else ""
    return (
        f"with {n_images} {kind} images{of} nothing below "
        f"{np.ceil(1000 * least):.0f} per 1,000 can be shown"
    )


def per_image(per_1000_m2: float, sizes_hw: Int64, mm_per_pixel: float) -> float:
    """Convert a limit of alarms per 1,000 square metres to a share of images.

    `sizes_hw` (N, 2) are those of the images. An image counts as one alarm at most.
    """
    area_m2: Float64 = np.prod(np.asarray(sizes_hw) * mm_per_pixel / 1000, axis=1)
    return per_1000_m2 / 1000 * float(area_m2.mean())


def _allowed_errors(
    n: int, groups: npt.ArrayLike, limit: float, confidence: float
) -> tuple[int, bool, float]:
    """Return how many of n images may err (never all), whether it is a promise, and the units."""
    if not n or not 0 < limit < 1:
        raise ValueError(f"Expected images and a limit in 0..1, but got {n} and {limit}")
    units = sum_groups(np.zeros(n), np.ones(n), groups).effective
    if upper_bound(0, units, confidence) <= limit:
        allowed = _largest(n, lambda k: upper_bound(k * units / n, units, confidence) <= limit)
        return allowed, True, units
    # the expected share on a new group: Angelopoulos et al., Conformal Risk Control (ICLR 2024)
    return _largest(n, lambda k: (k * units / n + 1) / (units + 1) <= limit), False, units


def _largest(n: int, is_allowed: Callable[[int], bool]) -> int:
    """Return the largest allowed number in 0..n by bisection; 0 is always allowed."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_allowed(middle) else (low, middle)
    return low


def _point(
    threshold: float, share: float, is_promised: bool, units: float, confidence: float
) -> Point:
    at_most = upper_bound(share * units, units, confidence)
    return Point(threshold, share, at_most, is_promised, upper_bound(0, units, confidence))
