"""The pipeline's own row: its stages, with as many epochs as the budget has room for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.job import cpu_seconds
from benchmarks.peers.project import lay_out, open_data, run_stages, share_data, test_names
from steelseg.core.files import read_json
from steelseg.core.params import read_yaml
from steelseg.data import fold_table
from steelseg.predict.model import Model

AFTER = ("export_onnx", "tune_threshold", "predict", "submit")
PROBE_SHARE = 0.1  # of the images


def measure(data: Path, folder: Path, cpu_time: float, overrides: Sequence[str]) -> dict[str, Any]:
    """Train, tune and predict, and return the figures of the row."""
    epochs = _affordable_epochs(data, folder / "probe", cpu_time, overrides)
    lay_out(folder, [*overrides, f"epochs={epochs}"])
    share_data(data, folder)
    trained = run_stages(folder, ["train"])
    others = run_stages(folder, AFTER)
    scores = read_json(folder / "metrics" / "tune_threshold.json")
    return {
        "version": f"{epochs} epochs",
        "cpu_minutes": trained / 60,
        "cpu_minutes_all": (trained + others) / 60,
        "ms_per_image": _milliseconds(data, folder),
        **scores,
    }


def _affordable_epochs(data: Path, folder: Path, cpu_time: float, overrides: Sequence[str]) -> int:
    """Train on a sample of the images for one epoch and for three, and extrapolate."""
    lay_out(folder, overrides)
    run_stages(folder, ["check_params"])
    share_data(data, folder)
    cache, folds = open_data(data)
    fold = int(read_yaml(folder / "params.yaml")["fold"])
    share = max(PROBE_SHARE, 8 / (folds["fold"] == fold).sum())
    is_left_out = np.random.default_rng(0).random(len(folds)) > share
    sample = folds.assign(fold=folds["fold"].where(~is_left_out, fold_table.HELD_OUT))
    (folder / "data" / "folds.parquet").unlink()
    fold_table.write(folder / "data" / "folds.parquet", sample, cache.annotations)
    times = []
    for epochs in (1, 3):
        lay_out(folder, [*overrides, f"epochs={epochs}"])
        times.append(run_stages(folder, ["train"]))
    of_epoch = (times[1] - times[0]) / 2
    start = times[0] - of_epoch
    return max(1, int((cpu_time - start) / (of_epoch / (1 - is_left_out.mean()))))


def _milliseconds(data: Path, folder: Path) -> float:
    """Measure the processor time from a decoded image to its probabilities."""
    params = read_yaml(folder / "params.yaml")
    raw = Path(params["data_root"]) / params["dataset"] / "test_images"
    model = Model.open(folder / "models")
    images = [model.read(raw / name) for name in test_names(data)[:200]]
    runtime = model.runtime(many=False)
    seconds = []
    for image in [images[0], *images]:
        start = cpu_seconds()
        for maps in runtime.maps([image]):
            maps.whole()
        seconds.append(cpu_seconds() - start)
    return 1000 * float(np.mean(seconds[1:]))
