"""Images of any sizes in one data set: each keeps its own, from the cache to its masks."""

from pathlib import Path

import numpy as np
import pytest
import tiny_training
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from saved_models import save_model
from strategies import pivoted

from steelseg.core.files import sha256
from steelseg.core.sizes import describe_sizes, pad, padded_size, typical_size
from steelseg.data import cache_writer, label_csv, rle
from steelseg.data.cache import Cache
from steelseg.data.cache_writer import shard_rows
from steelseg.data.image_table import ImageTable
from steelseg.predict import parts
from steelseg.predict.model import Model
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import Rules, write_rules
from steelseg.train.crops import TrainingCrops
from steelseg.train.fold_data import batches_of_one_size

SIZES = [(48, 80), (33, 120), (80, 48), (48, 80), (20, 20), (64, 96)] * 2
SIDES = st.integers(1, 300)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of five sizes; class 1 is a bright square in even ones, class 2 a dark one."""
    root = tmp_path_factory.mktemp("raw")
    (root / "train_images").mkdir()
    rng = np.random.default_rng(5)
    rows = []
    for number, size_hw in enumerate(SIZES):
        image_hw = rng.integers(90, 140, size_hw).astype(np.uint8)
        mask_hw = np.zeros(size_hw, dtype=np.uint8)
        mask_hw[4:16, 5:17] = 1
        image_hw[mask_hw == 1] = (250, 5)[number % 2]
        name = f"{number:02d}.png"
        Image.fromarray(image_hw).save(root / "train_images" / name)
        rows.append(label_csv.Row(name, 1 + number % 2, rle.encode(mask_hw), 0))
    (root / "train.csv").write_text(label_csv.to_text(rows))
    return root


@pytest.fixture(scope="module")
def table(raw: Path) -> ImageTable:
    """What pivot_csv makes of them."""
    return pivoted(raw)[0]


@pytest.fixture(scope="module")
def cache(raw: Path, table: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Their cache, in shards of five."""
    folder = tmp_path_factory.mktemp("cache")
    assert list(cache_writer.write(folder, raw / "train_images", table, 5)) == [5, 5, 2]
    return Cache(folder)


def test_the_cache_has_each_image_as_it_is(raw: Path, table: ImageTable, cache: Cache) -> None:
    """Pixels and masks, by their own offsets, and the statistics of all pixels together."""
    assert cache.sizes_hw == table.sizes_hw == SIZES
    assert not cache.has_one_size
    pixels = []
    for row, name in enumerate(cache.names):
        image_hw = np.asarray(Image.open(raw / "train_images" / name))
        pixels.append(image_hw.ravel())
        np.testing.assert_array_equal(cache.image(row), image_hw)
        for channel, class_id in enumerate(cache.classes):
            expected = rle.decode(table.rles(class_id)[row] or "", SIZES[row])
            np.testing.assert_array_equal(cache.masks(row)[channel], expected)
    together = np.concatenate(pixels) / 255
    assert cache.mean == [pytest.approx(together.mean())]
    assert cache.std == [pytest.approx(together.std())]


@pytest.mark.parametrize("crop_hw", [(32, 32), (64, 64), None])
@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_smaller_images_are_padded_and_never_stretched(
    cache: Cache, crop_hw: tuple[int, int] | None, mixing: float
) -> None:
    """Crops of one batch have one size; what is beyond an image repeats its edge, without mask."""
    rows = np.arange(len(cache))
    crops = TrainingCrops(cache, rows, crop_hw, 0.5, [], seed=1, cutmix=mixing, copy_paste=mixing)
    frame_hw = crop_hw or (80, 120)
    batch = crops.__getitems__(list(range(24)))
    assert batch.images.shape[2:] == padded_size(frame_hw)
    assert batch.masks.shape[2:] == frame_hw
    if not mixing and crop_hw == (64, 64):
        small = cache.sizes_hw.index((20, 20))
        image_hw = batch.images[small, 0].numpy()
        np.testing.assert_array_equal(image_hw, pad(cache.image(small), (64, 64)))
        np.testing.assert_array_equal(batch.masks[small, :, :20, :20], cache.masks(small))
        assert not batch.masks[small, :, 20:].any()


def test_a_network_is_trained_and_predicts_at_each_images_own_size(
    raw: Path, cache: Cache, table: ImageTable, tmp_path: Path
) -> None:
    """Validation does not depend on what shares a batch, and masks fit their images."""
    scores = []
    for batch_size in (1, 4):
        settings = tiny_training.config(epochs=1, validation_batch_size=batch_size)
        segmenter = tiny_training.network(cache, settings)
        keeper = tiny_training.run(cache, tmp_path / str(batch_size), settings, segmenter=segmenter)
        scores.append({k: v for k, v in keeper.kept_scores.items() if "per_second" not in k})
    assert scores[0] == pytest.approx(scores[1])
    save_model(tmp_path, segmenter, tiny_training.NETWORK)
    rule = ClassRule(threshold=0.2)
    digest = sha256(tmp_path / "model.safetensors")
    write_rules(tmp_path, Rules({1: rule, 2: rule}, digest))
    (tmp_path / "model.onnx").write_bytes(b"")
    digests, model = table.column("sha256"), Model.open(tmp_path)
    rows = list(parts.predict_images(raw / "train_images", table.names, digests, model))
    assert len(rows) == 2 * len(table)
    sizes = dict(zip(table.names, table.sizes_hw, strict=True))
    for row in rows:
        assert rle.decode(row.rle, sizes[row.image]).sum() == row.area


def test_batches_hold_images_of_one_size() -> None:
    """In the order of the images, each once; for one size as they always were."""
    sizes = [(2, 3), (4, 4), (2, 3), (2, 3), (4, 4)]
    assert batches_of_one_size(sizes, 2) == [[0, 2], [3], [1, 4]]
    assert batches_of_one_size([(2, 3)] * 5, 2) == [[0, 1], [2, 3], [4]]


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=40), st.integers(1, 9))
@settings(max_examples=50)
def test_shards_share_out_all_rows(sizes: list[tuple[int, int]], shard_images: int) -> None:
    """In order, none twice, and no more than asked for."""
    shards = list(shard_rows(sizes, shard_images))
    assert [row for rows in shards for row in rows] == list(range(len(sizes)))
    assert all(1 <= len(rows) <= shard_images for rows in shards)


def test_large_images_share_a_shard_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is held in memory; an image that is larger than one stands alone."""
    monkeypatch.setattr(cache_writer, "SHARD_BYTES", 100)
    sizes = [(5, 10), (5, 10), (1, 1), (20, 20), (9, 9)]
    assert [list(rows) for rows in shard_rows(sizes, 128)] == [[0, 1], [2], [3], [4]]


def test_sizes_are_described() -> None:
    """One as it is, many by their range."""
    assert describe_sizes([(256, 1600)] * 3) == "256x1600"
    assert describe_sizes(SIZES) == "5 sizes from 20x20 to 80x120"
    assert typical_size([(256, 1600)] * 2) == (256, 1600)
    assert typical_size([(10, 30), (20, 10), (30, 20)]) == (20, 20)
