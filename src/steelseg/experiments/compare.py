"""Comparison of two models on the same images: is the difference more than noise?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Float64
from steelseg.core.errors import BadInput
from steelseg.quality.intervals import CONFIDENCE, Estimate, mean

Verdict = Literal["better", "worse", "within noise"]


class Comparison(NamedTuple):
    """The gain in mean Dice from the first model to the second, and the images that changed."""

    overall: Estimate
    by_class: dict[int, Estimate]
    better: list[str]
    """images on which the second model is better, largest gain first"""
    worse: list[str]

    @property
    def verdict(self) -> Verdict:
        """Whether the second model is better, worse, or not distinguishable from the first."""
        if self.overall.low > 0:
            return "better"
        return "worse" if self.overall.high < 0 else "within noise"


def compare(
    names: Sequence[str],
    classes: Sequence[int],
    groups: npt.ArrayLike,
    first: Float64,
    second: Float64,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare the Dice (N, C) of N images under two models that were trained without them.

    Images of a group are not independent, so the intervals are computed over groups. They cover new
    images under these two models, not the variation between seeds.

    Raises:
        BadInput: there are no images, or the shapes differ.
    """
    if first.shape != second.shape or first.shape != (len(names), len(classes)) or not first.size:
        raise BadInput(
            f"expected Dice of the same {len(names)} images and {len(classes)} classes, "
            f"but got {first.shape} and {second.shape}"
        )
    gain = second - first
    by_class = [_sure(gain[:, c], groups, confidence) for c in range(len(classes))]
    of_image = gain.mean(axis=1)
    order = np.argsort(of_image, kind="stable")
    return Comparison(
        _sure(of_image, groups, confidence),
        dict(zip(classes, by_class, strict=True)),
        [names[i] for i in order[::-1] if of_image[i] > 0],
        [names[i] for i in order if of_image[i] < 0],
    )


def _sure(gains: Float64, groups: npt.ArrayLike, confidence: float) -> Estimate:
    estimate = mean(gains, groups, confidence)
    assert estimate is not None, "there are images"
    return estimate
