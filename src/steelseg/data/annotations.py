"""Pivots the raw labels to one row per image, clean images included, checking every row."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from steelseg.core.classes import ClassInfo, enumerated
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.params import Config
from steelseg.core.pixels import COLOURS, GREY
from steelseg.core.sizes import describe_sizes, usual_size
from steelseg.data import label_csv, rle
from steelseg.data.image_table import CLEAN, METADATA, ImageTable
from steelseg.data.inspection import COLOUR, PAGES, TRANSPARENCY, Channels, Inspection
from steelseg.data.label_csv import LabelCsv
from steelseg.data.listing import name_key
from steelseg.data.near_duplicates import SIZE
from steelseg.data.optional_files import IMAGES, ImageFacts

THUMBNAIL_BYTES = 2 * SIZE**2  # float16
ODD_SHARE = 0.1  # of the images; a larger share of other sizes is intended, not a mistake
LOSSES = {
    COLOUR: "are in colour and are reduced to grey: differences in hue alone are lost",
    PAGES: "have several pages, of which only the first is read",
    TRANSPARENCY: "have transparency, which is dropped",
}


class PivotConfig(Config):
    """Parameters of the stage `pivot_csv`."""

    data_root: str
    dataset: str
    csv: str
    """name of the label file in the data set folder"""
    channels: Channels
    """`grey`, `rgb`, or `auto`: one channel per page if most images have several pages of one size;
    otherwise rgb if any image is coloured, and grey if none is"""
    on_bad_image: Literal["stop", "skip"]
    """`skip` leaves broken training images out and counts them"""


def build(
    inspection: Inspection,
    labels: LabelCsv,
    classes: Sequence[ClassInfo],
    where: Path,
    facts: Mapping[str, ImageFacts] | None = None,
) -> ImageTable:
    """Pivot the rows of a label csv over the images of a folder.

    Args:
        inspection: all images of the training folder; those in no row of the csv are clean.
        labels: the rows; an empty RLE means that the image does not show the class. Names match
            regardless of their Unicode normalisation.
        classes: all classes, sorted by id.
        where: the csv, for messages.
        facts: the rows of images.csv, by the key of an image's name.

    Raises:
        BadInput: a row has an unknown class, a missing or unlabelled image, or an illegal RLE.
    """
    index = {name_key(image.image): i for i, image in enumerate(inspection.images)}
    skipped = set(map(name_key, inspection.skipped))
    unlabelled = set(map(name_key, inspection.unlabelled))
    missing = partial(_missing, unlabelled, inspection.listing.elsewhere())
    columns: dict[int, list[str | None]] = {one.id: [None] * len(index) for one in classes}
    with Faults(str(where)) as faults:
        for row in labels.rows:
            at = index.get(name_key(row.image))
            pair = f"line {row.line}: image {quote(row.image)}, class {row.class_id}"
            if row.class_id not in columns:
                faults.add(f"{pair}: {_unknown(columns)}")
            elif at is not None:
                size_hw = inspection.images[at].size_hw
                columns[row.class_id][at] = _legal(row.rle, size_hw, pair, faults)
            elif name_key(row.image) not in skipped and (reason := missing(row.image, row.rle)):
                faults.add(f"{pair}: {reason}")
        for image, line in labels.clean.items():
            is_known = name_key(image) in index or name_key(image) in skipped
            if not is_known and (reason := missing(image)):
                faults.add(f"line {line}: image {quote(image)}: {reason}")
    rle_columns = {f"rle_{c}": pa.array(v, pa.string()) for c, v in columns.items()}
    groups = pa.array([(facts or {}).get(key, ImageFacts()).group for key in index], pa.string())
    return _table(inspection, list(classes), {"group": groups, **rle_columns})


def build_unannotated(
    inspection: Inspection, facts: Mapping[str, ImageFacts] | None = None
) -> ImageTable:
    """Make the table of the test images, which have no annotations; it may be empty.

    `facts` are as in `build`. There is a column of groups only if an image has one.
    """
    keys = [name_key(one.image) for one in inspection.images]
    groups = [(facts or {}).get(key, ImageFacts()).group for key in keys]
    columns = {"group": pa.array(groups, pa.string())} if any(groups) else {}
    return _table(inspection, [], columns)


def check_sample(
    sample: LabelCsv, names: Collection[str], classes: Sequence[ClassInfo], where: Path
) -> None:
    """Check that a sample submission can be answered, before hours are spent on training.

    Args:
        sample: the requested rows.
        names: the test images.
        classes: all classes.
        where: the sample, for messages.

    Raises:
        BadInput: images are missing (all are named), or columns or rows are not understood.
    """
    known, ids = set(map(name_key, names)), [one.id for one in classes]
    with Faults(str(where)) as faults:
        label_csv.check_answerable(sample, faults)
        for row in sample.rows:
            if name_key(row.image) not in known:
                faults.add(f"line {row.line}: no image {quote(row.image)} in the test folder")
            elif row.class_id not in ids:
                faults.add(f"line {row.line}: class {row.class_id}: {_unknown(ids)}")


def report(
    train: ImageTable,
    test: ImageTable,
    inspections: tuple[Inspection, Inspection],
    labels: LabelCsv,
    sample: LabelCsv | None,
) -> dict[str, Any]:
    """Summarise the data: counts of images and files, per class and combination, and a baseline.

    `all_empty_pair_dice` is the score of empty predictions on the training images.

    Args:
        train: the annotated images.
        test: the images to predict.
        inspections: of both folders.
        labels: the rows of the training images.
        sample: the requested rows; without it, all are requested.
    """
    positives = {c: sum(r is not None for r in train.rles(c)) for c in train.classes}
    combinations = train.combinations()
    losses = Counter(
        loss for folder in inspections for image in folder.images for loss in image.losses
    )
    return {
        "images": len(train),
        "clean_images": combinations.count(CLEAN),
        "images_in_no_row": _count_unnamed(train.names, labels),
        "skipped_bad_images": len(inspections[0].skipped),
        "unlabelled_images": len(inspections[0].unlabelled),
        "images_in_a_named_group": sum(map(bool, train.column("group"))),
        "test_images": len(test),
        "test_images_in_no_row": _count_unnamed(test.names, sample) if sample else 0,
        "train_files": inspections[0].listing.counts(),
        "test_files": inspections[1].listing.counts(),
        "images_reduced": {loss: losses[loss] for loss in LOSSES},
        "sizes": describe_sizes(train.sizes_hw),
        "test_sizes": describe_sizes(test.sizes_hw),
        "images_of_odd_size": _count_odd(train.sizes_hw),
        "images_per_class": {str(c): n for c, n in positives.items()},
        "images_per_combination": dict(sorted(Counter(combinations).items())),
        "all_empty_pair_dice": 1 - sum(positives.values()) / (len(train) * len(train.classes)),
    }


def describe(
    report: Mapping[str, Any],
    inspections: tuple[Inspection, Inspection],
    classes: Sequence[ClassInfo],
) -> Iterator[str]:
    """Format a report for the terminal: a summary, a line per folder, and warnings."""
    shown = report["images_per_class"]
    per_class = ", ".join(f"{one.name}: {shown[str(one.id)]}" for one in classes)
    skipped, unlabelled = report["skipped_bad_images"], report["unlabelled_images"]
    yield (
        f"{report['images']} training images of {report['sizes']} "
        f"({per_class}, clean: {report['clean_images']}), {report['test_images']} test images"
        + (f"; {skipped} bad images skipped" if skipped else "")
        + (f"; {unlabelled} unlabelled images left out" if unlabelled else "")
    )
    train, test = (inspection.listing.describe("images") for inspection in inspections)
    yield f"train_images: {train}; {report['images_in_no_row']} in no row (clean)"
    if report["test_files"]["files"]:
        unasked = report["test_images_in_no_row"]
        yield f"test_images: {test}; {unasked} in no row (not requested)"
    if inspections[0].pixels != GREY:
        yield _describe_pixels(inspections[0])
    yield from _warn(report, classes)


def _describe_pixels(train: Inspection) -> str:
    """Describe the pixel format of the images, and how many of them are in colour."""
    text = f"pixels: {train.pixels.describe()}"
    coloured = sum(image.coloured for image in train.images)
    if train.pixels.channels == COLOURS and coloured:
        text += f"; {coloured} of {len(train.images)} training images are in colour"
    return text


def _warn(report: Mapping[str, Any], classes: Sequence[ClassInfo]) -> Iterator[str]:
    n_images = report["images"] + report["test_images"]
    for loss, text in LOSSES.items():
        if n_lost := report["images_reduced"][loss]:
            yield f"warning: {n_lost} of {n_images} images {text}"
    if odd := report["images_of_odd_size"]:
        yield (
            f"warning: {odd} training images differ in size from all others; they are used as "
            "they are, and each mask must have the size of its image"
        )
    unseen = [one for one in classes if not report["images_per_class"][str(one.id)]]
    if unseen == list(classes):
        yield (
            "warning: no training image shows a defect, so nothing can be learnt; "
            "is this the right csv of masks?"
        )
    elif unseen:
        yield (
            f"warning: no training image shows {enumerated(unseen)}, which will not be learnt; "
            "annotate images of it, or remove it from classes.csv or sample_submission.csv"
        )


def _count_odd(sizes_hw: Sequence[tuple[int, int]]) -> int:
    """Count the images whose size differs from nearly all others; 0 where sizes are mixed."""
    usual = usual_size(sizes_hw)
    odd = sum(size != usual for size in sizes_hw)
    return odd if odd <= ODD_SHARE * len(sizes_hw) else 0


def _count_unnamed(names: Sequence[str], labels: LabelCsv) -> int:
    named = {name_key(image) for image in (*labels.clean, *(row.image for row in labels.rows))}
    return sum(name_key(name) not in named for name in names)


def _missing(
    unlabelled: Collection[str],
    elsewhere: Mapping[str, str],
    image: str,
    mask: str | None = None,
) -> str:
    """Return why a row's image is not in the table; empty for an unlabelled one without a mask."""
    if name_key(image) in unlabelled:
        return "" if mask == "" else f"{IMAGES} marks the image as unlabelled"
    instead = elsewhere.get(name_key(image))
    return "no such image in the training folder" + (f", but {instead}" if instead else "")


def _unknown(ids: Iterable[int]) -> str:
    return f"unknown class; the classes are {', '.join(map(str, ids))}"


def _legal(text: str, size_hw: tuple[int, int], pair: str, faults: Faults) -> str | None:
    try:
        runs = rle.parse(text, size_hw)
    except BadInput as error:
        faults.add(f"{pair}: {error}")
        return None
    return rle.to_string(runs) if len(runs) else None


def _table(
    inspection: Inspection, classes: list[ClassInfo], columns: dict[str, pa.Array]
) -> ImageTable:
    images = inspection.images
    thumbnail_type = pa.binary(THUMBNAIL_BYTES)
    pixels = inspection.pixels
    meta = {
        "classes": [one._asdict() for one in classes],
        "pixels": pixels.model_dump(),
    }
    per_channel = pa.list_(pa.field("element", pa.float64()))  # as Parquet names it
    to_bytes = 255 / pixels.span
    # one at a time: a list of all would take as much memory as the images' own
    thumbnails = ((i.thumbnail_hw - pixels.low) * to_bytes for i in images)
    table = pa.table(
        {
            "image": pa.array([i.image for i in images], pa.string()),
            "sha256": pa.array([i.sha256 for i in images], pa.string()),
            "height": pa.array([i.size_hw[0] for i in images], pa.int32()),
            "width": pa.array([i.size_hw[1] for i in images], pa.int32()),
            "mean": pa.array([i.mean for i in images], per_channel),
            "std": pa.array([i.std for i in images], per_channel),
            "thumbnail": pa.array(
                (t.astype(np.float16).tobytes() for t in thumbnails), thumbnail_type
            ),
            **columns,
        }
    )
    table = table.replace_schema_metadata({METADATA: json.dumps(meta, sort_keys=True)})
    return ImageTable(table, classes)
