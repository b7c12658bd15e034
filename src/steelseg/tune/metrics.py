"""Segmentation metrics as formulas on pixel counts.

All functions use `counts` (N, C, 3) int64: for each image and class the numbers of true positive,
predicted and true pixels. Counts are summed first and divided once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from steelseg.core.arrays import Float64, Int64
from steelseg.core.classes import ClassInfo, enumerated

TRUE_POSITIVE, PREDICTED, TRUE = range(3)


def pair_dice(counts: Int64) -> Float64:
    """Dice of every (image, class) pair, the Kaggle metric before its mean: (N, C), 0 to 1.

    2 |P & T| / (|P| + |T|), and 1 where prediction and truth are both empty.
    """
    both = counts[..., PREDICTED] + counts[..., TRUE]
    dice = 2 * counts[..., TRUE_POSITIVE] / np.maximum(both, 1)
    return np.where(both == 0, 1.0, dice)


def class_iou(counts: Int64) -> Float64:
    """IoU per class over the pixels of all images: (C,); NaN for a class that occurs nowhere."""
    total = counts.sum(axis=0)
    union = total[:, PREDICTED] + total[:, TRUE] - total[:, TRUE_POSITIVE]
    return np.where(union > 0, total[:, TRUE_POSITIVE] / np.maximum(union, 1), np.nan)


def positive_dice(counts: Int64) -> Float64:
    """Mean Dice of the pairs that show the class: (C,); NaN for a class that no image shows."""
    shown = counts[..., TRUE] > 0
    total = np.where(shown, pair_dice(counts), 0.0).sum(axis=0)
    return np.where(shown.any(axis=0), total / np.maximum(shown.sum(axis=0), 1), np.nan)


def notebook_scores(counts: Int64) -> dict[str, float]:
    """The scores that the well-known starter notebook logs, for comparison.

    It merges all classes of an image into one mask: `dice_pos` is the mean Dice of the images
    with a defect, `dice_neg` the share of clean images predicted clean, `dice` the mean over all,
    and `iou` the mean IoU of the images with a defect. It averages the IoU by batch and then over
    batches; here every image counts equally. Scores over no image are left out.
    """
    flat = counts.sum(axis=1)
    shown = flat[:, TRUE] > 0
    dice = pair_dice(flat)
    union = flat[:, PREDICTED] + flat[:, TRUE] - flat[:, TRUE_POSITIVE]
    iou = flat[:, TRUE_POSITIVE] / np.maximum(union, 1)
    groups = {"dice": dice, "dice_neg": dice[~shown], "dice_pos": dice[shown], "iou": iou[shown]}
    return {f"notebook_{name}": float(s.mean()) for name, s in groups.items() if s.size}


def summarise(counts: Int64, classes: Sequence[int]) -> dict[str, float]:
    """All reported metrics by name; undefined ones, without pixels, are left out.

    `pair_dice` is the contest's metric, `all_empty_pair_dice` the score of empty predictions.
    """
    scores = {
        "pair_dice": float(pair_dice(counts).mean()),
        "all_empty_pair_dice": float((counts[..., TRUE] == 0).mean()),
    }
    shown = counts[..., TRUE] > 0
    if shown.any():
        scores["positive_dice"] = float(pair_dice(counts)[shown].mean())
    per_class = {"iou": class_iou(counts), "positive_dice": positive_dice(counts)}
    for name, values in per_class.items():
        for class_id, value in zip(classes, values.tolist(), strict=True):
            if not np.isnan(value):
                scores[f"{name}_class_{class_id}"] = value
    return scores | notebook_scores(counts)


def caveat(scores: Mapping[str, float], classes: Sequence[ClassInfo]) -> str:
    """Return which scores of `summarise` are meaningless, and what to do; empty if none is.

    If no image shows a class, the scores only reward finding nothing, by rules that were chosen for
    that.
    """
    missing = [one for one in classes if f"positive_dice_class_{one.id}" not in scores]
    if not missing:
        return ""
    remedy = (
        "validate on another fold (`-S fold=...`) or on larger ones "
        "(`-S stratified_split.n_folds=...`), or annotate more images"
    )
    if missing == list(classes):
        return (
            "No validation image shows a defect, so a pair-Dice near 1 only means that nothing "
            f"was found where nothing is, and the rules mean nothing: {remedy}."
        )
    several = len(missing) > 1
    tail = "them, and their rules mean nothing" if several else "it, and its rule means nothing"
    return (
        f"No validation image shows {enumerated(missing)}: the scores say nothing about finding "
        f"{tail}; {remedy}."
    )


def best_pair_dice(
    predicted: Int64, true_positive: Int64, true: Int64, min_areas: Sequence[int]
) -> float:
    """Mean pair-Dice with the best threshold and minimum area of each class.

    Args:
        predicted: (N, C, T), pixels predicted at each of T thresholds.
        true_positive: (N, C, T), the true ones among them.
        true: (N, C), true pixels.
        min_areas: masks of fewer predicted pixels are emptied; each value is tried.
    """
    true_everywhere = np.broadcast_to(true[..., None], predicted.shape)
    best = np.zeros(predicted.shape[1])
    for min_area in min_areas:
        kept = predicted >= min_area
        counts = [np.where(kept, true_positive, 0), np.where(kept, predicted, 0), true_everywhere]
        dice = pair_dice(np.stack(counts, axis=-1)).mean(axis=0)  # (C, T)
        best = np.maximum(best, dice.max(axis=1))
    return float(best.mean())
