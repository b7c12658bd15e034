"""YOLO-seg: `data.yaml` with the class names, and one text file of polygons per image.

A line is a class and a polygon, alternating x and y in widths and heights of the image. Pixels are
those of Ultralytics at the image's own size: coordinates are truncated, and `cv2.fillPoly` also
paints the outline. An image with an empty file is clean, one without a file is unlabelled, though
Ultralytics itself trains on both as background.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from steelseg.core.arrays import Int32, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_text
from steelseg.data.listing import list_below
from steelseg.formats import outlines
from steelseg.formats.documents import read_text, text_of
from steelseg.formats.outlines import LeftOut
from steelseg.formats.reading import IGNORED, IMAGES, Drawn, Images, Labels
from steelseg.formats.record import Options, Record, Source
from steelseg.formats.writing import place_image, refuse_twins

BOX = "box without a mask"
NO_IMAGE = "labels of a missing image"
LABELS = "labels"
_NAMES_FILES = {"classes.txt", "obj.names"}
_BOX_WORDS = 5
_BEYOND = 0.01  # of the image: other tools' outlines end at the far side of the last pixel
_INTO_PIXEL = 0.25  # from a pixel's corner: rounding and truncating give the same pixel


class _Line(NamedTuple):
    label: str
    words: list[str]


def recognises(source: Path) -> bool:
    """Whether a folder (or a data.yaml) names classes, and has a folder of labels."""
    folder = source if source.is_dir() else source.parent
    return bool(_name_files(source)) and any(path.is_dir() for path in folder.rglob(LABELS))


def read(source: Path, options: Options) -> Source:
    """Read the images of a folder and their labels, from all splits.

    Raises:
        BadInput: no file names the classes, or a line is not a polygon.
    """
    named = _read_names(source)
    root = source if source.is_dir() else source.parent
    images = Images(options.images or root)
    labels = Labels(named.values(), options)
    with Faults(str(root)) as faults:
        files = _label_files(images, faults)
        for file in list_below(root, {".txt"}).names:
            name = files.get(file)
            if name is not None and name not in images.annotated:
                try:
                    images.add(name, file, dict(_read_lines(root / file, named)))
                except BadInput as error:
                    faults.add(str(error))
            elif LABELS in PurePosixPath(file).parts[:-1]:
                images.left_out[file] = NO_IMAGE
    return Source(labels.classes, images.records(_draw, labels), images.left_out)


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write data.yaml, images and labels, with one polygon per 8-connected part.

    Holes are reached through a slit. Painted at the image's own size, the pixels are the same. The
    format has no ignored regions: they become a last class, `__ignore__`, which import understands.
    """
    names = [c.name for c in classes]
    stems: dict[str, str] = {}
    for record in records:
        refuse_twins(record.name, stems)
        place_image(record, folder / IMAGES)
        masks = dict(record.masks)
        if record.ignored is not None:
            masks[IGNORED] = record.ignored
            names = [c.name for c in classes] + [IGNORED]
        if record.labelled:
            lines = [
                to_line(names.index(n), p, m) for n, m in masks.items() for p in outlines.trace(m)
            ]
            file = folder / _label_file(f"{IMAGES}/{record.name}")
            write_text(file, "".join(f"{line}\n" for line in lines))
    (folder / LABELS).mkdir(exist_ok=True)
    entries = ["path: .", f"train: {IMAGES}", f"val: {IMAGES}", "names:"]
    entries += [f"  {i}: {_quoted(name)}" for i, name in enumerate(names)]
    write_text(folder / "data.yaml", "\n".join(entries) + "\n")


def _name_files(source: Path) -> list[Path]:
    """List the files that name classes, in or next to the source."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    yamls = [f for f in files if f.suffix in {".yaml", ".yml"} and "names" in _head(f)]
    return yamls or [f for f in files if f.name in _NAMES_FILES]


def _head(path: Path) -> str:
    try:
        return read_text(path)
    except BadInput:
        return ""


def _read_names(source: Path) -> dict[int, str]:
    """Return the class names by their numbers in labels."""
    files = _name_files(source)
    if len(files) != 1:
        found = f"found {files[0].name} and {files[1].name}" if files else "found none"
        raise BadInput(f"{source}: expected one data.yaml with `names`, but {found}")
    text = read_text(files[0])
    names: object = [line for line in text.splitlines() if line.strip()]
    if files[0].name not in _NAMES_FILES:
        try:
            names = dict(YAML(typ="safe", pure=True).load(text)).get("names")
        except (YAMLError, TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"{files[0]}: cannot be read as YAML: {error}") from error
    entries = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(entries, dict) or not all(isinstance(n, int) for n in entries):
        raise BadInput(f"{files[0]}: expected `names` as a list, or by number, got {quote(names)}")
    return {n: text_of(str(entries[n]), f"the name of class {n}") for n in sorted(entries)}


def _label_file(image: str) -> str:
    """Return Ultralytics' label path: with the last `images` replaced by `labels`."""
    steps = list(PurePosixPath(image).with_suffix(".txt").parts)
    if IMAGES in steps[:-1]:
        last = len(steps) - 2 - steps[-2::-1].index(IMAGES)
        steps[last] = LABELS
    return "/".join(steps)


def _label_files(images: Images, faults: Faults) -> dict[str, str]:
    """Return the images by their possible label files; ambiguous ones are faults."""
    files: dict[str, str] = {}
    for name in images.names:
        file = _label_file(name)
        other = files.setdefault(file, name)
        if other != name:
            faults.add(f"{quote(name)} and {quote(other)}: one file has the labels of both")
        # if images are elsewhere, labels have the same path in a separate folder
        files.setdefault(f"{LABELS}/{PurePosixPath(name).with_suffix('.txt')}", name)
    return files


def _read_lines(path: Path, named: dict[int, str]) -> Iterable[tuple[str, _Line]]:
    with Faults(str(path)) as faults:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            label = named.get(int(words[0])) if words[0].isdecimal() else None
            if label is None:
                known = quote(", ".join(map(str, named)))
                faults.add(f"line {number}: the class {quote(words[0])} is not in {known}")
            else:
                yield f"line {number}", _Line(label, words[1:])


def _draw(line: _Line, size_hw: tuple[int, int]) -> Drawn:
    if len(line.words) == _BOX_WORDS - 1:
        raise LeftOut(BOX)
    try:
        shares = np.array(line.words, dtype=np.float32).reshape(-1, 2)
    except ValueError:
        raise BadInput(f"expected pairs of numbers, got {quote(' '.join(line.words))}") from None
    if len(shares) < 3:
        raise LeftOut(outlines.TOO_FEW)
    if not ((shares >= -_BEYOND) & (shares <= 1 + _BEYOND)).all():
        raise BadInput("expected coordinates from 0 to 1, in widths and heights of the image")
    region_hw = np.zeros(size_hw, dtype=np.uint8)
    pixels = (shares * np.array(size_hw[::-1], dtype=np.float32)).astype(np.int32)
    cv2.fillPoly(region_hw, [pixels], 1)
    return Drawn([line.label], region_hw)


def to_line(number: int, points_xy: Int32, mask_hw: Uint8) -> str:
    """Write a polygon of pixels of an image of the mask's size as a line of a label file."""
    height, width = mask_hw.shape
    shares = (points_xy + _INTO_PIXEL) / (width, height)
    return " ".join([str(number), *(f"{share:.7f}" for share in shares.ravel())])


def _quoted(text: str) -> str:
    """Quote a name so that YAML reads it as text."""
    return "'" + text.replace("'", "''") + "'"
