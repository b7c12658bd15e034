"""Reads train.csv and sample_submission.csv in every layout that Kaggle has published."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.csv_records import open_text, split_records
from steelseg.data.listing import check_image_name, name_key

JOINED, IMAGE, CLASS, PIXELS = "ImageId_ClassId", "ImageId", "ClassId", "EncodedPixels"
_MAX_CLASS_ID = 1000  # the table of annotations has a column for every class


class Row(NamedTuple):
    """A class of an image, its region as RLE, and the line of the file, or 0."""

    image: str
    class_id: int
    rle: str
    line: int = 0


class LabelCsv(NamedTuple):
    """The contents of a label file.

    `columns`, `rows` and the raw `fields` of each row are in the order of the file. `clean` has the
    images in rows without a class, as pandas' outer joins write them, and the line of each.
    """

    columns: list[str]
    rows: list[Row]
    fields: list[list[str]]
    clean: dict[str, int]


def read(path: Path) -> LabelCsv:
    """Read a csv of (image, class, RLE) rows; the RLEs themselves are not checked.

    Both layouts are understood, with the columns in any order: the joined one of 2019
    (`ImageId_ClassId,EncodedPixels`) and the current one (`ImageId,ClassId,EncodedPixels`).
    Further columns are ignored, as are blanks around names and class ids.

    Raises:
        BadInput: the file is missing, is not a csv, is empty, lacks a column, or has rows with too
            few or too many fields, an illegal image name or class id, or a repeated pair.
    """
    with Faults(str(path)) as faults, open_text(path) as text:
        records = split_records(text, faults)
        _, header = next(records, (1, []))
        faults.raise_if_any()
        labels = LabelCsv([name.strip(" ") for name in header], [], [], {})
        _check_header(labels.columns, faults)
        faults.raise_if_any()
        _parse_rows(records, labels, faults)
        _find_duplicates(labels, faults)
    if not labels.rows and not labels.clean:
        raise BadInput(f"{path}: expected rows below the header, but there are none")
    return labels


def to_text(rows: Iterable[Row]) -> str:
    """Write rows as csv in Kaggle's current layout."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, CLASS, PIXELS])
    writer.writerows((row.image, row.class_id, row.rle) for row in rows)
    return text.getvalue()


def check_answerable(sample: LabelCsv, faults: Faults) -> None:
    """Add the columns and rows of a sample submission that cannot be answered to the faults.

    A column that counts the rows, as written by pandas, is copied.
    """
    for at, name in enumerate(sample.columns):
        is_index = name in {"", "index"} or name.startswith("Unnamed: ")
        counts = is_index and all(fields[at].strip(" ").isdigit() for fields in sample.fields)
        if name not in (JOINED, IMAGE, CLASS, PIXELS) and not counts:
            faults.add(
                f"line 1: unknown column {quote(name)}; expected `{JOINED},{PIXELS}` or "
                f"`{IMAGE},{CLASS},{PIXELS}`"
            )
    for image, line in sample.clean.items():
        faults.add(f"line {line}: image {quote(image)}: expected a class id to answer for")


def _check_header(columns: list[str], faults: Faults) -> None:
    if not columns:
        faults.add("expected a header and rows, but the file is empty")
        return
    needed = [PIXELS, *([JOINED] if JOINED in columns else [IMAGE, CLASS])]
    missing = ", ".join(f"`{name}`" for name in needed if name not in columns)
    if missing:
        faults.add(
            f"line 1: missing column {missing}; expected `{JOINED},{PIXELS}` or "
            f"`{IMAGE},{CLASS},{PIXELS}`, but got {quote(','.join(columns))}"
        )
    for name in needed:
        if columns.count(name) > 1:
            faults.add(f"line 1: expected one column `{name}`, but got {columns.count(name)}")


def _parse_rows(records: Iterator[tuple[int, list[str]]], labels: LabelCsv, faults: Faults) -> None:
    """Add every record to `labels`."""
    at = {name: labels.columns.index(name) for name in labels.columns}
    for line, fields in records:
        try:
            if len(fields) != len(labels.columns):
                raise BadInput(f"expected {len(labels.columns)} fields, but got {len(fields)}")
            if JOINED in at:
                image, class_text = _split_joined(fields[at[JOINED]])
            else:
                image, class_text = fields[at[IMAGE]].strip(" "), fields[at[CLASS]].strip(" ")
            check_image_name(image)
            rle = fields[at[PIXELS]].strip(" ")
            if JOINED not in at and not class_text and not rle:
                if labels.clean.setdefault(image, line) != line:
                    raise BadInput(f"{quote(image)} is already in line {labels.clean[image]}")
            else:
                labels.rows.append(Row(image, class_id(class_text), rle, line))
                labels.fields.append(fields)
        except BadInput as error:
            faults.add(f"line {line}: {error}")


def _split_joined(text: str) -> tuple[str, str]:
    image, underscore, class_text = text.strip(" ").rpartition("_")
    if not underscore:
        raise BadInput(f"expected an image and a class joined by `_`, but got {quote(text)}")
    return image, class_text


def class_id(text: str) -> int:
    """Read a class id of a csv.

    Raises:
        BadInput: it is not from 1 to 1000.
    """
    # pandas writes `1.0` if other rows of the column are empty; for Kaggle, `01` is not `1`
    match = re.fullmatch(r"([1-9][0-9]{0,3})(\.0)?", text)
    if match and int(match[1]) <= _MAX_CLASS_ID:
        return int(match[1])
    raise BadInput(f"expected a class id from 1 to {_MAX_CLASS_ID}, but got {quote(text)}")


def _find_duplicates(labels: LabelCsv, faults: Faults) -> None:
    first: dict[tuple[str, int], int] = {}
    clean = {name_key(image): line for image, line in labels.clean.items()}
    for row in labels.rows:
        key = name_key(row.image)
        pair = f"line {row.line}: image {quote(row.image)}, class {row.class_id}"
        seen = first.setdefault((key, row.class_id), row.line)
        if seen != row.line:
            faults.add(f"{pair} is already in line {seen}")
        elif row.rle and key in clean:
            faults.add(f"{pair}: line {clean[key]} marks the image as clean")
