"""Images of one part stand on one side of every split, whoever says that they are of one part."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from steelseg.core.classes import default_classes
from steelseg.core.errors import BadInput
from steelseg.data import groups, splitting
from steelseg.data.fold_table import HELD_OUT, trained_on
from steelseg.data.image_table import ImageTable
from steelseg.data.splitting import SplitConfig

SERIES = r"exp(?P<step>\d+)_num_(?P<number>\d+)"


def config(**changes: object) -> SplitConfig:
    """Two folds, and nothing else that is special."""
    usual = {"n_folds": 2, "seed": 1, "never_validate": None, "group_by": None, "test_share": 0}
    return SplitConfig(**usual | changes)


def images(names: list[str], named: list[str], shown: str, photographs: list[int]) -> ImageTable:
    """A table of images of one class, whose pixels are those of some numbered photographs."""
    noise = np.random.default_rng(3).integers(0, 255, (1 + max(photographs), 32, 32))
    columns = {
        "image": names,
        "height": [32] * len(names),
        "width": [64] * len(names),
        "thumbnail": pa.array(
            [noise[p].astype(np.float16).tobytes() for p in photographs], pa.binary(2048)
        ),
        "group": named,
        "rle_1": pa.array(["1 1" if s == "1" else None for s in shown], pa.string()),
    }
    return ImageTable(pa.table(columns), default_classes([1]))


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[str], list[str], str, list[int]]:
    """Names with a letter of a part or none, groups of images.csv, classes, and photographs."""
    n = draw(st.integers(12, 24))
    letters = draw(st.lists(st.sampled_from("abcdefgh-"), min_size=n, max_size=n))
    names = sorted(f"{letter}{i:02}.png" for i, letter in enumerate(letters))
    named = draw(st.lists(st.sampled_from(["", "", "", "", "x", "y"]), min_size=n, max_size=n))
    shown = draw(st.text("01", min_size=n, max_size=n))
    return names, named, shown, draw(st.lists(st.integers(0, 2 * n), min_size=n, max_size=n))


@settings(max_examples=60, deadline=None)
@given(parts(), st.sampled_from([0, 0.1, 0.25, 0.5]))
def test_no_part_stands_on_two_sides(
    drawn: tuple[list[str], list[str], str, list[int]], test_share: float
) -> None:
    """By a pattern, by images.csv, or as copies, of any folds and with or without a test set."""
    table = images(*drawn)
    try:
        split = splitting.split(table, config(group_by="^[a-z]", test_share=test_share))
    except BadInput:  # too few parts
        reject()
    folds = split["fold"].to_numpy()
    assert set(folds) <= {HELD_OUT, 0, 1}
    assert (HELD_OUT in folds) == (test_share > 0)
    names, named, _, photographs = drawn
    for keys in ([name[0] for name in names], named, photographs):
        for key in set(keys) - {"", "-"}:
            members = [fold for fold, other in zip(folds, keys, strict=True) if other == key]
            assert len(set(members)) == 1
    for fold in (0, 1):
        assert set(folds[trained_on(folds, fold)]) == {1 - fold}


@settings(max_examples=30, deadline=None)
@given(parts())
def test_what_says_nothing_changes_nothing(
    drawn: tuple[list[str], list[str], str, list[int]],
) -> None:
    """Groups of one image each are no groups."""
    names, _, shown, photographs = drawn
    plain = images(names, [""] * len(names), shown, photographs)
    lonely = images(names, [f"{i}" for i in range(len(names))], shown, photographs)
    try:
        expected = splitting.split(plain, config())
    except BadInput:
        return
    assert splitting.split(
        ImageTable(plain.table.drop("group"), plain.class_infos), config()
    ).equals(expected)
    assert splitting.split(lonely, config(group_by=".*")).equals(expected)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["", "a", "b", "c"])), max_size=12))
def test_merged_groups_are_those_that_keys_connect(drawn: list[tuple[int, str]]) -> None:
    """Against an oracle that unites sets one after another."""
    _, numbers = np.unique([group for group, _ in drawn], return_inverse=True)
    keys = [key for _, key in drawn]
    found = groups.merge(numbers.astype(np.int64), keys)
    sets = [{i} for i in range(len(keys))]
    for i in range(len(keys)):
        for j in range(i):
            if numbers[i] == numbers[j] or (keys[i] and keys[i] == keys[j]):
                united = sets[i] | sets[j]
                for member in united:
                    sets[member] = united
    for i in range(len(keys)):
        assert {j for j in range(len(keys)) if found[j] == found[i]} == sets[i]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^coil[0-9]+", ["coil7", "coil7", "", "coil12"]),
        ("^coil([0-9]+)", ["7", "7", "", "12"]),
        ("^coil(?:[0-9])([0-9])?", ["", "", "", "2"]),
        ("/(.+)", ["", "", "week3.jpg", ""]),
    ],
)
def test_a_pattern_finds_the_part_in_a_name(pattern: str, expected: list[str]) -> None:
    """Its first group or the whole match; names that do not fit belong to nothing."""
    names = ["coil7_0001.png", "coil7_0002.png", "partA/week3.jpg", "coil12_0001.png"]
    assert groups.keys_of(names, pattern) == expected


def test_test_images_are_grouped_by_images_csv_or_by_name() -> None:
    """By the file first; names may follow another rule than the training images', or none."""
    names = ["coil7/1.png", "coil7/2.png", "other.png"]
    listed = {"coil7/1.png": "B", "other.png": "A"}
    by_name = {"coil7/1.png": "coil7", "coil7/2.png": "coil7"}

    def of(pattern: str | None, given: Mapping[str, str]) -> dict[str, str]:
        columns = {"image": names, "group": [given.get(name, "") for name in names]}
        return splitting.groups_of(ImageTable(pa.table(columns), []), config(group_by=pattern))

    assert of(None, {}) == of("plate", {}) == {}
    assert of("^(.+)/", {}) == by_name
    assert of(None, listed) == listed
    assert of("^(.+)/", listed) == by_name | listed


def test_series_begin_where_the_step_does_not_rise() -> None:
    """Magnetic tiles: up to six exposures of one tile, and numbers that go on from tile to tile."""
    named = {
        "a/exp1_num_18.jpg": 1,
        "b/exp2_num_21.jpg": 1,
        "a/exp6_num_30.jpg": 1,
        "a/exp1_num_100.jpg": 2,
        "c/exp3_num_104.jpg": 2,
        "c/exp3_num_110.jpg": 3,
        "other.jpg": 0,
    }
    keys = groups.keys_of([*named], SERIES)
    of_series = dict(zip(keys, named.values(), strict=True))
    assert [of_series[key] for key in keys] == [*named.values()]
    assert len(of_series) == 4
    assert keys[-1] == ""


def test_patterns_that_cannot_be_meant_are_refused() -> None:
    """One that fits nothing, one that is none, and a number that is none."""
    with pytest.raises(BadInput, match=r"'coil' matches no image name, such as 'a\.png'"):
        groups.keys_of(["a.png"], "coil")
    with pytest.raises(BadInput, match="expected digits as `step` and `number`"):
        groups.keys_of(["a_1.png"], r"(?P<step>\w)_(?P<number>\d)")
    with pytest.raises(ValueError, match="a regular expression"):
        config(group_by="(")


LEADING = r"^((?:.*/)?[^/\d]*\d+)[ _(-]"
LEADING_IN_SPLITS = r"([^/\d]*\d+)[ _(-]"
SPLITS = ["train", "valid", "test"]
ROBOFLOW = [f"{SPLITS[i % 3]}/images/p{p}-{i}.jpg" for p in range(9) for i in range(4)]
TILES = [f"MT_Free/exp{e}_num_{t * 1000 + 17 * e}.jpg" for t in range(9) for e in range(1, 7)]


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([f"coil{c}_{i:04}.png" for c in range(7) for i in range(4)], r"^(.+)[_-]\d+\."),
        ([f"part{p}/week{w}.jpg" for p in "ABCD" for w in range(9)], "^(.+)/"),
        (TILES, SERIES),
        ([f"job/part {p} ({i}).jpg" for p in range(9) for i in range(4)], r"^(.+)[ (]+\d+\)?\."),
        ([f"p/teil{p}_oben_x{i}.jpg" for p in range(9) for i in range(4)], LEADING),
        (ROBOFLOW, r"([^/]+)[_-]\d+\."),
        ([name.replace(".jpg", "_jpg.rf.0a1b.jpg") for name in ROBOFLOW], LEADING_IN_SPLITS),
    ],
)
def test_names_that_look_grouped_are_told_with_a_rule_that_groups_them(
    names: list[str], rule: str
) -> None:
    """Unless somebody has said how, in either place."""
    shown = "01" * (len(names) // 2)
    table = images(names, [""] * len(names), shown, list(range(len(names))))
    (warning,) = splitting.hint(table, config())
    assert warning.endswith(f"-S \"stratified_split.group_by='{rule}'\"")
    assert 1 < len(set(groups.keys_of(names, rule))) < len(names) / 2
    assert not [*splitting.hint(table, config(group_by=rule))]
    named = images(names, ["x", *[""] * (len(names) - 1)], shown, list(range(len(names))))
    assert not [*splitting.hint(named, config())]


@pytest.mark.parametrize(
    ("names", "combinations"),
    [
        ([f"{n:09x}.jpg" for n in range(10**9, 10**9 + 900, 9)], ["clean"] * 100),
        ([f"{n:05}.jpg" for n in range(100)], ["clean"] * 100),
        ([f"image_{n:05}.jpg" for n in range(100)], ["clean"] * 100),
        (
            [f"{c}/{n}.jpg" for c in "abcd" for n in range(25)],
            [c for c in "abcd" for _ in range(25)],
        ),
        (["a.jpg"], ["clean"]),
    ],
)
def test_names_that_look_like_nothing_are_left_alone(
    names: list[str], combinations: list[str]
) -> None:
    """Severstal's, NEU-Seg's, one series of all, and folders that hold one class each."""
    assert groups.suggest_rule(names, combinations) == ""
