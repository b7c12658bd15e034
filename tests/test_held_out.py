"""The test set that is held out is scored by the finished model, over its groups."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steelseg.core.arrays import Int64
from steelseg.core.classes import default_classes
from steelseg.core.files import write_json
from steelseg.data.cache import Cache
from steelseg.data.fold_table import HELD_OUT
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.tiles import as_maps
from steelseg.predict.views import ViewsConfig
from steelseg.report import summary
from steelseg.tune import held_out, tuning, validation
from steelseg.tune.search import TuneConfig
from steelseg.tune.tuning import Setting

RULES = [ClassRule(threshold=0.5), ClassRule(threshold=0.25)]


def test_the_test_set_is_scored_where_nothing_is_ignored(
    ignored_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all models together and the tuned rules, against thresholds and sums of our own."""
    rows = [0, 3, 7, 9, 11]
    asked = []

    def by_grey(models: Any, rows_of: Any, read: Any, *rest: Any) -> Iterator[Any]:
        """Networks that take light for a defect of either class."""
        asked.append(models)
        for row in rows_of[HELD_OUT]:
            yield row, rest[-1](row, as_maps(np.stack([np.float32(read(row) / 255)] * 2)))

    monkeypatch.setattr(validation, "out_of_fold_maps", by_grey)
    folds = pd.DataFrame({"fold": [0] * 12, "group": range(12)})
    folds.loc[rows, "fold"] = HELD_OUT
    folders = [Path("models"), Path("member")]
    configs = TuneConfig(), InferenceConfig(), ViewsConfig()
    setting = Setting({0: folders[:1]}, folders, ignored_cache, folds, *configs)
    found = tuning._score_test_set(setting, RULES, lambda _: lambda items, _: items)
    assert asked == [{HELD_OUT: folders}]
    counts = []
    for row in rows:
        ignored_hw = ignored_cache.ignored(row)
        counted_hw = np.ones((48, 80), bool) if ignored_hw is None else ignored_hw == 0
        for mask_hw, rule in zip(ignored_cache.masks(row), RULES, strict=True):
            light_hw = (ignored_cache.image(row) / 255 > rule.threshold) & counted_hw
            counts.append([(light_hw & (mask_hw == 1)).sum(), light_hw.sum(), mask_hw.sum()])
    expected = np.array(counts).reshape(len(rows), 2, 3)
    assert found == held_out.report(expected, np.array(rows), ignored_cache.classes)
    assert found["held_out_images"] == len(rows)
    folds["fold"] = 0
    assert tuning._score_test_set(setting, RULES, lambda _: lambda items, _: items) == {}


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
