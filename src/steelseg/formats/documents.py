"""Finds and reads annotation documents in text, JSON or XML, and checks their values."""

import json
from collections.abc import Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from steelseg.core.errors import BadInput, quote
from steelseg.data.listing import list_below
from steelseg.formats.record import Options

LOOKED_AT = 100  # documents, before a folder is taken to have none of a format
MAX_BYTES = 2**30  # per document; COCO's own, of 118,287 images, has 2**29


def documents(
    source: Path, suffix: str, words: Sequence[str], first: int | None = None
) -> list[Path]:
    """List the documents of a format: a file itself, or those below a folder.

    Args:
        source: a file or a folder.
        suffix: of the documents, in lower case.
        words: that each document contains; it begins with the first.
        first: how many files to look at, for a guess.
    """
    names = [] if source.is_file() else list_below(source, {suffix}).names
    paths = [source / name for name in names] or [source]
    return [path for path in paths[:first] if _holds(path, [w.encode() for w in words])]


def folder_of(source: Path, documents: Sequence[Path], options: Options) -> Path:
    """Return the folder with the images of a source.

    The images of a document in a folder `annotations` or `labels` are next to that folder.
    """
    if options.images is not None or source.is_dir():
        return options.images or source
    parent = documents[0].parent
    return parent.parent if parent.name in {"annotations", "labels"} else parent


def whole(value: object, what: str) -> int:
    """Return a whole number of a document.

    Raises:
        BadInput: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"expected a whole number as {what}, but got {quote(value)}")
    return value


def stated_size(entry: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    """Return the image size that an entry states under these keys, if it does."""
    size_hw = entry.get(height), entry.get(width)
    if isinstance(size_hw[0], int) and isinstance(size_hw[1], int):
        return size_hw[0], size_hw[1]
    return None


def check_size(path: Path) -> None:
    """Refuse a document larger than `MAX_BYTES`, before it is read.

    Raises:
        BadInput: it is.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path}: expected at most {MAX_BYTES} bytes; export it in parts")


def read_text(path: Path) -> str:
    """Read a text file of limited size, with or without a byte order mark.

    Raises:
        BadInput: it cannot be read, is larger than `MAX_BYTES`, or is not UTF-8.
    """
    try:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        check_size(path)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise BadInput(f"{path}: expected text in UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON document; see `read_text`.

    Raises:
        BadInput: it is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from error


def text_of(value: object, what: str) -> str:
    """Return a text of a document.

    Raises:
        BadInput: it is something else, blank, or not printable.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadInput(f"expected {what}, but got {quote(value)}")
    return value.strip()


def _holds(path: Path, words: Sequence[bytes]) -> bool:
    """Whether a file begins with the first word, after blanks, and contains the others."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            start = bytes(data[:256]).removeprefix(b"\xef\xbb\xbf").lstrip()
            return start.startswith(words[0]) and all(data.find(word) >= 0 for word in words[1:])
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False
