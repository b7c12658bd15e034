"""Export the trained network to ONNX and compare the export with PyTorch."""

from pathlib import Path

from steelseg.core.params import load
from steelseg.export import onnx
from steelseg.export.onnx import ExportConfig
from steelseg.model import network
from steelseg.tracking.stage import run


def main() -> None:
    """Write models/model.onnx; an empty file if `runtime` is `torch`."""
    config = load(ExportConfig)
    segmenter, _ = network.load(Path("models"))
    onnx.export_for(config.runtime, segmenter, Path("models/model.onnx"))


if __name__ == "__main__":
    run(main)
