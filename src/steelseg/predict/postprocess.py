"""From a class's probability map to its mask: threshold, small components, small masks, gate."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from steelseg.core.errors import SteelsegError
from steelseg.data import rle

Probability = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


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


class LabelledRuns(NamedTuple):
    """The foreground of a region as (R,) int64 column-wise runs that never cross a column.

    `columns` and `rows` say where a run starts, `labels` which 8-connected component it is in.
    """

    columns: Integers
    rows: Integers
    lengths: Integers
    labels: Integers


def confidence(probability_hw: Probability) -> float:
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


def postprocess(probability_hw: Probability, rule: ClassRule) -> Prediction:
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


def is_open(confidences: npt.ArrayLike, gate: float) -> npt.NDArray[np.bool_]:
    """Whether a gate lets masks of these confidences through; compared as float32."""
    return np.asarray(confidences, dtype=np.float32) > np.float32(gate)


def label_runs(foreground_hw: Mask) -> LabelledRuns:
    """Find the 8-connected components of a non-empty region, as labelled runs.

    Runs stand for pixels from here on: there are far fewer of them.
    """
    height = foreground_hw.shape[0]
    # background above and below ends every run within its column
    padded_wh = cv2.copyMakeBorder(
        cv2.transpose(foreground_hw), 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    flat = padded_wh.ravel()
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = borders[::2], borders[1::2]
    labels_wh = cv2.connectedComponents(padded_wh, connectivity=8, ltype=cv2.CV_32S)[1]
    columns = starts // (height + 2)
    rows = starts - columns * (height + 2) - 1
    return LabelledRuns(columns, rows, stops - starts, labels_wh.ravel()[starts].astype(np.int64))


def _clean_runs(probability_hw: Probability, highest: float, rule: ClassRule) -> rle.Runs:
    threshold = np.float32(rule.threshold)
    if not rule.enabled or not highest > threshold or not is_open(highest, rule.gate):
        return np.zeros((0, 2), dtype=np.int64)
    foreground_hw = (probability_hw > threshold).view(np.uint8)
    if rule.min_component_area > 1:
        runs = _large_component_runs(foreground_hw, rule.min_component_area)
    else:
        runs = rle.find_runs(foreground_hw)
    return runs if runs[:, 1].sum() >= rule.min_area else runs[:0]


def _large_component_runs(foreground_hw: Mask, min_component_area: int) -> rle.Runs:
    left, top, width, height = cv2.boundingRect(foreground_hw)
    runs = label_runs(foreground_hw[top : top + height, left : left + width])
    areas = np.bincount(runs.labels, weights=runs.lengths)
    is_large = areas[runs.labels] >= min_component_area
    starts = (left + runs.columns) * foreground_hw.shape[0] + top + runs.rows
    return _join(starts[is_large], runs.lengths[is_large])


def _join(starts: Integers, lengths: Integers) -> rle.Runs:
    """Join runs that touch: a run at a column's end goes on at the next column's start."""
    stops = starts + lengths
    is_gap = starts[1:] != stops[:-1]
    first = np.concatenate([[True], is_gap])[: len(starts)]
    last = np.concatenate([is_gap, [True]])[: len(starts)]
    return np.column_stack([starts[first], stops[last] - starts[first]])
