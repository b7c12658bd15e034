"""Lists the formats, and detects the format of a source."""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput
from steelseg.formats.record import Options, Record, Source

FORMATS = {  # by module name; `masks` is the fallback
    "kaggle": "train.csv and train_images: a data set of steelseg, or Severstal's download",
    "coco": "a JSON file of images, annotations and categories, with the images: COCO",
    "cvat": "annotations.xml, with the images: CVAT for images 1.1",
    "labelme": "a JSON file of shapes for each image: LabelMe",
    "labelstudio": "a JSON file of tasks, with the images: Label Studio",
    "yolo": "data.yaml, images and labels: YOLO for segmentation, Ultralytics",
    "voc": "JPEGImages and SegmentationClass: Pascal VOC, and segmentation masks from CVAT",
    "mvtec": "train/good, test/<defect> and ground_truth/<defect>: MVTec AD",
    "dagm": "Class1/Train and Class1/Train/Label: DAGM 2007",
    "class_folders": "one folder per class, with a mask next to each image: magnetic tiles",
    "masks": "images, with masks next to them or in a separate folder",
}
WRITABLE = ("coco", "cvat", "labelme", "masks", "yolo")  # those that `export` writes
_LAST = "masks"


class Format(Protocol):
    """The module of a format, see `formats.record`; only some can `write`."""

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Options], Source]
    write: Callable[[Path, Iterable[Record], Sequence[ClassInfo]], None]


def load(name: str) -> Format:
    """Import the module of a format."""
    return cast(Format, import_module(f"steelseg.formats.{name}"))


def recognise(source: Path, images: Path | None = None) -> str:
    """Return the one format that a source looks like.

    Args:
        source: a folder or a file.
        images: the folder of its images, if elsewhere; then any folder may contain masks.

    Raises:
        BadInput: it looks like no format, or like several.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder")
    found = [name for name in FORMATS if name != _LAST and load(name).recognises(source)]
    if not found and (load(_LAST).recognises(source) or (images and source.is_dir())):
        return _LAST
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{source}: looks like {' and '.join(found)}; choose one with --format")
    known = "\n".join(f"  {name:<14} {text}" for name, text in FORMATS.items())
    raise BadInput(f"{source}: the format was not recognised; choose one with --format:\n{known}")
