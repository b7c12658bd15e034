"""Computes probability maps: one code path for tune_threshold, predict and serving.

A runtime maps a batch of padded images to probabilities; `answers` feeds it from several
threads, each of which decodes images, runs the network, and processes its output.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field

from steelseg.core.arrays import Float32, Pixels
from steelseg.core.device import has_gpu
from steelseg.core.errors import BadInput
from steelseg.core.files import is_sealed
from steelseg.core.params import Config
from steelseg.core.pixels import batch_of, size_of
from steelseg.core.sizes import Size, pad, padded_size
from steelseg.model.card import CARD, EXPORT, Card, read_card
from steelseg.predict.tiles import TILE, WHOLE, Maps, as_maps, is_large, tiled
from steelseg.predict.views import Network, ViewsConfig, mean_of, with_flips

if TYPE_CHECKING:  # seconds to import, and not needed with ONNX Runtime
    import torch

    from steelseg.model.network import Segmenter

T = TypeVar("T")
R = TypeVar("R")
CALLS = (4, 3, 2, 1)  # concurrent calls: the first that divides the threads; limited by memory
GPU_CALLS = 2  # one thread reads images while the GPU works for the other
GPU_BATCH = 8  # smaller batches are bound by kernel launches


class Runtime(NamedTuple):
    """A network ready to run, and how to call it."""

    network: Network
    calls: int
    """threads that should call it concurrently"""
    batch_size: int = 1
    """images or tiles per call"""
    tile: Sequence[int] | None = None
    """height and width of overlapping tiles; None tiles only images that are too large for it"""
    tile_overlap: float = 0.25
    """least share of a tile that overlaps with the next"""

    def __call__(self, images: Pixels) -> Float32:
        """Run the network: (B, N, H, W) uint8 or uint16 to (B, C, H, W) float32."""
        return self.network(images)

    def maps(self, images: Sequence[Pixels]) -> Iterator[Maps]:
        """Yield the maps of images, (H, W) or (N, H, W), with one padded size."""
        size_hw = padded_size(size_of(images[0]))
        tile = self.tile
        if not tile and is_large(size_hw):
            tile = TILE
            _say_tiled()
        if tile and any(size > side for size, side in zip(size_hw, tile, strict=True)):
            for image in images:
                image_nhw = image if image.ndim == 3 else image[None]  # a view, not a copy
                blocks = tiled(self.network, image_nhw, tile, self.tile_overlap, self.batch_size)
                yield Maps(size_of(image), blocks)
            return
        answers = self.network(batch_of([pad(image) for image in images]))
        for image, maps_chw in zip(images, answers, strict=True):
            height, width = size_of(image)
            yield as_maps(maps_chw[:, :height, :width])


class InferenceConfig(Config):
    """How a trained network is run; parameters at the top level of params.yaml."""

    runtime: Literal["auto", "torch", "onnx"] = "auto"
    """`auto` is torch on a GPU, otherwise ONNX Runtime if the model has an export"""
    inference_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """images per batch; `auto` is 8 on a GPU and 1 on a CPU"""

    @property
    def batch_size(self) -> int:
        """The number of images, with `auto` resolved for this machine."""
        if self.inference_batch_size != "auto":
            return self.inference_batch_size
        return GPU_BATCH if has_gpu() else 1


def resolve_runtime(runtime: str, folders: Sequence[Path]) -> str:
    """Return `torch` or `onnx`, with `auto` resolved for this machine and these models."""
    if runtime != "auto":
        return runtime
    return "torch" if has_gpu() or not all(map(has_export, folders)) else "onnx"


def has_export(folder: Path) -> bool:
    """Whether a model has an ONNX export; with `runtime: torch` the file is empty."""
    export = folder / EXPORT
    return export.is_file() and export.stat().st_size > 0


def open_models(
    folders: Sequence[Path],
    inference: InferenceConfig,
    views: ViewsConfig,
    *,
    threads: int | None = None,
    many: bool = False,
) -> Runtime:
    """Load an ensemble, which averages probabilities over all models and views.

    Args:
        folders: of the models, including the members that `views` names.
        inference: how the networks are run.
        views: flips, turns and tiles.
        threads: to use on a CPU; None for all.
        many: whether to process several images at once by few threads each, which keeps the cores
            busier than all threads on one image.

    Raises:
        BadInput: a model is missing or damaged.
    """
    if resolve_runtime(inference.runtime, folders) == "onnx":
        opened = [open_onnx(folder, read_card(folder), threads, many=many) for folder in folders]
    else:  # on a CPU, PyTorch parallelises each image itself
        opened = [open_torch(folder, threads) for folder in folders]
    network = with_flips(mean_of([one.network for one in opened]), views.tta)
    calls = opened[0].calls
    return Runtime(network, calls, inference.batch_size, views.tile, views.tile_overlap)


def open_onnx(
    folder: Path, card: Card, threads: int | None = None, *, many: bool = False
) -> Runtime:
    """Load a model's ONNX export into ONNX Runtime, on the CPU (see `open_models`).

    Raises:
        BadInput: the file is missing or damaged, or was exported from other weights.
    """
    import onnxruntime

    path = folder / EXPORT
    if not has_export(folder):
        raise BadInput(f"{path}: there is no ONNX export of this model; set `runtime: torch`")
    if not is_sealed(path):
        raise BadInput(f"{path}: is damaged (its checksum differs); run `dvc repro -f export_onnx`")
    threads = threads or os.cpu_count() or 1
    calls = next(n for n in CALLS if threads % n == 0) if many else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // calls
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        raise BadInput(f"{path}: cannot be loaded: {' '.join(str(error).split())}") from error
    exported = session.get_modelmeta().custom_metadata_map.get("weights_sha256")
    if exported != card.weights_sha256:
        raise BadInput(f"{path}: was exported from other weights than those of {folder / CARD}")

    def run(images: Pixels) -> Float32:
        probabilities: Float32 = session.run(None, {"images": images})[0]
        return probabilities

    return Runtime(run, calls)


def open_torch(folder: Path, threads: int | None = None) -> Runtime:
    """Load a model into PyTorch, on the GPU if there is one (see `open_models`)."""
    import torch

    from steelseg.model.network import load

    if threads:
        torch.set_num_threads(threads)
    segmenter, card = load(folder)
    if not has_gpu():
        return Runtime(torch_network(segmenter, torch.device("cpu"), None), calls=1)
    dtype = half_type(card.training)
    network = torch_network(segmenter.to("cuda"), torch.device("cuda"), dtype)
    return Runtime(network, calls=GPU_CALLS)


def half_type(training: Mapping[str, Any]) -> "torch.dtype | None":
    """Return the half-precision type for a network on a GPU, None for 32 bits.

    It is the type that it was trained in. Another may overflow: activations over 65,504 fit into
    bf16 and 32 bits, but are infinite in fp16.
    """
    import torch

    return {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(
        str(training.get("precision"))
    )


def torch_network(
    segmenter: "Segmenter", device: "torch.device", dtype: "torch.dtype | None"
) -> Network:
    """Return a function that runs a segmenter on a device, in half precision if `dtype` is given.

    Weights are cast once, and not in every call; outputs leave a GPU through pinned memory.
    """
    import torch

    make_ready(segmenter, device, dtype)

    def run(images: Pixels) -> Float32:
        with torch.inference_mode():
            maps = maps_on_device(segmenter, torch.from_numpy(images).to(device), dtype)
            if device.type == "cuda":
                maps = torch.empty(maps.shape, dtype=maps.dtype, pin_memory=True).copy_(maps)
            answer: Float32 = maps.float().numpy()
        return answer

    return run


def make_ready(segmenter: "Segmenter", device: "torch.device", dtype: "torch.dtype | None") -> None:
    """Set the memory format and type of a segmenter's weights; batch norm keeps 32 bits."""
    import torch
    from torch import nn

    if device.type == "cuda":
        segmenter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in segmenter.modules() if dtype is not None else ():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)


def maps_on_device(
    segmenter: "Segmenter", images: "torch.Tensor", dtype: "torch.dtype | None"
) -> "torch.Tensor":
    """Run a prepared segmenter: (B, N, H, W) to probabilities (B, C, H, W).

    They stay on the device of the images, in 32 bits, or 16 on a GPU, which halves the transfer.
    """
    import torch

    kind = images.device.type
    with torch.autocast(kind, dtype, enabled=dtype is not None):
        probabilities = torch.sigmoid(segmenter(images).float())
    return probabilities.half() if kind == "cuda" else probabilities


def answers(
    items: Iterable[T],
    read: Callable[[T], Pixels],
    runtime: Runtime,
    finish: Callable[[T, Maps], R],
) -> Iterator[tuple[T, R | BadInput]]:
    """Yield every item, in order, with the result of `finish` on its probability maps.

    Args:
        items: what to predict; consumed lazily.
        read: loads an item as an image, (H, W) or (N, H, W). Called on other threads; items refused
            by `BadInput` are yielded with it.
        runtime: the network; called by as many threads as it supports.
        finish: called on other threads with an item and its maps, cropped to the image's size and
            computed block by block as they are consumed.
    """

    def work(batch: Sequence[T]) -> list[tuple[T, R | BadInput]]:
        done: list[tuple[T, R | BadInput]] = []
        images = [(item, _try(read, item)) for item in batch]
        # neighbours of one padded size share a call of the network
        for size_hw, neighbours in groupby(images, lambda pair: _size_of(pair[1])):
            if size_hw is None:
                done += ((item, error) for item, error in neighbours if isinstance(error, BadInput))
                continue
            sound = [(item, x) for item, x in neighbours if not isinstance(x, BadInput)]
            found = runtime.maps([image for _, image in sound])
            done += (
                (item, finish(item, maps)) for (item, _), maps in zip(sound, found, strict=True)
            )
        return done

    iterator = iter(items)
    batches = iter(lambda: list(islice(iterator, runtime.batch_size)), [])
    for batch in ahead(batches, work, runtime.calls):
        yield from batch


def probability_maps(
    items: Iterable[T],
    read: Callable[[T], Pixels],
    runtime: Runtime,
    finish: Callable[[T, Maps], R],
) -> Iterator[tuple[T, R]]:
    """Yield the results of `answers`, for items that can all be read.

    Raises:
        BadInput: an item cannot be read.
    """
    for item, answer in answers(items, read, runtime, finish):
        if isinstance(answer, BadInput):
            raise answer
        yield item, answer


def ahead(items: Iterable[T], function: Callable[[T], R], n_threads: int) -> Iterator[R]:
    """Map a function over items on other threads, each at most one item ahead."""
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@cache  # log once
def _say_tiled() -> None:
    logging.getLogger(__name__).warning(
        "images of more than %d pixels are too large for the network: they are predicted by "
        "overlapping tiles of %dx%d, near whose edges it sees less context",
        WHOLE,
        *TILE,
    )


def _try(read: Callable[[T], Pixels], item: T) -> Pixels | BadInput:
    try:
        return read(item)
    except BadInput as error:
        return error


def _size_of(image: Pixels | BadInput) -> Size | None:
    return None if isinstance(image, BadInput) else padded_size(size_of(image))
