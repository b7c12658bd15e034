"""The meaning of masks: which values, colours and words in names stand for which class."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steelseg.core.arrays import Int32, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults
from steelseg.formats import mask_file, mask_storage
from steelseg.formats.mask_storage import Colour
from steelseg.formats.record import Options

IGNORED = "ignored"  # in a mask's name: an ignored region
BACKGROUND = frozenset({"background", "_background_"})
MAX_CLASS = 1000  # the table of annotations has a column for every class
HIGHEST = (255, 65535)  # grey values of 8 and of 16 bits
_MANY = 64  # more values, found and not given, are not classes


class Meaning(NamedTuple):
    """The classes of a source by name, their ids, and their values in masks.

    `values` and `colours` (packed RGB) map to the class, or to None for ignored regions; background
    values are 0 and those that map to "". If there are colours, values have no meaning.
    `is_binary`: a mask without a class in its name is black and white, of the only class.
    `ignored` are the words for ignored regions in names.
    """

    classes: list[str]
    ids: tuple[int, ...]
    values: Mapping[int, str | None]
    colours: Mapping[int, str | None]
    is_binary: bool = False
    ignored: frozenset[str] = frozenset({IGNORED})

    def labels(self) -> dict[str, str]:
        """Return the classes, and `IGNORED`, by the words for them in names: name or id."""
        by_id = {str(i): name for i, name in zip(self.ids, self.classes, strict=True)}
        by_name = {name: name for i, name in by_id.items() if name != f"class {i}"}
        return by_id | by_name | dict.fromkeys(self.ignored, IGNORED)


DEFECT = Meaning(["defect"], (1,), {1: "defect"}, {}, is_binary=True)


class Painted(NamedTuple):
    """The classes that a mask shows, and its ignored region, if any."""

    masks: dict[str, Uint8]
    ignored: Uint8 | None


def from_options(options: Options) -> Meaning | None:
    """Return the meaning given by the options, or None if none was given."""
    classes, legend = list(options.classes), dict(options.legend)
    if not classes:
        named = dict.fromkeys(name for word, name in legend.items() if word not in options.ignore)
        classes = [n for n in named if n not in BACKGROUND and n not in options.ignore]
    if not classes:
        return None
    by_id = bool(options.classes) and all(word.isdecimal() for word in classes)
    ids = sorted(set(map(int, classes))) if by_id else list(range(1, len(classes) + 1))
    if ids[0] < 1 or ids[-1] > MAX_CLASS:
        raise BadInput(f"--classes: expected ids from 1 to {MAX_CLASS}, but got {ids}")
    names = [f"class {i}" for i in ids] if by_id else classes
    expected = {*names, *BACKGROUND, *options.ignore}
    used = [name for word, name in legend.items() if word not in options.ignore]
    if unknown := [name for name in used if name not in expected]:
        raise BadInput(f"{unknown[0]!r} is not in --classes {', '.join(names)}")
    if not legend:
        legend = {str(i): name for i, name in zip(ids, names, strict=True)}
    known = {word: _class(name, options.ignore) for word, name in legend.items()}
    known |= dict.fromkeys(options.ignore)
    is_binary = len(names) == 1 and not options.legend and not options.ignore
    ignored = options.ignore | {IGNORED}
    return Meaning(names, tuple(ids), _values(known), _colours(known), is_binary, ignored)


def from_classes(classes: Sequence[ClassInfo]) -> Meaning:
    """Return the meaning of masks of class ids, with the highest value for ignored pixels."""
    by_id = {info.id: info.name for info in classes}
    values: dict[int, str | None] = dict.fromkeys(HIGHEST) | dict(by_id)
    return Meaning(list(by_id.values()), tuple(by_id), values, {})


def survey(
    paths: Sequence[Path], options: Options, where: Path, *, may_be_binary: bool = True
) -> Meaning:
    """Infer the meaning of masks from their contents.

    Args:
        paths: of all masks.
        options: what is ignored, and a threshold if masks are black and white.
        where: the source, for messages.
        may_be_binary: whether masks of one colour on black show one class, regardless of its value.

    Raises:
        BadInput: a file is not a mask, or the masks have colours or ambiguous values; the message
            lists them, and the option that gives their meaning.
    """
    if options.threshold is not None:
        return DEFECT
    marks: set[str] | None = set()
    values: set[int] | None = set()
    colours: Counter[str] = Counter()
    with Faults(str(where)) as faults:
        for path in paths:
            try:
                seen = mask_file.look(path)
            except BadInput as error:
                faults.add(f"{path}: {error}")
                continue
            marks = None if marks is None or seen.marks is None else marks | seen.marks
            values = None if values is None or seen.values is None else values | seen.values
            colours += seen.colours
    is_binary = marks is not None and (len(marks) <= 1 or marks <= {"#ffffff", "#010101"})
    if is_binary and may_be_binary:
        return DEFECT
    if values is None:
        raise BadInput(
            f"{where}: the masks have colours; name them with --legend '#rrggbb=name,...', "
            f"or ignore some with --ignore '#rrggbb'. There are "
            f"{mask_storage.describe_colours(colours)}"
        )
    return _from_values(values, options, where)


def named(names: Iterable[str]) -> Meaning:
    """Return classes that are known only by words in the names of masks, in their order."""
    words = sorted(set(names))
    ids = [int(w) for w in words if w.isdecimal() and 1 <= int(w) <= MAX_CLASS]
    if len(ids) == len(words):
        ids = sorted(set(ids))
        by_id = {i: f"class {i}" for i in ids}
        return Meaning(list(by_id.values()), tuple(ids), dict(by_id), {})
    return Meaning(words, tuple(range(1, len(words) + 1)), dict(enumerate(words, start=1)), {})


def paint(
    path: Path, size_hw: tuple[int, int], meaning: Meaning, palette: dict[int, Colour]
) -> Painted:
    """Read a label image or a colour map.

    Raises:
        BadInput: see `mask_file`, or it has an unknown colour.
    """
    if meaning.colours:
        labels_hw: Uint8 | Int32 = _known_colours(path, size_hw, meaning)
    else:
        labels_hw = mask_file.read_labels(path, size_hw, sorted(meaning.values), palette)
    known = meaning.colours or meaning.values
    masks: dict[str, Uint8] = {}
    ignored = None
    for value in np.unique(labels_hw).tolist():
        if value not in known or known[value] == "":
            continue
        mask = (labels_hw == value).astype(np.uint8)
        if (name := known[value]) is None:
            ignored = mask if ignored is None else ignored | mask
        else:
            masks[name] = masks[name] | mask if name in masks else mask
    return Painted(masks, ignored)


def _known_colours(path: Path, size_hw: tuple[int, int], meaning: Meaning) -> Int32:
    shown_hw = mask_file.read_colours(path, size_hw)
    if not np.isin(shown_hw, [0, *meaning.colours]).all():
        values, counts = np.unique(shown_hw, return_counts=True)
        unknown = dict(zip(values.tolist(), counts.tolist(), strict=True))
        for colour in (0, *meaning.colours):
            unknown.pop(colour, None)
        found = Counter({mask_storage.hexadecimal(v): n for v, n in unknown.items()})
        raise BadInput(
            f"expected black and the colours of the legend, but got "
            f"{mask_storage.describe_colours(found)}"
        )
    return shown_hw


def _from_values(values: set[int], options: Options, where: Path) -> Meaning:
    classes = sorted(values - {0} - {int(w) for w in options.ignore if w.isdecimal()})
    if len(classes) > _MANY:
        raise BadInput(
            f"{where}: the masks have {len(classes)} values; name the classes with --classes or "
            "--legend; JPEG, and resizing with smoothing, leave values between"
        )
    if 255 in classes and len(classes) > 1:
        raise BadInput(
            f"{where}: the masks have the values {', '.join(map(str, classes))}; is 255 void or "
            "unsure? Then add --ignore 255; else name all classes with --classes"
        )
    if not classes or classes[0] < 1 or classes[-1] > MAX_CLASS:
        raise BadInput(
            f"{where}: expected masks with values from 1 to {MAX_CLASS}, but got "
            f"{', '.join(map(str, classes)) or 'none'}; give their meaning with --legend 7=name"
        )
    words = tuple(map(str, classes))
    meaning = from_options(options._replace(classes=words))
    assert meaning is not None
    return meaning._replace(is_binary=False)


def _class(name: str, ignore: frozenset[str]) -> str | None:
    return None if name in ignore else "" if name in BACKGROUND else name


def _values(known: Mapping[str, str | None]) -> dict[int, str | None]:
    return {int(word): name for word, name in known.items() if word.isdecimal()}


def _colours(known: Mapping[str, str | None]) -> dict[int, str | None]:
    return {int(word[1:], 16): name for word, name in known.items() if word.startswith("#")}
