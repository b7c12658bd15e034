"""The search for each class's rule, and the honest score of what the search found.

The score is Kaggle's pair-Dice: the mean over all (image, class) pairs of Dice, which is 1 where
truth and prediction are both empty. A class's rule changes that class's pairs only, so each class
is searched by itself.
"""

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from steelseg.component_table import ComponentTable
from steelseg.postprocess import ClassRule
from steelseg.rule_gains import (
    ALL_ROWS,
    Cell,
    Floats,
    Rows,
    RuleGains,
    class_gains,
    rule_dice,
    sum_gains,
)

_AREAS = [0, 25, 50, 75, 100, 150, 200, 300, 400, 500]
_AREAS += [600, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000]
_LEAST_GAIN = 1e-9  # a smaller difference between sums of Dice is rounding, and counts as a tie


class TuneConfig(BaseModel, frozen=True, extra="forbid"):
    """The grid of rules and how one of them is chosen. Every list is strictly increasing.

    Attributes:
        thresholds: probabilities above which a pixel is foreground.
        min_component_areas: smallest components to keep, in pixels of the model's output. Nearly
            geometric, so that the one grid serves images of 200x200 as well as of 256x1600.
        min_areas: smallest masks to keep, in the same pixels.
        gates: confidences above which a mask is kept.
        smoothing: a rule is judged by the mean over its neighbours in the grid, weighted by a
            Gaussian of this many steps; 0 takes the exact optimum. On simulated validation sets
            the exact optimum lost 1.7 times as much to the best possible rule with 30 images, and
            1.3 times with 400: a lone peak is luck.
        n_splits: parts of the validation images for the cross-fitted score.
    """

    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] = [round(i / 20, 2) for i in range(1, 20)]
    min_component_areas: list[Annotated[int, Field(ge=0)]] = _AREAS
    min_areas: list[Annotated[int, Field(ge=0)]] = _AREAS
    gates: list[Annotated[float, Field(ge=0, lt=1)]] = [
        *(0.0, 0.5, 0.6, 0.7, 0.8),
        *(0.85, 0.9, 0.95, 0.98, 0.99),
    ]
    smoothing: float = Field(default=0.75, ge=0)
    n_splits: int = Field(default=5, ge=2)

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        for name in ("thresholds", "min_component_areas", "min_areas", "gates"):
            values = getattr(self, name)
            if not values or np.any(np.diff(values) <= 0):
                raise ValueError(f"`{name}`: expected strictly increasing values, got {values}")
        return self


def search(table: ComponentTable, config: TuneConfig, rows: Rows = ALL_ROWS) -> list[ClassRule]:
    """Choose each class's rule.

    With `smoothing` 0 it is the optimum over the whole product of the lists, and over disabling the
    class. Of equally good rules it is the least surprising: enabled, then the threshold nearest
    to 0.5, the smallest component area, the smallest area, the lowest gate. So no images at all
    give the rule with a threshold of 0.5 and nothing else.

    Args:
        table: the validation images, measured at the config's thresholds.
        config: the grid.
        rows: which images to look at, as a mask or as indices.

    Raises:
        ValueError: the table was measured at other thresholds.
    """
    _check_thresholds(table, config)
    return [
        _rule_of(_best_cell(sum_gains(_grid_gains(table, c, config), rows), config), config)
        for c in range(table.n_classes)
    ]


def evaluate(table: ComponentTable, rules: Sequence[ClassRule], rows: Rows = ALL_ROWS) -> Floats:
    """Compute the Dice of every pair under a rule for each class, as `postprocess` would have it.

    Returns:
        (N, C) of the chosen images.

    Raises:
        ValueError: a rule's threshold is none of the table's.
    """
    if len(rules) != table.n_classes:
        raise ValueError(f"Expected {table.n_classes} rules, but got {len(rules)}")
    dice = [_class_dice(table, c, rule)[rows] for c, rule in enumerate(rules)]
    return np.stack(dice, axis=1)


def cross_fit(
    table: ComponentTable, config: TuneConfig, groups: npt.ArrayLike, seed: int = 0
) -> Floats:
    """Score the search on images that it has not seen.

    Every part of the images (see `parts_of`) is scored under the rules chosen on the other parts.
    Where there is nothing to choose on, because all images are of one group, it is the rule that
    `search` gives for no images.

    Args:
        table: the validation images, N of them, measured at the config's thresholds.
        config: the grid.
        groups: (N,) labels; near-duplicates share one.
        seed: for the parts.

    Returns:
        (N, C) Dice.

    Raises:
        ValueError: the table was measured at other thresholds, or there are not N labels.
    """
    _check_thresholds(table, config)
    parts = parts_of(groups, config.n_splits, seed)
    if len(parts) != len(table):
        raise ValueError(f"Expected {len(table)} groups, but got {len(parts)}")
    dice = np.ones((len(table), table.n_classes))
    for c in range(table.n_classes):
        gains = _grid_gains(table, c, config)
        for part in np.unique(parts):
            cell = _best_cell(sum_gains(gains, parts != part), config)
            of_all = gains.empty_dice if cell is None else rule_dice(gains, cell)
            dice[parts == part, c] = of_all[parts == part]
    return dice


def landscape(table: ComponentTable, class_index: int, config: TuneConfig) -> Floats:
    """Compute the mean Dice of a class over thresholds and component areas, for plots.

    Returns:
        (T, A): the best over the other two lists, not smoothed.
    """
    _check_thresholds(table, config)
    gains = _grid_gains(table, class_index, config)
    best = sum_gains(gains, ALL_ROWS).max(axis=(2, 3))
    mean: Floats = (best + gains.empty_dice.sum()) / max(len(table), 1)
    return mean


def parts_of(groups: npt.ArrayLike, n_splits: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Divide images into at most `n_splits` parts of about one size, groups kept together.

    Args:
        groups: (N,) labels.
        n_splits: the number of parts; with fewer groups there are fewer parts.
        seed: for the order in which groups of one size are dealt out.

    Returns:
        (N,) index of the part.
    """
    _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    part_of_group = np.zeros(len(sizes), dtype=np.int64)
    n_images = np.zeros(n_splits, dtype=np.int64)
    for g in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first
        part_of_group[g] = n_images.argmin()
        n_images[part_of_group[g]] += sizes[g]
    return part_of_group[group]


def _check_thresholds(table: ComponentTable, config: TuneConfig) -> None:
    if table.thresholds != tuple(config.thresholds):
        raise ValueError(
            f"Expected a table measured at {config.thresholds}, but got {table.thresholds}"
        )


def _grid_gains(table: ComponentTable, class_index: int, config: TuneConfig) -> RuleGains:
    lists = config.min_component_areas, config.min_areas, config.gates
    return class_gains(table, class_index, *lists)


def _class_dice(table: ComponentTable, class_index: int, rule: ClassRule) -> Floats:
    if rule.threshold not in table.thresholds:
        raise ValueError(f"Expected a threshold of {table.thresholds}, but got {rule.threshold}")
    limits = [rule.min_component_area], [rule.min_area], [rule.gate]
    gains = class_gains(table, class_index, *limits)
    if not rule.enabled:
        return gains.empty_dice
    return rule_dice(gains, (table.thresholds.index(rule.threshold), 0, 0, 0))


def _best_cell(sums: Floats, config: TuneConfig) -> Cell | None:
    """Find the best rule of the grid; None where predicting nothing is better than any."""
    score = _smooth(sums, config.smoothing) if config.smoothing else sums
    if score.max() < -_LEAST_GAIN:
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


def _smooth(sums: Floats, sigma: float) -> Floats:
    """Take Gaussian means along every axis; at the grid's edge over the neighbours there are."""
    for size in sums.shape:
        steps = np.subtract.outer(np.arange(size), np.arange(size))
        weights = np.exp(-0.5 * (steps / sigma) ** 2)
        weights /= weights.sum(axis=1, keepdims=True)
        sums = np.tensordot(sums, weights, axes=(0, 1))  # smooths the first axis, puts it last
    return sums
