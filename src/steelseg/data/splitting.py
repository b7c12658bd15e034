"""Splits the images into folds and reports what is alike in them."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from steelseg.core.arrays import Int64
from steelseg.core.params import Config
from steelseg.data.folds import assign_folds
from steelseg.data.image_table import ImageTable
from steelseg.data.listing import name_key
from steelseg.data.near_duplicates import find_pairs, group_ids

NO_FOLD = -1


class SplitConfig(Config):
    """Parameters of the stage `stratified_split`."""

    n_folds: Annotated[int, Field(ge=2, le=127)]
    seed: Annotated[int, Field(ge=0)]
    """of the shuffling between folds; the training's own seed can vary without it"""
    never_validate: str | None
    """a pattern such as `pseudo-*` of the names of images that are trained on in every fold and
    validated in none, unless they have a near-duplicate of another name"""


def split(images: ImageTable, config: SplitConfig) -> pd.DataFrame:
    """Assign every image to a fold; columns image, fold, group and combination, in table order.

    Raises:
        BadInput: there are fewer images, or groups of near-duplicates, than folds.
    """
    pairs = find_pairs(images.thumbnails, square=is_square(images))
    groups = group_ids(len(images), pairs)
    combinations = images.combinations()
    split = _validated(images.names, groups, config.never_validate)
    folds = np.full(len(images), NO_FOLD, dtype=np.int8)
    folds[split] = assign_folds(
        [combinations[i] for i in split], groups[split], config.n_folds, config.seed
    )
    return pd.DataFrame(
        {"image": images.names, "fold": folds, "group": groups, "combination": combinations}
    )


def report(table: pd.DataFrame, train: ImageTable, test: ImageTable) -> dict[str, Any]:
    """Summarise the folds, and the near-duplicates within training and across to test images."""
    leaks = find_pairs(train.thumbnails, test.thumbnails, square=is_square(train))
    sizes = table["group"].value_counts()
    validated = table["fold"][table["fold"] != NO_FOLD]
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
        "images_in_no_fold": len(table) - len(validated),
        "near_duplicate_groups": int((sizes > 1).sum()),
        "images_with_near_duplicates": int(sizes[sizes > 1].sum()),
        "test_images_with_training_twin": len(np.unique(leaks.second)),
    }


def describe(report: Mapping[str, Any]) -> Iterator[str]:
    """Put a report into a line for the terminal, and warnings."""
    folds = ", ".join(str(n) for n in report["images_per_fold"].values())
    text = f"folds of {folds} images; no near-duplicates among them"
    if report["near_duplicate_groups"]:
        text = (
            f"folds of {folds} images; {report['images_with_near_duplicates']} images stand in "
            f"{report['near_duplicate_groups']} groups of near-duplicates, each kept in one fold"
        )
    if report["images_in_no_fold"]:
        text += f"; {report['images_in_no_fold']} more are trained on always and validated never"
    yield text
    if leaked := report["test_images_with_training_twin"]:
        yield (
            f"warning: {leaked} test images are near-duplicates of training images; "
            "a score on them flatters"
        )
    yield from _warn_of_folds(report)


def _warn_of_folds(report: Mapping[str, Any]) -> Iterator[str]:
    """Name the folds that can validate nothing, or not every class that is shown elsewhere."""
    defective = report["images_with_a_defect_per_fold"]
    clean = [fold for fold, n in defective.items() if n == 0]
    lacking = {f"class {c}": folds for c, folds in report["folds_without_class"].items()}
    fewer = max(2, min(sum(defective.values()), len(defective) - 1))
    advice = (
        f"validate on another (`-S fold=...`), take fewer folds "
        f"(`-S stratified_split.n_folds={fewer}`), or annotate more images of it"
    )
    for name, folds in {"a defect": clean, **lacking}.items():
        if telling := [fold for fold in folds if name == "a defect" or fold not in clean]:
            yield (
                f"warning: no image of fold {', '.join(telling)} shows {name}, so that scores and "
                f"rules of it mean nothing there; {advice}"
            )


def _validated(names: list[str], groups: Int64, pattern: str | None) -> Int64:
    """Return the images that take part in the folds: those of a group with any other name."""
    if pattern is None:
        return np.arange(len(names))
    key = name_key(pattern)
    is_other = np.array([not fnmatchcase(name_key(name), key) for name in names])
    return np.flatnonzero(np.isin(groups, groups[is_other]))


def is_square(images: ImageTable) -> bool:
    """Whether some images may be others turned by 90 degrees: both sizes are there."""
    sizes_hw = set(images.sizes_hw)
    return any((width, height) in sizes_hw for height, width in sizes_hw)
