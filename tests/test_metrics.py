"""Metrics against hand-made cases, scikit-learn, and a re-creation of the notebook's way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score

from steelseg.core.arrays import Int64
from steelseg.core.classes import default_classes
from steelseg.tune import metrics

CLASSES = default_classes([3, 7])

MASKS = hnp.arrays(np.uint8, (3, 2, 4, 5), elements=st.integers(0, 1))


def count(predicted: np.ndarray, true: np.ndarray) -> Int64:
    """Counts (N, C, 3) of two stacks of masks (N, C, H, W)."""
    parts = [predicted & true, predicted, true]
    return np.stack([p.sum(axis=(2, 3), dtype=np.int64) for p in parts], axis=-1)


@pytest.mark.parametrize(
    ("tp", "predicted", "true", "dice"),
    [
        (0, 0, 0, 1.0),  # both empty: the contest's rule
        (0, 5, 0, 0.0),  # false alarm
        (0, 0, 5, 0.0),  # missed
        (5, 5, 5, 1.0),
        (2, 4, 6, 0.4),
    ],
)
def test_pair_dice_of_hand_made_counts(tp: int, predicted: int, true: int, dice: float) -> None:
    """Dice is 2 |P & T| / (|P| + |T|), and 1 where both are empty."""
    assert metrics.pair_dice(np.array([[[tp, predicted, true]]]))[0, 0] == dice


@given(MASKS, MASKS)
def test_pair_dice_equals_scikit_learn(predicted: np.ndarray, true: np.ndarray) -> None:
    """Every pair's Dice is its F1 score."""
    ours = metrics.pair_dice(count(predicted, true))
    for i, c in np.ndindex(3, 2):
        flat = (true[i, c].ravel(), predicted[i, c].ravel())
        assert ours[i, c] == pytest.approx(f1_score(*flat, zero_division=1.0))


@given(MASKS, MASKS)
def test_class_iou_equals_scikit_learn(predicted: np.ndarray, true: np.ndarray) -> None:
    """A class's IoU is the Jaccard score of all its pixels; NaN where it is nowhere."""
    ours = metrics.class_iou(count(predicted, true))
    for c in range(2):
        flat = (true[:, c].ravel(), predicted[:, c].ravel())
        theirs = jaccard_score(*flat) if np.any(flat) else np.nan
        assert ours[c] == pytest.approx(theirs, nan_ok=True)


def notebook_way(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """What the starter notebook's Meter computes for one batch, image by image."""
    scores: dict[str, list[float]] = {"dice": [], "dice_neg": [], "dice_pos": [], "iou": []}
    for p, t in zip(
        predicted.reshape(len(predicted), -1), true.reshape(len(true), -1), strict=True
    ):
        if t.sum() == 0:
            dice = float(p.sum() == 0)
            scores["dice_neg"].append(dice)
        else:
            dice = 2 * (p * t).sum() / (p + t).sum()
            scores["dice_pos"].append(dice)
            scores["iou"].append(np.logical_and(p, t).sum() / np.logical_or(p, t).sum())
        scores["dice"].append(dice)
    return {f"notebook_{k}": float(np.mean(v)) for k, v in scores.items() if v}


@given(MASKS, MASKS)
def test_notebook_scores_equal_the_notebooks(predicted: np.ndarray, true: np.ndarray) -> None:
    """Its logs can be compared with ours."""
    ours = metrics.notebook_scores(count(predicted, true))
    assert ours == pytest.approx(notebook_way(predicted, true))


def test_undefined_scores_are_left_out() -> None:
    """A class that is neither shown nor predicted has no IoU; clean images have no dice_pos."""
    counts = np.zeros((2, 2, 3), dtype=np.int64)
    counts[:, 0] = [3, 4, 5]
    scores = metrics.summarise(counts, classes=[1, 7])
    assert "iou_class_1" in scores
    assert "iou_class_7" not in scores
    assert "notebook_dice_neg" not in scores
    assert scores["all_empty_pair_dice"] == 0.5


@given(MASKS, MASKS)
def test_best_pair_dice_is_the_best_of_a_loop(first: np.ndarray, second: np.ndarray) -> None:
    """Each class has its threshold and minimum area, found by trying them all."""
    true = first
    stacks = [first | second, second]
    counts = np.stack([count(p, true) for p in stacks], axis=2)
    min_areas = [0, 3, 9]
    ours = metrics.best_pair_dice(
        counts[..., metrics.PREDICTED],
        counts[..., metrics.TRUE_POSITIVE],
        counts[:, :, 0, metrics.TRUE],
        min_areas,
    )
    tried = []
    for predicted in stacks:
        for least in min_areas:
            big = predicted * (predicted.sum(axis=(2, 3), keepdims=True) >= least)
            tried.append(metrics.pair_dice(count(big.astype(np.uint8), true)).mean(axis=0))
    assert ours == pytest.approx(np.max(tried, axis=0).mean())


def test_a_class_that_no_image_shows_is_named() -> None:
    """Its scores are those of finding nothing, however good they look."""
    counts = np.zeros((3, 2, 3), dtype=np.int64)
    scores = metrics.summarise(counts, [3, 7])
    assert scores["pair_dice"] == 1
    assert metrics.caveat(scores, CLASSES).startswith("No validation image shows a defect")
    counts[1, 0] = (1, 2, 3)
    scores = metrics.summarise(counts, [3, 7])
    assert metrics.caveat(scores, CLASSES).startswith("No validation image shows class 7:")
    assert metrics.caveat(scores, default_classes([3])) == ""
    counts[2, 1] = (0, 0, 3)
    assert metrics.caveat(metrics.summarise(counts, [3, 7]), CLASSES) == ""
