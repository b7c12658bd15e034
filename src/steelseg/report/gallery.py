"""Chooses the images of the gallery, and makes pictures for the page."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from steelseg.core.arrays import Uint8
from steelseg.core.classes import ClassInfo
from steelseg.data import rle
from steelseg.tune.metrics import TRUE, pair_dice
from steelseg.tune.outcome import counts_of

MAX_SIDE = 1600  # pixels; larger pictures are shrunk
NEVER = -np.inf
SURE = 0.9  # a confidence worth mentioning where the class is absent
QUALITY = 80  # of the JPEG


class Picture(NamedTuple):
    """A picture as a `data:` URL, its file name, and its caption."""

    source: str
    image: str
    caption: str


def choose(table: pd.DataFrame, n_images: int) -> dict[str, list[str]]:
    """Choose validation images by how they are predicted, none of them twice.

    Args:
        table: as `tune.outcome.read_validation` returns it.
        n_images: the number of each kind.

    Returns:
        `best`: images with a defect that have the highest mean Dice. `worst`: images with the
        lowest. `surprising`: of the others, those where the confidence in some class was furthest
        from the truth.
    """
    counts = counts_of(table)
    images = table["image"].to_numpy()[:: counts.shape[1]]
    dice = pair_dice(counts).mean(axis=1)
    shown = counts[..., TRUE] > 0
    confidence = table["confidence"].to_numpy().reshape(shown.shape)
    surprise = np.abs(shown - confidence).max(axis=1)
    orders = {
        "best": np.where(shown.any(axis=1), dice, NEVER),
        "worst": -dice,
        "surprising": surprise,
    }
    chosen: dict[str, list[str]] = {}
    left = np.ones(len(images), dtype=bool)
    for kind, order in orders.items():
        ranking = np.argsort(-order, kind="stable")
        first = [i for i in ranking if left[i] and order[i] > NEVER][:n_images]
        left[first] = False
        chosen[kind] = images[first].tolist()
    return chosen


def captions(
    table: pd.DataFrame, classes: Sequence[ClassInfo], mm_per_pixel: float | None = None
) -> dict[str, str]:
    """Describe the truth and the prediction of every image: text by image.

    Areas are in square millimetres if the scale is known, else in pixels.
    """
    scale, unit, form = (mm_per_pixel**2, "mm²", ",.4g") if mm_per_pixel else (1, "px", ",")
    dice = pair_dice(counts_of(table)).ravel()
    texts: dict[str, list[str]] = {}
    names = {one.id: one.name for one in classes}
    for row, score in zip(table.to_dict("records"), dice, strict=True):
        text = texts.setdefault(row["image"], [])
        name = names[row["class_id"]]
        if row["true"] or row["predicted"]:
            found, true = row["predicted"] * scale, row["true"] * scale
            areas = f"{found:{form}} {unit} found, {true:{form}} true"
            text.append(f"{name}: Dice {score:.2f} ({areas})")
        elif row["confidence"] > SURE:
            text.append(f"{name}: correctly empty, at confidence {row['confidence']:.2f}")
    return {image: "; ".join(text) or "clean, and predicted clean" for image, text in texts.items()}


def to_source(picture: Uint8) -> str:
    """Encode an (H, W, 3) uint8 RGB picture as a `data:` URL of a JPEG."""
    picture = shrink(picture)
    jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def shrink(picture: Uint8, max_side: int = MAX_SIDE) -> Uint8:
    """Shrink a picture, (H, W) or (H, W, 3) uint8, whose longer side exceeds `max_side`."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return picture
    size_wh = (max(1, width * max_side // longer), max(1, height * max_side // longer))
    return np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def examples(rles: Mapping[int, list[str | None]], n_images: int) -> dict[int, list[int]]:
    """Choose rows that show each class, spread evenly from its largest area to its smallest.

    Args:
        rles: for each class the RLE of every image, None where it does not show the class.
        n_images: the number per class.
    """
    chosen = {}
    for class_id, texts in rles.items():
        areas = {row: rle.area(text) for row, text in enumerate(texts) if text}
        by_area = sorted(areas, key=lambda row: -areas[row])
        places = np.linspace(0, len(by_area) - 1, min(n_images, len(by_area))).round().astype(int)
        chosen[class_id] = [by_area[p] for p in places]
    return chosen
