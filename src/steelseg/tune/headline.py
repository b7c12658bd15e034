"""The headline figures for inspectors, with confidence intervals for new groups.

The ends of a figure's 95% interval have its name with `_low` and `_high`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Bool, Float64, Int64
from steelseg.core.sizes import Size
from steelseg.quality import calibration
from steelseg.quality.intervals import Estimate, rate, ratio
from steelseg.quality.verdicts import Images, Verdicts
from steelseg.tune.components import ComponentTable
from steelseg.tune.metrics import PREDICTED, TRUE, TRUE_POSITIVE, pair_dice
from steelseg.tune.search import parts_of

LIMITS = (10, 50, 100)  # false alarms per 1,000 clean images
READABLE = {
    "pair_dice": ("pair-Dice, cross-fitted", ".4f"),
    "positive_dice": ("Dice where there is a defect", ".3f"),
    "recall": ("recall: true pixels that are found", ".1%"),
    "escapes": ("escapes: images with a defect in which nothing is found", ".1%"),
}


class Readable(NamedTuple):
    """A figure as text; the interval is empty for metrics of older versions."""

    name: str
    label: str
    value: str
    interval: str


def figures(counts: Int64, groups: Int64) -> dict[str, float]:
    """Return the headline figures of masks, each with its interval.

    `pair_dice`, and `positive_dice` where there is a defect; `recall` is the share of true pixels
    that are found, `escapes` that of images with a defect in which nothing is found, and
    `false_alarms` that of clean images in which something is. Undefined figures are left out.

    Args:
        counts: (N, C, 3) of cross-fitted rules, see `steelseg.tune.metrics`.
        groups: (N,) labels.
    """
    n_classes = counts.shape[1]
    shown: Bool = counts[..., TRUE] > 0
    found: Bool = counts[..., PREDICTED] > 0
    dice, is_defective, is_alarm = pair_dice(counts), _any(shown), _any(found)

    def share(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Estimate | None:
        return ratio(np.ravel(top), np.ravel(bottom), np.repeat(groups, n_classes))

    return named(
        {
            "pair_dice": share(dice, np.ones_like(dice)),
            "positive_dice": share(dice * shown, shown),
            "recall": share(counts[..., TRUE_POSITIVE], counts[..., TRUE]),
            "escapes": rate(~is_alarm[is_defective], groups[is_defective]),
            "false_alarms": rate(is_alarm[~is_defective], groups[~is_defective]),
        }
    )


def images_of(table: ComponentTable, groups: Int64, n_splits: int) -> Images:
    """Return the input of verdicts from a table."""
    classes = range(table.n_classes)
    confidences = np.stack([table.confidences(c) for c in classes], axis=1).astype(np.float64)
    shown: Bool = np.stack([table.truth_areas(c) > 0 for c in classes], axis=1)
    parts = parts_of(table, n_splits, groups).astype(np.int64)
    return Images(confidences, shown, groups, parts)


def m2_per_image(
    images: Images, sizes_hw: Sequence[Size], mm_per_pixel: float | None
) -> float | None:
    """Return the mean area of the clean images in square metres; None if it is not known.

    `sizes_hw` are the sizes of the N images in pixels.
    """
    is_clean = ~_any(images.shown)
    if mm_per_pixel is None or not is_clean.any():
        return None
    pixels = np.prod(np.asarray(sizes_hw, dtype=np.float64), axis=1)
    return float(pixels[is_clean].mean()) * (mm_per_pixel / 1000) ** 2


def calibrated(images: Images) -> Float64:
    """Calibrate the images' confidences (N, C), cross-fitted."""
    pairs = zip(images.confidences.T, images.shown.T, strict=True)
    return np.stack([calibration.cross_fit(s, t, images.parts) for s, t in pairs], axis=1)


def verdict_figures(images: Images, found: Verdicts) -> dict[str, float]:
    """Return what verdicts by calibrated confidence achieve, cross-fitted.

    For 10, 50 and 100 false alarms per 1,000 clean images the share of defective images that
    escape, that of clean images that are alarms, and whether the limit is promised (1 or 0);
    `least_false_alarms` is the smallest limit, per 1,000, that could be. `calibration_error` is
    that of the calibrated confidences, `raw_calibration_error` that of the raw ones.

    Where groups have several images, `group_false_alarms` and `group_escapes` are the rates of
    verdicts on whole groups at the chosen level.
    """
    scores = named({f"escapes_at_{x}": found.trade_off[x].judgement.escapes for x in LIMITS})
    scores |= named({f"alarms_at_{x}": found.trade_off[x].judgement.false_alarms for x in LIMITS})
    for limit in LIMITS:
        choice = found.trade_off[limit]
        scores[f"promised_at_{limit}"] = float(choice.is_promised)
        if choice.point:
            scores["least_false_alarms"] = 1000 * choice.point.least
    if groups := found.chosen.of_groups:
        scores |= named(
            {"group_false_alarms": groups.false_alarms, "group_escapes": groups.escapes}
        )
    each = np.repeat(images.groups, images.shown.shape[1])
    for name, confidences in (("", calibrated(images)), ("raw_", images.confidences)):
        error = calibration.calibration_error(confidences.ravel(), images.shown.ravel(), each)
        scores |= named({f"{name}calibration_error": error})
    return scores | {
        "clean_images": float(found.n_clean),
        "clean_groups": float(found.n_clean_groups),
        "defective_images": float(images.shown.any(axis=1).sum()),
    }


def readable(scores: Mapping[str, float]) -> Iterator[Readable]:
    """Yield those of the four headline figures that are defined, as people read them."""
    for name, (label, form) in READABLE.items():
        if name in scores:
            yield Readable(name, label, f"{scores[name]:{form}}", interval(scores, name, form))


def interval(scores: Mapping[str, float], name: str, form: str) -> str:
    """Format the ends of a figure's interval; empty for metrics of older versions."""
    if f"{name}_low" not in scores:
        return ""
    return f"{scores[f'{name}_low']:{form}} to {scores[f'{name}_high']:{form}}"


def _any(classes: Bool) -> Bool:
    """Whether any class is true in each image (N, C): (N,)."""
    return np.asarray(classes.any(axis=1))


def named(estimates: dict[str, Estimate | None]) -> dict[str, float]:
    """Name the ends of each interval; undefined figures are left out."""
    scores: dict[str, float] = {}
    for name, estimate in estimates.items():
        if estimate is not None:
            value, low, high = estimate
            scores |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return scores
