"""Image files of a source."""

from pathlib import Path

from steelseg.core.errors import BadInput
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
