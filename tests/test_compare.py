"""Differences of two models are told from luck, image by image."""

import numpy as np
import pytest

from steelseg.core.errors import BadInput
from steelseg.experiments.compare import compare


def draw(gain, n=120, seed=0):
    """Dice of two models on images of 30 coils: hard and easy ones, and the second is better."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 4
    hard = rng.uniform(0.3, 0.8, (n, 1)) * np.ones((n, 2))
    luck = rng.normal(0, 0.05, (30, 2))[groups] + rng.normal(0, 0.05, (n, 2))
    return [f"{i}.png" for i in range(n)], groups, hard, np.clip(hard + gain + luck, 0, 1)


def test_a_gain_is_seen_and_luck_is_not():
    """Paired, a gain of 0.05 shows although images differ by ten times as much."""
    names, groups, first, second = draw(0.05)
    compared = compare(names, [1, 3], groups, first, second)
    assert compared.verdict == "better"
    assert compared.overall.low < (second - first).mean() < compared.overall.high
    assert list(compared.by_class) == [1, 3]
    assert compare(names, [1, 3], groups, second, first).verdict == "worse"
    _, _, first, second = draw(0.0)
    assert compare(names, [1, 3], groups, first, second).verdict == "within noise"


def test_images_that_share_their_luck_say_less():
    """The interval over coils is wider than one that takes images for independent."""
    names, groups, first, second = draw(0.02)
    over_groups = compare(names, [1, 3], groups, first, second).overall
    naive = compare(names, [1, 3], np.arange(120), first, second).overall
    assert over_groups.high - over_groups.low > 1.3 * (naive.high - naive.low)


def test_images_by_how_much_they_changed():
    """Better ones the best first, worse ones the worst first; what is equal is neither."""
    first = np.array([[0.5], [0.5], [0.5], [0.5], [0.5]])
    second = np.array([[0.6], [0.1], [0.5], [0.9], [0.4]])
    compared = compare(list("abcde"), [1], np.arange(5), first, second)
    assert compared.better == ["d", "a"]
    assert compared.worse == ["b", "e"]
    assert compared.overall.value == pytest.approx(0)
    assert compare(["a"], [1], [0], first[:1], second[:1]).verdict == "within noise"


def test_equal_models_do_not_differ():
    """The difference of a model from itself is 0, and known to be."""
    first = np.array([[0.5], [0.7]])
    compared = compare(["a", "b"], [1], [0, 1], first, first)
    assert compared.overall == (0, 0, 0)
    assert compared.verdict == "within noise"


def test_other_images_are_refused():
    """Only the same images can be compared."""
    with pytest.raises(BadInput, match="the same 2 images"):
        compare(["a", "b"], [1], [0, 1], np.ones((2, 1)), np.ones((3, 1)))
