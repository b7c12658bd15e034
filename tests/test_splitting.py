"""The split says which folds can validate nothing."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from steelseg.core.classes import default_classes
from steelseg.data import splitting
from steelseg.data.image_table import ImageTable
from steelseg.data.near_duplicates import find_pairs
from steelseg.data.splitting import NO_FOLD


def images(*shown: str, seed: int = 3) -> ImageTable:
    """A table of images that show classes, such as `12`, all of them different photographs."""
    names = [f"{i}.png" for i in range(len(shown))]
    thumbnails = (
        np.random.default_rng(seed).integers(0, 255, (len(shown), 32, 32)).astype(np.float16)
    )
    table = {
        "image": names,
        "thumbnail": pa.array([t.tobytes() for t in thumbnails], pa.binary(2048)),
        "rle_1": pa.array(["1 1" if "1" in s else None for s in shown], pa.string()),
        "rle_2": pa.array(["1 1" if "2" in s else None for s in shown], pa.string()),
    }
    table |= {"height": [32] * len(names), "width": [64] * len(names)}
    return ImageTable(pa.table(table), default_classes([1, 2]))


def told(folds: list[int], *shown: str) -> list[str]:
    """What is printed of images in given folds, without the first line."""
    train = images(*shown)
    rows = {"image": train.names, "fold": folds, "group": range(len(folds))}
    report = splitting.report(pd.DataFrame(rows), train, images("", seed=4))
    json.dumps(report)
    first, *warnings = splitting.describe(report, default_classes([1, 2]))
    assert first.startswith("folds of ")
    return warnings


def test_folds_that_show_every_class_need_no_word() -> None:
    """Clean images in no fold do not matter."""
    assert told([0, 1, 0, 1, NO_FOLD], "1", "2", "2", "1", "") == []


def test_a_fold_without_a_defect_is_told_with_what_to_do() -> None:
    """Any model that finds nothing scores 1 there."""
    (warning,) = told([0, 1, 2, 2, 1], "12", "12", "", "", "")
    assert warning == (
        "warning: no image of fold 2 shows a defect, so its scores and rules mean nothing "
        "there; validate on another (`-S fold=...`), use fewer folds "
        "(`-S stratified_split.n_folds=2`), or annotate more images of it"
    )


def test_folds_without_a_class_are_told_by_class() -> None:
    """But not again where there is no defect at all."""
    warnings = told([0, 1, 2, 3], "1", "1", "2", "")
    assert [warning.split(", so its")[0] for warning in warnings] == [
        "warning: no image of fold 3 shows a defect",
        "warning: no image of fold 2 shows class 1",
        "warning: no image of fold 0, 1 shows class 2",
    ]


@pytest.mark.parametrize("folds", [[0, 1], [0, 1, 2, 3, 4]])
def test_all_clean_images_are_told_once(folds: list[int]) -> None:
    """`pivot_csv` says that no class is shown."""
    (warning,) = told(folds, *[""] * len(folds))
    assert warning.startswith(f"warning: no image of fold {', '.join(map(str, folds))} shows a")


def test_a_pattern_means_names_in_any_unicode_form() -> None:
    """As everywhere else."""
    train = images("1", "2", "1", "2")
    names = pa.array(["a.png", "o\u0308.png", "c.png", "\u00f6-2.png"])
    train = ImageTable(train.table.set_column(0, "image", names), default_classes([1, 2]))
    config = splitting.SplitConfig(
        n_folds=2, seed=1, never_validate="\u00f6*", group_by=None, test_share=0
    )
    table = splitting.split(train, config)
    assert (table["fold"] == NO_FOLD).tolist() == [False, True, False, True]


def test_images_of_one_size_are_not_looked_at_for_other_crops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folds of such data are what they always were; where sizes differ, cuts are found."""
    train = images("1", "2", "1", "2")
    cuts = find_pairs(train.thumbnails[[0, 0]], square=False)
    monkeypatch.setattr(splitting, "find_cuts", lambda *_, **__: cuts)
    assert not len(splitting.find_duplicates(train).first)
    widths = train.table.column_names.index("width")
    mixed = ImageTable(
        train.table.set_column(widths, "width", pa.array([64, 64, 64, 60])), train.class_infos
    )
    found = splitting.find_duplicates(mixed)
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])
