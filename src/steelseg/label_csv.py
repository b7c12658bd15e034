"""Reading of train.csv and sample_submission.csv in every layout that Kaggle has published."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from steelseg.errors import BadInput, Faults

JOINED, IMAGE, CLASS, PIXELS = "ImageId_ClassId", "ImageId", "ClassId", "EncodedPixels"
_MAX_FIELD = 2**27  # an RLE of the finest checkerboard that an image may hold stays below this
_MAX_CLASS_ID = 10_000


class Row(NamedTuple):
    """One (image, class) row and the line of the file that it ends on."""

    line: int
    image: str
    class_id: int
    rle: str


class LabelCsv(NamedTuple):
    """The rows of a label file in their order, and the names of its columns in theirs."""

    columns: list[str]
    rows: list[Row]


def read(path: Path) -> LabelCsv:
    """Read a csv of (image, class, RLE) rows; the RLEs themselves are not looked at.

    Both layouts are understood, with the columns in any order: the joined one of 2019
    (`ImageId_ClassId,EncodedPixels`) and the current one (`ImageId,ClassId,EncodedPixels`).
    Further columns are passed over.

    Raises:
        BadInput: the file is missing, is no csv, is empty, lacks a column, or has rows with too
            few fields, an illegal image name or class id, or a pair that is there twice.
    """
    lines = _lines(path)
    try:
        _, header = next(lines)
    except StopIteration:
        raise BadInput(f"{path}: expected a header and rows, but the file is empty") from None
    _check_header(path, header)
    with Faults(str(path)) as faults:
        rows = list(_parse_rows(lines, header, faults))
        _find_duplicates(rows, faults)
    if not rows:
        raise BadInput(f"{path}: expected rows below the header, but there are none")
    return LabelCsv(header, rows)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text: {error}") from error
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise BadInput(f"{path}: line {reader.line_num}: cannot be read as csv: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _check_header(path: Path, header: list[str]) -> None:
    needed = [PIXELS, *([JOINED] if JOINED in header else [IMAGE, CLASS])]
    missing = [name for name in needed if name not in header]
    if missing:
        raise BadInput(
            f"{path}: line 1: missing column {', '.join(f'`{m}`' for m in missing)}; expected "
            f"`{JOINED},{PIXELS}` or `{IMAGE},{CLASS},{PIXELS}`, but got {','.join(header)!r}"
        )
    twice = sorted({name for name in needed if header.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: line 1: column `{twice[0]}` is there twice")


def _parse_rows(
    lines: Iterator[tuple[int, list[str]]], header: list[str], faults: Faults
) -> Iterator[Row]:
    joined = JOINED in header
    at = {name: header.index(name) for name in header}
    for line, fields in lines:
        if len(fields) != len(header):
            faults.add(f"line {line}: expected {len(header)} fields, but got {len(fields)}")
            continue
        if joined:
            image, _, class_text = fields[at[JOINED]].rpartition("_")
        else:
            image, class_text = fields[at[IMAGE]], fields[at[CLASS]]
        try:
            yield Row(line, _image_name(image), _class_id(class_text), fields[at[PIXELS]])
        except BadInput as error:
            faults.add(f"line {line}: {error}")


def _image_name(name: str) -> str:
    unsafe = {"/", "\\", "\0"} & set(name) or name in {"", ".", ".."}
    if unsafe or not name.isprintable() or name != name.strip():
        raise BadInput(f"expected the name of a file in the image folder, but got {name!r}")
    return name


def _class_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_CLASS_ID)):
        class_id = int(text)
        if 1 <= class_id <= _MAX_CLASS_ID:
            return class_id
    raise BadInput(f"expected a class id from 1 to {_MAX_CLASS_ID}, but got {text[:24]!r}")


def _find_duplicates(rows: list[Row], faults: Faults) -> None:
    first: dict[tuple[str, int], int] = {}
    for row in rows:
        seen = first.setdefault((row.image, row.class_id), row.line)
        if seen != row.line:
            faults.add(
                f"line {row.line}: image {row.image!r}, class {row.class_id} "
                f"already stands in line {seen}"
            )
