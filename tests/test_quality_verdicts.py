"""Verdicts keep what is asked of them, out of sample, and survive JSON."""

import numpy as np
import pytest
from pydantic import ValidationError

from steelseg.core.errors import BadInput
from steelseg.quality import verdicts
from steelseg.quality.operating_point import OperatingPoint
from steelseg.quality.verdicts import Images, Verdicts, find

FIFTY = OperatingPoint(false_alarms=50)


def draw(seed=0, n_groups=160, size=5, strength=2.5):
    """Draw overconfident scores of two classes; images of a group are alike, in truth too."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    shown = (rng.random((n_groups, 2)) < [0.25, 0.1])[groups]
    odds = strength * (2 * shown - 1) + 1.2 * rng.normal(size=(n_groups, 2))[groups]
    odds = odds + 0.8 * rng.normal(size=odds.shape) + [2, 1]
    return Images(1 / (1 + np.exp(-odds)), shown, groups, groups % 5)


def test_the_limit_is_kept_where_it_is_promised():
    """Judged on images that had no part in it, 50 per 1,000 are not exceeded."""
    images = draw()
    found = find(images, [1, 3], FIFTY)
    clean = ~images.shown.any(axis=1)
    assert found.chosen.is_promised
    assert found.chosen.judgement.false_alarms.value <= 0.05
    assert found.chosen.point.at_most <= 0.05
    alarms = found.is_alarm(images.confidences)
    assert alarms.shape == (800, 2)
    assert alarms[clean].any(axis=1).mean() == found.chosen.point.share
    assert 0.02 < found.chosen.judgement.escapes.value < 0.3
    assert found.n_clean == clean.sum() == 5 * found.n_clean_groups


def test_new_groups_see_the_limit_kept(monkeypatch):
    """Of 25 mills that are promised 50 per 1,000, hardly any sees more on coils to come."""
    monkeypatch.setattr(verdicts, "TRADE_OFF", ())  # other limits change nothing, and take long
    to_come = draw(1000, n_groups=2000)
    clean = to_come.confidences[~to_come.shown.any(axis=1)]
    shares = []
    for seed in range(25):
        found = find(draw(seed, n_groups=120, size=3), [1, 3], FIFTY)
        shares.append(found.is_alarm(clean).any(axis=1).mean())
    assert sum(share > 0.05 for share in shares) <= 3
    assert np.mean(shares) > 0.005


def test_more_alarms_let_less_escape():
    """Along the trade-off the level falls, and escapes with it; all of it is out of sample."""
    found = find(draw(), [1, 3], FIFTY)
    choices = list(found.trade_off.values())
    assert list(found.trade_off) == list(verdicts.TRADE_OFF)
    assert found.trade_off[50] == found.chosen
    levels = [choice.level for choice in choices]
    escapes = [choice.judgement.escapes.value for choice in choices]
    assert levels == sorted(levels, reverse=True)
    assert escapes == sorted(escapes, reverse=True)
    assert not found.trade_off[5].is_promised  # of some 110 clean groups
    assert found.trade_off[100].is_promised


def test_no_image_judges_what_it_chose():
    """What is asked of labels of chance is kept in sample only; the judgement says so."""
    images = draw(strength=0)
    part = images.parts == 0
    changed = images._replace(confidences=np.where(part[:, None], 0.999, images.confidences))
    judged = find(changed, [1, 3], FIFTY).chosen.judgement
    clean = ~images.shown.any(axis=1)
    # part 0 alone is alarmed, by a level that was chosen where no score is so high
    assert judged.false_alarms.value >= part[clean].mean()


def test_escapes_of_classes_are_limited():
    """With limits for two classes the lower level keeps both."""
    images = draw()
    one = find(images, [1, 3], OperatingPoint(escapes={1: 200}))
    both = find(images, [1, 3], OperatingPoint(escapes={1: 200, 3: 400}))
    assert both.chosen.level <= one.chosen.level
    alarms = one.is_alarm(images.confidences).any(axis=1)
    assert (~alarms[images.shown[:, 0]]).mean() <= 0.2
    with pytest.raises(BadInput, match=r"classes of \[1, 3\], but got \[2\]"):
        OperatingPoint(escapes={2: 200}).check([1, 3])


def test_the_dearer_an_escape_the_lower_the_level():
    """Costs move the level as they should, and promise nothing."""
    cheap, dear = (
        find(draw(), [1, 3], OperatingPoint(costs={"false_alarm": 1, "escape": x})).chosen
        for x in (1, 50)
    )
    assert dear.level < cheap.level
    assert dear.point is None
    assert not dear.is_promised


def test_without_clean_images_nothing_is_known_of_false_alarms():
    """Then the level is where an alarm is more likely right than not."""
    images = draw(n_groups=20)
    defective = images.take(images.shown.any(axis=1))
    found = find(defective, [1, 3], FIFTY)
    assert found.chosen.level == 0.5
    assert found.chosen.judgement.false_alarms is None
    assert found.n_clean == 0
    lone = images._replace(groups=np.zeros(100, int), parts=np.zeros(100, int))
    assert not find(lone, [1, 3], FIFTY).chosen.is_promised


def test_a_class_that_no_image_shows_spoils_nothing():
    """Its scores are high everywhere and mean nothing, so that it raises no alarm."""
    images = draw()
    noise = np.random.default_rng(1).uniform(0.9, 1, (800, 1))
    more = images._replace(
        confidences=np.hstack([images.confidences, noise]),
        shown=np.hstack([images.shown, np.zeros((800, 1), bool)]),
    )
    found, expected = find(more, [1, 3, 4], FIFTY), find(images, [1, 3], FIFTY)
    assert found.chosen.level == pytest.approx(expected.chosen.level)
    assert not found.is_alarm(more.confidences)[:, 2].any()


def test_whole_groups_are_judged_out_of_sample():
    """Of coils of five images more are alarmed than of images, and the sentence says how many."""
    images = draw()
    found = find(images, [1, 3], FIFTY)
    of_images, of_coils = found.chosen.judgement, found.chosen.of_groups
    clean = ~images.shown.any(axis=1)
    assert found.of_several == (clean.sum() / 5, clean.sum())
    assert of_images.false_alarms.value < of_coils.false_alarms.value
    assert of_coils.false_alarms.value < 5 * of_images.false_alarms.value
    said = "clean groups of the validation with several images, on average 5.0, {:.1%} were"
    assert said.format(of_coils.false_alarms.value) in found.clean_groups()
    alone = find(images._replace(groups=np.arange(800)), [1, 3], FIFTY)
    assert alone.chosen.of_groups is None
    assert "is not known: no clean group" in alone.clean_groups()


def test_a_limit_per_square_metre_is_one_per_image():
    """Of images of half a square metre, 100 alarms per 1,000 square metres are 50 per 1,000."""
    images = draw()
    asked = OperatingPoint(false_alarms_per_1000_m2=100)
    found, expected = find(images, [1, 3], asked, 0.5), find(images, [1, 3], FIFTY)
    assert found.chosen == expected.chosen
    assert found.asked == asked
    assert (found.per_1000, expected.per_1000) == (50, 50)
    assert found.shortfall() == f"{expected.shortfall()}, or 52 per 1,000 m²"
    assert Verdicts.model_validate_json(found.model_dump_json()) == found


def test_json_keeps_all_of_it():
    """What is written is read back as the same verdicts."""
    found = find(draw(), [1, 3], FIFTY)
    assert Verdicts.model_validate_json(found.model_dump_json()) == found


def test_one_thing_is_asked():
    """Two limits at once, or none, are refused."""
    for asked in ({}, {"false_alarms": 50, "escapes": {1: 20}}, {"false_alarms": 0}):
        with pytest.raises(ValidationError):
            OperatingPoint(**asked)
