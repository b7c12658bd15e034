"""From images to probability maps: one code path for tune_threshold, predict and serving.

A runtime maps a batch of padded grey images to probabilities; `probability_maps` feeds it and cuts
its answers back, and decodes the next images while the network works on the last.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from steelseg.errors import BadInput
from steelseg.files import is_sealed
from steelseg.gpu import has_gpu
from steelseg.images import GreyImage
from steelseg.padding import pad
from steelseg.params import Config
from steelseg.sealed_json import read_sealed

T = TypeVar("T")
R = TypeVar("R")
Probabilities = npt.NDArray[np.float32]
Runtime = Callable[[npt.NDArray[np.uint8]], Probabilities]
"""Maps images (B, 1, H, W) uint8, H and W multiples of 32, to probabilities (B, C, H, W)."""


class InferenceConfig(Config):
    """How a trained network is run; flat parameters at the top level of params.yaml."""

    runtime: Literal["auto", "torch", "onnx"]
    """`auto` is torch where there is a GPU and ONNX Runtime where there is none"""
    inference_batch_size: Annotated[int, Field(ge=1)]
    """images that the network is given at once"""


def resolve_runtime(runtime: str) -> str:
    """Return `torch` or `onnx`: what `auto` stands for on this machine."""
    if runtime != "auto":
        return runtime
    return "torch" if has_gpu() else "onnx"


def open_runtime(folder: Path, runtime: str, threads: int | None = None) -> Runtime:
    """Load a model's weights or its ONNX export from `folder`.

    Args:
        folder: of the model.
        runtime: `auto`, `torch` or `onnx`.
        threads: that the network may use on a CPU; None for all there are.

    Raises:
        BadInput: the model is missing or damaged.
    """
    if resolve_runtime(runtime) == "onnx":
        return open_onnx(folder / "model.onnx", read_sealed(folder / "model.json"), threads)
    return open_torch(folder, threads)


def open_onnx(
    path: Path, card: Mapping[str, Any] | None = None, threads: int | None = None
) -> Runtime:
    """Load an ONNX export into ONNX Runtime, on as many threads, or on all cores.

    Raises:
        BadInput: the file is missing or damaged, or is of other weights than those of `card`.
    """
    import onnxruntime

    if not path.is_file() or not path.stat().st_size:
        raise BadInput(f"{path}: there is no ONNX export of this model; set `runtime: torch`")
    if not is_sealed(path):
        raise BadInput(f"{path}: is damaged (its checksum differs); run `dvc repro -f export_onnx`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base of their own
        raise BadInput(f"{path}: cannot be loaded: {' '.join(str(error).split())}") from error
    if (
        card
        and session.get_modelmeta().custom_metadata_map.get("weights_sha256")
        != card["weights_sha256"]
    ):
        raise BadInput(
            f"{path}: was exported from other weights than {path.parent}/model.json says"
        )

    def run(images: npt.NDArray[np.uint8]) -> Probabilities:
        probabilities: Probabilities = session.run(None, {"images": images})[0]
        return probabilities

    return run


def open_torch(folder: Path, threads: int | None = None) -> Runtime:
    """Load a model into PyTorch, on the GPU if there is one (in half precision there)."""
    import torch

    from steelseg.models import load

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = load(folder)[0].to(device)

    def run(images: npt.NDArray[np.uint8]) -> Probabilities:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = segmenter(torch.from_numpy(images).to(device))
            probabilities: Probabilities = torch.sigmoid(logits.float()).cpu().numpy()
        return probabilities

    return run


def probability_maps(
    items: Sequence[T], read: Callable[[T], GreyImage], runtime: Runtime, batch_size: int
) -> Iterator[tuple[T, Probabilities]]:
    """Yield every item with its probability maps (C, H, W), cut back to the image's size.

    Args:
        items: what to predict, in order.
        read: turns an item into a grey image (H, W) uint8; called on another thread. All images
            must have one size.
        runtime: the network.
        batch_size: images that the network is given at once.
    """
    batches = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]

    def read_batch(batch: Sequence[T]) -> list[GreyImage]:
        return [read(item) for item in batch]

    for batch, images in zip(batches, _one_ahead(batches, read_batch), strict=True):
        height, width = images[0].shape
        padded = np.stack([pad(image_hw) for image_hw in images])[:, None]
        probabilities = runtime(padded)[..., :height, :width]
        yield from zip(batch, probabilities, strict=True)


def _one_ahead(items: Sequence[T], function: Callable[[T], R]) -> Iterator[R]:
    """Map a function over items on another thread, which is always one item ahead."""
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(function, item) for item in items[:1]]
        for following in [*items[1:], None]:
            current = pending.pop()
            if following is not None:
                pending.append(pool.submit(function, following))
            yield current.result()
