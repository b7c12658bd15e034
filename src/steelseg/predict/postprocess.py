"""From a class's probability map to its mask: threshold, small components, small masks, gate."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from steelseg.core.arrays import Bool, Float32, Int64, Uint8
from steelseg.core.errors import SteelsegError
from steelseg.data import rle


class ClassRule(BaseModel, frozen=True, extra="forbid"):
    """How the probability map of one class becomes its mask."""

    enabled: bool = True
    """whether the class is predicted at all; if not, its mask is always empty"""
    threshold: float = Field(default=0.5, ge=0, lt=1)
    """a pixel is foreground where its probability, a float32, is above this"""
    min_component_area: int = Field(default=0, ge=0)
    """8-connected components of fewer pixels are dropped; the well-known notebook keeps those of
    *more* than 3,500, which is 3,501 here"""
    min_area: int = Field(default=0, ge=0)
    """the mask is emptied if fewer pixels are left in all"""
    gate: float = Field(default=0.0, ge=0, lt=1)
    """the mask is emptied unless the confidence (see `confidence`) is above this"""


class Prediction(NamedTuple):
    """The mask of one class in one image: its RLE, its area in pixels and the confidence."""

    rle: str
    area: int
    confidence: float


class ColumnRuns(NamedTuple):
    """The foreground of a region as (R,) int64 column-wise runs that never cross a column.

    `columns` and `rows` say where a run starts. It touches the `neighbours` runs from `first` on,
    in the next column; with those, the runs are a graph whose components are the region's.
    """

    columns: Int64
    rows: Int64
    lengths: Int64
    first: Int64
    neighbours: Int64


def confidence(probability_hw: Float32) -> float:
    """How sure the model is that the class is in the image: the highest probability of any pixel.

    Args:
        probability_hw: (H, W) float32 in 0..1.

    Raises:
        ValueError: the map is not (H, W) float32.
        SteelsegError: the map holds NaN.
    """
    if probability_hw.ndim != 2 or probability_hw.dtype != np.float32:
        got = f"{probability_hw.shape} {probability_hw.dtype}"
        raise ValueError(f"Expected `probability_hw` of shape (H, W) and float32, but got {got}")
    highest = float(probability_hw.max(initial=0))
    if np.isnan(highest):
        raise SteelsegError("the model gave probabilities that are not a number (NaN)")
    return highest


def postprocess(probability_hw: Float32, rule: ClassRule) -> Prediction:
    """Turn a class's probability map into what a submission needs.

    Args:
        probability_hw: (H, W) float32 in 0..1.
        rule: the class's rule.

    Returns:
        The RLE (an empty string for an empty mask), the area in pixels, and the confidence, which
        does not depend on the rule.

    Raises:
        ValueError: the map is not (H, W) float32.
        SteelsegError: the map holds NaN.
    """
    highest = confidence(probability_hw)
    runs = _clean_runs(probability_hw, highest, rule)
    return Prediction(rle.to_string(runs), int(runs[:, 1].sum()), highest)


def is_open(confidences: npt.ArrayLike, gate: float) -> Bool:
    """Whether a gate lets masks of these confidences through; compared as float32."""
    return np.asarray(confidences, dtype=np.float32) > np.float32(gate)


def column_runs(foreground_hw: Uint8) -> ColumnRuns:
    """Find the runs of a non-empty region, (H, W) of 0 and 1, and which of them touch.

    Runs stand for pixels from here on: there are far fewer of them. Two are 8-connected where one,
    moved to the next column, overlaps the other or meets it at a corner.
    """
    stride = foreground_hw.shape[0] + 2
    # background above and below ends every run within its column
    padded_wh = cv2.copyMakeBorder(
        cv2.transpose(foreground_hw), 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    flat = padded_wh.ravel()
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = borders[::2], borders[1::2]  # (R,), both increasing
    first = np.searchsorted(stops, starts + stride)
    neighbours = np.searchsorted(starts, stops + stride, side="right") - first
    columns = starts // stride
    return ColumnRuns(
        columns, starts - columns * stride - 1, stops - starts, first, np.maximum(neighbours, 0)
    )


def label_runs(regions: Sequence[ColumnRuns]) -> Int64:
    """Number the components of several regions: (R,) from 0, over all of their runs."""
    n_runs = np.array([len(runs.lengths) for runs in regions])
    offsets = np.repeat(np.cumsum(n_runs) - n_runs, n_runs)
    first = np.concatenate([runs.first for runs in regions]) + offsets
    neighbours = np.concatenate([runs.neighbours for runs in regions])
    ends = np.cumsum(neighbours)
    touched = np.arange(ends[-1]) + np.repeat(first - ends + neighbours, neighbours)
    weights = np.ones(len(touched), np.int8)
    graph = csr_array((weights, touched, np.concatenate([[0], ends])), shape=(len(first),) * 2)
    labels: Int64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _clean_runs(probability_hw: Float32, highest: float, rule: ClassRule) -> Int64:
    threshold = np.float32(rule.threshold)
    if not rule.enabled or not highest > threshold or not is_open(highest, rule.gate):
        return np.zeros((0, 2), dtype=np.int64)
    foreground_hw = (probability_hw > threshold).view(np.uint8)
    if rule.min_component_area > 1:
        runs = _large_component_runs(foreground_hw, rule.min_component_area)
    else:
        runs = rle.find_runs(foreground_hw)
    return runs if runs[:, 1].sum() >= rule.min_area else runs[:0]


def _large_component_runs(foreground_hw: Uint8, min_component_area: int) -> Int64:
    left, top, width, height = cv2.boundingRect(foreground_hw)
    runs = column_runs(foreground_hw[top : top + height, left : left + width])
    labels = label_runs([runs])
    areas = np.bincount(labels, weights=runs.lengths)
    is_large = areas[labels] >= min_component_area
    starts = (left + runs.columns) * foreground_hw.shape[0] + top + runs.rows
    return _join(starts[is_large], runs.lengths[is_large])


def _join(starts: Int64, lengths: Int64) -> Int64:
    """Join runs that touch: a run at a column's end goes on at the next column's start."""
    stops = starts + lengths
    is_gap = starts[1:] != stops[:-1]
    first = np.concatenate([[True], is_gap])[: len(starts)]
    last = np.concatenate([is_gap, [True]])[: len(starts)]
    return np.column_stack([starts[first], stops[last] - starts[first]])
