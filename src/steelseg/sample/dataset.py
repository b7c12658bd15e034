"""A synthetic Severstal look-alike in Kaggle's raw layout, so that the pipeline runs without data.

Image i of a split depends only on the seed, the split and i. So images can be drawn in parallel,
and a longer set begins with the shorter one. The same numpy and OpenCV give the same bytes.
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
    """Number and size of the synthetic images."""

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
    """An image on disk: its split, its file name, and the RLE of each class it shows."""

    split: int
    name: str
    rles: dict[int, str]


_FOLDERS = ("train_images", "test_images")
# Dealt like cards, 20 images at a time, so that small sets are balanced too: 32 of 80 pairs have a
# defect, so an all-empty submission scores a pair-Dice of 0.6.
_DECK: tuple[tuple[int, ...], ...] = (
    *[(), (), ()],
    *[(1,), (2,), (3,), (3,), (4,), (4,)],
    *[(1, 2), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4), (3, 4)],
    *[(1, 2, 3), (1, 3, 4), (1, 2, 3, 4)],
)
_SERIAL_UP_TO = 16  # drawing so few images takes less time than starting a pool


def generate(
    root: Path, config: SampleConfig, seed: int, *, progress: Progress = lambda items, _: items
) -> None:
    """Write train.csv, sample_submission.csv, train_images/ and test_images/ under `root`.

    The csv files appear once all images are written. Call it under `if __name__ == "__main__"`,
    since the images are drawn in spawned processes.

    Args:
        root: the folder of the data set, created if absent.
        config: number and size of the images.
        seed: 0 or more.
        progress: wraps an iterable of known length, like `lambda items, n: tqdm(items, total=n)`.

    Raises:
        BadInput: an image folder already has files, which would count as clean images.
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
    """Render the jobs in order, in parallel if there are enough of them."""
    if len(jobs) <= _SERIAL_UP_TO:
        yield from map(render, jobs)
        return
    # spawned, since forking a process with threads (as torch has) can deadlock
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(render, jobs, chunksize=4)


def _render(root: Path, config: SampleConfig, seed: int, job: Job) -> Rendered:
    """Draw one image and write it as a JPEG."""
    rng = np.random.default_rng([seed, *job])
    grey, masks = make_scene(rng, (config.height, config.width), _deal(seed, job))
    bgr = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # Severstal stores its grey images as colour
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    name = _name(seed, job)
    (root / _FOLDERS[job.split] / name).write_bytes(jpeg.tobytes())
    return Rendered(job.split, name, {c: rle.encode(m) for c, m in masks.items() if m.any()})


def _deal(seed: int, job: Job) -> tuple[int, ...]:
    """Return the classes of an image: its card from a deck reshuffled every 20 images."""
    deck, card = divmod(job.i, len(_DECK))
    order = np.random.default_rng([seed, job.split, deck, 1]).permutation(len(_DECK))
    return _DECK[order[card]]


def _name(seed: int, job: Job) -> str:
    """Return a name of 9 hex digits; the odd step makes 2**36 names unique."""
    code = (0x9E3779B97 * (2 * job.i + job.split) + 0x5851F42D3 * seed) % 2**36
    return f"{code:09x}.jpg"
