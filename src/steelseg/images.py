"""Image files: listing a folder and decoding to grey, refusing what is broken or oversized."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from steelseg.errors import BadInput

GreyImage = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})  # 8 bits a channel or fewer
MAX_PIXELS = 2**26  # 64 times a line-scan frame of 256x4096; refuses decompression bombs


class Decoded(NamedTuple):
    """An image and the SHA-256 of the file it came from."""

    image_hw: GreyImage
    sha256: str


def list_images(folder: Path) -> list[str]:
    """List the image files of a folder by name, sorted; other files are passed over.

    Raises:
        BadInput: the folder is missing or holds no image, or an image is a link out of it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of images")
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not names:
        raise BadInput(f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}), but found none")
    root = folder.resolve()
    for name in names:
        if (root / name).is_symlink() and not (root / name).resolve().is_relative_to(root):
            raise BadInput(f"{folder / name}: expected a file of this folder, not a link out of it")
    return names


def read_grey(path: Path) -> Decoded:
    """Read and decode an image file.

    Returns:
        (H, W) uint8, the luminance where the file has colours.

    Raises:
        BadInput: the file is missing, is no image, is truncated or corrupt, has more than 8 bits
            a channel, or has more than `MAX_PIXELS` pixels (refused before they are decoded).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return Decoded(decode_grey(data), hashlib.sha256(data).hexdigest())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def decode_grey(data: bytes) -> GreyImage:
    """Decode the bytes of an image file to (H, W) uint8; see `read_grey`."""
    try:
        with warnings.catch_warnings():
            # Pillow's remarks on metadata, and its own limit, for which ours stands
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _refuse_unusual(image)
                image.draft("L", image.size)  # a JPEG's luminance needs no colour conversion
                return np.array(image.convert("L"))
    except BadInput:
        raise
    except Exception as error:  # decoders raise whatever a corrupt file leads them to
        raise BadInput(f"cannot be decoded as an image: {error}") from error


def _refuse_unusual(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(
            f"expected at most {MAX_PIXELS} pixels, but the header says {height}x{width}"
        )
    if image.mode not in MODES:
        raise BadInput(f"expected 8 bits a channel, but got the pixel format {image.mode!r}")
