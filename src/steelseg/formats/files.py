"""Image files of a source: their size, and taking them over."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.data import images


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file as viewers show it.

    Raises:
        BadInput: it is none; with the path.
    """
    try:
        return images.size_of(images.read_bytes(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def place(path: Path, to: Path, *, copy: bool = False) -> None:
    """Link a file to another place, or copy it where that is wanted, or links cannot be made.

    A link is a hard one: it stays when the source is deleted, and DVC takes it for a file.

    Raises:
        SteelsegError: it cannot be read or written.
    """
    path = path.resolve()  # of a symbolic link, what it leads to
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        if not copy:
            with suppress(OSError):  # another file system, or a file of another person
                os.link(path, to)
                return
        shutil.copyfile(path, to)
    except OSError as error:
        raise SteelsegError(f"{path}: cannot be copied to {to}: {error.strerror}") from error
