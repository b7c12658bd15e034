"""Splits the images into folds and reports what is alike in them."""

from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from steelseg.folds import assign_folds
from steelseg.image_table import ImageTable
from steelseg.near_duplicates import find_pairs, group_ids
from steelseg.params import Config


class SplitConfig(Config):
    """Parameters of the stage `stratified_split`."""

    n_folds: Annotated[int, Field(ge=2, le=127)]
    seed: Annotated[int, Field(ge=0)]
    """of the shuffling between folds; the training's own seed can vary without it"""


def split(images: ImageTable, config: SplitConfig) -> pd.DataFrame:
    """Assign every image to a fold; columns image, fold, group and combination, in table order.

    Raises:
        BadInput: there are fewer images, or groups of near-duplicates, than folds.
    """
    pairs = find_pairs(images.thumbnails, square=is_square(images))
    groups = group_ids(len(images), pairs)
    combinations = images.combinations()
    folds = assign_folds(combinations, groups, config.n_folds, config.seed)
    return pd.DataFrame(
        {"image": images.names, "fold": folds, "group": groups, "combination": combinations}
    )


def report(table: pd.DataFrame, train: ImageTable, test: ImageTable) -> dict[str, Any]:
    """Summarise the folds, and the near-duplicates within training and across to test images."""
    leaks = find_pairs(train.thumbnails, test.thumbnails, square=is_square(train))
    sizes = table["group"].value_counts()
    return {
        "images_per_fold": {
            str(k): int(n) for k, n in table["fold"].value_counts(sort=False).sort_index().items()
        },
        "near_duplicate_groups": int((sizes > 1).sum()),
        "images_with_near_duplicates": int(sizes[sizes > 1].sum()),
        "test_images_with_training_twin": len(np.unique(leaks.second)),
    }


def describe(report: dict[str, Any]) -> str:
    """Put a report into a sentence for the terminal."""
    folds = ", ".join(str(n) for n in report["images_per_fold"].values())
    text = f"folds of {folds} images; no near-duplicates among them"
    if report["near_duplicate_groups"]:
        text = (
            f"folds of {folds} images; {report['images_with_near_duplicates']} images stand in "
            f"{report['near_duplicate_groups']} groups of near-duplicates, each kept in one fold"
        )
    leaked = report["test_images_with_training_twin"]
    if not leaked:
        return text
    return (
        f"{text}\nwarning: {leaked} test images are near-duplicates of training images; "
        "a score on them flatters"
    )


def is_square(images: ImageTable) -> bool:
    """Whether the images may be turned by 90 degrees and still be of the same size."""
    return images.size_hw[0] == images.size_hw[1]
