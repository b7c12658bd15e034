"""From images to probability maps: one code path for tune_threshold, predict and serving.

A runtime maps a batch of padded grey images to probabilities; `probability_maps` feeds it from
several threads, each of which decodes images and runs the network, and cuts its answers back.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from steelseg.core.device import has_gpu
from steelseg.core.errors import BadInput
from steelseg.core.files import is_sealed
from steelseg.core.params import Config
from steelseg.core.sealed import read_sealed_json
from steelseg.data.images import GreyImage
from steelseg.model.padding import pad
from steelseg.predict.views import (
    Network,
    Probabilities,
    ViewsConfig,
    mean_of,
    with_flips,
    with_tiles,
)

WHOLE_IMAGES = ViewsConfig()
T = TypeVar("T")
R = TypeVar("R")
CALLS = (4, 3, 2, 1)  # at once, whichever shares out the threads; each holds a batch's activations


class Runtime(NamedTuple):
    """A network that is ready to run, and how many threads should call it at once."""

    network: Network
    calls: int

    def __call__(self, images: npt.NDArray[np.uint8]) -> Probabilities:
        """Run the network."""
        return self.network(images)


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


def open_runtime(
    folder: Path, runtime: str, threads: int | None = None, *, many: bool = False
) -> Runtime:
    """Load a model's weights or its ONNX export from `folder`.

    Args:
        folder: of the model.
        runtime: `auto`, `torch` or `onnx`.
        threads: that may be used on a CPU; None for all there are.
        many: whether it is for many images, of which several are then worked on at once by few
            threads each: that keeps the cores busier than all threads on one image.

    Raises:
        BadInput: the model is missing or damaged.
    """
    if resolve_runtime(runtime) == "onnx":
        card = read_sealed_json(folder / "model.json")
        return open_onnx(folder / "model.onnx", card, threads, many=many)
    return open_torch(folder, threads)


def open_models(
    folders: Sequence[Path],
    runtime: str,
    threads: int | None = None,
    *,
    many: bool = False,
    views: ViewsConfig = WHOLE_IMAGES,
) -> Runtime:
    """Load models that answer together, by the mean of their probabilities over all the views.

    The members that `views` names must be among the folders; for the rest see `open_runtime`.
    """
    runtimes = [open_runtime(folder, runtime, threads, many=many) for folder in folders]
    network = with_flips(mean_of([one.network for one in runtimes]), views.tta)
    return Runtime(with_tiles(network, views.tile, views.tile_overlap), runtimes[0].calls)


def open_onnx(
    path: Path,
    card: Mapping[str, Any] | None = None,
    threads: int | None = None,
    *,
    many: bool = False,
) -> Runtime:
    """Load an ONNX export into ONNX Runtime (see `open_runtime`).

    Raises:
        BadInput: the file is missing or damaged, or is of other weights than those of `card`.
    """
    import onnxruntime

    if not path.is_file() or not path.stat().st_size:
        raise BadInput(f"{path}: there is no ONNX export of this model; set `runtime: torch`")
    if not is_sealed(path):
        raise BadInput(f"{path}: is damaged (its checksum differs); run `dvc repro -f export_onnx`")
    threads = threads or os.cpu_count() or 1
    calls = next(n for n in CALLS if threads % n == 0) if many else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // calls
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

    return Runtime(run, calls)


def open_torch(folder: Path, threads: int | None = None) -> Runtime:
    """Load a model into PyTorch, on the GPU if there is one (in half precision there).

    There two threads call it, so that one reads images while the GPU works for the other.
    """
    import torch

    from steelseg.model.network import load

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = load(folder)[0].to(device)

    def run(images: npt.NDArray[np.uint8]) -> Probabilities:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = segmenter(torch.from_numpy(images).to(device))
            probabilities: Probabilities = torch.sigmoid(logits.float()).cpu().numpy()
        return probabilities

    return Runtime(run, calls=2 if device.type == "cuda" else 1)


def probability_maps(
    items: Sequence[T], read: Callable[[T], GreyImage], runtime: Runtime, batch_size: int
) -> Iterator[tuple[T, Probabilities]]:
    """Yield every item with its probability maps (C, H, W), cut back to the image's size.

    Args:
        items: what to predict, in order.
        read: turns an item into a grey image (H, W) uint8; called on other threads. All images
            of a batch must have one size.
        runtime: the network; asked by as many threads as it can answer at once.
        batch_size: images that the network is given at once.
    """

    def predict(batch: Sequence[T]) -> Probabilities:
        images = [read(item) for item in batch]
        height, width = images[0].shape
        padded = np.stack([pad(image_hw) for image_hw in images])[:, None]
        return runtime(padded)[..., :height, :width]

    batches = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
    for batch, probabilities in zip(batches, ahead(batches, predict, runtime.calls), strict=True):
        yield from zip(batch, probabilities, strict=True)


def ahead(items: Sequence[T], function: Callable[[T], R], n_threads: int) -> Iterator[R]:
    """Map a function over items on other threads, which are at most one item ahead each."""
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
