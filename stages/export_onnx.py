"""Export the trained network to ONNX, and compare the export with PyTorch."""

from pathlib import Path

from steelseg import models, onnx_export
from steelseg.onnx_export import ExportConfig
from steelseg.params import load
from steelseg.stage import run


def main() -> None:
    """Write models/model.onnx; with `runtime: torch`, which does without, an empty file."""
    config = load(ExportConfig)
    segmenter, card = models.load(Path("models"))
    path = Path("models/model.onnx")
    onnx_export.export_for(config.runtime, segmenter, path, card["weights_sha256"])


if __name__ == "__main__":
    run(main)
