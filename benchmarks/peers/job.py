"""What a peer is given and gives back, as plain files. Runs in the peer's own environment.

A peer has a module with `train(job)`, which leaves its model in the job's folder, and `load(job)`,
which returns a function from an image to probabilities. Here are the files around them:

    images/ID.png   grey, or BGR
    masks/ID.png    bit k of a pixel is set where it shows class k
    labels/ID.txt   the same as polygons, in Ultralytics' format
    JOB/job.json    the job
    JOB/maps/ID.npz the answer: probabilities times 255, (C, H, W) uint8
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
Predict = Callable[[Image], Maps]
"""From an image, (H, W, 3) BGR, to the probabilities of its pixels, (C, H, W) in 0..1."""


class Job(NamedTuple):
    """What to train, on what, and for how long."""

    folder: Path
    peer: str
    seed: int
    cpu_seconds: float
    """of training, everything from the images to the finished model"""
    classes: list[int]
    channels: int
    side: int
    """the median of the images' longer sides, rounded up to a multiple of 32, at most 640"""
    encoder_weights: str
    """a .safetensors file, for peers that train our encoder"""
    train: list[str]
    validation: list[str]
    test: list[str]

    def image(self, name: str) -> Image:
        """Read an image: (H, W, 3) BGR."""
        image_hwc = cv2.imread(str(self.path("images", name)), cv2.IMREAD_COLOR)
        assert image_hwc is not None
        return image_hwc.astype(np.uint8, copy=False)

    def masks(self, name: str) -> Image:
        """Read the masks of an image: (H, W, C) of 0 and 1."""
        bits_hw = cv2.imread(str(self.path("masks", name)), cv2.IMREAD_UNCHANGED)
        assert bits_hw is not None
        return unpack(bits_hw, len(self.classes))

    def path(self, kind: str, name: str) -> Path:
        """Return the file of an image or its masks."""
        return self.folder.parent / kind / f"{name}.png"

    def share(self) -> float:
        """Tell which share of the budget is spent, 0 to 1."""
        return min(cpu_seconds() / self.cpu_seconds, 1.0)


def pack(masks_chw: Image) -> npt.NDArray[np.uint16]:
    """Write masks of at most 16 classes as bits: (C, H, W) of 0 and 1 to (H, W)."""
    bits = 1 << np.arange(len(masks_chw), dtype=np.uint16)
    return np.tensordot(bits, masks_chw.astype(np.uint16), axes=1)


def unpack(bits_hw: npt.NDArray[Any], n_classes: int) -> Image:
    """Read what `pack` wrote: (H, W) to (H, W, C) uint8."""
    return (bits_hw[..., None] >> np.arange(n_classes, dtype=bits_hw.dtype) & 1).astype(np.uint8)


def cpu_seconds() -> float:
    """Tell the processor time of this process, all of its threads, and its finished children."""
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read(folder: Path) -> Job:
    """Read the job of a folder."""
    return Job(folder.resolve(), **json.loads((folder / "job.json").read_text()))


def read_maps(job: Job, name: str) -> Maps:
    """Read an answer: (C, H, W) in 0..1."""
    with np.load(job.folder / "maps" / f"{name}.npz") as file:
        maps_chw: Maps = np.divide(file["maps"], 255, dtype=np.float32)
    return maps_chw


def main(
    package: str, train: Callable[[Job], None], load: Callable[[Job], Predict], argv: list[str]
) -> None:
    """Run `train JOB` or `predict JOB`; the latter also writes how long an image takes."""
    action, folder = argv
    job = read(Path(folder))
    if action == "train":
        train(job)
        return
    seconds = list(answer(job, load(job)))
    facts = {"version": version(package), "ms_per_image": 1000 * float(np.mean(seconds))}
    (job.folder / "predicted.json").write_text(json.dumps(facts))


def answer(job: Job, predict: Predict) -> Iterator[float]:
    """Predict all images of a job, and yield the processor time of each."""
    (job.folder / "maps").mkdir(exist_ok=True)
    predict(job.image(job.validation[0]))  # the first call pays for first times
    for name in [*job.validation, *job.test]:
        image_hwc, start = job.image(name), cpu_seconds()
        maps_chw = predict(image_hwc)
        yield cpu_seconds() - start
        rounded = np.rint(maps_chw * 255).astype(np.uint8)
        np.savez_compressed(job.folder / "maps" / f"{name}.npz", maps=rounded)


def run(package: str, train: Callable[[Job], None], load: Callable[[Job], Predict]) -> None:
    """Be the main program of a peer's module."""
    main(package, train, load, sys.argv[1:])
