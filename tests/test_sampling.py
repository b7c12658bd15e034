"""Which images an epoch shows: balanced classes and hard negatives; and samples made of two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steelseg.train.mixing import copy_paste, cutmix
from steelseg.train.sampling import draw, image_weights

# 80 images show class 1, 10 class 2, 10 nothing
SHOWN = np.array([[True, False]] * 80 + [[False, True]] * 10 + [[False, False]] * 10)
NOTHING_FOUND = np.zeros(100, dtype=np.int64)


@pytest.mark.parametrize(
    ("balance", "shares"),
    [
        (0.0, [0.8, 0.1, 0.1]),
        (1.0, [1 / 3, 1 / 3, 1 / 3]),
        # 80 * 0.8^-0.5 = 89.4 and 10 * 0.1^-0.5 = 31.6 twice
        (0.5, [0.586, 0.207, 0.207]),
    ],
)
def test_classes_are_balanced(balance: float, shares: list[float]) -> None:
    """From as they are to equally often, clean images too."""
    weights = image_weights(SHOWN, balance)
    found = [weights[:80].sum(), weights[80:90].sum(), weights[90:].sum()]
    np.testing.assert_allclose(found, shares, atol=1e-3)


def test_an_image_weighs_by_its_rarest_class() -> None:
    """One that shows both classes weighs as those of the rare one alone."""
    shown = np.array([[True, False]] * 8 + [[False, True], [True, True]])
    weights = image_weights(shown, 1.0)
    assert weights[9] == weights[8] > weights[0]


def test_without_a_balance_every_image_is_drawn_equally_often() -> None:
    """Three times each, in another order than the next epoch's."""
    rng = np.random.default_rng(0)
    images = draw(rng, 300, SHOWN, 0, 0, NOTHING_FOUND)
    assert (np.bincount(images) == 3).all()
    assert not np.array_equal(images, draw(rng, 300, SHOWN, 0, 0, NOTHING_FOUND))


def test_rare_classes_are_drawn_more_often() -> None:
    """A third of 3,000 samples for each of the two classes and the clean images."""
    images = draw(np.random.default_rng(1), 3000, SHOWN, 1, 0, NOTHING_FOUND)
    shares = [(images < 80).mean(), ((images >= 80) & (images < 90)).mean(), (images >= 90).mean()]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)


def test_hard_negatives_take_the_place_of_other_clean_images() -> None:
    """With a share of 1, all clean samples are of the two on which something was found, 1 to 3."""
    found = NOTHING_FOUND.copy()
    found[92], found[97] = 100, 300
    found[5] = 10_000  # an image with a defect: no negative
    images = draw(np.random.default_rng(2), 10_000, SHOWN, 0, 1, found)
    times = np.bincount(images, minlength=100)
    assert (times[:90] == 100).all()
    assert times[92] + times[97] == 1000
    assert times[97] / times[92] == pytest.approx(3, rel=0.2)
    half = np.bincount(draw(np.random.default_rng(2), 10_000, SHOWN, 0, 0.5, found))
    assert 30 < half[93] < 70  # still shown


def test_without_false_alarms_nothing_changes() -> None:
    """As in the first epoch, and where there are no clean images."""
    plain = draw(np.random.default_rng(3), 200, SHOWN, 0, 0, NOTHING_FOUND)
    same = draw(np.random.default_rng(3), 200, SHOWN, 0, 1, NOTHING_FOUND)
    np.testing.assert_array_equal(plain, same)
    dirty = np.ones((4, 1), dtype=bool)
    draw(np.random.default_rng(3), 8, dirty, 1, 1, np.ones(4, dtype=np.int64))


@given(shown=hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 4))))
def test_any_classes_can_be_balanced(shown: np.ndarray) -> None:
    """Classes that no image shows, or all: the weights are a distribution over all images."""
    weights = image_weights(shown, 1.0)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


def sample(value: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of one grey level with a square of each of two classes."""
    masks = np.zeros((2, 8, 12), dtype=np.uint8)
    masks[0, :2, :2] = masks[1, 5:, 5:] = value % 2
    return np.full((8, 12), value, dtype=np.uint8), masks


def test_a_pasted_defect_hides_what_was_there() -> None:
    """The pixels and masks of one class of the other; everything else stays, the inputs too."""
    own = sample(3)
    own[1][1, :2, :2] = 1  # will be covered by class 1 of the other, which is not of class 2
    other = sample(5)
    seen = set()
    for seed in range(8):
        image, masks = copy_paste(np.random.default_rng(seed), own, other, 2)
        where = image == 5
        seen.add(int(where.sum()))
        np.testing.assert_array_equal(masks[:, where], other[1][:, where])
        np.testing.assert_array_equal(masks[:, ~where], own[1][:, ~where])
    assert seen == {4, 21}  # each of the two squares, whole
    assert (own[0] == 3).all()


def test_nothing_is_pasted_of_a_clean_image() -> None:
    """The sample stays what it is."""
    image, masks = copy_paste(np.random.default_rng(0), sample(3), sample(4), 2)
    np.testing.assert_array_equal(image, sample(3)[0])
    np.testing.assert_array_equal(masks, sample(3)[1])


def test_a_cut_is_a_rectangle_of_any_size() -> None:
    """Pixels and masks inside are the other's; on average half of the area."""
    shares = []
    for seed in range(200):
        image, masks = cutmix(np.random.default_rng(seed), sample(3), sample(5))
        where = image == 5
        rows, columns = where.any(axis=1), where.any(axis=0)
        np.testing.assert_array_equal(where, np.outer(rows, columns))
        np.testing.assert_array_equal(masks[:, where], sample(5)[1][:, where])
        shares.append(where.mean())
    assert 0.4 < np.mean(shares) < 0.6
