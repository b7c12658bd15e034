"""Figures of the annotated images: classes, areas, brightness, black bands."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from steelseg.core.arrays import Float32, Float64, Int64
from steelseg.core.pixels import BLACK
from steelseg.data import rle
from steelseg.data.image_table import CLEAN, ImageTable
from steelseg.report.figures import (
    MANY,
    NEUTRAL,
    figure,
    in_page_style,
    name_bars,
    name_colours,
    plain,
    to_svg,
)

_COMMON = 12  # combinations shown


@in_page_style
def data_figures(images: ImageTable) -> list[Markup]:
    """Draw all figures that need only the annotated images."""
    drawn = [class_counts, combination_counts, mask_areas, brightness, black_bands]
    return [draw(images) for draw in drawn]


def class_counts(images: ImageTable) -> Markup:
    """Draw the number of images per class."""
    drawing, axes = figure("Images that show the class", "class", "images")
    for at, one in enumerate(images.class_infos):
        n_shown = sum(text is not None for text in images.rles(one.id))
        bar = axes.bar(at, n_shown, color=one.color)
        if len(images.classes) <= MANY:
            axes.bar_label(bar)
    axes.margins(y=0.1)  # for the number on the highest bar
    name_bars(axes, images.class_infos)
    return to_svg(drawing, "bar chart of the images per class")


def combination_counts(images: ImageTable) -> Markup:
    """Draw the number of images per combination of classes, the most common first."""
    common = Counter(images.combinations()).most_common(_COMMON)
    labels = {str(one.id): plain(one.label) for one in images.class_infos}
    ids, counts = zip(*reversed(common), strict=True)
    names = ["+".join(labels.get(part, part) for part in shown.split("+")) for shown in ids]
    drawing, axes = figure("Classes together in an image", "images", "")
    colours = ["#4c9f70" if name == CLEAN else NEUTRAL for name in ids]
    axes.bar_label(axes.barh(names, counts, color=colours), padding=2)
    axes.margins(x=0.1)
    return to_svg(drawing, "bar chart of the images per combination of classes")


def mask_areas(images: ImageTable) -> Markup:
    """Draw the distribution of each class's area in the images that show it."""
    areas = [_areas(images, c) for c in images.classes]
    drawing, axes = figure("Area of a class in an image", "pixels", "images")
    most = max((a.max(initial=1) for a in areas), default=1)
    bins = np.geomspace(1, most + 1, 30).tolist()
    for one, pixels in zip(images.class_infos, areas, strict=True):
        label = plain(one.label)
        axes.hist(pixels, bins, histtype="step", color=one.color, linewidth=1.6, label=label)
    axes.set_xscale("log")
    name_colours(axes, len(areas), loc="upper left")
    return to_svg(drawing, "histogram of the areas of each class")


def brightness(images: ImageTable) -> Markup:
    """Draw the distribution of mean grey levels, for clean and defective images."""
    is_clean = np.array([name == CLEAN for name in images.combinations()])
    pixels = images.pixels
    means = (np.array(images.column("mean")).mean(axis=1) - pixels.low) * (255 / pixels.span)
    drawing, axes = figure("Brightness", "mean grey level", "images")
    axes.hist(
        [means[is_clean], means[~is_clean]],
        np.linspace(0, 255, 35).tolist(),
        stacked=True,
        color=["#4c9f70", NEUTRAL],
        label=["clean", "with a defect"],
    )
    axes.legend()
    return to_svg(drawing, "histogram of the mean grey levels")


def black_bands(images: ImageTable) -> Markup:
    """Draw the black share of the width, where the camera saw past the edge of the strip."""
    shares = black_shares(images.thumbnails.astype(np.float32))
    title = f"Black bands: in {np.mean(shares > 0):.0%} of the images"
    drawing, axes = figure(title, "share of the width", "images")
    axes.hist(shares, np.linspace(0, 1, 26).tolist(), color=NEUTRAL)
    axes.set_yscale("symlog", linthresh=1)
    return to_svg(drawing, "histogram of the share of the width that is black")


def black_shares(thumbnails: Float32) -> Float64:
    """Measure the black share of each image's width, to one column of a thumbnail: (N,)."""
    share: Float64 = (thumbnails.mean(axis=1) <= BLACK).mean(axis=1)
    return share


@in_page_style
def submission_shares(images: ImageTable, predicted: Mapping[str, float]) -> Markup:
    """Draw the share of training images that show each class next to that of the submission.

    `predicted` are the metrics of the stage predict.
    """
    drawing, axes = figure("Pale: in training; full: predicted", "class", "share of the images")
    for at, one in enumerate(images.class_infos):
        shown = sum(text is not None for text in images.rles(one.id)) / len(images)
        axes.bar(at - 0.2, shown, 0.38, color=one.color, alpha=0.45)
        axes.bar(at + 0.2, predicted[f"share_class_{one.id}"], 0.38, color=one.color)
    name_bars(axes, images.class_infos)
    return to_svg(drawing, "bar chart of training and predicted shares per class")


def class_facts(images: ImageTable) -> list[dict[str, Any]]:
    """Tabulate each class: images that show it, their share, and its areas in pixels."""
    rows = []
    for class_id in images.classes:
        areas = _areas(images, class_id)
        rows.append(
            {
                "class_id": class_id,
                "images": len(areas),
                "share": len(areas) / len(images),
                "median_area": int(np.median(areas)) if len(areas) else 0,
                "largest_area": int(areas.max(initial=0)),
            }
        )
    return rows


def _areas(images: ImageTable, class_id: int) -> Int64:
    texts = (text for text in images.rles(class_id) if text is not None)
    return np.array([rle.area(text) for text in texts], dtype=np.int64)
