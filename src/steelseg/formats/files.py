"""Reads the size of image files, and links or copies them."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.data import images


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file as viewers show it.

    Raises:
        BadInput: it is not an image; the message has the path.
    """
    try:
        return images.size_of(images.read_bytes(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def place(path: Path, to: Path, *, copy: bool = False) -> None:
    """Hard-link a file to another path, or copy it if asked to or if links are not possible.

    A hard link survives the deletion of the source, and DVC treats it as a file.

    Raises:
        SteelsegError: it cannot be read or written.
    """
    path = path.resolve()  # the target of a symbolic link
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        if not copy:
            with suppress(OSError):  # another file system, or another user's file
                os.link(path, to)
                return
        shutil.copyfile(path, to)
    except OSError as error:
        raise SteelsegError(f"{path}: cannot be copied to {to}: {error.strerror}") from error
