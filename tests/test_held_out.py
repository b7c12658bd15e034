"""The test set that is held out is scored by the finished model, over its groups."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from steelseg.core.arrays import Int64
from steelseg.core.classes import default_classes
from steelseg.core.files import write_json
from steelseg.data.cache import Cache
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.tiles import as_maps
from steelseg.report import summary
from steelseg.tune import held_out

RULES = [ClassRule(threshold=0.5), ClassRule(threshold=0.25)]


def by_grey(images: list[Any]) -> list[Any]:
    """Networks that take light for a defect of either class."""
    return [as_maps(np.stack([np.float32(image / 255)] * 2)) for image in images]


def test_pixels_are_counted_where_nothing_is_ignored(ignored_cache: Cache) -> None:
    """Against thresholds and sums of our own."""
    rows = np.array([0, 3, 7, 9])
    runtime = SimpleNamespace(batch_size=3, calls=2, maps=by_grey)
    counts = held_out.count(ignored_cache, rows, runtime, RULES, lambda items, _: items)
    assert any(ignored_cache.ignored(row) is not None for row in rows)
    for row, found in zip(rows, counts, strict=True):
        ignored_hw = ignored_cache.ignored(row)
        counted_hw = np.ones((48, 80), bool) if ignored_hw is None else ignored_hw == 0
        for class_counts, mask_hw, rule in zip(found, ignored_cache.masks(row), RULES, strict=True):
            light_hw = (ignored_cache.image(row) / 255 > rule.threshold) & counted_hw
            both_hw = light_hw & (mask_hw == 1)
            assert class_counts.tolist() == [both_hw.sum(), light_hw.sum(), mask_hw.sum()]


def counts_of(*pairs: tuple[int, int, int]) -> Int64:
    """Images of two classes, of which the second is nowhere."""
    return np.array([[pair, (0, 0, 0)] for pair in pairs])


COUNTS = counts_of((4, 4, 4), (2, 4, 4), (0, 0, 4), (0, 0, 0), (1, 2, 4), (3, 4, 4))


def test_scores_have_intervals_that_groups_make_wider() -> None:
    """Two exposures of one tile say less than two tiles."""
    alone = held_out.report(COUNTS, np.arange(6), [3, 5])
    assert alone["held_out_images"] == alone["held_out_groups"] == 6
    assert alone["held_out_all_empty_pair_dice"] == pytest.approx(7 / 12)
    dice = [1, 0.5, 0, 1, 1 / 3, 0.75]
    assert alone["held_out_pair_dice"] == pytest.approx((sum(dice) + 6) / 12)
    of_class = sum(dice[:3] + dice[4:]) / 5
    assert alone["held_out_positive_dice"] == pytest.approx(of_class)
    assert alone["held_out_positive_dice_class_3"] == pytest.approx(of_class)
    assert not [name for name in alone if "class_5" in name]
    grouped = held_out.report(COUNTS, np.array([0, 1, 2, 0, 2, 1]), [3, 5])
    assert grouped["held_out_groups"] == 3
    for name in ("held_out_pair_dice", "held_out_positive_dice_class_3"):
        low, high = alone[f"{name}_low"], alone[f"{name}_high"]
        assert 0 <= low < alone[name] < high <= 1
        assert grouped[f"{name}_high"] - grouped[f"{name}_low"] > high - low


def test_the_summary_has_the_test_set_beside_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without a test set, not a word on it."""
    card = SimpleNamespace(named_classes=default_classes([3, 5]))
    monkeypatch.setattr(summary, "read_card", lambda _: card)
    scores = {"pair_dice": 0.8, "optimistic_pair_dice": 0.9, "all_empty_pair_dice": 0.5}
    write_json(tmp_path / "metrics/tune_threshold.json", scores)
    write_json(tmp_path / "metrics/submit.json", {"rows": 6, "masks": 2})
    assert "test set" not in summary.summarise(tmp_path)
    scores |= held_out.report(COUNTS, np.arange(6), [3, 5])
    write_json(tmp_path / "metrics/tune_threshold.json", scores)
    lines = summary.summarise(tmp_path).splitlines()
    at = lines.index("pair-Dice of the test set: 6 images held out, in 6 groups")
    assert lines[at + 1].startswith("  0.7986   by the tuned rules (95%: 0.")
    assert lines[at + 2] == "  0.5833   predicting nothing (+0.2153 gained over it)"
    assert lines[at + 3].startswith("  Dice where there is a defect: class 3: 0.517 (95%: 0.")
