"""LabelMe: a JSON file next to each image, with shapes painted in order.

Pixels are those of LabelMe's `shapes_to_label`, which paints with Pillow: lines 10 pixels wide,
points with a radius of 5. Its labels `__ignore__` and `_background_` are supported. An image
without a JSON file is unlabelled; one whose file has no shapes is clean. LabelMe turns images
upright before drawing.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults
from steelseg.core.files import write_json, write_text
from steelseg.data.images import SUFFIXES
from steelseg.formats.documents import (
    LOOKED_AT,
    documents,
    folder_of,
    read_json,
    read_text,
    stated_size,
    text_of,
)
from steelseg.formats.labelme_shapes import OVERLAPS, Shape, decode, to_pixels, to_shapes
from steelseg.formats.reading import IGNORED, IMAGES, Annotated, Drawn, Images, Labels
from steelseg.formats.record import Options, Record, Source
from steelseg.formats.writing import place_image, refuse_twins

BACKGROUND = "_background_"  # LabelMe's name of class 0; its shapes erase
LABELS = "labels.txt"
VERSION = "5.5.0"  # the first with the kind of masks written here
_JPEG = b"\xff\xd8"


def recognises(source: Path) -> bool:
    """Whether a file, or one below a folder, looks like a LabelMe file."""
    return bool(_documents(source, LOOKED_AT))


def read(source: Path, options: Options) -> Source:
    """Read one JSON file or those of a folder, and the images there.

    Raises:
        BadInput: there is no such file, or one of them is not LabelMe's.
    """
    paths = _documents(source)
    if not paths:
        raise BadInput(f"{source}: expected JSON files of LabelMe (shapes, imagePath)")
    images = Images(folder_of(source, paths, options), required=False)
    inside: dict[Path, Annotated] = {}
    with Faults(str(source)) as faults:
        for path in paths:
            try:
                _read_document(path, images, inside)
            except BadInput as error:
                faults.add(f"{path}: {error}")
    found = [*images.annotated.values(), *inside.values()]
    used = {shape.label for image in found for shape in (image.shapes or {}).values()}
    known = [*_listed_labels(source), *sorted(used)]
    labels = Labels([label for label in known if label != BACKGROUND], options)

    def draw(shape: Shape, size_hw: tuple[int, int]) -> Drawn:
        named = [] if shape.label == BACKGROUND else [shape.label]
        return Drawn(named, to_pixels(shape, size_hw), shape.level)

    def records() -> Iterator[Record]:
        yield from images.records(draw, labels)
        with tempfile.TemporaryDirectory() as temporary:
            unpacked = _unpack(inside, Path(temporary), images.left_out)
            yield from unpacked.records(draw, labels)

    return Source(labels.classes, records(), images.left_out)


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write each image and its JSON file, with one `mask` shape per 8-connected part.

    If the classes of an image overlap, its shapes have the flag `overlaps`, which tells import not
    to paint one over the other. labels.txt keeps the order of the classes.
    """
    stems: dict[str, str] = {}
    for record in records:
        refuse_twins(record.name, stems)
        path = place_image(record, folder / IMAGES)
        if not record.labelled:
            continue
        height, width = record.size_hw
        contents: dict[str, object] = {
            "version": VERSION,
            "flags": {},
            "shapes": to_shapes(record, classes),
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path.with_suffix(".json"), contents)
    words = [IGNORED, BACKGROUND, *(c.name for c in classes)]
    write_text(folder / LABELS, "".join(f"{word}\n" for word in words))


def _documents(source: Path, first: int | None = None) -> list[Path]:
    return documents(source, ".json", ["{", '"shapes"', '"imagePath"'], first)


def _listed_labels(source: Path) -> list[str]:
    """Return the labels of labels.txt, the file of LabelMe's `--labels`, if it exists."""
    path = source / LABELS
    lines = read_text(path).splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip()]


def _check_document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise BadInput("expected a list of objects as `shapes`, as LabelMe has it")
    return dict(document)


def _read_document(path: Path, images: Images, inside: dict[Path, Annotated]) -> None:
    """Add the annotations of a file; its image may be embedded in the file."""
    document = _check_document(path)
    name = _find_image(document, path, images)
    shapes = {f"shape {i}": _shape(i, s) for i, s in enumerate(document["shapes"], 1)}
    size_hw = stated_size(document, "imageHeight", "imageWidth")
    if name is None and document.get("imageData"):
        inside[path] = Annotated(dict(shapes), size_hw)
    else:
        images.add(name, str(path), dict(shapes), size_hw)


def _unpack(inside: Mapping[Path, Annotated], folder: Path, left_out: dict[str, str]) -> Images:
    """Write images embedded in JSON files into a folder, under the names of these files.

    What of their annotations is left out is added to `left_out`.
    """
    annotated: dict[str, Annotated] = {}
    above = os.path.commonpath([path.parent for path in inside]) if inside else ""
    for path, image in inside.items():
        data = decode(read_json(path).get("imageData"), f"{path}: `imageData`")
        suffix = ".jpg" if data.startswith(_JPEG) else ".png"
        name = path.relative_to(above).with_suffix(suffix).as_posix()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        annotated[name] = image
    unpacked = Images(folder, required=False)
    unpacked.annotated, unpacked.left_out = annotated, left_out
    return unpacked


def _find_image(document: Mapping[str, Any], path: Path, images: Images) -> str | None:
    """Find the image of a file: that of `imagePath`, else the one named like the file."""
    reference = text_of(document.get("imagePath"), "an image path as `imagePath`")
    if (name := images.find(reference, path)) or not path.is_relative_to(images.folder):
        return name
    stem = path.relative_to(images.folder).with_suffix("").as_posix()
    return next((n for s in sorted(SUFFIXES) if (n := stem + s) in images), None)


def _shape(number: int, entry: Mapping[str, Any]) -> Shape:
    label = text_of(entry.get("label"), f"a label of shape {number}")
    kind = entry.get("shape_type") or "polygon"  # as before version 3
    flags = entry.get("flags")
    hides = not (isinstance(flags, dict) and flags.get(OVERLAPS) is True)
    return Shape(label, str(kind), entry.get("points"), entry.get("mask"), number if hides else 0)
