"""COCO: one JSON document of images, categories and annotations, as polygons or run lengths.

Pixels are those of pycocotools. Crowds (`iscrowd`) are ignored regions. An image that `images`
lists without annotations is clean; a file that no document lists is unlabelled.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from steelseg.core.arrays import Uint8
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_json
from steelseg.formats import outlines
from steelseg.formats.documents import (
    LOOKED_AT,
    documents,
    folder_of,
    read_json,
    stated_size,
    text_of,
    whole,
)
from steelseg.formats.meaning import MAX_CLASS
from steelseg.formats.outlines import TOO_FEW, LeftOut
from steelseg.formats.reading import IGNORED, IMAGES, Drawn, Images, Labels
from steelseg.formats.record import Options, Record, Source
from steelseg.formats.writing import place_image

ANNOTATIONS = "annotations/instances_default.json"
BOX = "box without a mask"
_KEYS = ("images", "annotations", "categories")


class _Shape(NamedTuple):
    label: str
    segmentation: object


def recognises(source: Path) -> bool:
    """Whether a file, or one below a folder, looks like a COCO document."""
    return bool(_documents(source, LOOKED_AT))


def read(source: Path, options: Options) -> Source:
    """Read a COCO document, or all those of a folder, with the images there.

    Raises:
        BadInput: there is no such document, or it is inconsistent.
    """
    paths = _documents(source)
    if not paths:
        raise BadInput(f"{source}: expected a COCO document (images, annotations, categories)")
    images = Images(folder_of(source, paths, options))
    categories: dict[int, str] = {}
    numbered = True
    for path in paths:
        document = _check_document(path)
        with Faults(str(path)) as faults:
            named = _read_categories(document, faults)
            numbered &= all(named[c] == categories.get(c, named[c]) for c in named)
            categories |= named
            shapes = _read_images(document, path, images, faults)
            _read_annotations(document, named, shapes, faults)
    labels = Labels([categories[c] for c in sorted(categories)], options)
    ids = {name: c for c, name in categories.items() if name in labels.classes}
    is_unique = numbered and len(set(categories.values())) == len(categories)
    in_range = all(1 <= c <= MAX_CLASS for c in ids.values())
    keeps_ids = is_unique and in_range and not options.classes
    return Source(
        labels.classes,
        images.records(_draw, labels),
        images.left_out,
        ids=tuple(ids[name] for name in labels.classes) if keeps_ids else (),
    )


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write images and one document of compressed run lengths, which are exact."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for record in records:
        place_image(record, folder / IMAGES)
        if not record.labelled:
            continue
        height, width = record.size_hw
        number = len(images) + 1
        images.append({"id": number, "file_name": record.name, "height": height, "width": width})
        regions = [(c.id, record.masks[c.name], 0) for c in classes if c.name in record.masks]
        if record.ignored is not None:
            regions.append((classes[0].id, record.ignored, 1))
        for category, region_hw, is_crowd in regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": is_crowd,
                    **_encode(region_hw),
                }
            )
    categories = [{"id": c.id, "name": c.name} for c in classes]
    contents = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / ANNOTATIONS, contents)


def _documents(source: Path, first: int | None = None) -> list[Path]:
    return documents(source, ".json", ["{", *(f'"{key}"' for key in _KEYS)], first)


def _check_document(path: Path) -> dict[str, list[dict[str, Any]]]:
    document = read_json(path)
    for key in _KEYS:
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise BadInput(f"{path}: expected a list of objects as `{key}`, as COCO has it")
    return {key: document[key] for key in _KEYS}


def _read_categories(
    document: Mapping[str, list[dict[str, Any]]], faults: Faults
) -> dict[int, str]:
    """Return names by id, without unused supercategories such as Roboflow's."""
    categories: dict[int, str] = {}
    above = [
        c.get("supercategory")
        for c in document["categories"]
        if c.get("name") != c.get("supercategory")
    ]
    used = [annotation.get("category_id") for annotation in document["annotations"]]
    for category in document["categories"]:
        try:
            name = text_of(category.get("name"), "a category with a name")
            number = whole(category.get("id"), f"the id of {quote(name)}")
            if name in above and number not in used:
                continue
            if number in categories or name in categories.values():
                raise BadInput(f"the category {quote(name)} ({number}) appears twice")
            categories[number] = name
        except BadInput as error:
            faults.add(str(error))
    return categories


def _read_images(
    document: Mapping[str, list[dict[str, Any]]],
    path: Path,
    images: Images,
    faults: Faults,
) -> dict[int, dict[str, Any]]:
    """Return the shapes of each image by its id, which are still to be filled."""
    found: dict[int, dict[str, Any]] = {}
    for entry in document["images"]:
        try:
            number = whole(entry.get("id"), "the id of an image")
            if number in found:
                raise BadInput(f"the image id {number} appears twice")
            reference = text_of(entry.get("file_name"), f"the `file_name` of image {number}")
            found[number] = {}
            size_hw = stated_size(entry, "height", "width")
            images.add(images.find(reference, path), reference, found[number], size_hw)
        except BadInput as error:
            faults.add(str(error))
    return found


def _read_annotations(
    document: Mapping[str, list[dict[str, Any]]],
    categories: Mapping[int, str],
    images: Mapping[int, dict[str, Any]],
    faults: Faults,
) -> None:
    """Add each annotation to the shapes of its image."""
    for i, entry in enumerate(document["annotations"]):
        key = f"annotation {quote(entry.get('id', i))}"
        try:
            number = whole(entry.get("image_id"), "`image_id`")
            category = whole(entry.get("category_id"), "`category_id`")
            if number not in images:
                raise BadInput(f"there is no image {number}")
            if category not in categories:
                raise BadInput(f"there is no category {category}")
        except BadInput as error:
            faults.add(f"{key}: {error}")
            continue
        label = IGNORED if entry.get("iscrowd") else categories[category]
        key = key if key not in images[number] else f"{key} (entry {i})"
        images[number][key] = _Shape(label, entry.get("segmentation"))


def _draw(shape: _Shape, size_hw: tuple[int, int]) -> Drawn:
    return Drawn([shape.label], _to_pixels(shape.segmentation, size_hw))


def _to_pixels(segmentation: object, size_hw: tuple[int, int]) -> Uint8:
    if not segmentation:
        raise LeftOut(BOX)
    if isinstance(segmentation, list):
        polygons = [outlines.to_points(p, size_hw) for p in segmentation]
        polygons = [p for p in polygons if len(p) >= 3]
        if not polygons:
            raise LeftOut(TOO_FEW)
        return outlines.fill(polygons, size_hw)
    if not isinstance(segmentation, dict):
        raise BadInput(f"expected polygons or run lengths, but got {quote(segmentation)}")
    if segmentation.get("size") != list(size_hw):
        raise BadInput(
            f"expected run lengths of an image of {size_hw[0]}x{size_hw[1]}, but got "
            f"{quote(segmentation.get('size'))}"
        )
    counts = segmentation.get("counts")
    return outlines.from_counts(
        outlines.decompress(counts) if isinstance(counts, str) else counts, size_hw
    )


def _encode(region_hw: Uint8) -> dict[str, object]:
    encoded = coco_mask.encode(np.asfortranarray(region_hw, dtype=np.uint8))
    height, width = region_hw.shape
    return {
        "segmentation": {"size": [height, width], "counts": encoded["counts"].decode("ascii")},
        "area": int(coco_mask.area(encoded)),
        "bbox": coco_mask.toBbox(encoded).tolist(),
    }
