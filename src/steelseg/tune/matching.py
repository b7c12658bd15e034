"""Matches true components to found ones.

A component is 8-connected. There are two rules, for two questions:

- *one to one*, for scores: a found and a true component match if their IoU exceeds an overlap, each
  with at most one other, and as many as possible are matched. From an overlap of 0.5 on, the
  matching is unique (Kirillov et al., Panoptic Segmentation, CVPR 2019).
- *by touch*, for an inspector: a true component counts as found if more than a share of its pixels
  was found, by default any; a found one is false if it has no true pixel. So one found region over
  two scratches finds both, and a defect found in pieces is found once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.data import rle
from steelseg.predict.postprocess import ColumnRuns, label_runs


class Matching(NamedTuple):
    """The components of one class in one image: T true, F found, and P pairs that overlap."""

    true_areas: Int64  # (T,) pixels
    true_sizes: Int64  # (T,) pixels, the longer side of the bounding box
    found_areas: Int64  # (F,)
    pairs: Int64  # (P, 2) true and found
    overlaps: Int64  # (P,) pixels
    found: str = ""  # the RLE of the found mask

    @property
    def coverage(self) -> Float64:
        """The share of each true component that was found: (T,)."""
        covered = np.bincount(self.pairs[:, 0], self.overlaps, len(self.true_areas))
        return np.asarray(covered / self.true_areas)

    @property
    def n_false(self) -> int:
        """The number of found components without a true pixel."""
        return len(self.found_areas) - len(np.unique(self.pairs[:, 1]))

    @property
    def ious(self) -> Float64:
        """The IoU of each pair: (P,)."""
        true, found = self.pairs.T
        union = self.true_areas[true] + self.found_areas[found] - self.overlaps
        return np.asarray(self.overlaps / union)


class Scores(NamedTuple):
    """Counts of matched, missed and false components, and the sum of the matched ones' IoU."""

    matched: int
    missed: int
    false: int
    iou_sum: float

    @property
    def precision(self) -> float:
        """The share of found components that match; NaN if there are none."""
        return _ratio(self.matched, self.matched + self.false)

    @property
    def recall(self) -> float:
        """The share of true components that match; NaN if there are none."""
        return _ratio(self.matched, self.matched + self.missed)

    @property
    def recognition_quality(self) -> float:
        """RQ, the F1 score of detection."""
        return _ratio(self.matched, self.matched + (self.missed + self.false) / 2)

    @property
    def segmentation_quality(self) -> float:
        """SQ, the mean IoU of matches."""
        return _ratio(self.iou_sum, self.matched)

    @property
    def panoptic_quality(self) -> float:
        """PQ = SQ * RQ (for an overlap of 0.5)."""
        return _ratio(self.iou_sum, self.matched + (self.missed + self.false) / 2)


def match(true: str, found: str, size_hw: tuple[int, int]) -> Matching:
    """Match the components of two masks given as RLE.

    Raises:
        BadInput: an RLE is illegal for the size.
    """
    regions = [_columns(rle.parse(text, size_hw), size_hw[0]) for text in (true, found)]
    labels = [label_runs([r]) if len(r.lengths) else np.zeros(0, np.int64) for r in regions]
    areas = [_sum_by(n, r.lengths) for n, r in zip(labels, regions, strict=True)]
    pairs, overlaps = _overlaps(regions, labels, size_hw[0], len(areas[1]))
    return Matching(areas[0], _long_sides(regions[0], labels[0]), areas[1], pairs, overlaps, found)


def score(matchings: Sequence[Matching], overlap: float = 0.5) -> Scores:
    """Count the components of many images, matched one to one above an IoU."""
    matched, iou_sum = 0, 0.0
    for one in matchings:
        ious = np.zeros((len(one.true_areas), len(one.found_areas)))
        ious[tuple(one.pairs.T)] = one.ious
        allowed = ious > overlap
        rows, columns = linear_sum_assignment(allowed + ious * allowed / 1e6, maximize=True)
        chosen = allowed[rows, columns]
        matched += int(chosen.sum())
        iou_sum += float(ious[rows, columns][chosen].sum())
    n_true = sum(len(one.true_areas) for one in matchings)
    n_found = sum(len(one.found_areas) for one in matchings)
    return Scores(matched, n_true - matched, n_found - matched, iou_sum)


def defects(
    matchings: Sequence[Matching], groups: Sequence[int], share: float = 0.0
) -> tuple[Int64, Bool, Int64]:
    """List the true components of many images for `pod.fit`, found by touch.

    Args:
        matchings: of N images.
        groups: (N,) labels.
        share: of a component's pixels; it counts as found if more were found.

    Returns:
        (D,) the longer side in pixels, whether it was found, and the group of its image.
    """
    n = [len(one.true_areas) for one in matchings]
    sizes = np.concatenate([np.zeros(0, np.int64), *(one.true_sizes for one in matchings)])
    found = np.concatenate([np.zeros(0, bool), *(one.coverage > share for one in matchings)])
    return sizes, found, np.repeat(np.asarray(groups, dtype=np.int64), n)


def _columns(runs: Int64, height: int) -> ColumnRuns:
    """Cut runs (R, 2) of a mask at the ends of columns, and find which touch (`column_runs`)."""
    starts, stops = runs[:, 0], runs[:, 0] + runs[:, 1]
    n_columns = (stops - 1) // height - starts // height + 1
    run = np.repeat(np.arange(len(runs)), n_columns)
    nth = np.arange(len(run)) - np.repeat(np.cumsum(n_columns) - n_columns, n_columns)
    columns = starts[run] // height + nth
    start = np.maximum(starts[run], columns * height)
    stop = np.minimum(stops[run], (columns + 1) * height)
    # a background pixel between columns, so that runs of successive columns do not join
    padded = columns * (height + 2) + start - columns * height + 1
    padded_stop = padded + stop - start
    first = np.searchsorted(padded_stop, padded + height + 2)
    neighbours = np.searchsorted(padded, padded_stop + height + 2, side="right") - first
    return ColumnRuns(
        columns, start - columns * height, stop - start, first, np.maximum(neighbours, 0)
    )


def _overlaps(
    regions: Sequence[ColumnRuns], labels: Sequence[Int64], height: int, n_found: int
) -> tuple[Int64, Int64]:
    """Count the pixels that true and found components share: pairs (P, 2) and counts (P,)."""
    starts = [r.columns * height + r.rows for r in regions]
    stops = [start + r.lengths for start, r in zip(starts, regions, strict=True)]
    first = np.searchsorted(stops[1], starts[0], side="right")  # found runs that reach into each
    n = np.maximum(np.searchsorted(starts[1], stops[0]) - first, 0)
    at = np.repeat(np.arange(len(labels[0])), n)
    other = np.arange(len(at)) + np.repeat(first - np.cumsum(n) + n, n)
    pixels = np.minimum(stops[0][at], stops[1][other]) - np.maximum(starts[0][at], starts[1][other])
    keys, inverse = np.unique(labels[0][at] * n_found + labels[1][other], return_inverse=True)
    pairs = np.stack(np.divmod(keys, max(n_found, 1)), axis=1)
    return pairs, _sum_by(inverse, pixels)


def _long_sides(runs: ColumnRuns, labels: Int64) -> Int64:
    """Return the longer side of each component's bounding box, in pixels."""
    n = int(labels.max(initial=-1)) + 1
    sides = []
    for first, last in ((runs.columns, runs.columns), (runs.rows, runs.rows + runs.lengths - 1)):
        low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, -1, dtype=np.int64)
        np.minimum.at(low, labels, first)
        np.maximum.at(high, labels, last)
        sides.append(high - low + 1)
    longer: Int64 = np.maximum(sides[0], sides[1])
    return longer


def _sum_by(labels: Int64, values: Int64) -> Int64:
    sums: Int64 = np.bincount(labels, values).astype(np.int64)  # weighted counts are floats
    return sums


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
