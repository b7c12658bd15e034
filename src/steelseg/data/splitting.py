"""Splits the images into folds and reports near-duplicates."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from steelseg.core.arrays import Int64
from steelseg.core.classes import ClassInfo
from steelseg.core.params import Config
from steelseg.data import groups as grouping
from steelseg.data.fold_table import HELD_OUT
from steelseg.data.folds import assign_folds
from steelseg.data.image_table import ImageTable
from steelseg.data.listing import name_key
from steelseg.data.near_duplicates import Pairs, find_cuts, find_pairs, group_ids, join

NO_FOLD = -1
_FINEST_SHARE = 20  # a test set is made of twentieths of the images


class SplitConfig(Config):
    """Parameters of the stage `stratified_split`."""

    n_folds: Annotated[int, Field(ge=2, le=127)]
    seed: Annotated[int, Field(ge=0)]
    """of the shuffling between folds; independent of the seed of training"""
    never_validate: str | None
    """a pattern such as `pseudo-*` of names of images that are trained on in every fold and
    validated in none, unless they have a near-duplicate that does not match"""
    group_by: str | None
    r"""a regular expression that finds the part in an image's name: its first group, or the whole
    match. Images of one part are never separated by a split. With groups named `step` and
    `number`, as in `exp(?P<step>\d+)_num_(?P<number>\d+)`, a part is a series of images of rising
    numbers whose steps rise too"""
    test_share: Annotated[float, Field(ge=0, le=0.5)]
    """share of the images held out as a test set, which is not used for training, tuning or
    validation; the stage `tune_threshold` scores it at the end"""

    @field_validator("group_by")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return value


def split(images: ImageTable, config: SplitConfig) -> pd.DataFrame:
    """Assign every image to a fold: columns image, fold, group and combination, in table order.

    Raises:
        BadInput: there are fewer images or groups than folds, or the pattern matches no name.
    """
    groups = group_ids(len(images), find_duplicates(images))
    groups = grouping.merge(groups, images.groups)
    if config.group_by is not None:
        groups = grouping.merge(groups, grouping.keys_of(images.names, config.group_by))
    combinations = np.array(images.combinations())
    split = _validated(images.names, groups, config.never_validate)
    folds = np.full(len(images), NO_FOLD, dtype=np.int8)
    if config.test_share:
        share = Fraction(config.test_share).limit_denominator(_FINEST_SHARE)
        share = max(share, Fraction(1, _FINEST_SHARE))
        parts = assign_folds(
            combinations[split].tolist(), groups[split], share.denominator, config.seed
        )
        folds[split[parts < share.numerator]] = HELD_OUT
        split = split[parts >= share.numerator]
    folds[split] = assign_folds(
        combinations[split].tolist(), groups[split], config.n_folds, config.seed
    )
    return pd.DataFrame(
        {"image": images.names, "fold": folds, "group": groups, "combination": combinations}
    )


def groups_of(tests: ImageTable, config: SplitConfig) -> dict[str, str]:
    """Name the groups of test images, by images.csv or else by their names; others are left out.

    Test images may be named differently from the training images that the pattern is for.
    """
    named, keys = tests.groups, [""] * len(tests)
    if config.group_by is not None and grouping.is_in(config.group_by, tests.names):
        keys = grouping.keys_of(tests.names, config.group_by)
    groups = zip(tests.names, named, keys, strict=True)
    return {name: own or key for name, own, key in groups if own or key}


def find_duplicates(images: ImageTable, others: ImageTable | None = None) -> Pairs:
    """Find the near-duplicates among images, or between them and others.

    Images of different sizes may also be slightly different crops of one photograph.
    """
    a, square = images.thumbnails, is_square(images)
    b = None if others is None else others.thumbnails
    pairs = find_pairs(a, b, square=square)
    sizes_b = None if others is None else others.sizes_hw
    if len({*images.sizes_hw, *(sizes_b or [])}) == 1:
        return pairs
    return join(pairs, find_cuts(a, images.sizes_hw, b, sizes_b, square=square))


def report(table: pd.DataFrame, train: ImageTable, test: ImageTable) -> dict[str, Any]:
    """Summarise the folds, and the near-duplicates within training and across to test images."""
    leaks = find_duplicates(train, test)
    sizes = table["group"].value_counts()
    validated = table["fold"][table["fold"] >= 0]
    shown = np.array([[text is not None for text in train.rles(c)] for c in train.classes])
    is_in = {str(k): (table["fold"] == k).to_numpy() for k in sorted(validated.unique())}
    return {
        "images_per_fold": {
            str(k): int(n) for k, n in validated.value_counts(sort=False).sort_index().items()
        },
        "images_with_a_defect_per_fold": {
            k: int(shown[:, rows].any(axis=0).sum()) for k, rows in is_in.items()
        },
        "folds_without_class": {
            str(c): [k for k, rows in is_in.items() if not shows[rows].any()]
            for c, shows in zip(train.classes, shown, strict=True)
            if shows.any()
        },
        "images_in_no_fold": int((table["fold"] == NO_FOLD).sum()),
        "images_held_out": int((table["fold"] == HELD_OUT).sum()),
        "near_duplicate_groups": int((sizes > 1).sum()),
        "images_with_near_duplicates": int(sizes[sizes > 1].sum()),
        "test_images_with_training_twin": len(np.unique(leaks.second)),
    }


def hint(images: ImageTable, config: SplitConfig) -> Iterator[str]:
    """Warn if names look grouped, but no groups were given."""
    if config.group_by is None and not any(images.groups):
        yield from grouping.hint(images.names, images.combinations())


def describe(report: Mapping[str, Any], classes: Sequence[ClassInfo]) -> Iterator[str]:
    """Format a report for the terminal: one line, and warnings."""
    folds = ", ".join(str(n) for n in report["images_per_fold"].values())
    text = f"folds of {folds} images; no near-duplicates among them"
    if report["near_duplicate_groups"]:
        text = (
            f"folds of {folds} images; {report['images_with_near_duplicates']} images are in "
            f"{report['near_duplicate_groups']} groups of near-duplicates or of one part, each "
            "kept in one fold"
        )
    if report["images_held_out"]:
        text += f"; {report['images_held_out']} more are held out as a test set"
    if report["images_in_no_fold"]:
        text += f"; {report['images_in_no_fold']} more are always trained on and never validated"
    yield text
    if leaked := report["test_images_with_training_twin"]:
        yield (
            f"warning: {leaked} test images are near-duplicates of training images; "
            "their score is inflated"
        )
    yield from _warn_of_folds(report, classes)


def _warn_of_folds(report: Mapping[str, Any], classes: Sequence[ClassInfo]) -> Iterator[str]:
    """Warn of folds without defects, or without a class that other folds show."""
    defective = report["images_with_a_defect_per_fold"]
    clean = [fold for fold, n in defective.items() if n == 0]
    without = report["folds_without_class"]
    lacking = {one.name: without[str(one.id)] for one in classes if str(one.id) in without}
    fewer = max(2, min(sum(defective.values()), len(defective) - 1))
    advice = (
        f"validate on another (`-S fold=...`), use fewer folds "
        f"(`-S stratified_split.n_folds={fewer}`), or annotate more images of it"
    )
    for name, folds in {"a defect": clean, **lacking}.items():
        if telling := [fold for fold in folds if name == "a defect" or fold not in clean]:
            yield (
                f"warning: no image of fold {', '.join(telling)} shows {name}, so its scores "
                f"and rules mean nothing there; {advice}"
            )


def _validated(names: list[str], groups: Int64, pattern: str | None) -> Int64:
    """Return the images to validate: those in groups with a name outside the pattern."""
    if pattern is None:
        return np.arange(len(names))
    key = name_key(pattern)
    is_other = np.array([not fnmatchcase(name_key(name), key) for name in names])
    return np.flatnonzero(np.isin(groups, groups[is_other]))


def is_square(images: ImageTable) -> bool:
    """Whether images may be others turned by 90 degrees: some size exists both ways round."""
    sizes_hw = set(images.sizes_hw)
    return any((width, height) in sizes_hw for height, width in sizes_hw)
