"""Export of a segmenter to ONNX: pixel levels in, probabilities out, any batch and image size."""

import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import ONNXProgram

from steelseg.core.arrays import Pixels
from steelseg.core.errors import SteelsegError
from steelseg.core.files import atomic_path, seal, write_text
from steelseg.core.params import Config
from steelseg.core.sizes import MULTIPLE
from steelseg.model.network import Segmenter, weights_digest

TOLERANCE = 1e-4  # in probability; measured differences are near 1e-6


class ExportConfig(Config):
    """The top-level parameter that decides whether there is an export."""

    runtime: Literal["auto", "torch", "onnx"]


class WithSigmoid(nn.Module):
    """A segmenter with its sigmoid: images (B, N, H, W) to probabilities (B, C, H, W)."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Wrap a segmenter."""
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 probabilities."""
        return torch.sigmoid(self.segmenter(images)).float()


def export_for(runtime: str, segmenter: Segmenter, path: Path) -> None:
    """Export a segmenter, or write an empty file if `runtime` is `torch`."""
    if runtime == "torch":
        write_text(path, "")
        seal(path)
    else:
        export(segmenter, path)


def export(segmenter: Segmenter, path: Path) -> None:
    """Write a segmenter as ONNX, with its checksum, and compare it with PyTorch.

    The comparison uses another batch size and image size than the export.

    Raises:
        SteelsegError: the network cannot be exported, or the export gives other results.
    """
    module = WithSigmoid(segmenter).eval().cpu()
    example = torch.from_numpy(_noise(segmenter, (2, 2 * MULTIPLE, 3 * MULTIPLE)))
    side = {"min": 1, "max": 2**15 // MULTIPLE}
    sizes = {
        0: Dim("batch"),
        2: MULTIPLE * Dim("rows", **side),
        3: MULTIPLE * Dim("columns", **side),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": sizes},
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            _forget_origin(program)
            program.model.metadata_props["weights_sha256"] = weights_digest(segmenter)
            program.save(temporary, external_data=False)
            _compare(module, temporary)
        seal(path)
    except SteelsegError:
        raise
    except Exception as error:  # the exporter may raise anything for an unusual network
        reason = " ".join(str(error).split())[:300]
        raise SteelsegError(
            f"this network cannot be exported to ONNX ({reason}); set `runtime: torch`"
        ) from error


def _forget_origin(program: ONNXProgram) -> None:
    """Drop the exporter's metadata, so that a network gives the same file everywhere.

    It contains stack traces with local paths, and constraints in the arbitrary order of a set.
    """
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()


def _compare(module: WithSigmoid, path: Path) -> None:
    images = _noise(module.segmenter, (1, 3 * MULTIPLE, 4 * MULTIPLE))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"images": images})
    with torch.inference_mode():
        theirs = module(torch.from_numpy(images)).numpy()
    difference = float(np.abs(ours - theirs).max())
    if not difference <= TOLERANCE:
        raise SteelsegError(
            f"the ONNX export differs from PyTorch by {difference:.2g} (at most {TOLERANCE} is "
            "accepted); set `runtime: torch`"
        )


def _noise(segmenter: Segmenter, shape_bhw: tuple[int, int, int]) -> Pixels:
    """Draw random images in a segmenter's pixel format: (B, N, H, W)."""
    pixels, (batch, height, width) = segmenter.pixels, shape_bhw
    shape = (batch, pixels.channels, height, width)
    noise: Pixels = np.random.default_rng(0).integers(0, pixels.white + 1, shape, pixels.dtype)
    return noise
