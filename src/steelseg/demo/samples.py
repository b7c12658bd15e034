"""Sample images to try a model on: the first test images, and the most surprising ones."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.core.classes import default_name
from steelseg.core.params import Config, load
from steelseg.core.pixels import PixelFormat, to_picture
from steelseg.data import image_table, rle
from steelseg.data.decoding import decode
from steelseg.predict.model import Finding
from steelseg.report import gallery
from steelseg.tune.metrics import TRUE, pair_dice
from steelseg.tune.outcome import read_validation

PARAMS, DATA = Path("params.yaml"), Path("data")
TESTS, ANNOTATIONS = DATA / "test_images.parquet", DATA / "annotations.parquet"
VALIDATION = DATA / "validation.parquet"
N_TEST, N_SURPRISING = 6, 3
THUMBNAIL = 480  # pixels of the longer side


class DemoConfig(Config):
    """Top-level parameters that locate the raw images."""

    data_root: str
    dataset: str


class Sample(NamedTuple):
    """An image file, and if annotated, the RLE of each class and of the ignored region."""

    path: Path
    truth: dict[int, str] | None = None
    ignored: str = ""


def find_samples(root: Path, classes: Sequence[int]) -> dict[str, list[Sample]]:
    """Find images to choose from, by heading; missing files are left out.

    Args:
        root: the repository, or any other folder: without data nothing is found.
        classes: of the model; annotations of other classes are not shown.

    Raises:
        BadInput: a table or params.yaml is damaged.
    """
    found: dict[str, list[Sample]] = {}
    if not (root / PARAMS).is_file():
        return found
    config = load(DemoConfig, path=root / PARAMS)
    raw = root / config.data_root / config.dataset
    if (root / TESTS).is_file():
        names = image_table.read(root / TESTS).names[:N_TEST]
        found["Test images"] = [Sample(raw / "test_images" / name) for name in names]
    if (root / VALIDATION).is_file() and (root / ANNOTATIONS).is_file():
        names = gallery.choose(read_validation(root / VALIDATION), N_SURPRISING)["surprising"]
        images = image_table.read(root / ANNOTATIONS)
        found["Most surprising validation images"] = [
            Sample(raw / "train_images" / name, *_annotation(images, name, classes))
            for name in names
        ]
    here = {kind: [s for s in samples if s.path.is_file()] for kind, samples in found.items()}
    return {kind: samples for kind, samples in here.items() if samples}


def _annotation(
    images: image_table.ImageTable, name: str, classes: Sequence[int]
) -> tuple[dict[int, str] | None, str]:
    """Return an image's RLEs, of the classes if there are any, and of the ignored region."""
    if images.classes != list(classes) or name not in images.names:
        return None, ""
    row = images.names.index(name)
    truth = {class_id: images.rles(class_id)[row] or "" for class_id in classes}
    return truth, images.ignored[row] or ""


def to_masks(truth: Mapping[int, str], size_hw: tuple[int, int]) -> dict[int, Uint8]:
    """Decode annotations to masks, (H, W) uint8 of 0 and 1."""
    return {class_id: rle.decode(text, size_hw) for class_id, text in truth.items()}


def to_thumbnail(data: bytes, _pixels: PixelFormat) -> Uint8:
    """Decode an image file to a thumbnail; Streamlit does not hash arguments that begin with `_`.

    Raises:
        BadInput: it cannot be read.
    """
    return gallery.shrink(to_picture(decode(data, _pixels)), THUMBNAIL)


def table_of(
    findings: Sequence[Finding],
    truth: Mapping[int, Uint8] | None,
    ignored_hw: Uint8 | None = None,
) -> list[dict[str, int | float | str]]:
    """Tabulate the findings: one row per class, with its Dice if annotated.

    Ignored pixels do not count in the Dice.
    """
    rows = []
    for found in findings:
        n_labels, _ = cv2.connectedComponents(found.mask, connectivity=8)
        is_named = found.class_name != default_name(found.class_id)
        row: dict[str, int | float | str] = {
            "class": found.class_id,
            **({"name": found.class_name} if is_named else {}),
            "pixels": found.area,
            **({"mm²": found.area_mm2} if found.area_mm2 is not None else {}),
            "share": found.area / math.prod(found.size_hw),
            "confidence": found.confidence,
            "components": n_labels - 1,  # one label is the background
        }
        if truth is not None:
            mask_hw, found_hw = truth[found.class_id], found.mask
            if ignored_hw is not None:
                found_hw[ignored_hw == 1] = 0
            counts = [int(hw.sum()) for hw in (mask_hw & found_hw, found_hw, mask_hw)]
            row |= {"annotated": counts[TRUE], "Dice": float(pair_dice(np.array(counts)))}
        rows.append(row)
    return rows
