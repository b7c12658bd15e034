"""Opens image files without decoding them; broken and oversized ones are refused."""

import io
import math
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from steelseg.core.errors import BadInput, quote

# Warnings about metadata, which does not matter here. `catch_warnings` around each image would
# change the state of the whole process, and images are decoded on several threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
MAX_PIXELS = 2**29  # fits a line scan of 2048x200,000; stops decompression bombs
MAX_BYTES = 2**30  # per file; `MAX_PIXELS` of 16 bits without compression
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is a third of that
SCAN = b"\xff\xda"  # starts each pass over the pixels of a JPEG; a progressive one has 10
MAX_SCANS = 100

TURNS = {  # EXIF orientation -> the transform that sets the stored pixels upright
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


def size_of(data: bytes) -> tuple[int, int]:
    """Return the height and width that `decode` gives, from the header alone if possible."""
    with opened(data) as image:
        width, height = image.size
        # Pillow has already swapped the size of a TIFF
        if image.format != "TIFF" and orientation_of(image) in _SWAPS_AXES:
            width, height = height, width
        return height, width


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`.

    Raises:
        BadInput: it is not one, or cannot be read; the message has no path.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise BadInput("expected an image file, but this is something else")
        if status.st_size > MAX_BYTES:
            raise BadInput(f"expected at most {MAX_BYTES} bytes, but got {status.st_size}")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}") from error


@contextmanager
def opened(
    data: bytes, formats: Collection[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Iterator[ImageFile.ImageFile]:
    """Open an image without decoding its pixels; decoder errors become `BadInput`.

    Raises:
        BadInput: the data are in no known format, are corrupt, or would need more memory or time
            than `max_pixels` pixels.
    """
    if not data:
        raise BadInput("expected an image, but the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as image:
            refuse_bombs(image, data, max_pixels)
            if image.format == "BMP" and _is_misread(image.mode, data):
                raise BadInput("is a BMP with a palette that Pillow misreads; save it as PNG")
            yield image
    except BadInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"expected 1 to {max_pixels} pixels, but the header says more") from error
    except UnidentifiedImageError as error:
        *others, last = formats
        known = f"{', '.join(others)} or {last}"
        raise BadInput(f"expected {known}, but the content is none of them") from error
    except Exception as error:  # decoders raise whatever a corrupt file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"cannot be decoded as an image: {reason[:200]}") from error


def orientation_of(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation of an image, a key of `TURNS`, or 1 for none.

    A loaded TIFF has none, since Pillow turns it on loading.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # corrupt metadata, which viewers ignore too
        return 1


def refuse_bombs(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    """Refuse small files that are large once decoded."""
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise BadInput(f"expected 1 to {max_pixels} pixels, but the header says {height}x{width}")
    tags = getattr(image, "tag_v2", {})  # the tiles of a TIFF may be larger than the image
    tile_wh = tags.get(ExifTags.Base.TileWidth, width), tags.get(ExifTags.Base.TileLength, height)
    if math.prod(tile_wh) > max_pixels:
        raise BadInput(f"expected tiles of at most {max_pixels} pixels, but got {quote(tile_wh)}")
    if image.format in {"JPEG", "MPO"} or image.info.get("compression") == "jpeg":
        strips = tags.get(ExifTags.Base.TileOffsets) or tags.get(ExifTags.Base.StripOffsets) or [0]
        if data.count(SCAN) > MAX_SCANS * len(strips):  # each strip is a JPEG
            raise BadInput(f"expected a JPEG of at most {MAX_SCANS} scans")


def _is_misread(mode: str, bmp: bytes) -> bool:
    """Whether Pillow takes the pixels for bits or bytes because the palette is black and white.

    It ignores the header's bits per pixel then (as of Pillow 13).
    """
    at = 24 if bmp[14] == 12 else 28  # OS/2 headers are shorter
    return mode in _BMP_BITS and bmp[at] != _BMP_BITS[mode]
