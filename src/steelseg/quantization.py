"""Quantisation of an ONNX export to 8-bit integers: on a CPU some 1.4 times as fast."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from steelseg.errors import SteelsegError
from steelseg.images import GreyImage
from steelseg.padding import pad

CALIBRATION_IMAGES = 16  # whose activations give the ranges of the integers
TOLERANCE = 0.02  # mean difference of a probability on them


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images one by one."""

    def __init__(self, images: Sequence[GreyImage]) -> None:
        self._left: Iterator[GreyImage] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image_hw = next(self._left, None)
        return None if image_hw is None else _inputs(image_hw)


def quantise(path: Path, images: Sequence[GreyImage]) -> None:
    """Replace an export by a quantised one (static, per channel, QDQ).

    Args:
        path: of the ONNX file; its metadata is kept.
        images: (H, W) uint8, what the network will be given the like of.

    Raises:
        SteelsegError: it answers too differently.
    """
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    with TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        _compare(path, quantised, images)
        model = onnx.load(quantised)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library, which advises to prepare what was prepared."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _compare(path: Path, quantised: Path, images: Sequence[GreyImage]) -> None:
    sessions = [
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for file in (path, quantised)
    ]
    differences = []
    for image_hw in images:
        before, after = (session.run(None, _inputs(image_hw))[0] for session in sessions)
        differences.append(float(np.abs(before - after).mean()))
    difference = float(np.mean(differences))
    if not difference <= TOLERANCE:
        raise SteelsegError(
            f"with 8-bit integers the probabilities differ by {difference:.2g} (at most "
            f"{TOLERANCE} is accepted); set `runtime: onnx`"
        )


def _inputs(image_hw: GreyImage) -> dict[str, Any]:
    return {"images": pad(image_hw)[None, None]}
