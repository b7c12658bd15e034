"""Verdicts on images: one level of calibrated confidence, above which an image is an alarm.

The level is the same for all classes, since calibrated confidences are comparable, so a limit, a
cost or a slider controls a single number. It is chosen on validation images and judged
cross-fitted: calibration and level are chosen again without each part of the images.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, field_validator, model_validator

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.core.errors import BadInput
from steelseg.core.params import Config
from steelseg.quality import calibration
from steelseg.quality.calibration import Calibration
from steelseg.quality.intervals import CONFIDENCE
from steelseg.quality.operating_point import (
    Judgement,
    Point,
    judge,
    least_cost,
    limit_escapes,
    limit_false_alarms,
    shortfall,
)

TRADE_OFF = (5, 10, 20, 50, 100, 200, 300)  # false alarms per 1,000 clean images, for the curve
_EVEN = 0.5  # without data to choose on: alarms are more likely right than not
_PerThousand = Annotated[float, Field(gt=0, lt=1000)]


class Costs(Config):
    """What errors cost, in any unit."""

    false_alarm: Annotated[float, Field(gt=0)]
    escape: Annotated[float, Field(gt=0)]


class OperatingPoint(Config):
    """The target of the verdicts: exactly one of false alarms, escapes and costs."""

    false_alarms: _PerThousand | None = None
    """the largest number of alarms per 1,000 clean images"""
    escapes: dict[int, _PerThousand] | None = None
    """the largest number of escapes per 1,000 images that show a class, for one or more classes"""
    costs: Costs | None = None
    """minimise the total cost, for the mix of the validation images"""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = CONFIDENCE
    """confidence with which the limit holds on new groups"""

    @model_validator(mode="after")
    def _check_one(self) -> "OperatingPoint":
        if sum(asked is not None for asked in (self.false_alarms, self.escapes, self.costs)) != 1:
            raise ValueError("exactly one of false_alarms, escapes and costs")
        return self

    def check(self, classes: Sequence[int]) -> None:
        """Refuse limits of escapes for unknown classes.

        Raises:
            BadInput: a class is unknown.
        """
        if unknown := sorted(set(self.escapes or {}) - set(classes)):
            expected = f"classes of {list(classes)}"
            raise BadInput(f"`operating_point.escapes`: expected {expected}, but got {unknown}")


class Choice(BaseModel, frozen=True, extra="forbid"):
    """A level, and the error rates of its verdicts on images that were not used to choose it.

    `point` is None for costs, and if there was no image to choose on.
    """

    level: float
    point: Point | None
    judgement: Judgement

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

    @field_validator("trade_off", "calibrations")
    @classmethod
    def _sort(cls, by_number: dict[int, Any]) -> dict[int, Any]:
        return dict(sorted(by_number.items()))  # in JSON files 10 stands before 2

    @property
    def classes(self) -> list[int]:
        """The ids of the classes, in channel order."""
        return list(self.calibrations)

    def shortfall(self) -> str:
        """Say why nothing lower can be promised; empty without clean images to say it of."""
        points = (choice.point for choice in self.trade_off.values())
        least = next((point.least for point in points if point), None)
        return shortfall(least, self.n_clean, self.n_clean_groups) if least is not None else ""

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


def find(images: Images, classes: Sequence[int], asked: OperatingPoint) -> Verdicts:
    """Find the requested level and those of the trade-off, and judge them cross-fitted.

    Args:
        images: with confidences by models that have not seen them; groups are not divided by parts.
        classes: the ids of the C classes.
        asked: see `OperatingPoint.check`.
    """
    confidence = asked.confidence
    curve = [OperatingPoint(false_alarms=x, confidence=confidence) for x in TRADE_OFF]
    every = [asked, *curve]
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
    choices = []
    for row, one in zip(alarms, every, strict=True):
        level, point = _choose(scores, images, classes, one)
        found = judge(row, images.shown, images.groups)
        choices.append(Choice(level=level, point=point, judgement=found))
    is_clean = ~images.shown.any(axis=1)
    return Verdicts(
        asked=asked,
        chosen=choices[0],
        trade_off=dict(zip(TRADE_OFF, choices[1:], strict=True)),
        calibrations=dict(zip(classes, calibrations, strict=True)),
        n_clean=int(is_clean.sum()),
        n_clean_groups=len(np.unique(images.groups[is_clean])),
    )


def of_groups(images: Images) -> Images:
    """Merge each group into one image, as suspicious as the worst of its images."""
    _, first, group = np.unique(images.groups, return_index=True, return_inverse=True)
    confidences = np.zeros((len(first), images.confidences.shape[1]))
    shown = np.zeros(confidences.shape, dtype=bool)
    np.maximum.at(confidences, group, images.confidences)
    np.logical_or.at(shown, group, images.shown)
    return Images(confidences, shown, np.arange(len(first)), images.parts[first])


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
