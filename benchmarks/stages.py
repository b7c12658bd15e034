"""The peak memory of whole stages at few and at many images of mixed sizes: it should not grow."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import ROOT, Scale
from benchmarks.scaling import MEBIBYTE, draw_images
from benchmarks.table import Row
from steelseg.core.params import read_yaml
from steelseg.core.sizes import Size

SIDES = 60, 160  # pixels, the range of both
SHARE = 1 / 1.3  # of the memory at many images, which few must take
STAGES = (
    *("pivot_csv", "stratified_split", "cache_masks", "train", "export_onnx"),
    *("tune_threshold", "predict", "submit"),
)
PARAMS: dict[str, Any] = {
    "encoder": "tu-resnet10t",
    "encoder_weights": None,
    "arch_options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
    "epochs": 1,
    "batch_size": 8,
    "crop": [64, 64],
    "dataset": "mixed",
}
# a stage as it runs, and then the largest resident memory that its process had, in KiB
PROBE = """
import atexit, runpy, sys
from pathlib import Path
status = Path("/proc/self/status")
atexit.register(lambda: print("\\npeak", status.read_text().split("VmHWM:")[1].split()[0]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rows(scale: Scale) -> Iterator[Row]:
    """Mebibytes of the processes, without those that they start."""
    few, many = scale.n_mixed
    stages = STAGES[: scale.n_stages]
    with tempfile.TemporaryDirectory() as temporary:
        peaks = {n: dict(measure(Path(temporary) / str(n), n, stages)) for n in scale.n_mixed}
    for stage in stages:
        what = f"{stage}: memory at {many:,} images of mixed sizes"
        yield Row(what, peaks[many][stage], f"at {few:,}", peaks[few][stage], SHARE, "MiB")


def measure(clone: Path, n_images: int, stages: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Run stages one after the other on so many training and test images, in a folder of its own.

    Yields:
        Each stage and the MiB that it took.
    """
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, clone / name)
    shutil.copy(ROOT / "dvc.yaml", clone)  # which says what code a checkpoint depends on
    params = read_yaml(ROOT / "params.yaml") | PARAMS
    params["train"] |= {"crops_per_image": 1, "num_workers": 0}
    (clone / "params.yaml").write_text(json.dumps(params))
    raw = clone / "data" / "raw" / "mixed"
    draw_images(raw, n_images, any_size)
    draw_images(clone / "tests", n_images, any_size, seed=1)
    (clone / "tests" / "train_images").rename(raw / "test_images")
    for stage in stages:
        words = [sys.executable, "-c", PROBE, f"stages/{stage}.py"]
        result = subprocess.run(words, cwd=clone, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{stage}: {result.stdout}{result.stderr}")
        mebibytes = int(result.stdout.rpartition("peak ")[2]) / MEBIBYTE
        print(f"{stage}, {n_images:,} images of mixed sizes: {mebibytes:.0f} MiB", flush=True)
        yield stage, mebibytes


def any_size(rng: np.random.Generator) -> Size:
    """Draw a height and a width."""
    height, width = rng.integers(*SIDES, 2).tolist()
    return height, width
