"""Folds: every group in one, none empty, every class spread evenly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelseg.core.errors import BadInput
from steelseg.data.folds import RARE, assign_folds, merge_rare

# the training images of the Severstal competition, by the classes that they show
SEVERSTAL = {
    "": 5902,
    "3": 4759,
    "1": 769,
    "4": 516,
    "3+4": 284,
    "2": 195,
    "1+3": 91,
    "1+2": 35,
    "2+3": 14,
    "1+2+3": 2,
    "2+4": 1,
}


@st.composite
def grouped_images(draw):
    """Combinations, groups of them and a number of folds that they can fill."""
    n_folds = draw(st.integers(2, 6))
    n_groups = draw(st.integers(n_folds, 24))
    extra = draw(st.lists(st.integers(0, n_groups - 1), max_size=40))
    groups = draw(st.permutations([*range(n_groups), *extra]))
    combinations = draw(
        st.lists(st.sampled_from(["", "1", "2", "1+2"]), min_size=len(groups), max_size=len(groups))
    )
    return combinations, np.array(groups), n_folds


def test_common_combinations_stay_what_they_are():
    """Nothing is merged where every combination has an image for every fold."""
    assert merge_rare(["1", "", "1", ""], 2) == ["1", "", "1", ""]


def test_rare_combinations_share_one_stratum():
    """Combinations of fewer images than folds are merged, the others kept."""
    # 1+2 and 2+4 have one image each, together enough for two folds
    assert merge_rare(["1", "1+2", "1", "2+4"], 2) == ["1", RARE, "1", RARE]


def test_the_smallest_combination_joins_a_rare_stratum_that_is_too_small():
    """One image alone cannot be spread over folds, so the next smallest combination joins it."""
    combinations = [""] * 4 + ["1"] * 3 + ["2"]
    assert merge_rare(combinations, 3) == [""] * 4 + [RARE] * 4


def test_fewer_images_than_folds_are_refused():
    """The message says how many images there are and how many are needed."""
    with pytest.raises(BadInput, match=r"at least 5 images.* got 3"):
        merge_rare(["", "1", "2"], 5)


@given(st.lists(st.sampled_from(["", "1", "2", "3", "1+2"]), min_size=2), st.integers(2, 9))
def test_every_stratum_can_be_spread_over_the_folds(combinations, n_folds):
    """Every stratum has an image for every fold, and images of one combination share theirs."""
    if len(combinations) < n_folds:
        return
    strata = merge_rare(combinations, n_folds)
    assert min(Counter(strata).values()) >= n_folds
    assert len(set(zip(combinations, strata, strict=True))) == len(set(combinations))
    kept = {c for c, s in zip(combinations, strata, strict=True) if s != RARE}
    assert all(count >= n_folds for c, count in Counter(combinations).items() if c in kept)


@settings(deadline=None)
@given(grouped_images(), st.integers(0, 2**32 - 1))
def test_folds_keep_groups_whole_and_are_never_empty(images, seed):
    """The folds partition the images, each group lies in one, and none is empty."""
    combinations, groups, n_folds = images
    folds = assign_folds(combinations, groups, n_folds, seed)
    assert folds.shape == groups.shape
    assert folds.dtype == np.int8
    assert set(folds.tolist()) == set(range(n_folds))
    assert len(set(zip(groups.tolist(), folds.tolist(), strict=True))) == len(set(groups.tolist()))


@settings(deadline=None)
@given(grouped_images(), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_numbering_of_groups(images, random):
    """Other numbers for the same groups give the same folds."""
    combinations, groups, n_folds = images
    renamed = np.array(random.sample(range(1000), int(groups.max()) + 1))[groups]
    folds = assign_folds(combinations, groups, n_folds, 0)
    np.testing.assert_array_equal(folds, assign_folds(combinations, renamed, n_folds, 0))


def test_one_group_with_nearly_all_images_leaves_no_fold_empty():
    """A splitter that balances classes alone leaves a fold empty here."""
    combinations = list("45235004453351235401054423452543140")
    groups = np.array([0, 1, *[2] * 31, 3, 4])
    folds = assign_folds(combinations, groups, 5, 9491)
    assert sorted(folds[[0, 1, 2, -2, -1]]) == [0, 1, 2, 3, 4]


def test_severstal_is_balanced_in_every_stratum():
    """On Severstal's frequencies folds differ by 2 images a stratum and 1% a class."""
    combinations = np.repeat(list(SEVERSTAL), list(SEVERSTAL.values()))
    np.random.default_rng(0).shuffle(combinations)
    groups = np.arange(len(combinations))
    groups[1:88:2] -= 1  # 44 pairs of duplicates, some with different masks
    folds = assign_folds(combinations.tolist(), groups, 5, 0)
    assert np.ptp(np.bincount(folds)) <= 5
    strata = np.array(merge_rare(combinations.tolist(), 5))
    for stratum in np.unique(strata):
        assert np.ptp(np.bincount(folds[strata == stratum], minlength=5)) <= 2
    for label in "1234":
        has_label = np.array([label in combination.split("+") for combination in combinations])
        share = np.bincount(folds[has_label]) / has_label.sum()
        np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_groups_of_four_are_balanced():
    """Where every photograph comes in four variants, folds differ by two photographs at most."""
    photographs = np.random.default_rng(0).choice(["1", "2", "3", "1+2"], 300)
    combinations = np.repeat(photographs, 4)
    folds = assign_folds(combinations.tolist(), np.repeat(np.arange(300), 4), 5, 0)
    for combination in np.unique(photographs):
        assert np.ptp(np.bincount(folds[combinations == combination], minlength=5)) <= 8


def test_twenty_two_images_fill_five_folds():
    """A tiny data set with combinations of one image each gives five folds without a warning."""
    combinations = [*"33333333", *"1111", "2", "4", *[""] * 8]
    folds = assign_folds(combinations, np.arange(22), 5, 0)
    assert sorted(np.bincount(folds)) == [4, 4, 4, 5, 5]


def test_the_seed_decides():
    """One seed gives one result, another seed another."""
    combinations, groups = ["", "1"] * 50, np.arange(100)
    folds = assign_folds(combinations, groups, 5, 0)
    np.testing.assert_array_equal(folds, assign_folds(combinations, groups, 5, 0))
    assert (folds != assign_folds(combinations, groups, 5, 1)).any()


@pytest.mark.parametrize("n_folds", [-1, 0, 1, 128])
def test_an_impossible_number_of_folds_is_refused(n_folds):
    """The message gives the range."""
    with pytest.raises(BadInput, match=f"2 to 127 folds, got {n_folds}"):
        assign_folds([""] * 200, np.arange(200), n_folds, 0)


def test_fewer_groups_than_folds_are_refused():
    """Six variants of two photographs cannot fill three folds."""
    with pytest.raises(BadInput, match=r"at least 3 distinct images.* got 2"):
        assign_folds([""] * 6, np.array([7, 7, 7, 9, 9, 9]), 3, 0)


def test_groups_of_another_length_are_refused():
    """A mistake of the caller, not of the data."""
    with pytest.raises(ValueError, match="Expected 3 groups"):
        assign_folds([""] * 3, np.arange(2), 2, 0)
