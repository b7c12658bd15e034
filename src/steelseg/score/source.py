"""The images to score: of a folder, a glob or a table, or a single file; local or remote."""

import glob
import os
import posixpath
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import dataset, fs

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.images import MAX_BYTES, SUFFIXES
from steelseg.data.images import read_bytes as read_file
from steelseg.data.listing import Listing, sort_out
from steelseg.score.store import Place, place

_WILDCARD = re.compile(r"([*?[])")
_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python represents bytes that are not UTF-8


class ImageSource(NamedTuple):
    """Images to score: a folder and their sorted paths in it, which are their ids.

    `found` is one line that counts what was found and what was skipped.
    """

    folder: Place
    images: list[str]
    found: str


def find_images(uri: str) -> ImageSource:
    """Find images by a path or URI; an existing path is not a glob, even if it has wildcards.

    Folders are read recursively and links are followed. A table (`.parquet`) has a column `image`
    of paths, absolute or relative to the table's folder.

    Raises:
        BadInput: there are none, the path cannot be read, or rows of the table are not paths.
    """
    where = place(uri)
    try:
        kind = where.filesystem.get_file_info(where.path).type
        is_there = kind != fs.FileType.NotFound
        if is_there and where.path.lower().endswith(".parquet"):
            source = _of_table(where, uri)
        elif kind == fs.FileType.Directory:
            source = _of_listing(where, _below(where))
        elif is_there:
            folder, _, name = where.path.rpartition("/")
            source = _describe(where._replace(path=folder), Listing([name], {}))
        elif _WILDCARD.search(where.path):
            source = _of_listing(*_matches(where))
        else:
            raise BadInput(f"{uri}: cannot be listed: no such file or folder")
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise BadInput(f"{uri}: cannot be listed: {' '.join(str(error).split())}") from error
    if not source.images:
        known = ", ".join(sorted(SUFFIXES))
        raise BadInput(f"{uri}: expected images ({known}), but found none: {source.found}")
    return source


def read_bytes(folder: Place, image: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        BadInput: the file is missing, unreadable or larger than `MAX_BYTES`.
    """
    path = posixpath.join(folder.path, image)
    if isinstance(folder.filesystem, fs.LocalFileSystem):
        return read_file(Path(path))
    try:
        with folder.filesystem.open_input_file(path) as file:
            if file.size() > MAX_BYTES:
                raise BadInput(f"expected at most {MAX_BYTES} bytes, but got {file.size()}")
            data: bytes = file.read()
            return data
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"cannot be read: {' '.join(str(error).split())}") from error


def _of_table(where: Place, uri: str) -> ImageSource:
    table = dataset.dataset(where.path, filesystem=where.filesystem, format="parquet")
    if "image" not in table.schema.names:
        raise BadInput(f"{uri}: expected a column `image`, but got {quote(table.schema.names)}")
    column = table.to_table(columns=["image"]).column("image")
    names = column.to_pylist()
    with Faults(uri) as faults:
        for number, name in enumerate(names, 1):
            if not isinstance(name, str) or not name or "\0" in name:
                faults.add(f"row {number}: expected the path of an image, but got {quote(name)}")
    unique = sorted(set(names))
    found = f"{len(names)} rows: {len(unique)} images, {len(names) - len(unique)} repeats of them"
    return ImageSource(where._replace(path=posixpath.dirname(where.path)), unique, found)


def _of_listing(folder: Place, paths: Iterator[str]) -> ImageSource:
    names = {posixpath.relpath(path, folder.path) for path in paths}
    with Faults(folder.path) as faults:
        for name in sorted(names):
            if _SURROGATE.search(name):
                faults.add(f"{quote(name)}: expected a name in UTF-8")
    return _describe(folder, sort_out(names))


def _describe(folder: Place, listing: Listing) -> ImageSource:
    return ImageSource(folder, listing.names, listing.describe("images"))


def _matches(where: Place) -> tuple[Place, Iterator[str]]:
    """Return a folder above all matches of a glob, and the files, also those in matched folders."""
    steps = where.path.split("/")
    plain = 0
    while not _WILDCARD.search(steps[plain]) or _is_there(where, steps[: plain + 1]):
        plain += 1
    folder = where._replace(path="/".join(steps[:plain]) or "/")
    pattern = "/".join(steps[plain:])
    if isinstance(where.filesystem, fs.LocalFileSystem):
        names = glob.glob(pattern, root_dir=folder.path, recursive=True, include_hidden=True)
        matches = {
            path: os.path.isdir(path) for path in (posixpath.join(folder.path, n) for n in names)
        }
    else:
        escaped = posixpath.join(_WILDCARD.sub(r"[\1]", folder.path), pattern)
        found = ArrowFSWrapper(where.filesystem).glob(escaped, detail=True)
        matches = {path: info["type"] == "directory" for path, info in found.items()}
    files = (
        _below(where._replace(path=path)) if is_folder else [path]
        for path, is_folder in matches.items()
    )
    return folder, chain.from_iterable(files)


def _is_there(where: Place, steps: list[str]) -> bool:
    info = where.filesystem.get_file_info("/".join(steps))
    return bool(info.type != fs.FileType.NotFound)


def _below(folder: Place) -> Iterator[str]:
    if isinstance(folder.filesystem, fs.LocalFileSystem):
        return _walk(folder.path)
    listed = folder.filesystem.get_file_info(fs.FileSelector(folder.path, recursive=True))
    return (info.path for info in listed if info.is_file)


def _walk(folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the files below a folder; links are followed, but not in cycles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, above | {real})
            else:
                yield entry.path
