"""Tests that a component table answers as the probability maps themselves would."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tables import RULES, SMALL, clean_mask, dice, fill_table, images

from steelseg.core.errors import SteelsegError
from steelseg.data import rle
from steelseg.predict.postprocess import ClassRule, postprocess, postprocess_maps
from steelseg.predict.tiles import as_maps
from steelseg.tune.components import ComponentTable, measure
from steelseg.tune.search import TuneConfig, count, evaluate
from steelseg.tune.validation import Validation, match_defects


@given(images(), st.tuples(RULES, RULES))
def test_counts_are_those_of_postprocessing(drawn, rules):
    """Every pair's Dice is exactly that of the mask that `postprocess` makes."""
    probabilities, masks = drawn
    found = evaluate(fill_table(probabilities, masks), rules)
    for n, c in np.ndindex(found.shape):
        assert found[n, c] == dice(clean_mask(probabilities[n, c], rules[c]), masks[n, c])


@given(images(), st.tuples(RULES, RULES))
def test_matchings_are_those_of_postprocessed_maps(drawn, rules):
    """What any rule finds comes out of the table as `postprocess_maps` finds it in the maps.

    And the components of both masks overlap as labels of the dense pixels do.
    """
    probabilities, masks = drawn
    rows = list(reversed(range(len(masks))))  # of the cache; the table has its own order
    table = fill_table(probabilities[rows], masks[rows])
    cache = SimpleNamespace(masks=masks.__getitem__)
    matched = match_defects(Validation(rows, table), cache, [rules] * len(rows))
    for n, of_image in zip(rows, matched, strict=True):
        found = postprocess_maps(as_maps(probabilities[n]), rules)
        for matching, mask_hw, expected in zip(of_image, masks[n], found, strict=True):
            assert matching.found == expected.rle
            assert counted(matching) == labelled(mask_hw, rle.decode(expected.rle, mask_hw.shape))


def counted(matching):
    """Sort the areas of the components, and of overlapping ones with the pixels they share."""
    true, found = matching.true_areas, matching.found_areas
    pairs = [
        (true[t], found[f], n) for (t, f), n in zip(matching.pairs, matching.overlaps, strict=True)
    ]
    return sorted(true), sorted(found), sorted(pairs)


def labelled(true_hw, found_hw):
    """Return what `counted` does, from the labels that SciPy gives to pixels."""
    true, found = (ndimage.label(m, np.ones((3, 3)))[0] for m in (true_hw, found_hw))
    areas = [np.bincount(labels.ravel())[1:] for labels in (true, found)]
    both = (true > 0) & (found > 0)
    keys, n = np.unique(np.stack([true[both], found[both]]), axis=1, return_counts=True)
    pairs = [
        (areas[0][t - 1], areas[1][f - 1], pixels)
        for t, f, pixels in zip(*keys.tolist(), n, strict=True)
    ]
    return sorted(areas[0]), sorted(areas[1]), sorted(pairs)


def test_any_number_of_thresholds_is_kept():
    """Of 300, which a byte cannot count, each still gives its own mask; others are refused."""
    thresholds = [n / 301 for n in range(1, 301)]
    probability_hw = np.linspace(0, 1, 3010, dtype=np.float32).reshape(70, 43)
    table = ComponentTable(thresholds, 1)
    table.add(probability_hw[None], np.zeros((1, 70, 43), np.uint8))
    for rule in (ClassRule(threshold=thresholds[at]) for at in (0, 255, 256, 299)):
        assert table.find(0, 0, rule, (70, 43)) == postprocess(probability_hw, rule).rle != ""
    with pytest.raises(ValueError, match="not in tuple"):
        table.find(0, 0, ClassRule(threshold=0.123), (70, 43))


def test_table_packs_its_maps():
    """A 256x1600 image with a blob costs a few kilobytes, one with 10,000 specks not many more."""
    probabilities = np.zeros((2, 1, 256, 1600), dtype=np.float32)
    probabilities[0, 0, 20:90, 30:400] = 0.99
    probabilities[1, 0, 1:200:2, 1:200:2] = 0.99
    table = fill_table(probabilities, np.zeros(probabilities.shape, np.uint8), TuneConfig())
    assert len(pickle.dumps(table)) < 3_000


def test_images_of_different_sizes_share_a_table():
    """Rules are in pixels, so nothing ties a table to one size."""
    config = TuneConfig(smoothing=0)
    table = ComponentTable(config.thresholds, 1)
    for size_hw in ((4, 5), (64, 33)):
        table.add(np.full((1, *size_hw), 0.9, np.float32), np.ones((1, *size_hw), np.uint8))
    assert count(table, [ClassRule()])[:, 0].tolist() == [[20] * 3, [2112] * 3]


def test_images_measured_elsewhere_are_appended():
    """`measure` and `append` together are `add`."""
    rng = np.random.default_rng(1)
    probability_chw = rng.random((2, 9, 9), dtype=np.float32)
    mask_chw = (rng.random((2, 9, 9)) < 0.5).astype(np.uint8)
    added, appended = (ComponentTable(SMALL.thresholds, 2) for _ in range(2))
    added.add(probability_chw, mask_chw)
    appended.append(measure(probability_chw, mask_chw, SMALL.thresholds))
    rules = [ClassRule(threshold=0.4)] * 2
    assert np.array_equal(count(added, rules), count(appended, rules))
    with pytest.raises(ValueError, match="Expected 2 classes, but got 1"):
        appended.append(measure(probability_chw[:1], mask_chw[:1], SMALL.thresholds))


def test_images_that_do_not_fit_are_refused():
    """Other shapes, dtypes or values than the contract's are errors that say so."""
    table = ComponentTable(SMALL.thresholds, 1)
    probability_chw, mask_chw = np.zeros((1, 2, 3), np.float32), np.ones((1, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and \(1, 3, 2\)"):
        table.add(probability_chw, mask_chw.reshape(1, 3, 2))
    with pytest.raises(ValueError, match="uint8, but got bool"):
        table.add(probability_chw, mask_chw.astype(bool))
    with pytest.raises(ValueError, match="0 and 1"):
        table.add(probability_chw, mask_chw * 255)
    with pytest.raises(ValueError, match="float32"):
        table.add(probability_chw.astype(np.float64), mask_chw)
    with pytest.raises(SteelsegError, match="NaN"):
        table.add(probability_chw * np.float32(np.nan), mask_chw)
    assert len(table) == 0


def test_thresholds_must_increase():
    """Each threshold's foreground is looked for within the one before."""
    with pytest.raises(ValueError, match="strictly increasing"):
        ComponentTable([0.5, 0.4], 1)
