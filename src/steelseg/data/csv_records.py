"""Reads csv files by records: faults name the line that a record begins on."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from steelseg.core.errors import BadInput, Faults, quote

_MAX_FIELD = 2**29  # characters; the RLE of the finest checkerboard of an image stays below


def read_table(
    path: Path, needed: Sequence[str], optional: Sequence[str], faults: Faults
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line of each record of a csv and its stripped fields by column.

    Columns may be in any order; others are skipped, and missing optional ones are empty. What is
    wrong with a record is added to the faults.

    Raises:
        BadInput: the file cannot be read, or a required column is missing.
    """
    with open_text(path) as text:
        records = split_records(text, faults)
        columns = [name.strip(" ") for name in next(records, (1, []))[1]]
        for name in (*needed, *optional):
            if columns.count(name) > 1 or (name in needed and name not in columns):
                faults.add(
                    f"line 1: expected one column `{name}`, but got {quote(','.join(columns))}"
                )
        faults.raise_if_any()
        empty = dict.fromkeys(optional, "")
        for line, fields in records:
            if len(fields) != len(columns):
                faults.add(f"line {line}: expected {len(columns)} fields, but got {len(fields)}")
            else:
                values = (field.strip(" ") for field in fields)
                yield line, empty | dict(zip(columns, values, strict=True))


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for streaming; read errors inside the block become `BadInput`."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
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
    """Return the line and the value of the first byte that is not UTF-8 (there must be one)."""
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.object[: error.start].count(b"\n") + 1, error.object[error.start]
    raise AssertionError("expected a byte that is not UTF-8")


def split_records(text: TextIO, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins on and its fields; blank lines are skipped."""
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(text, strict=True, skipinitialspace=True)
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
