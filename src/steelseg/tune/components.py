"""The validation images' probability maps, as far as rules look at them.

A table is filled image by image and returns, for every threshold and every smallest component area,
the kept pixels and the correct ones among them. Of the maps it keeps between which thresholds each
pixel lies, packed, so that the mask of any rule can still be made.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from steelseg.core.arrays import Float32, Float64, Int32, Int64, Uint8
from steelseg.core.sizes import Size
from steelseg.predict.postprocess import (
    ClassRule,
    ColumnRuns,
    column_runs,
    confidence,
    is_open,
    label_runs,
    postprocess,
)
from steelseg.tune.metrics import PREDICTED, TRUE, TRUE_POSITIVE


class PairComponents(NamedTuple):
    """One class in one image.

    `components` is (4, n): level (index of the threshold), area, pixels, true positives. Every
    rule keeps or drops the components of one level and area together, so they share a column, and
    `pixels` is their number times their area. `exceeded` (H, W) is how many thresholds each pixel
    exceeds, packed; it is empty if none exceeds any.
    """

    components: Int32
    truth_area: int
    confidence: float
    exceeded: bytes = b""


class ComponentTable:
    """The components of every (image, class) pair at every threshold.

    A pair takes 16 bytes per distinct area and threshold, and its packed pixels: some 3 KiB in all
    for 256x1600 pixels of a trained network, 220 KiB for white noise.

    Args:
        thresholds: strictly increasing, in 0..1; only these are available later.
        n_classes: number of classes.

    Raises:
        ValueError: the thresholds do not increase.
    """

    def __init__(self, thresholds: Sequence[float], n_classes: int) -> None:
        if np.any(np.diff(thresholds) <= 0):
            raise ValueError(f"Expected strictly increasing `thresholds`, but got {thresholds}")
        self.thresholds = tuple(thresholds)
        self.n_classes = n_classes
        self._pairs: list[list[PairComponents]] = [[] for _ in range(n_classes)]

    def __len__(self) -> int:
        """Count the images."""
        return len(self._pairs[0])

    def add(self, probability_chw: Float32, mask_chw: Uint8) -> None:
        """Add an image.

        Args:
            probability_chw: (C, H, W) float32 in 0..1.
            mask_chw: (C, H, W) uint8 of 0 and 1, the truth.

        Raises:
            ValueError: the shapes or dtypes are not these.
            SteelsegError: the map holds NaN.
        """
        self.append(measure(probability_chw, mask_chw, self.thresholds))

    def append(self, pairs: Sequence[PairComponents]) -> None:
        """Add an image that was measured elsewhere, for example in another thread."""
        if len(pairs) != self.n_classes:
            raise ValueError(f"Expected {self.n_classes} classes, but got {len(pairs)}")
        for of_class, pair in zip(self._pairs, pairs, strict=True):
            of_class.append(pair)

    def truth_areas(self, class_index: int) -> Int64:
        """Return a class's true area in every image: (N,), in pixels."""
        return np.array([pair.truth_area for pair in self._pairs[class_index]], dtype=np.int64)

    def confidences(self, class_index: int) -> Float32:
        """Return a class's confidence in every image: (N,)."""
        return np.array([pair.confidence for pair in self._pairs[class_index]], dtype=np.float32)

    def counts(self, class_index: int, min_component_areas: Sequence[int]) -> Int64:
        """Count a class's pixels after components below some area are dropped.

        Args:
            class_index: the channel.
            min_component_areas: A increasing areas in pixels.

        Returns:
            (N, T, A, 3) of true positive, predicted and true pixels, for every image, threshold and
            area, see `steelseg.tune.metrics`.
        """
        pairs = self._pairs[class_index]
        n_areas = len(min_component_areas)
        shape = (len(pairs), len(self.thresholds), n_areas + 1)
        level, area, pixels, true_positives = np.concatenate(
            [np.zeros((4, 0), dtype=np.int32), *(pair.components for pair in pairs)], axis=1
        )
        image = np.repeat(np.arange(len(pairs)), [pair.components.shape[1] for pair in pairs])
        survived = np.searchsorted(min_component_areas, area, side="right")  # number of areas
        cell = np.ravel_multi_index((image, level, survived), shape)
        counts = np.empty((*shape[:2], n_areas, 3), dtype=np.int64)
        for index, weights in ((TRUE_POSITIVE, true_positives), (PREDICTED, pixels)):
            sums = np.bincount(cell, weights, minlength=np.prod(shape)).reshape(shape)
            counts[..., index] = sums[..., ::-1].cumsum(axis=2)[..., n_areas - 1 :: -1]
        counts[..., TRUE] = self.truth_areas(class_index)[:, None, None]
        return counts

    def find(self, image: int, class_index: int, rule: ClassRule, size_hw: Size) -> str:
        """Return the RLE that `postprocess` gives for a class of an image, of this size.

        Raises:
            ValueError: the rule's threshold is not one of the table's.
        """
        pair = self._pairs[class_index][image]
        if not (rule.enabled and pair.exceeded and is_open(pair.confidence, rule.gate)):
            return ""
        dtype = np.min_scalar_type(len(self.thresholds))
        unpacked = pa.decompress(pair.exceeded, math.prod(size_hw) * dtype.itemsize, "zstd")
        above_hw = np.frombuffer(unpacked, dtype) > self.thresholds.index(rule.threshold)
        passed = rule.model_copy(update={"threshold": 0.0, "gate": 0.0})
        return postprocess(above_hw.reshape(size_hw).astype(np.float32), passed).rle


def measure(
    probability_chw: Float32, mask_chw: Uint8, thresholds: Sequence[float]
) -> list[PairComponents]:
    """Find the components of every class of an image at every threshold (see `ComponentTable`)."""
    if probability_chw.ndim != 3 or probability_chw.shape != mask_chw.shape:
        raise ValueError(
            "Expected `probability_chw` and `mask_chw` of one shape (C, H, W), but got "
            f"{probability_chw.shape} and {mask_chw.shape}"
        )
    if mask_chw.dtype != np.uint8:
        raise ValueError(f"Expected `mask_chw` of uint8, but got {mask_chw.dtype}")
    levels = np.asarray(thresholds, dtype=np.float32)
    return [_measure_pair(p, m, levels) for p, m in zip(probability_chw, mask_chw, strict=True)]


def _measure_pair(probability_hw: Float32, mask_hw: Uint8, levels: Float32) -> PairComponents:
    highest = confidence(probability_hw)
    truth_area = int(np.count_nonzero(mask_hw))
    # (H + 1, W): the number of true pixels above each pixel in its column
    true_above_hw = np.diff(cv2.integral(mask_hw), axis=1) if truth_area else None
    if true_above_hw is not None and true_above_hw[-1].sum() != truth_area:
        raise ValueError("Expected `mask_chw` of 0 and 1, but got other values")
    regions: list[ColumnRuns] = []  # of the levels below the highest probability
    true_pixels = []
    exceeded_hw = within_hw = np.zeros(probability_hw.shape, np.min_scalar_type(len(levels)))
    for threshold in levels[levels < highest]:
        foreground_hw = (probability_hw > threshold).view(np.uint8)
        # the foreground of a higher threshold is a subset, so the region can shrink
        left, top, width, height = cv2.boundingRect(foreground_hw)
        rows, columns = slice(top, top + height), slice(left, left + width)
        probability_hw = probability_hw[rows, columns]
        within_hw = within_hw[rows, columns]
        within_hw += foreground_hw[rows, columns]
        runs = column_runs(foreground_hw[rows, columns])
        regions.append(runs)
        if true_above_hw is not None:
            true_above_hw = true_above_hw[top : top + height + 1, columns]
            below = true_above_hw[runs.rows + runs.lengths, runs.columns]
            true_pixels.append(below - true_above_hw[runs.rows, runs.columns])
    packed = pa.compress(exceeded_hw, "zstd", asbytes=True) if regions else b""
    return PairComponents(_components(regions, true_pixels), truth_area, highest, packed)


def _components(regions: Sequence[ColumnRuns], true_pixels: Sequence[Int32]) -> Int32:
    """Sum runs to components: (4, n) as in `PairComponents`.

    Args:
        regions: of each level.
        true_pixels: of the runs of each level; empty if the truth is.
    """
    if not regions:
        return np.zeros((4, 0), dtype=np.int32)
    labels = label_runs(regions)
    lengths = np.concatenate([runs.lengths for runs in regions])
    level = np.zeros(labels.max() + 1)
    level[labels] = np.repeat(np.arange(len(regions)), [len(runs.lengths) for runs in regions])
    area = np.bincount(labels, lengths)
    true = np.concatenate(true_pixels) if true_pixels else np.zeros_like(lengths)
    return _merge_equal(np.stack([level, area, np.bincount(labels, true)]))


def _merge_equal(found: Float64) -> Int32:
    """Merge the columns (level, area, true positives) of equal level and area."""
    level, area, true_positives = found
    width = area.max(initial=0) + 1
    keys, group = np.unique(level * width + area, return_inverse=True)
    level, area = np.divmod(keys, width)
    rows = [level, area, np.bincount(group) * area, np.bincount(group, true_positives)]
    return np.stack(rows).astype(np.int32)
