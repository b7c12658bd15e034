"""The gain of each rule of a grid over predicting nothing, summed over images without a loop."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.predict.postprocess import is_open
from steelseg.tune.components import ComponentTable
from steelseg.tune.metrics import PREDICTED, TRUE, pair_dice

Rows = Bool | Int64 | slice
Cell = tuple[int, int, int, int]  # indices into the four lists: one rule

ALL_ROWS = slice(None)


class RuleGains(NamedTuple):
    """The gains of a class's rules over an always empty prediction, for N images.

    An image's gain counts for the rules whose minimum area and gate its mask passes.
    """

    counts: Int64  # (N, T, A, 3) true positive, predicted and true pixels
    gain: Float64  # (N, T, A) Dice of the mask minus Dice of an empty mask
    n_areas_open: Int64  # (N, T, A) how many of the M smallest areas let the mask through
    n_gates_open: Int64  # (N,) how many of the G gates let the mask through
    empty_dice: Float64  # (N,) Dice of an empty mask
    grid_shape: Cell  # (T, A, M, G)


def class_gains(
    table: ComponentTable,
    class_index: int,
    min_component_areas: Sequence[int],
    min_areas: Sequence[int],
    gates: Sequence[float],
) -> RuleGains:
    """Compute a class's gains in every image of a table, for increasing lists of limits."""
    counts = table.counts(class_index, min_component_areas)
    empty_dice = (counts[:, 0, 0, TRUE] == 0).astype(np.float64)
    confidences = table.confidences(class_index)
    return RuleGains(
        counts=counts,
        gain=pair_dice(counts) - empty_dice[:, None, None],
        n_areas_open=np.searchsorted(min_areas, counts[..., PREDICTED], side="right"),
        n_gates_open=np.sum([is_open(confidences, gate) for gate in gates], axis=0),
        empty_dice=empty_dice,
        grid_shape=(len(table.thresholds), len(min_component_areas), len(min_areas), len(gates)),
    )


def sum_gains(gains: RuleGains, rows: Rows) -> Float64:
    """Sum the chosen images' gains for every rule of the grid: (T, A, M, G).

    Rules let an image's mask through up to some minimum area and some gate, so each image adds its
    gain to one cell of a histogram, and sums over the histogram's corners give all the rules.
    """
    n_levels, n_components, n_areas, n_gates = gains.grid_shape
    shape = (n_components, n_areas + 1, n_gates + 1)
    sums = np.empty(gains.grid_shape)
    component = np.arange(n_components)
    n_gates_open = gains.n_gates_open[rows, None]
    for level in range(n_levels):
        n_areas_open, gain = gains.n_areas_open[rows, level], gains.gain[rows, level]
        cell = np.ravel_multi_index((component, n_areas_open, n_gates_open), shape)
        histogram = np.bincount(cell.ravel(), gain.ravel(), minlength=np.prod(shape))
        corners = histogram.reshape(shape)[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)
        sums[level] = corners[:, n_areas - 1 :: -1, n_gates - 1 :: -1]
    return sums


def rule_counts(gains: RuleGains, cell: Cell | None) -> Int64:
    """Count every image's pixels (N, 3) under one rule of the grid; None predicts nothing."""
    level, component, area, gate = cell or (0, 0, 0, 0)
    is_kept = (gains.n_areas_open[:, level, component] > area) & (gains.n_gates_open > gate)
    counts = gains.counts[:, level, component].copy()
    counts[~is_kept if cell else ..., :TRUE] = 0
    return counts
