"""Pivots the raw labels to one row per image, clean images included, checking every row."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.params import Config
from steelseg.data import rle
from steelseg.data.image_table import CLEAN, METADATA, ImageTable
from steelseg.data.inspection import Inspection
from steelseg.data.label_csv import LabelCsv


class PivotConfig(Config):
    """Parameters of the stage `pivot_csv`."""

    data_root: str
    dataset: str
    csv: str
    """name of the label file in the data set's folder"""
    on_bad_image: Literal["stop", "skip"]
    """`skip` leaves broken training images out and counts them"""


def build(
    inspection: Inspection, labels: LabelCsv, classes: Sequence[int], where: Path
) -> ImageTable:
    """Pivot the rows of a label csv over the images of a folder.

    Args:
        inspection: all images of the training folder; those in no row of the csv are clean.
        labels: the rows; empty RLEs mean that the image does not show the class.
        classes: every class id there is, sorted.
        where: the csv, for messages.

    Raises:
        BadInput: rows name an unknown class, an image that is not there, or an illegal RLE.
    """
    size_hw = inspection.images[0].size_hw
    index = {image.image: i for i, image in enumerate(inspection.images)}
    columns: dict[int, list[str | None]] = {c: [None] * len(index) for c in classes}
    with Faults(str(where)) as faults:
        for row in labels.rows:
            at = index.get(row.image)
            pair = f"line {row.line}: image {quote(row.image)}, class {row.class_id}"
            if row.class_id not in columns:
                known = ", ".join(map(str, classes))
                faults.add(f"{pair}: unknown class; the sample submission has {known}")
            elif at is not None:
                columns[row.class_id][at] = _legal(row.rle, size_hw, pair, faults)
            elif row.image not in inspection.skipped:
                faults.add(f"{pair}: no such image in the training folder")
    rle_columns = {f"rle_{c}": pa.array(v, pa.string()) for c, v in columns.items()}
    return _table(inspection, list(classes), rle_columns)


def build_unannotated(inspection: Inspection, size_hw: tuple[int, int], where: Path) -> ImageTable:
    """Make the table of the test images, which have no annotations.

    Raises:
        BadInput: they are not of the size of the training images.
    """
    table = _table(inspection, [], {})
    if table.size_hw != size_hw:
        (height, width), (h, w) = size_hw, table.size_hw
        raise BadInput(f"{where}: expected {height}x{width} like the training images, got {h}x{w}")
    return table


def check_sample(sample: LabelCsv, test: ImageTable, where: Path) -> None:
    """Check that every image that a sample submission asks for is there, before hours of training.

    Raises:
        BadInput: images are missing; all are named.
    """
    names = set(test.names)
    with Faults(str(where)) as faults:
        for row in sample.rows:
            if row.image not in names:
                faults.add(f"line {row.line}: no image {quote(row.image)} in the test folder")


def report(
    train: ImageTable, test: ImageTable, inspection: Inspection, labels: LabelCsv
) -> dict[str, Any]:
    """Summarise the data: numbers of images, per class and per combination, and the baseline.

    `all_empty_pair_dice` is what predicting nothing scores on the training images.
    """
    positives = {c: sum(r is not None for r in train.rles(c)) for c in train.classes}
    combinations = train.combinations()
    return {
        "images": len(train),
        "clean_images": combinations.count(CLEAN),
        "images_in_no_row": len(set(train.names) - {row.image for row in labels.rows}),
        "skipped_bad_images": len(inspection.skipped),
        "test_images": len(test),
        "height": train.size_hw[0],
        "width": train.size_hw[1],
        "images_per_class": {str(c): n for c, n in positives.items()},
        "images_per_combination": dict(sorted(Counter(combinations).items())),
        "all_empty_pair_dice": 1 - sum(positives.values()) / (len(train) * len(train.classes)),
    }


def describe(report: dict[str, Any]) -> str:
    """Put a report into a sentence for the terminal."""
    per_class = ", ".join(f"class {c}: {n}" for c, n in report["images_per_class"].items())
    text = (
        f"{report['images']} training images of {report['height']}x{report['width']} "
        f"({per_class}, clean: {report['clean_images']}), {report['test_images']} test images"
    )
    skipped = report["skipped_bad_images"]
    return f"{text}; {skipped} bad images skipped" if skipped else text


def _legal(text: str, size_hw: tuple[int, int], pair: str, faults: Faults) -> str | None:
    try:
        runs = rle.parse(text, size_hw)
    except BadInput as error:
        faults.add(f"{pair}: {error}")
        return None
    return rle.to_string(runs) if len(runs) else None


def _table(
    inspection: Inspection, classes: list[int], rle_columns: dict[str, pa.Array]
) -> ImageTable:
    images = inspection.images
    thumbnail_type = pa.binary(images[0].thumbnail_hw.nbytes)
    meta = {
        "size_hw": images[0].size_hw,
        "classes": classes,
    }
    table = pa.table(
        {
            "image": pa.array([i.image for i in images], pa.string()),
            "sha256": pa.array([i.sha256 for i in images], pa.string()),
            "mean": pa.array([i.mean for i in images], pa.float64()),
            "std": pa.array([i.std for i in images], pa.float64()),
            "thumbnail": pa.array((i.thumbnail_hw.tobytes() for i in images), thumbnail_type),
            **rle_columns,
        }
    )
    table = table.replace_schema_metadata({METADATA: json.dumps(meta, sort_keys=True)})
    return ImageTable(table, images[0].size_hw, classes)
