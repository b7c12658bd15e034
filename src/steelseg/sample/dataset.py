"""A synthetic Severstal look-alike in Kaggle's raw layout, so that the pipeline runs without data.

Image i of a split depends on the seed, the split and i alone: images are drawn in parallel, and a
longer set begins with the shorter one. The same numpy and OpenCV give the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.sample.scene import CLASSES, make_scene

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


class SampleConfig(BaseModel):
    """How many synthetic images there are, and how large."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_train: int = Field(default=160, ge=1)
    n_test: int = Field(default=24, ge=1)
    height: int = Field(default=256, ge=32)
    width: int = Field(default=1600, ge=32)
    seed: int = Field(default=0, ge=0)


class Job(NamedTuple):
    """Image i of a split: 0 is train, 1 is test."""

    split: int
    i: int


class Rendered(NamedTuple):
    """An image that is on disk: its split, file name, and the RLE of every class that it has."""

    split: int
    name: str
    rles: dict[int, str]


_FOLDERS = ("train_images", "test_images")
# Dealt out like cards, 20 images at a time, so that small sets are balanced too: 32 of 80 pairs
# hold a defect, hence an all-empty submission scores 0.6 in pair-Dice.
_DECK: tuple[tuple[int, ...], ...] = (
    *[(), (), ()],
    *[(1,), (2,), (3,), (3,), (4,), (4,)],
    *[(1, 2), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4), (3, 4)],
    *[(1, 2, 3), (1, 3, 4), (1, 2, 3, 4)],
)
_SERIAL_UP_TO = 16  # so few images are drawn before a pool has started


def generate(
    root: Path, config: SampleConfig, seed: int, *, progress: Progress = lambda items, _: items
) -> None:
    """Write train.csv, sample_submission.csv, train_images/ and test_images/ under `root`.

    The csv files appear when all images are there. Call it under `if __name__ == "__main__"`,
    since the images are drawn in spawned processes.

    Args:
        root: the folder of the data set, made if absent.
        config: number and size of the images.
        seed: 0 or more.
        progress: wraps an iterable and its length, as `lambda items, n: tqdm(items, total=n)`.

    Raises:
        BadInput: an image folder holds files already, which would pass for clean images.
    """
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        if any((root / folder).iterdir()):
            raise BadInput(f"{root / folder}: expected an empty folder for the synthetic images")
    jobs = [Job(0, i) for i in range(config.n_train)] + [Job(1, i) for i in range(config.n_test)]
    rendered = _map(partial(_render, root, config, seed), jobs)
    parts = (root / "train.csv.part", root / "sample_submission.csv.part")
    with parts[0].open("w") as train, parts[1].open("w") as sample:
        train.write("ImageId,ClassId,EncodedPixels\n")
        sample.write("ImageId_ClassId,EncodedPixels\n")
        for split, name, rles in progress(rendered, len(jobs)):
            if split == 0:
                train.writelines(f"{name},{c},{rles[c]}\n" for c in sorted(rles))
            else:
                placeholder = f"1 {config.height * config.width}"
                sample.writelines(f"{name}_{c},{placeholder}\n" for c in CLASSES)
    for part in parts:
        part.replace(part.with_suffix(""))


def _map(render: Callable[[Job], Rendered], jobs: list[Job]) -> Iterator[Rendered]:
    """Render the jobs in their order, in parallel where it pays."""
    if len(jobs) <= _SERIAL_UP_TO:
        yield from map(render, jobs)
        return
    # spawned, because a fork of a process with threads (torch has them) can hang
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(render, jobs, chunksize=4)


def _render(root: Path, config: SampleConfig, seed: int, job: Job) -> Rendered:
    """Draw one image and write it as a JPEG."""
    rng = np.random.default_rng([seed, *job])
    grey, masks = make_scene(rng, (config.height, config.width), _deal(seed, job))
    bgr = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # Severstal keeps its grey images as colour
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    name = _name(seed, job)
    (root / _FOLDERS[job.split] / name).write_bytes(jpeg.tobytes())
    return Rendered(job.split, name, {c: rle.encode(m) for c, m in masks.items() if m.any()})


def _deal(seed: int, job: Job) -> tuple[int, ...]:
    """Give the classes of an image: its card of a deck that is shuffled anew every 20 images."""
    deck, card = divmod(job.i, len(_DECK))
    order = np.random.default_rng([seed, job.split, deck, 1]).permutation(len(_DECK))
    return _DECK[order[card]]


def _name(seed: int, job: Job) -> str:
    """Name an image by 9 hex digits; steps of an odd number meet no name twice in 2**36 images."""
    code = (0x9E3779B97 * (2 * job.i + job.split) + 0x5851F42D3 * seed) % 2**36
    return f"{code:09x}.jpg"
