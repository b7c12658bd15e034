"""How time and memory grow with the number of images: caching, loading and the threshold search.

Each size is measured in a process of its own, on small images: time should be linear in their
number, and memory should not depend on it.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from timeit import Timer

import cv2
import numpy as np

from benchmarks.inputs import Scale, guess, mask_sets
from benchmarks.table import Row
from steelseg.core.classes import default_classes
from steelseg.core.sizes import Size
from steelseg.data import annotations, cache_writer, image_table, label_csv, rle
from steelseg.data.cache import Cache
from steelseg.data.inspection import inspect_folder
from steelseg.tune import search
from steelseg.tune.components import ComponentTable
from steelseg.tune.search import TuneConfig

SIZE_HW = (64, 96)
SHARD_IMAGES = 64
MEBIBYTE = 1024  # kibibytes


def rows(scale: Scale) -> Iterator[Row]:
    """Seconds per image, and growth of the memory while it works, at the extremes."""
    few, *_, many = scale.n_growth
    with tempfile.TemporaryDirectory() as temporary:
        for n in scale.n_growth:
            draw(Path(temporary) / str(n), n)
        for job in JOBS:
            found: dict[int, list[dict[str, float]]] = {n: [] for n in scale.n_growth}
            for _ in range(scale.rounds):
                for n in scale.n_growth:
                    found[n].append(in_process(job, Path(temporary) / str(n)))
            for n in scale.n_growth:
                seconds, mebibytes = (
                    median(turn[key] for turn in found[n]) for key in ("seconds", "mebibytes")
                )
                print(f"{job}, {n:,} images: {seconds:.3g} s, +{mebibytes:.3g} MiB")
            at = {
                n: {key: median(turn[key] for turn in found[n]) for key in found[n][0]}
                for n in (few, many)
            }
            each = {n: at[n]["seconds"] / n for n in (few, many)}
            yield Row(f"{job}: an image of {many:,}", each[many], f"of {few:,}", each[few], 0.8)
            memory = {n: max(at[n]["mebibytes"], 1.0) for n in (few, many)}
            what = f"{job}: memory at {many:,} images"
            yield Row(what, memory[many], f"at {few:,}", memory[few], None, "MiB")


def draw(folder: Path, n_images: int) -> None:
    """Write a data set of one size, and the table of its images."""
    draw_images(folder, n_images, lambda _: SIZE_HW)
    inspection = inspect_folder(folder / "train_images", skip_bad=False)
    labels = label_csv.read(folder / "train.csv")
    table = annotations.build(
        inspection, labels, default_classes([1, 2, 3, 4]), folder / "train.csv"
    )
    image_table.write(folder / "annotations.parquet", table)


def draw_images(
    folder: Path, n_images: int, size_of: Callable[[np.random.Generator], Size], seed: int = 0
) -> None:
    """Write noise, a square in every second image, and the csv of the squares."""
    rng = np.random.default_rng(seed)
    (folder / "train_images").mkdir(parents=True)
    lines = ["ImageId,ClassId,EncodedPixels"]
    for i in range(n_images):
        size_hw = size_of(rng)
        image_hw = rng.integers(90, 140, size_hw).astype(np.uint8)
        if i % 2:
            mask_hw = np.zeros(size_hw, dtype=np.uint8)
            top, left = (int(rng.integers(size - 20)) for size in size_hw)
            mask_hw[top : top + 20, left : left + 20] = 1
            image_hw[mask_hw == 1] += 80
            lines.append(f"{i:05d}.jpg,{1 + i // 2 % 4},{rle.encode(mask_hw)}")
        cv2.imwrite(str(folder / "train_images" / f"{i:05d}.jpg"), image_hw)
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def in_process(job: str, folder: Path) -> dict[str, float]:
    """Run one job in a process that has done nothing but imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "steelseg.train.crops"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measure, job, folder).result()


def cache_masks(folder: Path) -> Callable[[], object]:
    """Write the cache anew."""
    table = image_table.read(folder / "annotations.parquet")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    images = folder / "train_images"
    return lambda: list(cache_writer.write(folder / "cache", images, table, SHARD_IMAGES))


def load_batches(folder: Path) -> Callable[[], object]:
    """Load every image once, whole."""
    from torch.utils.data import DataLoader

    from steelseg.train.batch import collate
    from steelseg.train.crops import WholeImages

    cache = Cache(folder / "cache")
    images = WholeImages(cache, np.arange(len(cache)))
    loader = DataLoader(images, batch_size=8, shuffle=True, collate_fn=collate)
    next(iter(loader))
    return lambda: sum(1 for _ in loader)


def tune_threshold(folder: Path) -> Callable[[], object]:
    """Measure the components of every image, and search the whole grid."""
    masks = mask_sets(16, SIZE_HW)
    probabilities = guess(np.random.default_rng(0), masks)
    n_images = len(Cache(folder / "cache"))
    config = TuneConfig(thresholds=[0.3, 0.5, 0.7])  # more would take longer and show the same

    def measure_and_search() -> object:
        table = ComponentTable(config.thresholds, masks.shape[1])
        for i in range(n_images):
            table.add(probabilities[i % len(masks)], masks[i % len(masks)])
        return search.search(table, config)

    return measure_and_search


JOBS = {job.__name__: job for job in (cache_masks, load_batches, tune_threshold)}


def peak() -> int:
    """Return the largest resident memory so far, in KiB (`getrusage` tells the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def measure(job: str, folder: Path) -> dict[str, float]:
    """Run a job: the `seconds` and, at its peak, the `mebibytes` that it took."""
    work = JOBS[job](folder)
    before = peak()
    seconds = Timer(work).timeit(1)
    return {"seconds": seconds, "mebibytes": (peak() - before) / MEBIBYTE}
