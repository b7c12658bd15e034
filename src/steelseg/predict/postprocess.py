"""Turns probability maps into masks: threshold, small components, small masks, gate.

Maps may come in blocks, of which only the runs are kept: stretches of foreground in a column. Runs
that meet at block borders are joined, so the result is that of the whole map.
"""

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
from steelseg.predict.tiles import Block, Maps

BETWEEN = 2  # pixels of background between two columns: below one and above the other


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
    """the mask is emptied if fewer pixels are left in total"""
    gate: float = Field(default=0.0, ge=0, lt=1)
    """the mask is emptied unless the confidence (see `confidence`) is above this"""


class Prediction(NamedTuple):
    """The mask of one class in one image: its RLE, its area in pixels and the confidence."""

    rle: str
    area: int
    confidence: float


class ColumnRuns(NamedTuple):
    """The foreground of a region as (R,) int64 column-wise runs that never cross a column.

    `columns` and `rows` are where each run starts. It touches the `neighbours` runs from `first`
    on, in the next column; these edges make a graph whose components are the region's.
    """

    columns: Int64
    rows: Int64
    lengths: Int64
    first: Int64
    neighbours: Int64


def confidence(probability_hw: Float32) -> float:
    """The raw confidence that the class is in the image: the highest probability of any pixel.

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
    """Turn a class's probability map into a mask.

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
    (prediction,) = postprocess_maps(
        Maps(probability_hw.shape[:2], [Block(0, 0, probability_hw[None])]), [rule]
    )
    return prediction


def postprocess_maps(maps: Maps, rules: Sequence[ClassRule]) -> list[Prediction]:
    """Apply `postprocess` to each class of an image's maps.

    Args:
        maps: of an image, in blocks of any number and order.
        rules: of the classes, in channel order.
    """
    height = maps.size_hw[0]
    highest = [0.0] * len(rules)
    runs: list[list[Int64]] = [[] for _ in rules]
    for top, left, maps_chw in maps.blocks:
        for at, (rule, map_hw) in enumerate(zip(rules, maps_chw, strict=True)):
            here, threshold = confidence(map_hw), np.float32(rule.threshold)
            highest[at] = max(highest[at], here)
            if rule.enabled and here > threshold:
                foreground_hw = (map_hw > threshold).view(np.uint8)
                runs[at].append(_region_runs(foreground_hw, top, left, height))
    return [
        _predict(np.concatenate(of_class), sure, rule, height)
        if of_class
        else Prediction("", 0, sure)
        for of_class, sure, rule in zip(runs, highest, rules, strict=True)
    ]


def is_open(confidences: npt.ArrayLike, gate: float) -> Bool:
    """Whether a gate passes masks of these confidences; compared as float32."""
    return np.asarray(confidences, dtype=np.float32) > np.float32(gate)


def column_runs(foreground_hw: Uint8) -> ColumnRuns:
    """Find the runs of a non-empty region, (H, W) of 0 and 1, and which of them touch.

    Runs replace pixels from here on, since there are far fewer. Two are 8-connected if one, moved
    to the next column, overlaps the other or meets it at a corner.
    """
    height = foreground_hw.shape[0]
    return _graph(_find_runs(foreground_hw), height + BETWEEN)


def label_runs(regions: Sequence[ColumnRuns]) -> Int64:
    """Number the components of several regions: (R,) from 0, for all of their runs."""
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


def _predict(runs: Int64, highest: float, rule: ClassRule, height: int) -> Prediction:
    """Apply a rule to the foreground of an image of this height: runs as in `_region_runs`."""
    if not is_open(highest, rule.gate):
        return Prediction("", 0, highest)
    stride = height + BETWEEN
    runs = _join(runs[np.argsort(runs[:, 0], kind="stable")])
    if rule.min_component_area > 1:
        labels = label_runs([_graph(runs, stride)])
        areas = np.bincount(labels, weights=runs[:, 1] - runs[:, 0])
        runs = runs[areas[labels] >= rule.min_component_area]
    area = int((runs[:, 1] - runs[:, 0]).sum())
    if area < max(rule.min_area, 1):
        return Prediction("", 0, highest)
    columns = runs[:, :1] // stride
    pixels = _join(runs - BETWEEN * columns - 1)  # a column's end is the next one's start
    pixels[:, 1] -= pixels[:, 0]
    return Prediction(rle.to_string(pixels), area, highest)


def _region_runs(foreground_hw: Uint8, top: int, left: int, height: int) -> Int64:
    """Find the runs of a region that begins at (`top`, `left`) of an image of this height.

    Returns:
        (R, 2) starts and stops, as if the image's columns were stacked, with `BETWEEN` pixels of
        background between them, and one above the first.
    """
    x, y, region_width, region_height = cv2.boundingRect(foreground_hw)
    runs = _find_runs(foreground_hw[y : y + region_height, x : x + region_width])
    columns = runs[:, :1] // (region_height + BETWEEN)
    return runs + columns * (height - region_height) + (left + x) * (height + BETWEEN) + top + y


def _find_runs(foreground_hw: Uint8) -> Int64:
    """Find the runs of a non-empty region, as in `_region_runs` but counted in the region."""
    # background above and below ends every run within its column
    padded_wh = cv2.copyMakeBorder(
        cv2.transpose(foreground_hw), 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    flat = padded_wh.ravel()
    borders: Int64 = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return borders.reshape(-1, 2)


def _graph(runs: Int64, stride: int) -> ColumnRuns:
    """Find which runs touch: (R, 2), sorted, as in `_region_runs`; columns are `stride` apart."""
    starts, stops = np.ascontiguousarray(runs.T)
    first = np.searchsorted(stops, starts + stride)
    neighbours = np.searchsorted(starts, stops + stride, side="right") - first
    columns = starts // stride
    return ColumnRuns(
        columns, starts - columns * stride - 1, stops - starts, first, np.maximum(neighbours, 0)
    )


def _join(runs: Int64) -> Int64:
    """Join sorted runs, (R, 2) starts and stops, of which one begins where the last one ends."""
    is_gap = runs[1:, 0] != runs[:-1, 1]
    first = np.concatenate([[True], is_gap])[: len(runs)]
    last = np.concatenate([is_gap, [True]])[: len(runs)]
    return np.column_stack([runs[first, 0], runs[last, 1]])
