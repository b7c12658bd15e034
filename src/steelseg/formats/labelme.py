"""LabelMe: a JSON file beside each image, with shapes that are painted one over the other.

Pixels are those of LabelMe's `shapes_to_label`, which paints with Pillow: lines 10 pixels wide,
points with a radius of 5. Its words `__ignore__` and `_background_` are understood. An image
without a JSON file is unlabelled; one whose file has no shapes is clean. LabelMe turns images
upright before anything is drawn.
"""

import base64
import binascii
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from steelseg.core.arrays import Float64, Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_json
from steelseg.data import images
from steelseg.formats.documents import (
    LOOKED_AT,
    documents,
    folder_of,
    read_json,
    stated_size,
    text_of,
)
from steelseg.formats.outlines import TOO_FEW, LeftOut, to_points
from steelseg.formats.reading import (
    IGNORED,
    IMAGES,
    NO_IMAGE,
    Annotated,
    Drawn,
    Images,
    Labels,
    read_records,
)
from steelseg.formats.record import Options, Record, Source
from steelseg.formats.writing import components, place_image, refuse_twins

BACKGROUND = "_background_"  # LabelMe's name of class 0; a shape of it erases
VERSION = "5.5.0"  # the first whose masks are as those written here
_LINE_WIDTH = 10  # pixels, as in `shapes_to_label`
_POINT_RADIUS = 5
_JPEG = b"\xff\xd8"
_N_POINTS = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "mask": 2, "oriented_rectangle": 4}


class _Shape(NamedTuple):
    label: str
    kind: str
    points: object
    mask: object
    level: int


def recognises(source: Path) -> bool:
    """Whether a file, or one below a folder, looks like LabelMe's."""
    return bool(_documents(source, LOOKED_AT))


def read(source: Path, options: Options) -> Source:
    """Read the JSON files of a folder, or one, and the images there.

    Raises:
        BadInput: there is no such file, or one of them is not LabelMe's.
    """
    paths = _documents(source)
    if not paths:
        raise BadInput(f"{source}: expected JSON files of LabelMe (shapes, imagePath)")
    folder = Images(folder_of(source, paths, options), required=False)
    annotated: dict[str, Annotated] = {}
    inside: dict[Path, Annotated] = {}
    left_out: dict[str, str] = {}
    with Faults(str(source)) as faults:
        for path in paths:
            try:
                _read_document(path, folder, annotated, inside, left_out)
            except BadInput as error:
                faults.add(f"{path}: {error}")
    found = [*annotated.values(), *inside.values()]
    known = {shape.label for image in found for shape in (image.shapes or {}).values()}
    labels = Labels(sorted(known - {BACKGROUND}), options)

    def draw(shape: _Shape, size_hw: tuple[int, int]) -> Drawn:
        named = [] if shape.label == BACKGROUND else [shape.label]
        return Drawn(named, _to_pixels(shape, size_hw), shape.level)

    def records() -> Iterator[Record]:
        yield from read_records(folder, annotated, draw, labels, left_out)
        with tempfile.TemporaryDirectory() as temporary:
            unpacked = _unpack(inside, Path(temporary))
            if unpacked:
                yield from read_records(Images(Path(temporary)), unpacked, draw, labels, left_out)

    return Source(labels.classes, records(), left_out)


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write each image and its JSON file, with a `mask` shape for each 8-connected part.

    Where classes overlap, the last of them is kept, since LabelMe paints one over the other.
    """
    stems: dict[str, str] = {}
    for record in records:
        refuse_twins(record.name, stems)
        path = place_image(record, folder / IMAGES)
        if not record.labelled:
            continue
        regions = [(c.name, record.masks[c.name]) for c in classes if c.name in record.masks]
        if record.ignored is not None:
            regions.append((IGNORED, record.ignored))
        height, width = record.size_hw
        contents: dict[str, object] = {
            "version": VERSION,
            "flags": {},
            "shapes": [_to_shape(label, *part) for label, r in regions for part in components(r)],
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path.with_suffix(".json"), contents)


def _documents(source: Path, first: int | None = None) -> list[Path]:
    return documents(source, ".json", ["{", '"shapes"', '"imagePath"'], first)


def _check_document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise BadInput("expected a list of objects as `shapes`, as LabelMe has it")
    return dict(document)


def _read_document(
    path: Path,
    folder: Images,
    annotated: dict[str, Annotated],
    inside: dict[Path, Annotated],
    left_out: dict[str, str],
) -> None:
    """Add what a file says of its image, which may be only inside that file."""
    document = _check_document(path)
    name = _find_image(document, path, folder)
    shapes = {f"shape {i}": _shape(i, s) for i, s in enumerate(document["shapes"], 1)}
    image = Annotated(name or "", dict(shapes), stated_size(document, "imageHeight", "imageWidth"))
    if name is None and document.get("imageData"):
        inside[path] = image
    elif name is None:
        left_out[str(path)] = NO_IMAGE
    elif name in annotated:
        raise BadInput(f"the image {quote(name)} has another JSON file already")
    else:
        annotated[name] = image


def _unpack(inside: Mapping[Path, Annotated], folder: Path) -> dict[str, Annotated]:
    """Write images that are only inside their JSON files into a folder, named like these."""
    unpacked: dict[str, Annotated] = {}
    above = os.path.commonpath([path.parent for path in inside]) if inside else ""
    for path, image in inside.items():
        data = _decode(read_json(path).get("imageData"), f"{path}: `imageData`")
        suffix = ".jpg" if data.startswith(_JPEG) else ".png"
        name = path.relative_to(above).with_suffix(suffix).as_posix()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        unpacked[name] = image._replace(name=name)
    return unpacked


def _decode(text: object, what: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"expected {what} to be an image in base64") from None


def _find_image(document: Mapping[str, Any], path: Path, folder: Images) -> str | None:
    """Find the image of a file: that of `imagePath`, else that of the file's own name."""
    reference = text_of(document.get("imagePath"), "the path of an image as `imagePath`")
    beside = (path.with_suffix(s) for s in sorted(images.SUFFIXES))
    names = (p.relative_to(folder.folder).as_posix() for p in beside)
    return folder.find(reference, path) or next((n for n in names if n in folder), None)


def _shape(number: int, entry: Mapping[str, Any]) -> _Shape:
    label = text_of(entry.get("label"), f"a label of shape {number}")
    kind = entry.get("shape_type") or "polygon"  # as before version 3
    return _Shape(label, str(kind), entry.get("points"), entry.get("mask"), number)


def _to_pixels(shape: _Shape, size_hw: tuple[int, int]) -> Uint8:
    points_xy = to_points(shape.points, size_hw)
    wanted = _N_POINTS.get(shape.kind)
    if wanted is not None and len(points_xy) != wanted:
        raise BadInput(f"expected {wanted} points of a {shape.kind}, but got {len(points_xy)}")
    if shape.kind == "mask":
        return _place(shape.mask, points_xy, size_hw)
    if shape.kind in {"polygon", "linestrip"} and len(points_xy) < (
        3 if shape.kind == "polygon" else 2
    ):
        raise LeftOut(TOO_FEW if shape.kind == "polygon" else "line of a single point")
    picture = Image.new("L", size_hw[::-1])
    _paint(ImageDraw.Draw(picture), shape.kind, points_xy)
    return np.array(picture)


def _paint(draw: ImageDraw.ImageDraw, kind: str, points_xy: Float64) -> None:
    path = [(x, y) for x, y in points_xy.tolist()]
    if kind in {"polygon", "oriented_rectangle"}:
        draw.polygon(path, fill=1, outline=1)
    elif kind == "rectangle":
        corners = points_xy.min(axis=0), points_xy.max(axis=0)
        draw.rectangle(np.concatenate(corners).tolist(), fill=1, outline=1)
    elif kind in {"line", "linestrip"}:
        draw.line(path, fill=1, width=_LINE_WIDTH)
    elif kind in {"circle", "point"}:
        x, y = path[0]
        radius = math.dist(path[0], path[1]) if kind == "circle" else _POINT_RADIUS
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    else:
        raise LeftOut(f"shape of the type {quote(kind)}")


def _place(mask: object, points_xy: Float64, size_hw: tuple[int, int]) -> Uint8:
    """Place a mask, a PNG in base64, between two corners, both of them inside."""
    with images.opened(_decode(mask, "`mask`"), ("PNG",)) as image:
        part_hw = np.array(image) != 0
    (left, top), (right, bottom) = points_xy.astype(int).tolist()
    height, width = bottom - top + 1, right - left + 1
    fits = left >= 0 and top >= 0 and bottom < size_hw[0] and right < size_hw[1]
    if part_hw.shape != (height, width) or not fits:
        raise BadInput(
            f"the mask of {'x'.join(map(str, part_hw.shape))} does not fill {height}x{width} "
            f"pixels of the image from {left}, {top}"
        )
    region_hw = np.zeros(size_hw, dtype=np.uint8)
    region_hw[top : bottom + 1, left : right + 1] = part_hw
    return region_hw


def _to_shape(label: str, left: int, top: int, part_hw: Uint8) -> dict[str, object]:
    height, width = part_hw.shape
    encoded = cv2.imencode(".png", part_hw)[1].tobytes()
    return {
        "label": label,
        "points": [[left, top], [left + width - 1, top + height - 1]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(encoded).decode("ascii"),
    }
