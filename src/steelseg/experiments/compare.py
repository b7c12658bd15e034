"""Two models on the same images: is the difference more than luck?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Float64
from steelseg.core.errors import BadInput
from steelseg.quality.intervals import CONFIDENCE, Estimate, mean

Verdict = Literal["better", "worse", "within noise"]


class Comparison(NamedTuple):
    """How much higher the second model's mean Dice is, and on which images."""

    overall: Estimate
    by_class: dict[int, Estimate]
    better: list[str]
    """images that the second does better, by how much"""
    worse: list[str]

    @property
    def verdict(self) -> Verdict:
        """Say whether the second model is better, worse, or not to be told from the first."""
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

    Images of a group go up and down together, so that the intervals are those over groups. They
    are about new images under these two models; what another seed would give is not in them.

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
