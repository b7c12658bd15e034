"""The headline figures are those of the metrics, with intervals over groups."""

from types import SimpleNamespace

import numpy as np
import pytest
from tables import fill_table

from steelseg.core.errors import BadInput
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import Rules, read_rules, write_rules
from steelseg.quality.operating_point import OperatingPoint
from steelseg.quality.verdicts import Images, find
from steelseg.report.summary import _verdicts
from steelseg.tune import headline
from steelseg.tune.metrics import summarise


def counts_of(rng, n_groups=30, size=4):
    """True positive, predicted and true pixels of two classes, alike within a group."""
    groups = np.repeat(np.arange(n_groups), size)
    true = np.where((rng.random((n_groups, 2)) < 0.4)[groups], 100, 0)
    found = (true * rng.beta(4, 2, (n_groups, 2))[groups]).astype(int)
    predicted = found + rng.integers(0, 2, (n_groups, 2))[groups] * 30
    return np.stack([found, predicted, true], axis=-1), groups


def test_figures_are_those_of_the_metrics():
    """The value within each interval is what `summarise` and plain counting give."""
    counts, groups = counts_of(np.random.default_rng(0))
    figures, scores = headline.figures(counts, groups), summarise(counts, [1, 2])
    for name in ("pair_dice", "positive_dice"):
        assert figures[name] == pytest.approx(scores[name])
    clean = counts[..., 2].sum(axis=1) == 0
    alarm = counts[..., 1].sum(axis=1) > 0
    assert figures["recall"] == counts[..., 0].sum() / counts[..., 2].sum()
    assert figures["escapes"] == (~alarm[~clean]).mean()
    assert figures["false_alarms"] == alarm[clean].mean()
    for name in ("pair_dice", "positive_dice", "recall", "escapes", "false_alarms"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_groups_widen_the_intervals():
    """Images of a coil say less than as many of different coils."""
    counts, groups = counts_of(np.random.default_rng(1))
    alike = headline.figures(counts, groups)
    naive = headline.figures(counts, np.arange(len(groups)))
    for name in ("pair_dice", "positive_dice"):
        width, plain = (f[f"{name}_high"] - f[f"{name}_low"] for f in (alike, naive))
        assert width > 1.3 * plain


def test_what_there_is_none_of_is_left_out():
    """Without a clean image there are no false alarms, without a defect no escapes."""
    shown = np.full((4, 1, 3), 10)
    assert "false_alarms" not in headline.figures(shown, np.arange(4))
    clean = headline.figures(np.zeros((4, 1, 3), int), np.arange(4))
    assert set(clean) == {
        f"{n}{e}" for n in ("pair_dice", "false_alarms") for e in ("", "_low", "_high")
    }


def test_what_people_read():
    """Each figure that is defined with its interval, or without one if it has none."""
    scores = {"pair_dice": 0.89844, "pair_dice_low": 0.8677, "pair_dice_high": 0.92266, "lr": 1}
    first, second = headline.readable(scores | {"escapes": 0.125})
    assert (first.value, first.interval) == ("0.8984", "0.8677 to 0.9227")
    assert (second.value, second.interval) == ("12.5%", "")


def test_verdicts_of_a_table():
    """From probability maps to escapes at a limit, and to the sentence of the summary."""
    rng = np.random.default_rng(2)
    is_defective = np.arange(40) < 15
    masks = np.zeros((40, 1, 6, 6), np.uint8)
    masks[is_defective, :, 2:4, 2:4] = 1
    levels = rng.random((40, 1, 1, 1), dtype=np.float32) * np.float32(0.8)
    table = fill_table(levels + np.float32(0.15) * masks, masks)
    images = headline.images_of(table, np.arange(40), 5)
    found = find(images, [1], OperatingPoint(false_alarms=50))
    scores = headline.verdict_figures(images, found)
    assert (scores["clean_images"], scores["defective_images"]) == (25, 15)
    assert scores["promised_at_50"] == 0
    assert 0 < scores["escapes_at_50_low"] <= scores["escapes_at_50"] < scores["escapes_at_50_high"]
    assert scores["calibration_error"] < scores["raw_calibration_error"]
    for name in ("calibration_error", "raw_calibration_error"):
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
    first, second = _verdicts(scores)
    assert first.startswith("Verdicts at 50 false alarms per 1,000 clean images")
    assert second.strip().startswith("that limit is not promised: with 25 clean images nothing")
    assert second.endswith("below 113 per 1,000 can be shown")
    assert list(_verdicts({})) == []


def test_verdicts_of_whole_groups_have_figures():
    """Where groups have several images, and only there."""
    rng = np.random.default_rng(5)
    shown = np.repeat(rng.random((40, 1)) < 0.4, 3, axis=0)
    images = Images(rng.random((120, 1)), shown, np.arange(120) // 3, np.arange(120) // 3 % 5)
    figures = headline.verdict_figures(images, find(images, [1], OperatingPoint(false_alarms=50)))
    assert 0 <= figures["group_false_alarms_low"] <= figures["group_false_alarms"]
    assert figures["group_escapes"] <= figures["group_escapes_high"]
    alone = images._replace(groups=np.arange(120))
    figures = headline.verdict_figures(alone, find(alone, [1], OperatingPoint(false_alarms=50)))
    assert not [name for name in figures if name.startswith("group")]


def test_the_area_of_clean_images():
    """In square metres, without the defective images; unknown without a scale or a clean image."""
    images = Images(np.zeros((3, 1)), np.array([[0], [1], [0]], bool), np.arange(3), np.arange(3))
    sizes_hw = [(200, 500), (9, 9), (100, 200)]
    assert headline.m2_per_image(images, sizes_hw, 0.5) == pytest.approx((0.025 + 0.005) / 2)
    assert headline.m2_per_image(images, sizes_hw, None) is None
    assert headline.m2_per_image(images.take([False, True, False]), sizes_hw[1:2], 0.5) is None


def test_verdicts_stand_beside_the_rules(tmp_path):
    """They are read back as they were written, and verdicts of other classes are refused."""
    rng = np.random.default_rng(3)
    shown = rng.random((60, 2)) < 0.4
    images = Images(rng.random((60, 2)), shown, np.arange(60), np.arange(60) % 5)
    asked = OperatingPoint(escapes={7: 200})
    rules = Rules({1: ClassRule(), 7: ClassRule()}, "c0ffee", verdicts=find(images, [1, 7], asked))
    card = SimpleNamespace(classes=[1, 7], weights_sha256="c0ffee")
    write_rules(tmp_path, rules._replace(mm_per_pixel=0.4))
    assert read_rules(tmp_path, card) == rules._replace(mm_per_pixel=0.4)
    many = list(range(1, 12))
    found = find(
        Images(np.tile(images.confidences, 6)[:, :11], np.tile(shown, 6)[:, :11], *images[2:]),
        many,
        asked,
    )
    write_rules(tmp_path, rules._replace(by_class=dict.fromkeys(many, ClassRule()), verdicts=found))
    read = read_rules(tmp_path, SimpleNamespace(classes=many, weights_sha256="c0ffee")).verdicts
    assert (read.classes, list(read.trade_off)) == (many, sorted(found.trade_off))
    write_rules(tmp_path, rules._replace(verdicts=None))
    assert read_rules(tmp_path, card).verdicts is None
    write_rules(
        tmp_path, rules._replace(verdicts=find(images, [1, 9], OperatingPoint(false_alarms=5)))
    )
    with pytest.raises(BadInput, match="for the classes"):
        read_rules(tmp_path, card)
