"""Reads mask files: what each pixel of a PNG, BMP, TIFF or GIF means.

A pixel is stored as a number, and shown as the grey or colour of that number in a palette. Image
editors and optimisers reorder palettes, annotation tools number them by class. So there are up to
three ways to read a file:

    by its grey       where all shown colours are grey
    by its number     where the palette has colours, and black, the background, is number 0;
                      where a grey file has 1, 2 or 4 bits, which viewers stretch to 0 to 255
    by its colour     where all colours are in the Pascal VOC palette, in any order

A file is read the one way in which every pixel has a meaning. If two ways do and disagree, the file
is refused. Files of 16 bits and RGB files can be read in only one way.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from steelseg.core.arrays import Int32, Uint8
from steelseg.core.errors import BadInput
from steelseg.formats import mask_hints
from steelseg.formats.mask_storage import (
    DEEP,
    MODES,
    RGB,
    Colour,
    Stored,
    count_colours,
    describe_colours,
    is_black,
    is_grey,
    open_upright,
    pack,
    store,
)

_BINARY = ({0, 255}, {0, 1}, {0, 65535})
_AMBIGUOUS = "save class ids as grey values, without a palette"


class Look(NamedTuple):
    """The contents of a mask, before its values are given a meaning.

    `marks` are the colours ('#rrggbb') of a mask of black and one colour, `values` those of its
    pixels as a label image, or None if they are colours, and `colours` counts pixels by colour.
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
        size_hw: of its image; masks of another size are refused.
        classes: all class ids.
        palette: the numbers and colours of the palettes read so far, to which this file's are
            added: within a folder, a number means one colour.

    Raises:
        BadInput: the file is not a mask, or its meaning is unknown or ambiguous; the message has no
        path.
    """
    with open_upright(path, size_hw, MODES | DEEP | RGB) as file:
        if file.image.mode in DEEP:
            return _read_deep(file.upright, classes)
        if file.image.mode in RGB:
            colours = describe_colours(count_colours(pack(file.upright)))
            raise BadInput(
                f"expected 8-bit grey values or a palette, but got {file.image.mode} with the "
                f"colours {colours}; give their meaning with --legend"
            )
        stored = store(file)
    readings = list(_ways(stored))
    legal = {way: values for way, values in readings if set(values) <= {0, *classes}}
    if len(set(legal.values())) > 1:
        raise BadInput(f"its values can be read {' or '.join(legal)}; {_AMBIGUOUS}")
    if not readings:
        raise BadInput(
            "expected a palette of greys, or one in which number 0, no defect, is black and no "
            f"other number is; {_AMBIGUOUS}"
        )
    if not legal:
        way, values = readings[0]
        raise BadInput(mask_hints.explain_labels(values, classes, way))
    way, values = next(iter(legal.items()))
    if _has_colours(stored) and way == "by number":
        _add_to_palette(stored, palette)
    return _translate(stored, values)


def read_foreground(path: Path, size_hw: tuple[int, int], threshold: int | None = None) -> Uint8:
    """Read a black and white mask: (H, W) uint8, 1 where it is white, or has the only colour.

    Args:
        path: a file of one page.
        size_hw: of its image; masks of another size are refused.
        threshold: the highest grey that counts as black; allows other greys, and JPEG.

    Raises:
        BadInput: as for `read_labels`.
    """
    with open_upright(path, size_hw, MODES | DEEP | RGB, threshold) as file:
        mode, upright = file.image.mode, file.upright
        if threshold is not None:
            grey_hw = np.asarray(upright if mode in DEEP else upright.convert("L"))
            return (grey_hw > threshold).astype(np.uint8)
        if mode in DEEP:
            return _two_values(np.asarray(upright))
        if mode in RGB:
            return _one_colour(pack(upright))
        return _foreground(store(file))


def read_colours(path: Path, size_hw: tuple[int, int]) -> Int32:
    """Read the colour of every pixel: (H, W) int32, red in the highest of three bytes.

    Raises:
        BadInput: as for `read_labels`.
    """
    with open_upright(path, size_hw, MODES | RGB) as file:
        return pack(file.upright)


def look(path: Path) -> Look:
    """Read the contents of a mask of any size and meaning.

    Raises:
        BadInput: the file is not a mask; the message has no path.
    """
    with open_upright(path, None, MODES | DEEP | RGB) as file:
        if file.image.mode in DEEP:
            values = set(np.unique(np.asarray(file.upright)).tolist())
            is_binary = any(values <= two for two in _BINARY)
            return Look({"#ffffff"} if is_binary else None, values, Counter())
        counts = count_colours(pack(file.upright))
        colours = set(counts) - {"#000000"}
        stored = None if file.image.mode in RGB else store(file)
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


def _foreground(stored: Stored) -> Uint8:
    shown = stored.shown[stored.used]
    dark = is_black(shown)
    greys = shown[:, 0].tolist()
    if is_grey(shown).all():
        for values in (greys, stored.used.tolist()) if stored.step > 1 else (greys,):
            if set(values) <= {0, 255} or set(values) <= {0, 1}:
                return _translate(stored, [value > 0 for value in values])
    if _has_colours(stored) and _black_is_nothing(stored) and np.count_nonzero(~dark) == 1:
        return _translate(stored, (~dark).tolist())
    if is_grey(shown).all():
        raise BadInput(mask_hints.explain_binary(greys))
    raise BadInput(
        "expected black and white, or one colour on a black that is number 0 of the palette; "
        "save it as grey, 255 where the defect is and 0 elsewhere"
    )


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
    colours = count_colours(packed_hw)
    if len(colours.keys() - {"#000000"}) > 1:
        raise BadInput(
            f"expected one colour on black, but got {describe_colours(colours)}; save one file per "
            "class, or give the meaning of the colours with --legend"
        )
    return (packed_hw > 0).astype(np.uint8)


def _ways(stored: Stored) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each way to read a mask, with the value of each used number."""
    shown = stored.shown[stored.used]
    if is_grey(shown).all():
        yield "by grey", tuple(shown[:, 0].tolist())
    elif set(colours := [tuple(colour) for colour in shown[:, :3].tolist()]) <= _VOC.keys():
        yield "by colour", tuple(_VOC[colour] for colour in colours)
    if stored.step > 1 or (_has_colours(stored) and _black_is_nothing(stored)):
        yield "by number", tuple(stored.used.tolist())


def _has_colours(stored: Stored) -> bool:
    return not np.all(is_grey(stored.shown))


def _black_is_nothing(stored: Stored) -> bool:
    """Whether only number 0 is black: black pixels show no defect."""
    return np.array_equal(is_black(stored.shown[stored.used]), stored.used == 0)


def _translate(stored: Stored, values: Sequence[int]) -> Uint8:
    table = np.zeros(256, dtype=np.uint8)
    table[stored.used] = values
    return table[stored.numbers_hw]


def _add_to_palette(stored: Stored, palette: dict[int, Colour]) -> None:
    for number in stored.used.tolist():
        colour = tuple(stored.shown[number, :3].tolist())
        if any((n == number) != (c == colour) for n, c in palette.items()):
            raise BadInput(
                f"its palette has {colour} as number {number}, unlike that of another mask; "
                f"{_AMBIGUOUS}"
            )
        palette[number] = colour


def _voc_colour(number: int) -> Colour:
    """Return a colour of the Pascal VOC palette, which spreads the bits of a number over RGB.

    Bits 0, 3 and 6 are the highest of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue.
    """
    return tuple(
        sum((number >> (3 * i + channel) & 1) << (7 - i) for i in range(3)) for channel in range(3)
    )


_VOC = {_voc_colour(number): number for number in range(256)}
