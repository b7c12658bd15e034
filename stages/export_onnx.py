"""Export the trained network to ONNX, and compare the export with PyTorch."""

from pathlib import Path

import numpy as np

from steelseg import fold_table, models, onnx_export
from steelseg.cache import Cache
from steelseg.onnx_export import ExportConfig
from steelseg.params import load
from steelseg.quantization import CALIBRATION_IMAGES
from steelseg.stage import run


def main() -> None:
    """Write models/model.onnx; with `runtime: torch`, which does without, an empty file."""
    config = load(ExportConfig)
    segmenter, card = models.load(Path("models"))
    cache = Cache(Path("data/cache"))
    folds = fold_table.read(Path("data/folds.parquet"), cache.names, cache.annotations)
    trained_on = np.flatnonzero(folds["fold"] != card["fold"])
    some = np.linspace(0, len(trained_on) - 1, min(CALIBRATION_IMAGES, len(trained_on)))
    images = (cache.image(int(row)) for row in trained_on[some.astype(int)])
    onnx_export.export_for(config.runtime, segmenter, Path("models/model.onnx"), images)


if __name__ == "__main__":
    run(main)
