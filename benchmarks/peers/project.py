"""Folders in which the pipeline's own stages run, beside the repository's, and what peers get.

All of it is below `benchmarks/peers/.work`, which git ignores: delete `.work/DATASET` after a
change of the data or their split.
"""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import cv2
import numpy as np
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides

from benchmarks.inputs import ROOT
from benchmarks.peers.job import pack
from steelseg.core.arrays import Pixels, Uint8
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import write_json, write_text
from steelseg.core.params import read_yaml
from steelseg.data import decoding, fold_table, image_table
from steelseg.data.cache import Cache
from steelseg.formats import outlines
from steelseg.formats.yolo import to_line

WORK = Path(__file__).parent / ".work"
PREPARE = ("check_params", "pivot_csv", "stratified_split", "cache_masks")
DATA = ("annotations.parquet", "test_images.parquet", "folds.parquet", "cache")
LARGEST_SIDE, MOST_CLASSES = 640, 16


def lay_out(folder: Path, overrides: Sequence[str]) -> None:
    """Make a folder in which stages run: the repository's code, and its params.yaml overridden.

    Raises:
        SteelsegError: an override is not one for `dvc exp run -S`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "stages", "dvc.yaml"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", folder)
    raw = (ROOT / read_yaml(ROOT / "params.yaml")["data_root"]).resolve()
    try:
        apply_overrides(str(folder / "params.yaml"), [f"data_root={raw}", *overrides])
    except InvalidArgumentError as error:
        raise SteelsegError(f"`-S`: {error.__cause__}") from error


def run_stages(folder: Path, stages: Sequence[str]) -> float:
    """Run stages, and return their seconds of processor time."""
    environment = {
        "PYTHONPATH": "src",
        "DVC_ROOT": str(folder),
        "STEELSEG_TRACKING": "off",  # would cost processor time that no peer spends
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return sum(run([sys.executable, f"stages/{s}.py"], folder, environment) for s in stages)


def run(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Run a command, and return the processor time of all its processes in seconds.

    Raises:
        SteelsegError: it fails.
    """
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=folder, env={**os.environ, **environment}, check=False)
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SteelsegError(f"{' '.join(words)}: failed, see above")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(dataset: str) -> Path:
    """Run the stages up to the cache for a data set, once, and write the files of peers.

    Returns:
        The folder: `project/` for the stages, `images`, `masks`, `labels` and `files.json` for
        peers.
    """
    folder = WORK / dataset
    if not (folder / "files.json").is_file():
        lay_out(folder / "project", [f"dataset={dataset}"])
        run_stages(folder / "project", PREPARE)
        write_json(folder / "files.json", _write_files(folder))
    return folder


def share_data(of: Path, folder: Path) -> None:
    """Let another folder of stages read what `prepare` made."""
    (folder / "data").mkdir(exist_ok=True)
    for name in DATA:
        (folder / "data" / name).unlink(missing_ok=True)
        (folder / "data" / name).symlink_to(of / "project" / "data" / name)


def _write_files(folder: Path) -> dict[str, Any]:
    """Write images, masks and labels, and return all of a job that the data determine."""
    project = folder / "project"
    params = read_yaml(project / "params.yaml")
    cache, folds = open_data(folder)
    numbers = fold_table.fold_numbers(folds)
    _refuse_what_peers_cannot_read(cache)
    for kind in ("images", "masks", "labels"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir()
    for row in range(len(cache)):
        _write_image(folder, f"r{row:05d}", cache.image(row))
        _write_masks(folder, f"r{row:05d}", cache.masks(row))
    tests = test_names(folder)
    raw = Path(params["data_root"]) / params["dataset"] / "test_images"
    for at, name in enumerate(tests):
        _write_image(folder, f"t{at:05d}", decoding.read(raw / name, cache.pixels).image)
    longer = statistics.median(max(size_hw) for size_hw in cache.sizes_hw)
    return {
        "classes": cache.classes,
        "channels": cache.pixels.channels,
        "side": min(int(longer) + -int(longer) % 32, LARGEST_SIDE),
        "train": _ids(fold_table.trained_on(numbers, params["fold"])),
        "validation": _ids(np.flatnonzero(numbers == params["fold"])),
        "test": [f"t{at:05d}" for at in range(len(tests))],
    }


def open_data(folder: Path) -> tuple[Cache, Any]:
    """Open the cache and the fold table that `prepare` made."""
    data = folder / "project" / "data"
    cache = Cache(data / "cache")
    return cache, fold_table.read(data / "folds.parquet", cache.names, cache.annotations)


def test_names(folder: Path) -> list[str]:
    """Return the test images, in the order of their ids."""
    return image_table.read(folder / "project" / "data" / "test_images.parquet").names


def encoder_weights(folder: Path) -> str:
    """Return the file of weights that our default encoder starts from."""
    from steelseg.model.card import ModelConfig  # imports torch
    from steelseg.model.pretrained import resolve

    params = read_yaml(folder / "project" / "params.yaml")
    config = ModelConfig(**{k: v for k, v in params.items() if k in ModelConfig.model_fields})
    return str(Path(resolve(config)[1].weights or "").resolve())


def _refuse_what_peers_cannot_read(cache: Cache) -> None:
    if cache.pixels.depth != 8 or cache.pixels.channels not in (1, 3):
        raise BadInput(f"peers read 8-bit grey and colour images, not {cache.pixels.describe()}")
    if len(cache.classes) > MOST_CLASSES:
        raise BadInput(f"peers get masks of at most {MOST_CLASSES} classes")


def _ids(rows: Sequence[int] | Any) -> list[str]:
    return [f"r{row:05d}" for row in rows]


def _write_image(folder: Path, name: str, image: Pixels) -> None:
    planes = image[::-1].transpose(1, 2, 0) if image.ndim == 3 else image  # OpenCV has BGR
    cv2.imwrite(str(folder / "images" / f"{name}.png"), planes)


def _write_masks(folder: Path, name: str, masks_chw: Uint8) -> None:
    cv2.imwrite(str(folder / "masks" / f"{name}.png"), pack(masks_chw))
    lines = [to_line(i, p, m) for i, m in enumerate(masks_chw) for p in outlines.trace(m)]
    write_text(folder / "labels" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
