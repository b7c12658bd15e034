"""The synthetic Severstal look-alike: legal, deterministic, balanced, and of real proportions."""

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.sample.dataset import SampleConfig, generate
from steelseg.sample.scene import CLASSES, make_scene
from steelseg.sample.surface import expose, make_surface

HALF_HW = (128, 800)  # half the camera's sides, for speed: a quarter of the areas
SMALL = SampleConfig(n_train=10, n_test=4, height=64, width=128)

# 5%, 50%, 95% of the labelled area per image and the mean number of components, counted in the
# labels of the 12,568 Severstal images.
REAL_AREAS = {
    1: (811, 3317, 11501),
    2: (983, 2949, 7147),
    3: (1843, 11960, 94011),
    4: (5120, 25354, 98549),
}
REAL_COMPONENTS = {1: 3.4, 2: 1.3, 3: 2.8, 4: 2.4}
# Median of `_contrast` in the real images at hand: 4 of class 1, 9 of class 3, 2 of class 4.
REAL_CONTRAST = {1: 1.26, 3: 1.27, 4: 2.48}


def hash_files(root: Path) -> dict[str, str]:
    """Hash every file under a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten train and four test images of 64x128, drawn in this process."""
    root = tmp_path_factory.mktemp("small")
    generate(root, SMALL, seed=3)
    return root


@pytest.fixture(scope="module")
def scenes() -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Grey image and mask of 80 scenes of each class alone."""
    return {
        c: [
            (grey, masks[c])
            for i in range(80)
            for grey, masks in [make_scene(np.random.default_rng([7, c, i]), HALF_HW, (c,))]
        ]
        for c in CLASSES
    }


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    small: Path, tmp_path: Path
) -> None:
    """Everything that is written depends on the seed alone."""
    generate(tmp_path / "again", SMALL, seed=3)
    generate(tmp_path / "other", SMALL, seed=4)
    assert hash_files(tmp_path / "again") == hash_files(small)
    assert not set(hash_files(tmp_path / "other").values()) & set(hash_files(small).values()) - {
        hashlib.sha256((small / "sample_submission.csv").read_bytes()).hexdigest()
    }


def test_a_longer_set_drawn_in_a_pool_begins_with_the_shorter_one(
    small: Path, tmp_path: Path
) -> None:
    """Image i does not depend on how many there are, nor on the process that draws it."""
    generate(tmp_path, SampleConfig(n_train=16, n_test=5, height=64, width=128), seed=3)
    longer, shorter = hash_files(tmp_path), hash_files(small)
    images = {name for name in shorter if name.endswith(".jpg")}
    assert all(longer[name] == shorter[name] for name in images)
    assert (tmp_path / "train.csv").read_text().startswith((small / "train.csv").read_text())


def test_the_layout_is_kaggles(small: Path) -> None:
    """Four things stand under the root, and nothing half-written is left."""
    names = sorted(path.name for path in small.iterdir())
    assert names == ["sample_submission.csv", "test_images", "train.csv", "train_images"]
    images = sorted(path.name for path in small.glob("*_images/*"))
    assert len(set(images)) == SMALL.n_train + SMALL.n_test
    assert all(re.fullmatch(r"[0-9a-f]{9}\.jpg", name) for name in images)


def test_sample_submission_asks_for_every_pair_of_the_test_images(small: Path) -> None:
    """One row for every test image and class, with a placeholder that covers the image."""
    sample = pd.read_csv(small / "sample_submission.csv")
    tests = {path.name for path in (small / "test_images").iterdir()}
    assert list(sample.columns) == ["ImageId_ClassId", "EncodedPixels"]
    assert set(sample["ImageId_ClassId"]) == {f"{name}_{c}" for name in tests for c in CLASSES}
    assert set(sample["EncodedPixels"]) == {f"1 {64 * 128}"}


def test_train_csv_holds_legal_rles_of_defective_pairs_only(small: Path) -> None:
    """Every row names an image on disk and an RLE that survives decoding and encoding."""
    train = pd.read_csv(small / "train.csv")
    images = {path.name for path in (small / "train_images").iterdir()}
    assert list(train.columns) == ["ImageId", "ClassId", "EncodedPixels"]
    assert set(train["ImageId"]) < images, "expected some clean images, which are in no row"
    assert set(train["ClassId"]) <= set(CLASSES)
    assert not train.duplicated(["ImageId", "ClassId"]).any()
    for encoded in train["EncodedPixels"]:
        mask = rle.decode(encoded, (64, 128))
        assert mask.any()
        assert rle.encode(mask) == encoded


def test_images_are_grey_jpegs_of_three_equal_channels(small: Path) -> None:
    """Severstal keeps its grey images as colour, so readers meet three channels."""
    for path in small.glob("*_images/*.jpg"):
        assert path.read_bytes()[:3] == b"\xff\xd8\xff"
        bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert bgr.shape == (64, 128, 3)
        assert (bgr == bgr[..., :1]).all()


def test_classes_are_balanced_at_the_default_number_of_images(tmp_path: Path) -> None:
    """All-empty scores 0.6 in pair-Dice, 15-20% are clean, and many have several classes."""
    config = SampleConfig(n_train=160, n_test=1, height=32, width=64)
    generate(tmp_path, config, seed=0)
    per_image = pd.read_csv(tmp_path / "train.csv").groupby("ImageId")["ClassId"].nunique()
    assert 1 - per_image.sum() / (4 * config.n_train) == pytest.approx(0.6, abs=0.04)
    assert 0.15 <= 1 - len(per_image) / config.n_train <= 0.2
    assert (per_image > 1).mean() > 0.4


@pytest.mark.parametrize("c", CLASSES)
def test_areas_and_components_follow_the_real_labels(
    scenes: dict[int, list[tuple[np.ndarray, np.ndarray]]], c: int
) -> None:
    """The quantiles of the areas and the mean number of components agree within a factor."""
    areas = [4 * int(mask.sum()) for _, mask in scenes[c]]
    ratios = np.percentile(areas, (5, 50, 95)) / REAL_AREAS[c]
    assert (ratios < 1.5).all(), ratios
    assert (ratios > 1 / 1.5).all(), ratios
    components = np.mean([cv2.connectedComponents(mask)[0] - 1 for _, mask in scenes[c]])
    assert 1 / 1.5 < components / REAL_COMPONENTS[c] < 1.5


@pytest.mark.parametrize("c", CLASSES)
def test_defects_lie_on_steel_and_can_be_seen(
    scenes: dict[int, list[tuple[np.ndarray, np.ndarray]]], c: int
) -> None:
    """Labelled pixels are hardly ever black, and the label differs from the steel around it."""
    black = [float((grey[mask > 0] < 8).mean()) for grey, mask in scenes[c]]
    assert np.mean(black) < 0.02
    contrasts = [_contrast(grey, mask) for grey, mask in scenes[c]]
    assert np.median(contrasts) > 1.15


@pytest.mark.parametrize("c", REAL_CONTRAST)
def test_some_defects_stand_out_as_little_as_real_ones(c: int) -> None:
    """Most are drawn stronger, since the sample trains for minutes, but a tenth of them are not."""
    scenes = [make_scene(np.random.default_rng([7, c, i]), (256, 1600), (c,)) for i in range(24)]
    contrasts = [_contrast(grey, masks[c]) for grey, masks in scenes]
    assert np.percentile(contrasts, 10) < 1.3 * REAL_CONTRAST[c] < 1.3 * np.median(contrasts)


def test_only_clean_images_are_torn_ends_of_a_coil() -> None:
    """Several of them have holes in the steel, which people label no more than the black band."""
    clean, defective = (
        [_holes(np.random.default_rng(i), clean=clean) for i in range(40)]
        for clean in (True, False)
    )
    assert 5 <= np.count_nonzero(np.array(clean) > 0.005) <= 25
    assert max(defective) < 0.001


def test_scenes_have_the_light_of_the_real_images(
    scenes: dict[int, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    """Mean and deviation of all grey levels are near Severstal's 0.344 and 0.196."""
    grey = np.stack([grey[::3, ::3] for c in CLASSES for grey, _ in scenes[c]]) / 255
    assert grey.mean() == pytest.approx(0.344, abs=0.05)
    assert grey.std() == pytest.approx(0.196, abs=0.06)
    per_image = grey.mean((1, 2))
    assert per_image.max() - per_image.min() > 0.3


def test_masks_of_an_image_do_not_overlap() -> None:
    """A pixel belongs to one class at most, even in a crowded image."""
    for i in range(10):
        _, masks = make_scene(np.random.default_rng(i), HALF_HW, (1, 2, 3, 4))
        assert set(masks) == {1, 2, 3, 4}
        assert all(mask.any() for mask in masks.values())
        assert sum(mask.astype(int) for mask in masks.values()).max() == 1


@pytest.mark.parametrize(
    "size_hw",
    [
        (32, 32),  # the smallest that is allowed
        (200, 200),  # square, as NEU-Seg
        (300, 40),  # taller than wide
        (33, 1001),  # odd, and a very long strip
    ],
)
def test_other_sizes_work(size_hw: tuple[int, int]) -> None:
    """Nothing is tied to 256x1600."""
    for i in range(10):
        classes = (1, 2, 3, 4) if i % 2 else ()
        grey, masks = make_scene(np.random.default_rng(i), size_hw, classes)
        assert grey.shape == size_hw
        assert grey.dtype == np.uint8
        assert grey.std() > 0
        assert set(masks) == set(classes)
        assert all(mask.shape == size_hw and mask.max() <= 1 for mask in masks.values())


def test_leftover_images_are_refused(tmp_path: Path) -> None:
    """Images of an earlier run are in no row of the new csv and would pass for clean ones."""
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "old.jpg").touch()
    with pytest.raises(BadInput, match=r"train_images: expected an empty folder"):
        generate(tmp_path, SMALL, seed=0)
    assert not (tmp_path / "train.csv").exists()


def test_progress_sees_every_image_and_their_number(tmp_path: Path) -> None:
    """A progress bar can wrap the images as they are finished."""
    seen = []

    def watch(items, total):
        for item in items:
            seen.append(total)
            yield item

    generate(tmp_path, SMALL, seed=0, progress=watch)
    assert seen == [14] * 14


def test_unknown_or_impossible_parameters_are_refused() -> None:
    """A typing error in the parameters is an error that names it."""
    with pytest.raises(ValidationError, match="n_trian"):
        SampleConfig(n_trian=3)
    with pytest.raises(ValidationError, match="height"):
        SampleConfig(height=8)


def _holes(rng: np.random.Generator, *, clean: bool) -> float:
    """Draw a surface, and give the share of its steel that is all but black."""
    surface = make_surface(rng, HALF_HW, clean=clean)
    steel = expose(rng, surface)[:, surface.left + 5 : surface.right - 5]
    return float((steel < 10).mean())


def _contrast(grey_hw: np.ndarray, mask_hw: np.ndarray) -> float:
    """Compare local deviation in the label with that of the steel beside it: a ratio."""
    grey = grey_hw.astype(np.float32)
    around = cv2.dilate(mask_hw, np.ones((25, 25), np.uint8)) & ~mask_hw & (grey_hw > 8)
    blurred = cv2.GaussianBlur(grey, (0, 0), 1)
    return float(blurred[mask_hw > 0].std() / (blurred[around > 0].std() + 1e-6))
