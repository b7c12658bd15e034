"""Reading of mask files: what a pixel of a PNG, BMP, TIFF or GIF stands for.

A pixel is stored as a number, and shown as the grey or the colour that a palette has for it. Image
editors and optimisers order a palette as they like, annotation tools number it by class. So there
are up to three ways to read a file:

    by its grey       where all that is shown is grey
    by its number     where the palette has colours, and black, for nothing, is number 0;
                      where a grey file has 1, 2 or 4 bits, which viewers stretch to 0 to 255
    by its colour     where all colours are those of the Pascal VOC palette, in whatever order

The one way in which every pixel means something is taken. A file in which two ways do, and say
different things, is refused. Files of 16 bits, and of RGB, have but one way.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from steelseg.core.arrays import Bool, Int32, Int64, Uint8
from steelseg.core.errors import BadInput
from steelseg.data.images import TURNS, opened, orientation_of, read_bytes
from steelseg.formats import mask_hints

SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})  # of formats that keep each value
FORMATS = ("PNG", "BMP", "TIFF", "GIF")
_MODES = frozenset({"1", "L", "P"})
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I"})  # 16 bits, and TIFFs of 32
_RGB = frozenset({"RGB", "RGBA"})
_BINARY = ({0, 255}, {0, 1}, {0, 65535})
_JPEG = b"\xff\xd8\xff"
_SHOWN = 12  # colours in a message
_TRANSPARENT = (
    "expected no transparency but that of black; lay it on a black background and save it without "
    "transparency"
)
_AMBIGUOUS = "save class ids as grey values, without a palette"

Colour = tuple[int, ...]


class Stored(NamedTuple):
    """A mask as it stands in its file.

    `numbers_hw` (H, W) are what is stored, `used` the numbers there are, `shown` (256, 4) the RGBA
    of each number. `step` is the grey between numbers of 1, 2 or 4 bits, 1 of 8 bits and palettes.
    """

    numbers_hw: Uint8
    used: Int64
    shown: Uint8
    step: int


class _Opened(NamedTuple):
    """A mask as it is stored, and as it is shown; for `step`, see `Stored`."""

    image: Image.Image
    upright: Image.Image
    step: int


class Look(NamedTuple):
    """What a mask holds, before anyone has said what it means.

    `marks` are the colours ('#rrggbb') of a mask that is black and one colour, `values` what its
    pixels say as a label image, or None where they are colours, and `colours` their counts.
    """

    marks: set[str] | None
    values: set[int] | None
    colours: Counter[str]


def read_labels(
    path: Path, size_hw: tuple[int, int], classes: Sequence[int], palette: dict[int, Colour]
) -> Uint8 | Int32:
    """Read the class of every pixel: (H, W), 0 for none.

    Args:
        path: a file of one page.
        size_hw: of its image; one of another size is refused.
        classes: all values there are.
        palette: the numbers and colours of the palettes that were read before, which those of this
            file are added to: in a folder, a number means one colour.

    Raises:
        BadInput: the file is no mask, or means nothing, or several things; without the path.
    """
    with _upright(path, size_hw, _MODES | _DEEP) as file:
        if file.image.mode in _DEEP:
            return _read_deep(file.upright, classes)
        stored = _store(file)
    readings = list(_ways(stored))
    legal = {way: values for way, values in readings if set(values) <= {0, *classes}}
    if len(set(legal.values())) > 1:
        raise BadInput(f"its values can be read {' or '.join(legal)}; {_AMBIGUOUS}")
    if not readings:
        raise BadInput(
            "expected a palette of greys, or one whose number 0, for no defect, is black and "
            f"nothing else is; {_AMBIGUOUS}"
        )
    if not legal:
        way, values = readings[0]
        raise BadInput(mask_hints.explain_labels(values, classes, way))
    way, values = next(iter(legal.items()))
    if _has_colours(stored) and way == "by number":
        _add_to_palette(stored, palette)
    return _translate(stored, values)


def read_foreground(path: Path, size_hw: tuple[int, int], threshold: int | None = None) -> Uint8:
    """Read a black and white mask: (H, W) uint8, 1 where it is white, or of the only colour.

    Args:
        path: a file of one page.
        size_hw: of its image; one of another size is refused.
        threshold: the highest grey that is black, which allows for greys between, and JPEG.

    Raises:
        BadInput: as for `read_labels`.
    """
    with _upright(path, size_hw, _MODES | _DEEP | _RGB, threshold) as file:
        mode, upright = file.image.mode, file.upright
        if threshold is not None:
            grey_hw = np.asarray(upright if mode in _DEEP else upright.convert("L"))
            return (grey_hw > threshold).astype(np.uint8)
        if mode in _DEEP:
            return _two_values(np.asarray(upright))
        if mode in _RGB:
            return _one_colour(_pack(upright))
        return _foreground(_store(file))


def read_colours(path: Path, size_hw: tuple[int, int]) -> Int32:
    """Read what is shown at every pixel: (H, W) int32, red in the highest byte of three.

    Raises:
        BadInput: as for `read_labels`.
    """
    with _upright(path, size_hw, _MODES | _RGB) as file:
        return _pack(file.upright)


def look(path: Path) -> Look:
    """Look at a mask of whatever size and meaning.

    Raises:
        BadInput: the file is no mask; without the path.
    """
    with _upright(path, None, _MODES | _DEEP | _RGB) as file:
        if file.image.mode in _DEEP:
            values = set(np.unique(np.asarray(file.upright)).tolist())
            is_binary = any(values <= two for two in _BINARY)
            return Look({"#ffffff"} if is_binary else None, values, Counter())
        counts = _count_colours(_pack(file.upright))
        colours = set(counts) - {"#000000"}
        stored = None if file.image.mode in _RGB else _store(file)
    if stored is None:
        return Look(colours if len(colours) < 2 else None, None, counts)
    marks: set[str] | None = colours
    try:
        _foreground(stored)
    except BadInput:
        marks = None
    ways = dict(_ways(stored))
    known = ways.get("by number", ways.get("by colour", ways.get("by grey")))
    return Look(marks, None if known is None else set(known), counts)


def hexadecimal(packed: int) -> str:
    """Write a colour as `#rrggbb`."""
    return f"#{packed:06x}"


def _foreground(stored: Stored) -> Uint8:
    shown = stored.shown[stored.used]
    is_black = _is_black(shown)
    greys = shown[:, 0].tolist()
    if _is_grey(shown).all():
        for values in (greys, stored.used.tolist()) if stored.step > 1 else (greys,):
            if set(values) <= {0, 255} or set(values) <= {0, 1}:
                return _translate(stored, [value > 0 for value in values])
    if _has_colours(stored) and _black_is_nothing(stored) and np.count_nonzero(~is_black) == 1:
        return _translate(stored, (~is_black).tolist())
    if _is_grey(shown).all():
        raise BadInput(mask_hints.explain_binary(greys))
    raise BadInput(
        "expected black and white, or one colour on a black that is number 0 of the palette; "
        "save it as grey, 255 where the defect is and 0 elsewhere"
    )


@contextmanager
def _upright(
    path: Path,
    size_hw: tuple[int, int] | None,
    modes: frozenset[str],
    threshold: int | None = None,
) -> Iterator[_Opened]:
    data = read_bytes(path)
    if data.startswith(_JPEG) and threshold is None:
        raise BadInput(
            "cannot be read as PNG, BMP, TIFF or GIF: it is a JPEG, which leaves values between; "
            "draw it anew, or apply a threshold, and save it as PNG"
        )
    with opened(data, FORMATS if threshold is None else (*FORMATS, "JPEG")) as image:
        if image.mode not in modes or (image.mode in _RGB and ";16" in str(image.tile)):
            raise BadInput(
                f"expected 8-bit grey values or a palette, but got {image.mode}; save it as grey"
                + (", or say by --legend what its colours mean" if image.mode in _RGB else "")
            )
        if getattr(image, "n_frames", 1) > 1:
            raise BadInput("expected one page, but got several")
        step = _step(str(image.tile), image.mode)  # loading takes `tile` away
        image.load()
        turn = TURNS.get(orientation_of(image))
        upright: Image.Image = image if turn is None else image.transpose(turn)
        height, width = upright.height, upright.width
        if size_hw not in {None, (height, width)}:
            assert size_hw is not None
            raise BadInput(
                f"expected {size_hw[0]}x{size_hw[1]} like its image, but got {height}x{width}"
            )
        yield _Opened(image, upright, step)


def _store(file: _Opened) -> Stored:
    image, upright, step = file
    numbers_hw = np.asarray(upright).astype(np.uint8)
    if image.mode == "L":
        numbers_hw //= step
    used = np.unique(numbers_hw).astype(np.int64)
    if image.mode == "P" and used[-1] >= len(image.getpalette() or []) // 3:
        # so Pillow writes an image of mode P that was given no palette, losing its values
        raise BadInput("has pixels beyond the end of its palette; save it as grey")
    stored = Stored(numbers_hw, used, _shown(image, step), step)
    _refuse_transparency(stored)
    return stored


def _read_deep(upright: Image.Image, classes: Sequence[int]) -> Int32:
    labels_hw: Int32 = np.asarray(upright).astype(np.int32)
    values = np.unique(labels_hw).tolist()
    if not set(values) <= {0, *classes}:
        raise BadInput(mask_hints.explain_labels(values, classes, "by grey"))
    return labels_hw


def _two_values(grey_hw: Int32) -> Uint8:
    values = np.unique(grey_hw).tolist()
    if not any(set(values) <= two for two in _BINARY):
        raise BadInput(mask_hints.explain_binary(values))
    return (grey_hw > 0).astype(np.uint8)


def _one_colour(packed_hw: Int32) -> Uint8:
    colours = _count_colours(packed_hw)
    if len(colours.keys() - {"#000000"}) > 1:
        raise BadInput(
            f"expected one colour on black, but got {describe_colours(colours)}; save a file for "
            "each class, or say by --legend what the colours mean"
        )
    return (packed_hw > 0).astype(np.uint8)


def describe_colours(counts: Counter[str]) -> str:
    """Name the most frequent colours, with their pixels."""
    shown = [f"{colour} ({count:,} pixels)" for colour, count in counts.most_common(_SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" * (len(counts) > _SHOWN))


def _count_colours(packed_hw: Int32) -> Counter[str]:
    values, counts = np.unique(packed_hw, return_counts=True)
    return Counter(dict(zip(map(hexadecimal, values.tolist()), counts.tolist(), strict=True)))


def _pack(upright: Image.Image) -> Int32:
    """Return the colours of an image, (H, W); what shines through is refused, except on black."""
    rgba = np.asarray(upright.convert("RGBA")).astype(np.int32)
    packed_hw: Int32 = rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]
    if ((rgba[..., 3] < 255) & (packed_hw > 0)).any():
        raise BadInput(_TRANSPARENT)
    return packed_hw


def _step(tile: str, mode: str) -> int:
    """Return the levels that Pillow puts between the greys of a file of 1, 2 or 4 bits."""
    if mode == "1":
        return 255
    return next((step for bits, step in (("L;2", 85), ("L;4", 17)) if bits in tile), 1)


def _shown(image: Image.Image, step: int) -> Uint8:
    """Return what a viewer shows for each number: (256, 4) RGBA."""
    shown = np.full((256, 4), 255, dtype=np.uint8)
    if image.mode == "P":
        image.apply_transparency()
        colours = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
        shown[: len(colours)] = colours
        return shown
    shown[:, :3] = (np.arange(256, dtype=np.uint8) * step)[:, None]
    if "transparency" in image.info:
        shown[image.info["transparency"], 3] = 0
    return shown


def _refuse_transparency(stored: Stored) -> None:
    shown = stored.shown[stored.used]
    if ((shown[:, 3] < 255) & ~_is_black(shown)).any():
        raise BadInput(_TRANSPARENT)


def _ways(stored: Stored) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each way to read a mask, and the value that it gives to each of the used numbers."""
    shown = stored.shown[stored.used]
    if _is_grey(shown).all():
        yield "by grey", tuple(shown[:, 0].tolist())
    elif set(colours := [tuple(colour) for colour in shown[:, :3].tolist()]) <= _VOC.keys():
        yield "by colour", tuple(_VOC[colour] for colour in colours)
    if stored.step > 1 or (_has_colours(stored) and _black_is_nothing(stored)):
        yield "by number", tuple(stored.used.tolist())


def _has_colours(stored: Stored) -> bool:
    return not np.all(_is_grey(stored.shown))


def _black_is_nothing(stored: Stored) -> bool:
    """Whether black is number 0, and nothing else is: what is black shows no defect."""
    return np.array_equal(_is_black(stored.shown[stored.used]), stored.used == 0)


def _translate(stored: Stored, values: Sequence[int]) -> Uint8:
    table = np.zeros(256, dtype=np.uint8)
    table[stored.used] = values
    return table[stored.numbers_hw]


def _add_to_palette(stored: Stored, palette: dict[int, Colour]) -> None:
    for number in stored.used.tolist():
        colour = tuple(stored.shown[number, :3].tolist())
        if any((n == number) != (c == colour) for n, c in palette.items()):
            raise BadInput(
                f"its palette has the colour {colour} as number {number}, unlike that of another "
                f"mask; {_AMBIGUOUS}"
            )
        palette[number] = colour


def _is_grey(colours: Uint8) -> Bool:
    is_grey: Bool = np.all(colours[:, :3] == colours[:, :1], axis=1)
    return is_grey


def _is_black(colours: Uint8) -> Bool:
    is_black: Bool = np.all(colours[:, :3] == 0, axis=1)
    return is_black


def _voc_colour(number: int) -> Colour:
    """Return a colour of the Pascal VOC palette, which spreads a number's bits over RGB.

    Bits 0, 3 and 6 are the highest of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue.
    """
    return tuple(
        sum((number >> (3 * i + channel) & 1) << (7 - i) for i in range(3)) for channel in range(3)
    )


_VOC = {_voc_colour(number): number for number in range(256)}
