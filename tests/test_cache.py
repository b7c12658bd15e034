"""The cache gives back what went in, survives a kill, and notices damage."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from strategies import pivoted

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data import cache_writer, label_csv, rle
from steelseg.data.cache import MANIFEST, Cache
from steelseg.data.decoding import read
from steelseg.data.image_table import ImageTable


@pytest.fixture
def table(tiny_dataset: Path) -> ImageTable:
    """The annotations of the tiny data set."""
    return pivoted(tiny_dataset)[0]


def test_images_and_masks_come_back(tiny_cache: Cache, tiny_dataset: Path) -> None:
    """Every image equals its file and every mask its RLE, whichever shard they are in."""
    rows = {(r.image, r.class_id): r.rle for r in label_csv.read(tiny_dataset / "train.csv").rows}
    assert len(tiny_cache) == 12
    for i, name in enumerate(tiny_cache.names):
        image_hw = read(tiny_dataset / "train_images" / name, GREY).image
        np.testing.assert_array_equal(tiny_cache.image(i), image_hw)
        expected = [rle.decode(rows.get((name, c), ""), (48, 80)) for c in (1, 2)]
        np.testing.assert_array_equal(tiny_cache.masks(i), np.stack(expected))


def test_mean_and_deviation_are_those_of_all_pixels(tiny_cache: Cache) -> None:
    """The normalisation is computed over the whole set at once, in grey levels from 0 to 1."""
    pixels = np.stack([tiny_cache.image(i) for i in range(len(tiny_cache))]) / 255
    assert tiny_cache.mean == [pytest.approx(pixels.mean())]
    assert tiny_cache.std == [pytest.approx(pixels.std())]


def test_a_pickled_cache_opens_its_files_anew(tiny_cache: Cache) -> None:
    """Loader processes get a copy; file descriptors stay behind."""
    tiny_cache.image(0)
    copy = pickle.loads(pickle.dumps(tiny_cache))  # noqa: S301 - our own bytes, as spawn sends them
    np.testing.assert_array_equal(copy.image(11), tiny_cache.image(11))


def test_an_interrupted_write_goes_on(
    table: ImageTable, tiny_dataset: Path, tmp_path: Path, tiny_cache: Cache
) -> None:
    """Finished shards are kept, a damaged one is written again, and the result is the same."""
    writing = cache_writer.write(tmp_path, tiny_dataset / "train_images", table, 5)
    next(writing)
    next(writing)
    writing.close()
    assert not (tmp_path / MANIFEST).exists()
    first, second = sorted(tmp_path.glob("*.arrow"))
    untouched = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:-100])
    assert list(cache_writer.write(tmp_path, tiny_dataset / "train_images", table, 5)) == [5, 5, 2]
    assert first.stat().st_mtime_ns == untouched
    assert Cache(tmp_path).identity == tiny_cache.identity


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_shard_is_found_on_opening(
    tiny_cache: Cache, tmp_path: Path, damage: str
) -> None:
    """No training runs on bytes that changed after they were written."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_cache.folder, folder)
    shard = folder / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    match damage:
        case "flip":
            shard.write_bytes(data)
        case "truncate":
            shard.write_bytes(data[:-1])
        case "remove":
            shard.unlink()
    with pytest.raises(BadInput, match=r"shard-00001\.arrow"):
        Cache(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', "{"])
def test_a_manifest_that_is_none_is_refused(tiny_cache: Cache, tmp_path: Path, text: str) -> None:
    """So is one in which a single digit has changed."""
    manifest = (tiny_cache.folder / MANIFEST).read_text()
    for content in (text, manifest.replace('"images": 12', '"images": 13')):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(BadInput, match=MANIFEST):
            Cache(tmp_path)


def test_an_image_that_changed_is_refused(
    table: ImageTable, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The cache is made of the very files that pivot_csv checked."""
    images = tmp_path / "images"
    shutil.copytree(tiny_dataset / "train_images", images)
    shutil.copy(images / "0001.png", images / "0002.png")
    with pytest.raises(BadInput, match=r"0002\.png: has changed"):
        list(cache_writer.write(tmp_path / "cache", images, table, 5))
