"""Image files: decoding to upright grey pixels, refusing what is broken or oversized."""

import hashlib
import io
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, quote

# Remarks on metadata, which does not matter here. Not `catch_warnings` around each image, since
# that swaps state of the whole process, and images are decoded on several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
GREY_MODES = frozenset({"1", "L", "LA"})
MODES = GREY_MODES | {"P", "RGB", "RGBA", "CMYK"}  # 8 bits a channel or fewer
MAX_PIXELS = 2**29  # such as a line scan of 2048x200,000; refuses decompression bombs
MAX_BYTES = 2**30  # of a file; what `MAX_PIXELS` of 16 bits need without any compression
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is a third of that
COLOUR, PAGES, TRANSPARENCY = "colour", "pages", "transparency"
_NO_COEFFICIENTS = 128  # the grey of JPEG blocks for which a file holds no data
_APART = 16  # levels between channels; JPEG and a lamp's tint leave grey steel below
_COLOURED = 1e-4  # share of an image's pixels: a spot of 6x6 on Severstal's 256x1600

TURNS = {  # EXIF orientation -> what sets the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BMP_BITS = {"1": 1, "L": 8}
_SWAPS_AXES = frozenset({5, 6, 7, 8})


class Decoded(NamedTuple):
    """An image and the SHA-256 of the file it came from."""

    image_hw: Uint8
    sha256: str


def read_grey(path: Path) -> Decoded:
    """Read and decode an image file.

    Returns:
        (H, W) uint8, the luminance where the file has colours, turned as its EXIF orientation
        says: what every viewer shows, and masks are drawn on. Nothing is scaled.

    Raises:
        BadInput: the file is missing, is no image, is truncated or corrupt, has more than 8 bits
            a channel, or has more than `MAX_PIXELS` pixels (refused before they are decoded).
    """
    try:
        data = read_bytes(path)
        return Decoded(decode_grey(data), hashlib.sha256(data).hexdigest())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def decode_grey(data: bytes) -> Uint8:
    """Decode the bytes of an image file to (H, W) uint8; see `read_grey`."""
    stored_hw, is_jpeg, orientation = _decode(data)
    if is_jpeg and _may_end_early(stored_hw):
        # where the data end early, whatever stands at their end is taken for more of them
        end = data.rfind(b"\xff\xd9")
        padded_hw, _, _ = _decode(data[:end] + b"\x55" * 4096 + data[end:])
        if not np.array_equal(stored_hw, padded_hw):
            raise BadInput("is corrupt or truncated: the data end before the last pixel")
    if orientation not in TURNS:
        return stored_hw
    return np.array(Image.fromarray(stored_hw).transpose(TURNS[orientation]))


def size_of(data: bytes) -> tuple[int, int]:
    """Return the height and width that `decode_grey` gives, for the price of a header if it can."""
    with opened(data) as image:
        width, height = image.size
        # of a TIFF, Pillow has swapped the size already
        if image.format != "TIFF" and orientation_of(image) in _SWAPS_AXES:
            width, height = height, width
        return height, width


def find_losses(data: bytes) -> set[str]:
    """Say what of a sound image is not in its grey pixels: colour, further pages, transparency."""
    lost = set()
    with opened(data) as image:
        # the second frame of an MPO is a camera's preview
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            lost.add(PAGES)
        if image.has_transparency_data:
            alpha = image.convert("RGBA").getchannel("A")
            if alpha.getextrema() != (255, 255):
                lost.add(TRANSPARENCY)
        if image.mode not in GREY_MODES and _is_coloured(image):
            lost.add(COLOUR)
    return lost


def read_bytes(path: Path) -> bytes:
    """Read a file that is no pipe and not larger than any image.

    Raises:
        BadInput: it cannot be read, or is none; without the path.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise BadInput("expected an image file, but this is something else")
        if status.st_size > MAX_BYTES:
            raise BadInput(f"expected at most {MAX_BYTES} bytes, but got {status.st_size}")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}") from error


@contextmanager
def opened(data: bytes, formats: Collection[str] = FORMATS) -> Iterator[ImageFile.ImageFile]:
    """Open an image whose pixels are not decoded yet; errors of the decoder become `BadInput`.

    Raises:
        BadInput: the data are none of the formats, are corrupt, or claim too many pixels.
    """
    if not data:
        raise BadInput("expected an image, but the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as image:
            width, height = image.size
            if not 0 < width * height <= MAX_PIXELS:
                raise BadInput(
                    f"expected 1 to {MAX_PIXELS} pixels, but the header says {height}x{width}"
                )
            if image.format == "BMP" and _is_misread(image.mode, data):
                raise BadInput("is a BMP with a palette that Pillow misreads; save it as PNG")
            yield image
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"expected 1 to {MAX_PIXELS} pixels, but the header says more") from error
    except UnidentifiedImageError as error:
        *others, last = formats
        known = f"{', '.join(others)} or {last}"
        raise BadInput(f"expected {known}, but the content is none of them") from error
    except Exception as error:  # decoders raise whatever a corrupt file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"cannot be decoded as an image: {reason[:200]}") from error


def orientation_of(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation of an image, a key of `TURNS`, or 1 for none.

    A loaded TIFF has none: Pillow turns it on loading.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # corrupt metadata, which viewers pass over too
        return 1


def _decode(data: bytes) -> tuple[Uint8, bool, int]:
    """Return the image as stored, whether it came from a JPEG, and its orientation."""
    with opened(data) as image:
        _refuse_unusual(image)
        image.draft("L", image.size)  # a JPEG's luminance needs no colour conversion
        stored_hw = np.array(image.convert("L"))
        return stored_hw, image.format in {"JPEG", "MPO"}, orientation_of(image)


def _refuse_unusual(image: ImageFile.ImageFile) -> None:
    # Pillow drops the lower half of 16-bit colours: only the format in the file still tells;
    # the 16 bits of a BMP are those of all three channels
    has_16_bits = ";16" in str(image.tile) and image.format != "BMP"
    if has_16_bits or image.mode.startswith(("I", "F")):
        of_16_bits = " of 16 bits" if has_16_bits else ""
        raise BadInput(
            f"expected 8 bits a channel, but got {quote(image.mode)}{of_16_bits}; "
            "scale all images alike to 0 to 255, and save them as 8 bits"
        )
    if image.mode not in MODES:
        raise BadInput(
            f"expected grey, RGB or CMYK, but got {quote(image.mode)}; save it as grey or RGB"
        )


def _is_misread(mode: str, bmp: bytes) -> bool:
    """Whether Pillow takes the pixels for bits, or bytes, since the palette is black and white.

    It does so whatever the header says of the bits a pixel (as of Pillow 13).
    """
    at = 24 if bmp[14] == 12 else 28  # the header of OS/2 is shorter
    return mode in _BMP_BITS and bmp[at] != _BMP_BITS[mode]


def _is_coloured(image: ImageFile.ImageFile) -> bool:
    """Whether the channels of an image differ by more than tint and noise, in more than a speck."""
    width, height = image.size
    # a JPEG is decoded at a quarter of its size, which takes a quarter of the time
    image.draft("RGB", (max(1, width // 4), max(1, height // 4)))
    red, green, blue = (np.asarray(channel) for channel in image.convert("RGB").split())
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return bool(np.mean(highest - lowest > _APART) > _COLOURED)


def _may_end_early(image_hw: Uint8) -> bool:
    """Whether the last block of a JPEG looks as it does when the file holds no data for it."""
    height, width = image_hw.shape
    last_block_hw = image_hw[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    return bool((last_block_hw == _NO_COEFFICIENTS).all())
