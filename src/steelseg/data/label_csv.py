"""Reading of train.csv and sample_submission.csv in every layout that Kaggle has published."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from steelseg.core.errors import BadInput, Faults, quote

JOINED, IMAGE, CLASS, PIXELS = "ImageId_ClassId", "ImageId", "ClassId", "EncodedPixels"
_MAX_FIELD = 2**29  # characters; the RLE of the finest checkerboard of an image stays below
_MAX_CLASS_ID = 1000  # the table of annotations has a column for every class


class Row(NamedTuple):
    """One (image, class) row and the line of the file that it begins on."""

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
            few or too many fields, an illegal image name or class id, or a pair that is there
            twice.
    """
    with Faults(str(path)) as faults, _open_text(path) as text:
        records = _split(text, faults)
        _, columns = next(records, (1, []))
        faults.raise_if_any()
        _check_header(columns, faults)
        faults.raise_if_any()
        rows = list(_parse_rows(records, columns, faults))
        _find_duplicates(rows, faults)
    if not rows:
        raise BadInput(f"{path}: expected rows below the header, but there are none")
    return LabelCsv(columns, rows)


def check_image_name(name: str) -> None:
    """Check that a name is that of a file in the image folder itself, and can stand in a csv.

    Raises:
        BadInput: it leads elsewhere, is blank at an end, or holds what cannot be printed.
    """
    leads_elsewhere = {"/", "\\"} & set(name) or name in {"", ".", ".."}
    if leads_elsewhere or not name.isprintable() or name != name.strip():
        raise BadInput(f"expected the name of a file in the image folder, but got {quote(name)}")


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a file for reading by parts; what is wrong with it is told when it is met."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise BadInput(f"{path}: expected a csv file, but this is something else")
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield text
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError:
        line, byte = _find_bad_byte(path.read_bytes())
        raise BadInput(
            f"{path}: line {line}: expected UTF-8 text, but got the byte 0x{byte:02x}"
        ) from None
    except (OSError, ValueError) as error:  # a ValueError is a NUL in the path
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error


def _find_bad_byte(data: bytes) -> tuple[int, int]:
    """Return the line and the value of the first byte that is no UTF-8 (there must be one)."""
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.object[: error.start].count(b"\n") + 1, error.object[error.start]
    raise AssertionError("expected a byte that is no UTF-8")


def _split(text: TextIO, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins on and its fields; blank lines are passed over."""
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(text, strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        faults.add(f"line {line}: cannot be read as csv: {error}")
    finally:
        csv.field_size_limit(limit)


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


def _parse_rows(
    records: Iterator[tuple[int, list[str]]], columns: list[str], faults: Faults
) -> Iterator[Row]:
    at = {name: columns.index(name) for name in columns}
    for line, fields in records:
        try:
            if len(fields) != len(columns):
                raise BadInput(f"expected {len(columns)} fields, but got {len(fields)}")
            if JOINED in at:
                image, class_text = _split_joined(fields[at[JOINED]])
            else:
                image, class_text = fields[at[IMAGE]], fields[at[CLASS]]
            check_image_name(image)
            yield Row(line, image, _class_id(class_text), fields[at[PIXELS]])
        except BadInput as error:
            faults.add(f"line {line}: {error}")


def _split_joined(text: str) -> tuple[str, str]:
    image, underscore, class_text = text.rpartition("_")
    if not underscore:
        raise BadInput(f"expected an image and a class joined by `_`, but got {quote(text)}")
    return image, class_text


def _class_id(text: str) -> int:
    # to Kaggle, `01` and `1.0` are other rows than `1`
    is_canonical = text.isascii() and text.isdigit() and text[0] != "0"
    if is_canonical and len(text) <= len(str(_MAX_CLASS_ID)) and int(text) <= _MAX_CLASS_ID:
        return int(text)
    raise BadInput(f"expected a class id from 1 to {_MAX_CLASS_ID}, but got {quote(text)}")


def _find_duplicates(rows: list[Row], faults: Faults) -> None:
    first: dict[tuple[str, int], int] = {}
    for row in rows:
        seen = first.setdefault((row.image, row.class_id), row.line)
        if seen != row.line:
            faults.add(
                f"line {row.line}: image {quote(row.image)}, class {row.class_id} "
                f"already stands in line {seen}"
            )
