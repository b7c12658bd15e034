"""Figures of how well a model does: curves, landscapes of thresholds, reliability."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from sklearn.calibration import calibration_curve

from steelseg.core.classes import ClassInfo, capitalised
from steelseg.core.errors import BadInput
from steelseg.predict.postprocess import ClassRule
from steelseg.report.figures import NEUTRAL, figure, in_page_style, name_colours, plain, to_svg
from steelseg.tune.outcome import Landscape

_BINS = 8

CURVES = {
    "Loss": {"train_loss": "training", "val_loss": "validation"},
    "Pair-Dice": {
        "train_pair_dice": "training crops",
        "val_pair_dice": "validation at 0.5",
        "val_tuned_pair_dice": "validation, tuned",
        "val_all_empty_pair_dice": "predicting nothing",
    },
    "IoU of images with a defect": {
        "train_notebook_iou": "training crops",
        "val_notebook_iou": "validation at 0.5",
    },
}
_COLOURS = [NEUTRAL, "#0072b2", "#d55e00", "#4c9f70"]


def read_history(path: Path) -> pd.DataFrame:
    """Read the history of a training: one row per epoch, at least one.

    Raises:
        BadInput: the file is missing or is something else.
    """
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as csv: {' '.join(str(error).split())}") from error
    if history.empty or not {"epoch", "val_loss"} <= set(history):
        raise BadInput(f"{path}: expected one row per epoch; run `dvc repro -f train`")
    return history


@in_page_style
def training_curves(history: pd.DataFrame) -> list[Markup]:
    """Draw loss, pair-Dice and IoU by epoch, one figure each, with dots for a single epoch.

    IoU is missing if no image shows a defect.
    """
    drawn = []
    for title, lines in CURVES.items():
        known = {column: label for column, label in lines.items() if column in history}
        if not known:
            continue
        drawing, axes = figure(title, "epoch", "")
        for (column, label), colour in zip(known.items(), _COLOURS, strict=False):
            axes.plot(history["epoch"] + 1, history[column], ".-", label=label, color=colour)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        drawn.append(to_svg(drawing, f"{title} by epoch"))
    return drawn


@in_page_style
def landscapes(
    landscape: Landscape, rules: Mapping[int, ClassRule], classes: Sequence[ClassInfo]
) -> list[Markup]:
    """Draw each class's pair-Dice over thresholds and component areas, with its rule."""
    drawn = []
    for one in classes:
        scores, title = landscape.by_class[one.id], plain(capitalised(one.name))
        drawing, axes = figure(title, "threshold", "smallest component")
        picture = axes.imshow(scores.T, aspect="auto", origin="lower", cmap="viridis")
        drawing.colorbar(picture, label="pair-Dice")
        _tick_values(axes.set_xticks, landscape.thresholds)
        _tick_values(axes.set_yticks, landscape.min_component_areas)
        rule = rules[one.id]
        if rule.enabled:
            at = (
                landscape.thresholds.index(rule.threshold),
                landscape.min_component_areas.index(rule.min_component_area),
            )
            axes.plot(*at, "o", markersize=8, markerfacecolor="none", markeredgecolor="#ff3b30")
        drawn.append(to_svg(drawing, f"pair-Dice of {one.name} by threshold and area"))
    return drawn


@in_page_style
def confidence_figures(table: pd.DataFrame, classes: Sequence[ClassInfo]) -> list[Markup]:
    """Draw how reliable the confidences are, from the table of validation images."""
    return [
        reliability(table, classes, "raw_confidence", "Before calibration"),
        reliability(table, classes, "confidence", "After calibration"),
        confidences(table),
    ]


def reliability(
    table: pd.DataFrame, classes: Sequence[ClassInfo], column: str, title: str
) -> Markup:
    """Draw how often an image shows a class by how confident the model is that it does."""
    drawing, axes = figure(title, column.replace("_", " "), "share that shows the class")
    axes.plot([0, 1], [0, 1], "--", color=NEUTRAL, linewidth=1)
    for one in classes:
        rows = table[table["class_id"] == one.id]
        shares, confidences = calibration_curve(
            rows["true"] > 0, rows[column].clip(0, 1), n_bins=_BINS, strategy="quantile"
        )
        axes.plot(confidences, shares, ".-", color=one.color, label=plain(one.label))
    name_colours(axes, len(classes))
    return to_svg(drawing, f"{title.lower()}: observed share by confidence, for each class")


def confidences(table: pd.DataFrame) -> Markup:
    """Draw the confidences of pairs with and without the class."""
    shown = table["true"] > 0
    drawing, axes = figure("Confidence", "confidence", "(image, class) pairs")
    axes.hist(
        [table["confidence"][shown], table["confidence"][~shown]],
        np.linspace(0, 1, 21).tolist(),
        histtype="step",
        linewidth=1.6,
        color=["#d55e00", "#0072b2"],
        label=["shows the class", "does not show it"],
    )
    axes.legend()
    return to_svg(drawing, "histogram of confidences")


def _tick_values(set_ticks: Callable[..., object], values: Sequence[float]) -> None:
    """Label every third cell of a grid by its value."""
    at = range(0, len(values), 3)
    set_ticks(at, [f"{values[i]:g}" for i in at])
