"""Image files: listing a folder and decoding to grey, refusing what is broken or oversized."""

import hashlib
import io
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from steelseg.core.errors import BadInput, Faults, quote

# Remarks on metadata, which does not matter here. Not `catch_warnings` around each image, since
# that swaps state of the whole process, and images are decoded on several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

GreyImage = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})  # 8 bits a channel or fewer
MAX_PIXELS = 2**26  # 64 times a line-scan frame of 256x4096; refuses decompression bombs
MAX_BYTES = 2**29  # of a file; twice what `MAX_PIXELS` need without any compression
_NO_COEFFICIENTS = 128  # the grey of JPEG blocks for which a file holds no data


class Decoded(NamedTuple):
    """An image and the SHA-256 of the file it came from."""

    image_hw: GreyImage
    sha256: str


def list_images(folder: Path) -> list[str]:
    """List the image files of a folder by name, sorted; other files are passed over.

    Raises:
        BadInput: the folder is missing or holds no image, or images are links out of it.
    """
    try:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of images")
        names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror}") from error
    if not names:
        raise BadInput(f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}), but found none")
    root = os.path.realpath(folder)
    with Faults(str(folder)) as faults:
        for name in names:
            path = folder / name
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                faults.add(f"{quote(name)}: expected a file of this folder, not a link out of it")
    return names


def read_grey(path: Path) -> Decoded:
    """Read and decode an image file.

    Returns:
        (H, W) uint8, the luminance where the file has colours. Nothing is rotated or scaled.

    Raises:
        BadInput: the file is missing, is no image, is truncated or corrupt, has more than 8 bits
            a channel, or has more than `MAX_PIXELS` pixels (refused before they are decoded).
    """
    try:
        data = _read_bytes(path)
        return Decoded(decode_grey(data), hashlib.sha256(data).hexdigest())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def decode_grey(data: bytes) -> GreyImage:
    """Decode the bytes of an image file to (H, W) uint8; see `read_grey`."""
    if not data:
        raise BadInput("expected an image, but the file is empty")
    image_hw, is_jpeg = _decode(data)
    if is_jpeg and _may_end_early(image_hw):
        # where the data end early, whatever stands at their end is taken for more of them
        end = data.rfind(b"\xff\xd9")
        padded_hw, _ = _decode(data[:end] + b"\x55" * 4096 + data[end:])
        if not np.array_equal(image_hw, padded_hw):
            raise BadInput("is corrupt or truncated: the data end before the last pixel")
    return image_hw


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise BadInput("expected an image file, but this is something else")
        if status.st_size > MAX_BYTES:
            raise BadInput(f"expected at most {MAX_BYTES} bytes, but got {status.st_size}")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}") from error


def _decode(data: bytes) -> tuple[GreyImage, bool]:
    """Return the image and whether it came from a JPEG."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_unusual(image)
            image.draft("L", image.size)  # a JPEG's luminance needs no colour conversion
            return np.array(image.convert("L")), image.format in {"JPEG", "MPO"}
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"expected 1 to {MAX_PIXELS} pixels, but the header says more") from error
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadInput(f"expected {known}, but the content is none of them") from error
    except Exception as error:  # decoders raise whatever a corrupt file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"cannot be decoded as an image: {reason}") from error


def _refuse_unusual(image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise BadInput(f"expected 1 to {MAX_PIXELS} pixels, but the header says {height}x{width}")
    # Pillow drops the lower half of 16-bit colours: only the format in the file still tells
    has_16_bits = ";16" in str(image.tile)
    if has_16_bits or image.mode not in MODES:
        of_16_bits = " of 16 bits" if has_16_bits else ""
        raise BadInput(f"expected 8 bits a channel, but got {quote(image.mode)}{of_16_bits}")


def _may_end_early(image_hw: GreyImage) -> bool:
    """Whether the last block of a JPEG looks as it does when the file holds no data for it."""
    height, width = image_hw.shape
    last_block_hw = image_hw[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    return bool((last_block_hw == _NO_COEFFICIENTS).all())
