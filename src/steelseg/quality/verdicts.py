"""Verdicts on images: one level of calibrated confidence, above which an image is an alarm.

The level is the same for all classes, since calibrated confidences are comparable, so a limit, a
cost or a slider controls a single number. It is chosen on validation images and judged
cross-fitted: calibration and level are chosen again without each part of the images.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, field_validator

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.quality import calibration
from steelseg.quality.calibration import Calibration
from steelseg.quality.operating_point import (
    Judgement,
    OperatingPoint,
    Point,
    judge,
    judge_groups,
    least_cost,
    limit_escapes,
    limit_false_alarms,
    shortfall,
)

TRADE_OFF = (5, 10, 20, 50, 100, 200, 300)  # false alarms per 1,000 clean images, for the curve
_EVEN = 0.5  # without data to choose on: alarms are more likely right than not


class Choice(BaseModel, frozen=True, extra="forbid"):
    """A level, and the error rates of its verdicts on images that were not used to choose it.

    `point` is None for costs, and if there was no image to choose on; `of_groups` if no group has
    several images.
    """

    level: float
    point: Point | None
    judgement: Judgement
    of_groups: Judgement | None = None
    """the error rates of verdicts on whole groups, see `judge_groups`"""

    @property
    def is_promised(self) -> bool:
        """Whether the limit holds on new groups, at its confidence."""
        return self.point is not None and self.point.is_promised


class Verdicts(BaseModel, frozen=True, extra="forbid"):
    """The calibrations and level that give verdicts, and their error rates; stored as JSON.

    `trade_off` has one choice per limit of false alarms in `TRADE_OFF`.
    """

    asked: OperatingPoint
    chosen: Choice
    trade_off: dict[int, Choice]
    calibrations: dict[int, Calibration]
    """of each class, in channel order"""
    n_clean: int
    n_clean_groups: int
    of_several: tuple[int, int] = (0, 0)
    """the number of clean groups of several images, and that of their images"""
    m2_per_image: float | None = None
    """the mean area of a clean image, if the scale is known"""

    @field_validator("trade_off", "calibrations")
    @classmethod
    def _sort(cls, by_number: dict[int, Any]) -> dict[int, Any]:
        return dict(sorted(by_number.items()))  # in JSON files 10 stands before 2

    @property
    def classes(self) -> list[int]:
        """The ids of the classes, in channel order."""
        return list(self.calibrations)

    @property
    def per_1000(self) -> float | None:
        """The limit of false alarms that was asked for, per 1,000 clean images, if it was one."""
        return self.asked.per_1000(self.m2_per_image)

    def shortfall(self) -> str:
        """Say why nothing lower can be promised; empty without clean images to say it of."""
        points = (choice.point for choice in self.trade_off.values())
        least = next((point.least for point in points if point), None)
        if least is None:
            return ""
        text = shortfall(least, self.n_clean, self.n_clean_groups)
        if self.m2_per_image:
            per_m2 = float(f"{1000 * least / self.m2_per_image:.2g}")
            text += f", or {per_m2:,g} per 1,000 m²"
        return text

    def clean_groups(self) -> str:
        """Say how often a clean group is not in order at the chosen level, if that is known."""
        rate = self.chosen.of_groups and self.chosen.of_groups.false_alarms
        if not rate:
            return (
                "how often a clean group is not in order is not known: no clean group of the "
                "validation has several images"
            )
        n_groups, n_images = self.of_several
        return (
            f"of the {n_groups} clean groups of the validation with several images, on average "
            f"{n_images / n_groups:.1f}, {rate.value:.1%} were not in order "
            f"(95%: {rate.low:.1%} to {rate.high:.1%})"
        )

    def confidences(self, raw: npt.ArrayLike) -> Float64:
        """Calibrate raw confidences (..., C)."""
        return _calibrate(np.asarray(raw), list(self.calibrations.values()))

    def is_alarm(self, raw: npt.ArrayLike) -> Bool:
        """Whether each class of raw confidences (..., C) is an alarm; an image is if any is."""
        return self.confidences(raw) > self.chosen.level


class Images(NamedTuple):
    """Validation images: raw confidences (N, C), true classes (N, C), groups and parts (N,)."""

    confidences: Float64
    shown: Bool
    groups: Int64
    parts: Int64

    def take(self, rows: Bool) -> "Images":
        """Return some of the images."""
        confidences, shown, groups, parts = self
        return Images(confidences[rows], shown[rows], groups[rows], parts[rows])


def find(
    images: Images,
    classes: Sequence[int],
    asked: OperatingPoint,
    m2_per_image: float | None = None,
) -> Verdicts:
    """Find the requested level and those of the trade-off, and judge them cross-fitted.

    Args:
        images: with confidences by models that have not seen them; groups are not divided by parts.
        classes: the ids of the C classes.
        asked: see `OperatingPoint.check`.
        m2_per_image: the mean area of the clean images, for a limit per square metre.

    Raises:
        BadInput: a limit per 1,000 square metres allows an alarm in every image.
    """
    confidence = asked.confidence
    curve = [OperatingPoint(false_alarms=x, confidence=confidence) for x in TRADE_OFF]
    first = asked
    if limit := asked.per_1000(m2_per_image):
        first = OperatingPoint(false_alarms=limit, confidence=confidence)
    every = [first, *curve]
    alarms = np.zeros((len(every), len(images.parts)), dtype=bool)
    for part in np.unique(images.parts):
        others = images.parts != part
        learned = images.take(others)
        scores = _scores(images.confidences, _fit(learned))
        for row, one in zip(alarms, every, strict=True):
            level, _ = _choose(scores[others], learned, classes, one)
            row[~others] = scores[~others] > level
    calibrations = _fit(images)
    scores = _scores(images.confidences, calibrations)
    choices = [
        _judge(row, images, *_choose(scores, images, classes, one))
        for row, one in zip(alarms, every, strict=True)
    ]
    is_clean = ~images.shown.any(axis=1)
    return Verdicts(
        asked=asked,
        chosen=choices[0],
        trade_off=dict(zip(TRADE_OFF, choices[1:], strict=True)),
        calibrations=dict(zip(classes, calibrations, strict=True)),
        n_clean=int(is_clean.sum()),
        n_clean_groups=len(np.unique(images.groups[is_clean])),
        of_several=_count_several(images),
        m2_per_image=m2_per_image,
    )


def _judge(alarms: Bool, images: Images, level: float, point: Point | None) -> Choice:
    judged = alarms, images.shown, images.groups
    groups = judge_groups(*judged)
    return Choice(level=level, point=point, judgement=judge(*judged), of_groups=groups)


def _count_several(images: Images) -> tuple[int, int]:
    """Count the clean groups of several images, and their images."""
    _, group, sizes = np.unique(images.groups, return_inverse=True, return_counts=True)
    several = sizes[(sizes > 1) & (np.bincount(group, images.shown.any(axis=1)) == 0)]
    return len(several), int(several.sum())


def _fit(images: Images) -> list[Calibration]:
    pairs = zip(images.confidences.T, images.shown.T, strict=True)
    return [calibration.fit(scores, shown) for scores, shown in pairs]


def _calibrate(raw: npt.NDArray[np.floating], calibrations: Sequence[Calibration]) -> Float64:
    return np.stack([one(raw[..., c]) for c, one in enumerate(calibrations)], axis=-1)


def _scores(raw: Float64, calibrations: Sequence[Calibration]) -> Float64:
    """Return the confidence that an image shows a defect, that of its surest class: (N,)."""
    scores: Float64 = _calibrate(raw, calibrations).max(axis=1)
    return scores


def _choose(
    scores: Float64, images: Images, classes: Sequence[int], asked: OperatingPoint
) -> tuple[float, Point | None]:
    """Choose the level on images with these scores."""
    is_clean = ~images.shown.any(axis=1)
    if asked.costs and len(scores):
        costs = asked.costs.false_alarm, asked.costs.escape
        return least_cost(scores, ~is_clean, costs), None
    points = []
    if asked.false_alarms and is_clean.any():
        limit = asked.false_alarms / 1000, asked.confidence
        points.append(limit_false_alarms(scores[is_clean], images.groups[is_clean], *limit))
    for class_id, per_1000 in (asked.escapes or {}).items():
        shown = images.shown[:, classes.index(class_id)]
        if shown.any():
            limit = per_1000 / 1000, asked.confidence
            points.append(limit_escapes(scores[shown], images.groups[shown], *limit))
    if not points:
        return _EVEN, None
    lowest = min(points, key=lambda point: point.threshold)  # which keeps all of the limits
    is_promised = all(point.is_promised for point in points)
    return lowest.threshold, lowest._replace(is_promised=is_promised)
