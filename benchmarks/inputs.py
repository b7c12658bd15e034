"""What is measured on: synthetic images and masks, and real run lengths where they are there."""

import csv
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np

from steelseg.core.arrays import Float32, Uint8
from steelseg.core.classes import default_classes
from steelseg.core.sealed import read_sealed_json, write_sealed_json
from steelseg.data import annotations, cache_writer, label_csv, rle
from steelseg.data.cache import MANIFEST, Cache
from steelseg.data.inspection import inspect_folder
from steelseg.sample.dataset import SampleConfig, generate
from steelseg.sample.scene import CLASSES, make_scene

Mask = Uint8
Probability = Float32

ROOT = Path(__file__).parents[1]
REAL_SIZE_HW = (256, 1600)


class Scale(NamedTuple):
    """How much is measured."""

    size_hw: tuple[int, int] = REAL_SIZE_HW
    n_images: int = 32
    """images of the data set that loading, training and prediction read"""
    n_validation: int = 200
    """images of the threshold search"""
    n_growth: tuple[int, ...] = (250, 1000, 4000)
    """images of the data sets that show how time and memory grow"""
    n_mixed: tuple[int, int] = (500, 3630)
    """images of the data sets of mixed sizes that show how the memory of stages grows"""
    n_stages: int | None = None
    """stages whose start-up and memory are measured; None for all"""
    n_copies: int = 1
    """times that the GPU's data set holds each of its images"""
    n_steps: int = 250
    """calls of the network that a timing on a GPU has at least"""
    rounds: int = 5
    arch_options: Mapping[str, Any] = MappingProxyType({})
    """of the Unet that prediction is measured with"""


FULL = Scale()
LARGE = Scale(n_images=256, n_copies=49, rounds=3)  # as many images as Severstal's 12,568, but 24
TINY = Scale(
    size_hw=(64, 96),
    n_images=8,
    n_validation=4,
    n_growth=(4, 8),
    n_mixed=(6, 8),
    n_stages=2,
    n_copies=2,
    n_steps=2,
    rounds=1,
    arch_options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
)


class DataSet(NamedTuple):
    """A data set in Kaggle's raw layout, and its cache."""

    folder: Path
    cache: Cache


@contextmanager
def data_set(scale: Scale) -> Iterator[DataSet]:
    """Draw a synthetic data set into a temporary folder."""
    height, width = scale.size_hw
    with tempfile.TemporaryDirectory(prefix="steelseg-bench-") as temporary:
        folder = Path(temporary) / "raw"
        generate(
            folder, SampleConfig(n_train=scale.n_images, n_test=1, height=height, width=width), 0
        )
        yield DataSet(folder, build_cache(folder, Path(temporary) / "cache"))


def build_cache(folder: Path, out: Path) -> Cache:
    """Write and open the cache of a data set."""
    inspection = inspect_folder(folder / "train_images", skip_bad=False)
    labels = label_csv.read(folder / "train.csv")
    table = annotations.build(inspection, labels, default_classes(CLASSES), folder / "train.csv")
    for _ in cache_writer.write(out, folder / "train_images", table, 128):
        pass
    return Cache(out)


def many_times(cache: Cache, n_copies: int, folder: Path) -> Cache:
    """Return a cache that holds another's images so many times: its shards have as many names."""
    folder.mkdir()
    manifest, shards = read_sealed_json(cache.folder / MANIFEST), {}
    for number in range(n_copies):
        for name, digest in manifest["shards"].items():
            (folder / f"{number:03d}-{name}").hardlink_to(cache.folder / name)
            shards[f"{number:03d}-{name}"] = digest
    n_images = n_copies * manifest["images"]
    write_sealed_json(folder / MANIFEST, {**manifest, "images": n_images, "shards": shards})
    return Cache(folder)


@cache
def mask_sets(n_images: int, size_hw: tuple[int, int]) -> Uint8:
    """Draw the masks of synthetic scenes: (N, C, H, W) uint8, about as full as real ones."""
    rng = np.random.default_rng(0)
    some = [(), (1,), (2,), (3,), (3,), (4,), (3, 4), (1, 3)]
    scenes = [make_scene(rng, size_hw, classes)[1] for classes in some]
    empty = np.zeros(size_hw, dtype=np.uint8)
    distinct = np.array([[scene.get(c, empty) for c in CLASSES] for scene in scenes])
    return distinct[np.arange(n_images) % len(distinct)]


def guess(rng: np.random.Generator, masks: Mask) -> Probability:
    """Make up what a network answers where the masks (..., H, W) are true: soft, and not right."""
    size_wh = masks.shape[-1:-3:-1]
    answers = np.empty(masks.shape, dtype=np.float32)
    for index in np.ndindex(masks.shape[:-2]):
        soft = cv2.blur(masks[index].astype(np.float32), (15, 15))
        rough = rng.standard_normal((-(-size_wh[1] // 16), -(-size_wh[0] // 16)), dtype=np.float32)
        field = soft * 6 - 3.5 + cv2.resize(rough, size_wh)
        answers[index] = 1 / (1 + np.exp(-field))
    return answers


def components(n_components: int, size_hw: tuple[int, int]) -> Probability:
    """Draw a probability map of round components above 0.5 on a grid: (H, W) float32."""
    height, width = size_hw
    probability_hw = np.full(size_hw, 0.1, dtype=np.float32)
    n_rows = max(1, round(np.sqrt(n_components * height / width)))
    n_columns = -(-n_components // n_rows)
    for i in range(n_components):
        y, x = divmod(i, n_columns)
        centre_xy = (int((x + 0.5) * width / n_columns), int((y + 0.5) * height / n_rows))
        radius = max(1, int(min(width / n_columns, height / n_rows) / 2) - 2 - i % 3)
        cv2.circle(probability_hw, centre_xy, radius, 0.9, cv2.FILLED)
    return probability_hw


def run_lengths(scale: Scale) -> tuple[str, list[str]]:
    """Return the 1,064 real masks as RLE, or synthetic ones without them, and say which."""
    data = Path(os.environ.get("STEELSEG_DATA", ROOT.parent / "shared" / "data"))
    path = data / "rle" / "severstal_rows.csv"
    if path.is_file() and scale.size_hw == REAL_SIZE_HW:
        csv.field_size_limit(2**24)
        with path.open(newline="") as file:
            real = [r["EncodedPixels"] for r in csv.DictReader(file) if r["EncodedPixels"]]
        return f"{len(real):,} real masks", real
    masks = mask_sets(scale.n_images, scale.size_hw).reshape(-1, *scale.size_hw)
    synthetic = [rle.encode(mask_hw) for mask_hw in masks if mask_hw.any()]
    return f"{len(synthetic):,} synthetic masks", synthetic
