"""The search for each class's rule, and the cross-fitted score of the result.

The score is Kaggle's pair-Dice: the mean over all (image, class) pairs of Dice, which is 1 where
truth and prediction are both empty. A class's rule affects only that class's pairs, so each class
is searched separately.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator
from scipy.ndimage import gaussian_filter1d

from steelseg.core.arrays import Float64, Int8, Int64
from steelseg.core.params import Config
from steelseg.data.folds import assign_folds
from steelseg.predict.postprocess import ClassRule
from steelseg.quality.operating_point import OperatingPoint
from steelseg.tune.components import ComponentTable
from steelseg.tune.gains import ALL_ROWS, Cell, Rows, RuleGains, class_gains, rule_counts, sum_gains
from steelseg.tune.metrics import pair_dice, summarise

_THRESHOLDS = [round(i / 20, 2) for i in range(1, 20)]
_AREAS = [0, 25, 50, 75, 100, 150, 200, 300, 400, 500]
_AREAS += [600, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000]
_GATES = [0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99]
_LEAST_GAIN = 1e-9  # smaller differences between sums of Dice are rounding, and count as ties


class TuneConfig(Config):
    """Parameters of the stage `tune_threshold`: the grid of rules and the selection.

    All lists are strictly increasing.
    """

    fold: Annotated[int, Field(ge=0)] = 0
    """the fold of validation images"""
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] = _THRESHOLDS
    """probabilities above which a pixel is foreground"""
    min_component_areas: list[Annotated[int, Field(ge=0)]] = _AREAS
    """smallest components to keep, in pixels; nearly geometric, so that one grid suits images of
    200x200 and of 256x1600"""
    min_areas: list[Annotated[int, Field(ge=0)]] = _AREAS
    """smallest masks to keep, in pixels"""
    gates: list[Annotated[float, Field(ge=0, lt=1)]] = _GATES
    """confidences above which a mask is kept"""
    smoothing: Annotated[float, Field(ge=0)] = 0.75
    """a rule is judged by the mean over its neighbours in the grid, weighted by a Gaussian of this
    many steps, since an isolated peak is chance; 0 uses the exact optimum. For a class that no
    image shows the least surprising rule without a false alarm is chosen, if there is any"""
    may_disable: bool = True
    """whether to disable a class for which predicting nothing scores better"""
    n_splits: Annotated[int, Field(ge=2)] = 5
    """parts of the validation images for the cross-fitted score"""
    mm_per_pixel: Annotated[float, Field(gt=0)] | None = None
    """the scale of all images, so that sizes are in millimetres and areas in square millimetres"""
    operating_point: OperatingPoint = OperatingPoint(false_alarms=50)
    """what verdicts on images are to keep: false alarms, escapes or costs"""

    @field_validator("thresholds", "min_component_areas", "min_areas", "gates")
    @classmethod
    def _check_increase(cls, values: list[float]) -> list[float]:
        if not values or np.any(np.diff(values) <= 0):
            raise ValueError("strictly increasing values, at least one")
        return values

    @field_validator("operating_point")
    @classmethod
    def _check_scale(cls, value: OperatingPoint, info: ValidationInfo) -> OperatingPoint:
        if value.false_alarms_per_1000_m2 and not info.data.get("mm_per_pixel"):
            raise ValueError("a limit that needs no scale, since `mm_per_pixel` is null")
        return value


def search(table: ComponentTable, config: TuneConfig, rows: Rows = ALL_ROWS) -> list[ClassRule]:
    """Choose each class's rule.

    With `smoothing` 0 it is the optimum over the product of the lists, and, with `may_disable`,
    over disabling the class. Ties are broken by the least surprising rule: enabled, then the
    threshold nearest to 0.5, the smallest component area, the smallest area, the lowest gate. So
    without images the rule is just a threshold of 0.5.

    Args:
        table: the validation images, measured at the config's thresholds.
        config: the grid.
        rows: the images to use, as a mask or as indices.

    Raises:
        ValueError: the table was measured at other thresholds.
    """
    _check_thresholds(table, config)
    cells = (
        _best_cell(_grid_gains(table, c, config), rows, config) for c in range(table.n_classes)
    )
    return [_rule_of(cell, config) for cell in cells]


def count(table: ComponentTable, rules: Sequence[ClassRule]) -> Int64:
    """Count pixels under a rule for each class, exactly as `postprocess` does.

    Returns:
        (N, C, 3) of true positive, predicted and true pixels, see `steelseg.tune.metrics`.

    Raises:
        ValueError: a threshold is not one of the table's, or there is not one rule per class.
    """
    if len(rules) != table.n_classes:
        raise ValueError(f"Expected {table.n_classes} rules, but got {len(rules)}")
    return np.stack([_class_counts(table, c, rule) for c, rule in enumerate(rules)], axis=1)


def evaluate(table: ComponentTable, rules: Sequence[ClassRule], rows: Rows = ALL_ROWS) -> Float64:
    """Compute the chosen images' Dice (N, C) under a rule for each class (see `count`)."""
    return pair_dice(count(table, rules)[rows])


class CrossFit(NamedTuple):
    """What rules find that were chosen without the image, and which rules those are.

    `counts` is (N, C, 3), as `count` returns; `rules` holds the C rules of each of N images.
    """

    counts: Int64
    rules: list[list[ClassRule]]


def cross_fit(
    table: ComponentTable, config: TuneConfig, groups: npt.ArrayLike, seed: int = 0
) -> CrossFit:
    """Count pixels under rules that were chosen without the image in question.

    Every part of the images (see `parts_of`) is counted under the rules chosen on the other parts.
    If all images are of one group, there is nothing to choose on, and the rule is that of `search`
    without images.

    Args:
        table: the validation images, N of them, measured at the config's thresholds.
        config: the grid.
        groups: (N,) labels; near-duplicates share one.
        seed: of the parts.

    Raises:
        ValueError: the table was measured at other thresholds, or there are not N labels.
    """
    _check_thresholds(table, config)
    parts = parts_of(table, config.n_splits, groups, seed)
    counts = np.zeros((len(table), table.n_classes, 3), dtype=np.int64)
    rules: dict[int, list[ClassRule]] = {part: [] for part in np.unique(parts).tolist()}
    for c in range(table.n_classes):
        gains = _grid_gains(table, c, config)
        for part, of_part in rules.items():
            cell = _best_cell(gains, parts != part, config)
            of_part.append(_rule_of(cell, config))
            counts[parts == part, c] = rule_counts(gains, cell)[parts == part]
    return CrossFit(counts, [rules[part] for part in parts.tolist()])


def report(
    table: ComponentTable,
    rules: Sequence[ClassRule],
    honest: Int64,
    classes: Sequence[int],
) -> dict[str, float]:
    """Score the search: every metric of `summarise`, cross-fitted, and two more pair-Dices.

    `honest` is what `cross_fit` counted.

    `optimistic_pair_dice` is that of `rules` on the same images that they were chosen on, and
    `untuned_pair_dice` that of only the threshold nearest to 0.5.
    """
    nearest = min(table.thresholds, key=lambda threshold: abs(threshold - 0.5))
    untuned = [ClassRule(threshold=nearest)] * table.n_classes
    return {
        **summarise(honest, classes),
        "optimistic_pair_dice": float(evaluate(table, rules).mean()),
        "untuned_pair_dice": float(evaluate(table, untuned).mean()),
    }


def landscape(table: ComponentTable, class_index: int, config: TuneConfig) -> Float64:
    """Compute the mean Dice of a class over thresholds and component areas, for plots.

    Returns:
        (T, A): the best over the other two lists, not smoothed.
    """
    _check_thresholds(table, config)
    gains = _grid_gains(table, class_index, config)
    best = sum_gains(gains, ALL_ROWS).max(axis=(2, 3))
    mean: Float64 = (best + gains.empty_dice.sum()) / max(len(table), 1)
    return mean


def parts_of(table: ComponentTable, n_splits: int, groups: npt.ArrayLike, seed: int = 0) -> Int8:
    """Divide the images into at most `n_splits` parts, stratified by class, with whole groups.

    Args:
        table: N images.
        n_splits: the number of parts; with fewer groups there are fewer parts.
        groups: (N,) labels.
        seed: shuffles equivalent groups.

    Returns:
        (N,) index of the part.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    n_parts = min(n_splits, len(np.unique(group)))
    if n_parts < 2:
        return np.zeros(len(table), dtype=np.int8)
    shown = [table.truth_areas(c) > 0 for c in range(table.n_classes)]
    combinations = ["+".join(map(str, np.flatnonzero(image))) for image in np.transpose(shown)]
    return assign_folds(combinations, group, n_parts, seed)


def _check_thresholds(table: ComponentTable, config: TuneConfig) -> None:
    if table.thresholds != tuple(config.thresholds):
        raise ValueError(
            f"Expected a table measured at {config.thresholds}, but got {table.thresholds}"
        )


def _grid_gains(table: ComponentTable, class_index: int, config: TuneConfig) -> RuleGains:
    lists = config.min_component_areas, config.min_areas, config.gates
    return class_gains(table, class_index, *lists)


def _class_counts(table: ComponentTable, class_index: int, rule: ClassRule) -> Int64:
    if rule.enabled and rule.threshold not in table.thresholds:
        raise ValueError(f"Expected a threshold of {table.thresholds}, but got {rule.threshold}")
    limits = [rule.min_component_area], [rule.min_area], [rule.gate]
    cell = (table.thresholds.index(rule.threshold), 0, 0, 0) if rule.enabled else None
    return rule_counts(class_gains(table, class_index, *limits), cell)


def _best_cell(gains: RuleGains, rows: Rows, config: TuneConfig) -> Cell | None:
    """Find the best rule of the grid; None where predicting nothing is better than any."""
    score = sum_gains(gains, rows)
    # without an image that shows the class there are only false alarms: no peak is by chance, and
    # far from them means far from what finds defects
    if config.smoothing and (gains.empty_dice[rows] == 0).any():
        score = _smooth(score, config.smoothing)
    if config.may_disable and score.max() < -_LEAST_GAIN:
        return None
    best = np.argwhere(score >= score.max() - _LEAST_GAIN)  # (n, 4), in the order of the lists
    surprise = np.abs(np.asarray(config.thresholds) - 0.5).round(9)
    level, component, area, gate = best[surprise[best[:, 0]].argmin()].tolist()
    return level, component, area, gate


def _rule_of(cell: Cell | None, config: TuneConfig) -> ClassRule:
    if cell is None:
        return ClassRule(enabled=False)
    level, component, area, gate = cell
    return ClassRule(
        threshold=config.thresholds[level],
        min_component_area=config.min_component_areas[component],
        min_area=config.min_areas[area],
        gate=config.gates[gate],
    )


def _smooth(sums: Float64, sigma: float) -> Float64:
    """Smooth by a Gaussian along every axis, at the grid's edge over existing neighbours."""
    for axis, size in enumerate(sums.shape):
        blur = partial(gaussian_filter1d, sigma=sigma, axis=axis, mode="constant", radius=size - 1)
        there = np.ones([size if other == axis else 1 for other in range(sums.ndim)])
        sums = blur(sums) / blur(there)  # beyond the edge both are 0
    return sums
