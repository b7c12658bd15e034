"""What is ignored reaches the cache and counts in no tuning."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import pivoted, write_dataset
from tables import SMALL

from steelseg.core.arrays import Float32
from steelseg.core.errors import BadInput
from steelseg.data import ignored, rle
from steelseg.data.cache import Cache
from steelseg.data.image_table import IGNORED, ImageTable
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.tiles import Block, Maps, as_maps
from steelseg.predict.views import ViewsConfig
from steelseg.tune import outcome, search, validation
from steelseg.tune.metrics import PREDICTED, TRUE, TRUE_POSITIVE

FOLDS = np.arange(12) % 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of 6x8, of which a.png shows both classes, b.png class 1, and c.png none."""
    return write_dataset(tmp_path / "tiny")


def marked(root: Path, text: str | None, *, skip_bad: bool = False) -> ImageTable:
    """Mark what a text of ignored.csv says."""
    if text is not None:
        (root / ignored.FILE).write_text(f"ImageId,EncodedPixels\n{text}\n")
    table, inspection = pivoted(root, skip_bad=skip_bad)
    return ignored.mark(table, root / ignored.FILE, inspection)[0]


def test_a_region_wins_over_the_classes(root: Path) -> None:
    """Class 1 of a.png, `1 3 10 2`, is cut and class 2, `48 1`, is no longer there."""
    table = marked(root, "a.png,2 9 48 1\nc.png,5 5\nb.png,")
    assert table.ignored == ["2 9 48 1", None, "5 5"]
    assert table.rles(1) == ["1 1 11 1", "7 6", None]
    assert table.rles(2) == [None, None, None]
    assert table.combinations() == ["1", "1", "clean"]
    found = ignored.report(table)
    assert found == {"images_ignored_in_part": 2, "ignored_pixels": pytest.approx(15 / 144)}


def test_an_image_of_which_nothing_is_left_is_unlabelled(root: Path) -> None:
    """It would count as clean and rightly found so; where all images are so, that is a fault."""
    (root / ignored.FILE).write_text("ImageId,EncodedPixels\nb.png,1 48\na.png,1 47\n")
    table, found = pivoted(root)
    table, found = ignored.mark(table, root / ignored.FILE, found)
    assert table.names == [one.image for one in found.images] == ["a.png", "c.png"]
    assert found.left_out == {"b.png": "unlabelled"}
    assert table.thumbnails.shape[0] == 2
    assert table.rles(2) == ["48 1", None]
    with pytest.raises(BadInput, match="all images are ignored"):
        marked(root, "a.png,1 48\nb.png,1 48\nc.png,1 48")


@pytest.mark.parametrize("text", [None, "", "a.png,"])
def test_without_a_region_the_table_is_as_it_was(root: Path, text: str | None) -> None:
    """Whether there is no file, no row or an empty one."""
    table = marked(root, text)
    assert IGNORED not in table.table.column_names
    assert table.ignored == [None, None, None]
    assert ignored.report(table) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("d.png,1 1", "line 2: image 'd.png': no such image in the training folder"),
        ("a.png,1 1\na.png,2 1", "line 3: image 'a.png' is already in line 2"),
        ("a.png,48 2", "line 2: image 'a.png': run `48 2`: runs past the end of 6x8 pixels"),
        ("a.png,1", "line 2: image 'a.png': expected pairs"),
        ("a.png,1 1,", "line 2: expected 2 fields, but got 3"),
    ],
)
def test_rows_that_mean_nothing_are_refused(root: Path, text: str, fault: str) -> None:
    """With the file and the line, as those of the masks are."""
    with pytest.raises(BadInput, match=re.escape(fault)) as error:
        marked(root, text)
    assert str(root / ignored.FILE) in str(error.value)


def test_rows_of_broken_images_are_passed_over(root: Path) -> None:
    """The image is left out, whatever is ignored in it."""
    (root / "train_images" / "b.png").write_bytes(b"")
    assert marked(root, "b.png,1 1\na.png,1 1", skip_bad=True).ignored == ["1 1", None]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.binary(min_size=12, max_size=12), st.binary(min_size=6, max_size=6))
def test_what_is_drawn_where_it_is_ignored_changes_nothing(
    root: Path, drawn: bytes, region: bytes
) -> None:
    """Two label files that differ there alone give one table."""
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(2, 6, 8)
    ignored_hw = np.unpackbits(np.frombuffer(region, np.uint8)).reshape(6, 8)
    ignored_hw[0, 0] = 0  # something is left
    tables = []
    for mask_hw in (bits[0], np.where(ignored_hw == 1, bits[1], bits[0])):
        (root / "train.csv").write_text(
            f"ImageId,ClassId,EncodedPixels\na.png,2,{rle.encode(mask_hw)}\n"
        )
        tables.append(marked(root, f"a.png,{rle.encode(ignored_hw)}"))
    if ignored_hw.any():
        assert tables[0].identity == tables[1].identity
    expected = bits[0] & ~ignored_hw & 1
    np.testing.assert_array_equal(rle.decode(tables[0].rles(2)[0] or "", (6, 8)), expected)


def test_what_is_ignored_comes_back_from_the_cache(ignored_cache: Cache, tiny_cache: Cache) -> None:
    """The masks of the classes are cut there, and it is None where nothing is ignored."""
    assert (tiny_cache.n_masks, ignored_cache.n_masks) == (2, 3)
    n_cut = 0
    for row in range(11):
        ignored_hw, before = ignored_cache.ignored(row), tiny_cache.masks(row)
        assert ignored_hw is not None
        assert ignored_hw.shape == (48, 80)
        assert ignored_hw.sum() == 25 * 30
        np.testing.assert_array_equal(ignored_cache.masks(row), before * (1 - ignored_hw))
        n_cut += int((before & ignored_hw).sum())
    assert n_cut
    assert ignored_cache.ignored(11) is None
    assert all(tiny_cache.ignored(row) is None for row in range(12))


def test_maps_are_hidden_where_pixels_are_ignored(ignored_cache: Cache) -> None:
    """In all classes, and nowhere else, whole or by blocks; those of an image without stay."""
    whole = np.full((2, 48, 80), 0.7, np.float32)
    blocks = [Block(0, 0, whole[:, :30]), Block(30, 0, whole[:, 30:, :50])]
    blocks.append(Block(30, 50, whole[:, 30:, 50:]))
    ignored_hw = ignored_cache.ignored(3)
    assert ignored_hw is not None
    for maps in (as_maps(whole), Maps((48, 80), blocks)):
        hidden = maps.outside(ignored_hw).whole()
        assert hidden.dtype == np.float32
        np.testing.assert_array_equal(hidden == 0, np.stack([ignored_hw == 1] * 2))
        assert maps.outside(ignored_cache.ignored(11)) is maps
    assert (whole == np.float32(0.7)).all()


def tuned(cache: Cache, maps: Float32, monkeypatch: pytest.MonkeyPatch) -> validation.Validation:
    """Validate the images of fold 0 by maps (N, C, H, W) that stand for a network's."""

    def answer(
        _: Any, rows: dict[int, list[int]], *rest: Callable[[int, Maps], Any]
    ) -> Iterator[Any]:
        return ((row, rest[-1](row, as_maps(maps[row]))) for row in rows[0])

    monkeypatch.setattr(validation, "out_of_fold_maps", answer)
    models, configs = {0: [Path("models")]}, (InferenceConfig(), ViewsConfig())
    thresholds = SMALL.thresholds
    return validation.validate(models, FOLDS, cache, thresholds, *configs, lambda items, _: items)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_what_is_found_where_pixels_are_ignored_changes_no_tuning(
    ignored_cache: Cache, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Rules, cross-fitted counts, landscapes and confidences are the same, whatever stands there.

    And they are not the same where it is the other pixels that differ.
    """
    rng = np.random.default_rng(seed)
    maps = rng.random((12, 2, 6, 10), np.float32).repeat(8, axis=2).repeat(8, axis=3)
    is_ignored = np.zeros((12, 1, 48, 80), bool)
    for row in range(11):
        is_ignored[row, 0] = ignored_cache.ignored(row)
    others = np.where(is_ignored, rng.random(maps.shape, np.float32), maps)
    elsewhere = np.where(is_ignored, maps, 1 - maps)
    validated = [tuned(ignored_cache, m, monkeypatch) for m in (maps, others, elsewhere)]
    first, second, third = (one.table for one in validated)
    groups = np.arange(6)
    fitted = search.cross_fit(first, SMALL, groups)
    matched = [validation.match_defects(one, ignored_cache, fitted.rules) for one in validated[:2]]
    for one, other in zip(*matched, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_equal(tuple(a), tuple(b))
    areas = [
        [[int(x.sum()) for x in (m.overlaps, m.found_areas, m.true_areas)] for m in of_image]
        for of_image in matched[0]
    ]
    assert areas == fitted.counts.tolist()
    for function in (
        lambda table: search.search(table, SMALL),
        lambda table: search.cross_fit(table, SMALL, groups).counts.tolist(),
        lambda table: outcome.landscape_of(table, [1, 2], SMALL).by_class[2].tolist(),
        lambda table: table.confidences(0).tolist(),
    ):
        assert function(first) == function(second)
    assert first.counts(0, [0]).tolist() != third.counts(0, [0]).tolist()


def test_pixels_are_counted_as_if_the_ignored_were_cut_out(
    ignored_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against sums over the other pixels alone, at every threshold."""
    maps = np.random.default_rng(5).random((12, 2, 48, 80), np.float32)
    rows, table = tuned(ignored_cache, maps, monkeypatch)
    for class_index in range(2):
        counts = table.counts(class_index, [0])[:, :, 0]
        for at, row in enumerate(rows):
            ignored_hw = ignored_cache.ignored(row)
            kept = np.ones((48, 80), bool) if ignored_hw is None else ignored_hw == 0
            truth = ignored_cache.masks(row)[class_index][kept] == 1
            for level, threshold in enumerate(SMALL.thresholds):
                found = maps[row, class_index][kept] > np.float32(threshold)
                assert counts[at, level, PREDICTED] == found.sum()
                assert counts[at, level, TRUE_POSITIVE] == (found & truth).sum()
                assert counts[at, level, TRUE] == truth.sum()
