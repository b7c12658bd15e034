"""CVAT for images 1.1: one XML document with the shapes of each image.

Pixels are those of CVAT's own masks: pycocotools for polygons and boxes, OpenCV for ellipses. A
shape hides others of a lower `z_order`; within one plane, both count. Labels have colours. The
document does not state which images were reviewed (cvat-ai/cvat#4834), so an image without a
shape or a tag is unlabelled: tag the clean ones. CVAT turns images upright.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults
from steelseg.core.files import atomic_path
from steelseg.formats.cvat_shapes import PAINTERS, encode, numbers
from steelseg.formats.documents import LOOKED_AT, check_size, documents, folder_of, text_of
from steelseg.formats.outlines import LeftOut
from steelseg.formats.reading import IGNORED, IMAGES, Drawn, Images, Labels
from steelseg.formats.record import Options, Record, Source
from steelseg.formats.writing import components, place_image

DOCUMENT = "annotations.xml"
REVIEWED = "reviewed"  # our own attribute of labelled images in exports; CVAT ignores it
_SHAPES = {*PAINTERS, "polyline", "points", "cuboid", "skeleton"}
_MAX_PLANE = 10**9


class _Shape(NamedTuple):
    kind: str
    attributes: dict[str, str]


def recognises(source: Path) -> bool:
    """Whether a file, or one below a folder, looks like a CVAT document."""
    return bool(_documents(source, LOOKED_AT))


def read(source: Path, options: Options) -> Source:
    """Read the document of a task, a job or a project, or all documents of a folder.

    Raises:
        BadInput: there is no such document, or it annotates a video.
    """
    paths = _documents(source)
    if not paths:
        raise BadInput(f"{source}: expected an annotations.xml of CVAT for images 1.1")
    images = Images(folder_of(source, paths, options))
    colors: dict[str, str] = {}
    for path in paths:
        with Faults(str(path)) as faults:
            for element in _elements(path):
                try:
                    if element.tag == "label":
                        colors |= _read_label(element)
                    elif element.tag == "image":
                        _read_image(element, path, images)
                except BadInput as error:
                    faults.add(str(error))
    labels = Labels(colors, options)
    colors = {name: colors[name] for name in labels.classes if colors.get(name)}
    return Source(labels.classes, images.records(_draw, labels), images.left_out, colors)


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write images and annotations.xml, with one mask per 8-connected part."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    has_ignored = False
    for number, record in enumerate(records):
        place_image(record, folder / IMAGES)
        height, width = record.size_hw
        attributes = {"id": number, "name": record.name, "width": width, "height": height}
        image = _add(root, "image", attributes)
        if record.labelled:
            image.set(REVIEWED, "1")
        regions = [(c.name, record.masks[c.name]) for c in classes if c.name in record.masks]
        if record.ignored is not None:
            regions.append((IGNORED, record.ignored))
            has_ignored = True
        for label, region_hw in regions:
            for left, top, part_hw in components(region_hw):
                _add(image, "mask", {"label": label, **encode(left, top, part_hw)})
    task = ElementTree.SubElement(meta, "task")
    named = {c.name: c.color for c in classes} | ({IGNORED: "#000000"} if has_ignored else {})
    labels = ElementTree.SubElement(task, "labels")
    for name, color in named.items():
        entry = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(entry, "name").text = name
        ElementTree.SubElement(entry, "color").text = color
    ElementTree.indent(root)
    with atomic_path(folder / DOCUMENT) as path:
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _documents(source: Path, first: int | None = None) -> list[Path]:
    return documents(source, ".xml", ["<", "<annotations>", "<meta>"], first)


def _elements(path: Path) -> Iterable[ElementTree.Element]:
    """Yield the labels and images of a document, one at a time.

    Raises:
        BadInput: it is too large, is not XML, has entities, or annotates a video.
    """
    try:
        check_size(path)
        with path.open("rb") as file:
            for _, element in iterparse(file, events=("end",), forbid_dtd=True):
                if element.tag == "track":
                    raise BadInput(f"{path}: annotates a video; export it as CVAT for images 1.1")
                if element.tag in {"label", "image"}:
                    yield element
                if element.tag in {"image", "meta"}:
                    element.clear()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise BadInput(f"{path}: cannot be read as XML: {error}") from error
    except DefusedXmlException as error:
        raise BadInput(f"{path}: declares entities or a type, which CVAT never does") from error


def _read_label(element: ElementTree.Element) -> dict[str, str]:
    """Return a label's colour by its name; empty for tags and parts of skeletons."""
    name = text_of(element.findtext("name"), "the name of a label")
    if element.findtext("type") == "tag" or element.find("parent") is not None:
        return {}
    color = (element.findtext("color") or "").lower()
    is_color = len(color) == 7 and color[0] == "#" and set(color[1:]) <= set("0123456789abcdef")
    return {name: color if is_color else ""}


def _read_image(element: ElementTree.Element, path: Path, images: Images) -> None:
    reference = text_of(element.get("name"), "the name of an image")
    subset = element.get("subset")
    name = images.find(f"{subset}/{reference}", path) if subset else None
    name = name or images.find(reference, path)
    shapes = [_Shape(child.tag, dict(child.attrib)) for child in element if child.tag in _SHAPES]
    looked_at = shapes or element.find("tag") is not None or element.get(REVIEWED) == "1"
    named = {f"{s.kind} {i}": s for i, s in enumerate(shapes, start=1)}
    size_hw = _integer(element, "height"), _integer(element, "width")
    images.add(name, reference, named if looked_at else None, size_hw)


def _integer(element: ElementTree.Element, key: str) -> int:
    return int(numbers(element.attrib, key)[0])


def _draw(shape: _Shape, size_hw: tuple[int, int]) -> Drawn:
    attributes = shape.attributes
    if shape.kind not in PAINTERS:
        raise LeftOut(f"{shape.kind}, which has no area")
    if attributes.get("outside") == "1":
        raise LeftOut("shape outside the view")
    label = text_of(attributes.get("label"), "a label")
    plane = numbers({"z_order": "0"} | attributes, "z_order")[0]
    if abs(plane) > _MAX_PLANE:
        raise BadInput(f"expected a `z_order` as a small number, but got {plane:g}")
    return Drawn([label], PAINTERS[shape.kind](attributes, size_hw), int(plane))


def _add(
    parent: ElementTree.Element, tag: str, attributes: Mapping[str, Any]
) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {k: str(v) for k, v in attributes.items()})
