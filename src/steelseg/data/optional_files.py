"""Reads the optional files of a data set folder: classes.csv and images.csv."""

import csv
import io
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from steelseg.core.classes import (
    ClassInfo,
    default_classes,
    default_name,
    hexadecimal,
    palette,
)
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.csv_records import read_table
from steelseg.data.inspection import UNLABELLED
from steelseg.data.label_csv import CLASS, IMAGE, class_id
from steelseg.data.listing import check_image_name, name_key

CLASSES, IMAGES, SAMPLE = "classes.csv", "images.csv", "sample_submission.csv"
LABELLED = "labelled"
_MAX_TEXT = 200  # characters in the name of a class or group


class ImageFacts(NamedTuple):
    """A row of images.csv: the image's group, empty for none, and whether it is labelled."""

    group: str = ""
    labelled: bool = True


def find_classes(folder: Path, asked: Iterable[int], shown: Iterable[int]) -> list[ClassInfo]:
    """Return the classes: those of classes.csv, else those asked for, else those shown.

    Args:
        folder: the data set's.
        asked: the ids in the sample submission, if there is one.
        shown: the ids in the csv of masks.

    Raises:
        BadInput: classes.csv cannot be read, or no file lists any class.
    """
    if (folder / CLASSES).exists():
        return read_classes(folder / CLASSES)
    ids = set(asked) or set(shown)
    if not ids:
        raise BadInput(f"{folder}: expected masks, {SAMPLE} or {CLASSES} to list the classes")
    return default_classes(ids)


def read_classes(path: Path) -> list[ClassInfo]:
    """Read classes.csv, `ClassId,name,color`, sorted by id; only the ids are required.

    Raises:
        BadInput: the file cannot be read, is empty, or has an illegal or repeated id, name or
            colour.
    """
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    with Faults(str(path)) as faults:
        for line, fields in read_table(path, [CLASS], ["name", "color"], faults):
            try:
                number, name, color = class_id(fields[CLASS]), fields["name"], fields["color"]
                name = _text(name) or default_name(number)
                if number in names or name in names.values():
                    raise BadInput(f"{quote(name)} (class {number}) appears twice")
                if color and not re.fullmatch("#[0-9a-fA-F]{6}", color):
                    raise BadInput(f"expected a colour such as #e69f00, but got {quote(color)}")
                names[number], colors[number] = name, color.lower()
            except BadInput as error:
                faults.add(f"line {line}: {error}")
        if not names and not faults.count:
            faults.add("expected one row per class, but there are none")
    return with_colors(names, colors)


def classes_text(classes: Iterable[tuple[int, str, str]]) -> str:
    """Write classes.csv from ids, names and colours, which may be empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([CLASS, "name", "color"])
    writer.writerows(classes)
    return text.getvalue()


def read_images(path: Path) -> dict[str, ImageFacts]:
    """Read images.csv, `ImageId,group,label`, by the key of each image's name.

    Without the file, the result is empty.

    Raises:
        BadInput: the file cannot be read, or has an illegal or repeated name, group or label.
    """
    facts: dict[str, ImageFacts] = {}
    if not path.exists():
        return facts
    with Faults(str(path)) as faults:
        for line, fields in read_table(path, [IMAGE], ["group", "label"], faults):
            try:
                check_image_name(fields[IMAGE])
                if fields["label"] not in {"", LABELLED, UNLABELLED}:
                    got = quote(fields["label"])
                    raise BadInput(f"expected `{LABELLED}` or `{UNLABELLED}`, but got {got}")
                if name_key(fields[IMAGE]) in facts:
                    raise BadInput(f"image {quote(fields[IMAGE])} appears twice")
                labelled = fields["label"] != UNLABELLED
                facts[name_key(fields[IMAGE])] = ImageFacts(_text(fields["group"]), labelled)
            except BadInput as error:
                faults.add(f"line {line}: {error}")
    return facts


def check_images(facts: Iterable[str], names: Collection[str], where: Path) -> None:
    """Check that the images of images.csv exist.

    Args:
        facts: the keys of the names in images.csv.
        names: the training and test images.
        where: the file, for messages.

    Raises:
        BadInput: it names missing images.
    """
    known = set(map(name_key, names))
    with Faults(str(where)) as faults:
        for name in facts:
            if name not in known:
                faults.add(f"image {quote(name)}: no such image in the training or test folder")


def _text(text: str) -> str:
    if not text.isprintable() or len(text) > _MAX_TEXT:
        raise BadInput(f"expected up to {_MAX_TEXT} printable characters, but got {quote(text)}")
    return text


def with_colors(names: dict[int, str], colors: dict[int, str]) -> list[ClassInfo]:
    """Give each class without a colour the first unused colour of the palette."""
    free = iter(
        color
        for color in map(hexadecimal, palette(len(names) + len(set(colors.values()) - {""})))
        if color not in colors.values()
    )
    return [ClassInfo(c, names[c], colors[c] or next(free)) for c in sorted(names)]
