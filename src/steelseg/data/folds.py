"""Stratified folds that keep near-duplicate images together."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from steelseg.core.arrays import Int8, Int64
from steelseg.core.errors import BadInput

RARE = "rare"
_MOST_FOLDS = 127  # the largest int8


def merge_rare(combinations: Sequence[str], n_folds: int) -> list[str]:
    """Merge the class combinations of fewer than `n_folds` images into one stratum, `RARE`.

    If `RARE` itself would have fewer, the smallest other combination joins it, so that every fold
    can have an image of every stratum.

    Args:
        combinations: the combination of classes of each image, such as "1+3"; may be empty.
        n_folds: the number of folds.

    Raises:
        BadInput: fewer images than folds.
    """
    if len(combinations) < n_folds:
        raise BadInput(f"expected at least {n_folds} images, one per fold, got {len(combinations)}")
    counts = sorted(Counter(combinations).items(), key=lambda item: (item[1], item[0]))
    rare: set[str] = set()
    n_rare = 0
    for combination, count in counts:
        if count >= n_folds and (n_rare == 0 or n_rare >= n_folds):
            break
        rare.add(combination)
        n_rare += count
    return [RARE if combination in rare else combination for combination in combinations]


def assign_folds(combinations: Sequence[str], groups: Int64, n_folds: int, seed: int) -> Int8:
    """Assign every image to a fold, keeping groups together and spreading combinations evenly.

    The result depends on the seed and on the order of the images, so sort them first. It does not
    depend on how the groups are numbered.

    Args:
        combinations: the combination of classes of each image.
        groups: (n,) the group of near-duplicates of each image.
        n_folds: the number of folds, from 2 to 127.
        seed: shuffles equivalent groups.

    Returns:
        (n,) int8 of 0 to n_folds - 1; no fold is empty.

    Raises:
        BadInput: fewer images or groups than folds, or a number of folds out of range.
    """
    if len(combinations) != len(groups):
        raise ValueError(f"Expected {len(combinations)} groups, one per image, got {len(groups)}")
    if not 2 <= n_folds <= _MOST_FOLDS:
        raise BadInput(f"expected 2 to {_MOST_FOLDS} folds, got {n_folds}")
    strata = merge_rare(combinations, n_folds)
    numbers = _number_by_first_member(groups)
    n_groups = numbers.max() + 1
    if n_groups < n_folds:
        raise BadInput(f"expected at least {n_folds} distinct images, one per fold, got {n_groups}")
    fold_of_group = np.empty(n_groups, dtype=np.int8)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, validation) in enumerate(splitter.split(numbers, strata, numbers)):
        fold_of_group[numbers[validation]] = fold
    return _fill_empty_folds(fold_of_group, np.bincount(numbers), n_folds)[numbers]


def _fill_empty_folds(fold_of_group: Int8, n_images: Int64, n_folds: int) -> Int8:
    """Move the smallest group of a shared fold to each fold that the splitter left empty.

    The splitter leaves folds empty when there are few groups and one has nearly all images.
    """
    filled = fold_of_group.copy()
    for fold in np.flatnonzero(np.bincount(filled, minlength=n_folds) == 0):
        is_alone = np.bincount(filled, minlength=n_folds)[filled] == 1
        filled[np.where(is_alone, n_images.max() + 1, n_images).argmin()] = fold
    return filled


def _number_by_first_member(groups: Int64) -> Int64:
    """Renumber the groups in the order in which they appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
