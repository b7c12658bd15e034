"""Decodes image files to upright pixels in a data set's `PixelFormat`.

Pillow decodes all of them, since it refuses truncated files. It drops half of the bits of 16-bit
colours, see `_colours_of_16_bits`.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from steelseg.core.arrays import Pixels, Uint16
from steelseg.core.errors import BadInput, quote
from steelseg.core.pixels import COLOURS, Levels, PixelFormat
from steelseg.data.images import (
    MAX_PIXELS,
    TURNS,
    opened,
    orientation_of,
    read_bytes,
    refuse_bombs,
)

GREY_MODES = frozenset({"1", "L", "LA"})
MODES = GREY_MODES | {"P", "RGB", "RGBA", "CMYK"}  # 8 bits per channel or fewer
PAGE_MODES = frozenset({"1", "L", "I", "I;16", "I;16B", "F"})  # with one channel
MAX_PAGES = 64  # that are channels; more are a video
_NO_COEFFICIENTS = 128  # the grey of JPEG blocks without data
_APART = 16  # levels of 255 between channels; grey steel stays below despite JPEG and tinted light
_COLOURED = 1e-4  # share of an image's pixels: a spot of 6x6 on Severstal's 256x1600
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B"}  # of bytes; N is this machine's


class Decoded(NamedTuple):
    """An image and the SHA-256 of the file it came from."""

    image: Pixels
    sha256: str


class Look(NamedTuple):
    """The contents of a file, before a `PixelFormat` is chosen."""

    depth: int
    """8, 16 or 32 bits per channel, as in `PixelFormat`"""
    lights: int
    """pages of one size and one channel each; 1 if there is only one, or if they differ"""
    coloured: bool
    """whether its channels differ by more than tint and noise, in more than a speck"""
    transparent: bool
    has_pages: bool
    """whether there are pages after the first"""


def read(path: Path, pixels: PixelFormat) -> Decoded:
    """Read and decode an image file.

    Returns:
        (H, W) for one channel, (C, H, W) for several, uint8 or uint16, upright by the file's EXIF
        orientation, as viewers show it and masks are drawn on it. 8-bit values are those of the
        file. A colour file read as one channel gives its luminance; a grey file read as three
        gives three equal channels.

    Raises:
        BadInput: the file is missing, not an image, truncated or corrupt, has another depth or
            number of channels, or more than `MAX_PIXELS` pixels (refused before they are decoded).
    """
    try:
        data = read_bytes(path)
        return Decoded(decode(data, pixels), hashlib.sha256(data).hexdigest())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def decode(data: bytes, pixels: PixelFormat, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file to (H, W) or (C, H, W) uint8 or uint16; see `read`."""
    return pixels.scale(read_levels(data, pixels, max_pixels))


def read_levels(data: bytes, pixels: PixelFormat, max_pixels: int = MAX_PIXELS) -> Levels:
    """Decode as `decode` does, but without scaling the levels."""
    stored, is_jpeg, orientation = _decode(data, pixels, max_pixels)
    if is_jpeg and _may_end_early(stored):
        # where the data end early, the decoder reads whatever follows as pixels
        end = data.rfind(b"\xff\xd9")
        longer = data[:end] + b"\x55" * 4096 + data[end:]
        if not np.array_equal(stored, _decode(longer, pixels, max_pixels)[0]):
            raise BadInput("is corrupt or truncated: the data end before the last pixel")
    if orientation not in TURNS:
        return stored
    planes = stored.reshape(-1, *stored.shape[-2:])
    turned = [np.array(Image.fromarray(plane).transpose(TURNS[orientation])) for plane in planes]
    return turned[0] if stored.ndim == 2 else np.stack(turned)


def fit_channels(levels: Levels, channels: int) -> Levels:
    """Convert (H, W) or (C, H, W) to the data set's number of channels; one is (H, W).

    Raises:
        BadInput: the number of channels cannot be converted.
    """
    found = 1 if levels.ndim == 2 else len(levels)
    if found == channels:
        return levels
    if found == 1 and channels == COLOURS:
        return np.repeat(levels[None], COLOURS, axis=0)
    if found == COLOURS and channels == 1:
        return _luminance(levels)
    expected = {1: "grey or RGB", COLOURS: "RGB, grey or a TIFF of 3 pages of one size"}.get(
        channels, f"a TIFF of {channels} pages of one size, one per light"
    )
    raise BadInput(f"expected {expected}, but got an image of {found} channel{'s' * (found > 1)}")


def look(data: bytes) -> Look:
    """Return what an image file contains, mostly from its header."""
    with opened(data) as image:
        depth = _depth_of(image)
        lights, has_pages = _count_pages(image, data)
        # decoding a JPEG at a quarter of its size takes a quarter of the time
        width, height = image.size
        image.draft("RGB", (max(1, width // 4), max(1, height // 4)))
        transparent = False
        if image.has_transparency_data and image.mode != "I;16":
            alpha = image.convert("RGBA").getchannel("A")
            transparent = alpha.getextrema() != (255, 255)
        coloured = False
        if image.mode not in GREY_MODES and not image.mode.startswith(("I", "F")):
            is_deep = depth != 8
            colours = _colours_of_16_bits(data) if is_deep else np.moveaxis(_rgb(image), -1, 0)
            coloured = _is_coloured(colours)
        return Look(depth, lights, coloured, transparent, has_pages)


def _decode(data: bytes, pixels: PixelFormat, max_pixels: int) -> tuple[Levels, bool, int]:
    """Return the image as stored, whether it came from a JPEG, and its orientation."""
    with opened(data, max_pixels=max_pixels) as image:
        depth, channels = _depth_of(image), pixels.channels
        if depth != pixels.depth:
            raise BadInput(_explain_depth(depth, pixels.depth))
        if channels > 1 and _count_pages(image, data, max_pixels)[0] == channels:
            pages = []
            for page in range(channels):
                image.seek(page)
                pages.append(_levels(image, depth, 1, data))
            stored: Levels = np.stack(pages)
        else:
            stored = _levels(image, depth, channels, data)
        turned = image.format == "TIFF"  # Pillow turns TIFFs on loading
        orientation = 1 if turned else orientation_of(image)
        return stored, image.format in {"JPEG", "MPO"}, orientation


def _levels(image: ImageFile.ImageFile, depth: int, channels: int, data: bytes) -> Levels:
    """Decode the current page of an image to (H, W) or (C, H, W)."""
    if depth == 8 and channels == 1:
        image.draft("L", image.size)  # a JPEG's luminance needs no colour conversion
        return np.array(image.convert("L"))
    if depth == 8:
        is_grey = image.mode in GREY_MODES
        found = np.array(image.convert("L")) if is_grey else np.moveaxis(_rgb(image), -1, 0)
    elif image.mode.startswith(("I", "F")):
        found = np.array(image)
        if not np.isfinite(found).all():
            raise BadInput("has pixels that are NaN or infinite")
        found = found.astype(np.float32 if depth == 32 else np.uint16, copy=False)
    else:
        found = _colours_of_16_bits(data)
    return np.ascontiguousarray(fit_channels(found, channels))


def _rgb(image: ImageFile.ImageFile) -> Any:
    return np.asarray(image.convert("RGB"))


def _colours_of_16_bits(data: bytes) -> Uint16:
    """Decode colours of 16 bits: (3, H, W).

    Pillow keeps only their upper bytes; decoding in the other byte order gives the lower ones.
    """
    halves: list[Any] = []
    for order in (dict.fromkeys(_OTHER_ORDER), _OTHER_ORDER):
        with opened(data) as image:
            image.tile = [tile._replace(args=_in_order(tile.args, order)) for tile in image.tile]
            halves.append(np.array(image)[..., :COLOURS].astype(np.uint16))
    upper, lower = halves
    return np.moveaxis(upper << 8 | lower, -1, 0)


def _in_order(arguments: Any, order: dict[str, Any]) -> Any:
    """Set the byte order in the arguments of one of Pillow's decoders."""
    raw, *others = (arguments,) if isinstance(arguments, str) else arguments
    mode, _, bits = raw.partition(";")
    if mode not in {"RGB", "RGBA", "RGBX"} or bits not in order:
        got = f"colour planes ({raw})" if len(raw) == 1 else quote(raw)
        raise BadInput(f"expected grey or RGB of 16 bits, but got {got}; save it as RGB, or as PNG")
    swapped = f"{mode};{order[bits] or bits}"
    return swapped if isinstance(arguments, str) else (swapped, *others)


def _luminance(levels: Levels) -> Levels:
    """Return the ITU-R 601 luma of (3, H, W), rounded as Pillow does."""
    if levels.dtype.kind == "f":
        return np.asarray(0.299 * levels[0] + 0.587 * levels[1] + 0.114 * levels[2])
    red, green, blue = levels.astype(np.uint32)
    return np.asarray(red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16, levels.dtype)


def _count_pages(
    image: ImageFile.ImageFile, data: bytes, max_pixels: int = MAX_PIXELS
) -> tuple[int, bool]:
    """Count the pages that are channels, and return whether there are pages after the first.

    The pages of previews and videos are not channels. The image is left at its first page.
    """
    if image.format != "TIFF" or not getattr(image, "is_animated", False):
        return 1, False  # the second frame of an MPO is a camera's preview
    kind, n_pages = (image.size, image.mode), 1
    try:
        while n_pages <= MAX_PAGES and kind[1] in PAGE_MODES:
            image.seek(n_pages)
            refuse_bombs(image, data, max_pixels // (n_pages + 1))
            if (image.size, image.mode) != kind:
                break
            n_pages += 1
    except EOFError:
        return n_pages, True
    except (BadInput, SyntaxError):  # too many pixels in all, or of an unknown kind
        pass
    finally:
        image.seek(0)
    return 1, True


def _depth_of(image: ImageFile.ImageFile) -> int:
    """Return the bits per channel of an image's current page: 8, 16, or 32 for the rest.

    Pillow drops the lower half of 16-bit colours, so only the raw mode of the file shows them. The
    16 bits of a BMP are shared by its three channels.
    """
    if image.mode in {"I", "F"}:
        return 32
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (8,))
    has_16_bits = ";16" in str(image.tile) or max(bits) > 8
    if image.mode.startswith("I;") or (has_16_bits and image.format != "BMP"):
        return 16
    if image.mode not in MODES:
        raise BadInput(
            f"expected grey, RGB or CMYK, but got {quote(image.mode)}; save it as grey or RGB"
        )
    return 8


def _explain_depth(found: int, expected: int) -> str:
    names = {8: "8 bits", 16: "16 bits", 32: "numbers of 32 bits"}
    return (
        f"expected {names[expected]} per channel, as in most training images, but got "
        f"{names[found]}; save all images in one format"
    )


def _is_coloured(colours: Levels) -> bool:
    """Whether channels (3, H, W) differ by more than tint and noise, in more than a speck."""
    red, green, blue = colours
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    # cameras of 10 or 12 bits do not use all 16
    white = 255 if colours.dtype == np.uint8 else max(int(np.percentile(highest, 99.9)), 255)
    return bool(np.mean(highest - lowest > white / 255 * _APART) > _COLOURED)


def _may_end_early(image: Levels) -> bool:
    """Whether the last block of a JPEG looks as if the file has no data for it."""
    height, width = image.shape[-2:]
    last_block = image[..., (height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    return bool((last_block == _NO_COEFFICIENTS).all())
