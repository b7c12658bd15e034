"""The files of a source: images at any depth, and what is passed over."""

import os
from collections.abc import Set
from pathlib import Path

from steelseg.core.errors import BadInput
from steelseg.data import images
from steelseg.data.listing import Listing, sort_out


def list_below(folder: Path, suffixes: Set[str] = images.SUFFIXES) -> Listing:
    """List the files of a folder at any depth, named by their path in it; links are followed.

    Raises:
        BadInput: the folder is missing or cannot be read.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    paths: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}")

    for top, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(top)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        relative = Path(top).relative_to(folder)
        paths += [(relative / name).as_posix() for name in names]
    return sort_out(paths, suffixes, below=True)


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file as viewers show it.

    Raises:
        BadInput: it is none; with the path.
    """
    try:
        return images.size_of(images.read_bytes(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
