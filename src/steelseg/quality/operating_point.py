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

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from steelseg.core.arrays import Bool, Int64
from steelseg.core.errors import BadInput
from steelseg.core.params import Config
from steelseg.quality.intervals import CONFIDENCE, Estimate, rate, sum_groups, upper_bound

ALWAYS = -1.0  # a threshold below every score
_PerThousand = Annotated[float, Field(gt=0, lt=1000)]


class Costs(Config):
    """What errors cost, in any unit."""

    false_alarm: Annotated[float, Field(gt=0)]
    escape: Annotated[float, Field(gt=0)]


class OperatingPoint(Config):
    """The target of the verdicts: exactly one of false alarms (by either), escapes and costs."""

    false_alarms: _PerThousand | None = None
    """the largest number of alarms per 1,000 clean images"""
    false_alarms_per_1000_m2: Annotated[float, Field(gt=0)] | None = None
    """the largest number of alarms per 1,000 square metres of clean images, by `mm_per_pixel`; an
    image is one alarm at most, however many defects are found in it"""
    escapes: dict[int, _PerThousand] | None = None
    """the largest number of escapes per 1,000 images that show a class, for one or more classes"""
    costs: Costs | None = None
    """minimise the total cost, for the mix of the validation images"""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = CONFIDENCE
    """confidence with which the limit holds on new groups"""

    @model_validator(mode="after")
    def _check_one(self) -> "OperatingPoint":
        asked = self.false_alarms, self.false_alarms_per_1000_m2, self.escapes, self.costs
        if sum(one is not None for one in asked) != 1:
            raise ValueError(
                "exactly one of false_alarms, false_alarms_per_1000_m2, escapes and costs"
            )
        return self

    def check(self, classes: Sequence[int]) -> None:
        """Refuse limits of escapes for unknown classes.

        Raises:
            BadInput: a class is unknown.
        """
        if unknown := sorted(set(self.escapes or {}) - set(classes)):
            expected = f"classes of {list(classes)}"
            raise BadInput(f"`operating_point.escapes`: expected {expected}, but got {unknown}")

    def per_1000(self, m2_per_image: float | None) -> float | None:
        """Return the limit of false alarms per 1,000 clean images of this mean area, or None.

        Raises:
            BadInput: a limit per 1,000 square metres allows an alarm in every image.
        """
        asked = self.false_alarms_per_1000_m2
        if asked is None or m2_per_image is None:
            return self.false_alarms
        if asked * m2_per_image >= 1000:
            raise BadInput(
                f"`operating_point.false_alarms_per_1000_m2`: expected less than "
                f"{1000 / m2_per_image:.4g}, which is an alarm in every image, since the clean "
                f"images have {m2_per_image:.3g} m² on average; but got {asked:g}"
            )
        return asked * m2_per_image


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


def judge_groups(alarms: Bool, shown: Bool, groups: Int64) -> Judgement | None:
    """Count false alarms and escapes of whole groups; None if no group has several images.

    A group shows what any of its images shows, and is an alarm if any of them is. Groups of a
    single image are left out: they say nothing about groups. The arguments are those of `judge`.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    is_alarm = np.bincount(group, alarms) > 0
    of_group = np.stack([np.bincount(group, s) > 0 for s in shown.T], axis=1)
    several = sizes > 1
    if not several.any():
        return None
    return judge(is_alarm[several], of_group[several], np.flatnonzero(several))


def shortfall(least: float, n_images: int, n_groups: int, kind: str = "clean") -> str:
    """Explain that the data are too few for a limit below `least`, a share."""
    of = f" of {n_groups} groups" if n_groups < n_images else ""
    return (
        f"with {n_images} {kind} images{of} nothing below "
        f"{np.ceil(1000 * least):.0f} per 1,000 can be shown"
    )


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
