"""From images to probability maps: one code path for tune_threshold, predict and serving.

A runtime maps a batch of padded images to probabilities; `answers` feeds it from several
threads, each of which decodes images, runs the network, and works on its answers.
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

if TYPE_CHECKING:  # seconds to import, and not needed where ONNX Runtime answers
    import torch

    from steelseg.model.network import Segmenter

T = TypeVar("T")
R = TypeVar("R")
CALLS = (4, 3, 2, 1)  # at once, whichever shares out the threads; each holds a batch's activations
GPU_CALLS = 2  # so that one thread reads images while the GPU works for the other
GPU_BATCH = 8  # below that, a GPU waits for the launches of the network's operations


class Runtime(NamedTuple):
    """A network that is ready to run, and how it should be called."""

    network: Network
    calls: int
    """threads that should call it at once"""
    batch_size: int = 1
    """images or tiles that it should be given at once"""
    tile: Sequence[int] | None = None
    """height and width of overlapping tiles; None tiles only what is too large for it"""
    tile_overlap: float = 0.25
    """least share of a tile that the next one covers too"""

    def __call__(self, images: Pixels) -> Float32:
        """Run the network: (B, N, H, W) uint8 or uint16 to (B, C, H, W) float32."""
        return self.network(images)

    def maps(self, images: Sequence[Pixels]) -> Iterator[Maps]:
        """Yield the maps of images, (H, W) or (N, H, W), that are padded to one size."""
        size_hw = padded_size(size_of(images[0]))
        tile = self.tile
        if not tile and is_large(size_hw):
            tile = TILE
            _say_tiled()
        if tile and any(size > side for size, side in zip(size_hw, tile, strict=True)):
            for image in images:
                image_nhw = image if image.ndim == 3 else image[None]  # uncopied, since it is large
                blocks = tiled(self.network, image_nhw, tile, self.tile_overlap, self.batch_size)
                yield Maps(size_of(image), blocks)
            return
        answers = self.network(batch_of([pad(image) for image in images]))
        for image, maps_chw in zip(images, answers, strict=True):
            height, width = size_of(image)
            yield as_maps(maps_chw[:, :height, :width])


class InferenceConfig(Config):
    """How a trained network is run; flat parameters at the top level of params.yaml."""

    runtime: Literal["auto", "torch", "onnx"] = "auto"
    """`auto` is torch on a GPU, and without one ONNX Runtime if the model has an export"""
    inference_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """images that the network is given at once; `auto` is 8 on a GPU and 1 on a CPU"""

    @property
    def batch_size(self) -> int:
        """The number of images, with `auto` resolved for this machine."""
        if self.inference_batch_size != "auto":
            return self.inference_batch_size
        return GPU_BATCH if has_gpu() else 1


def resolve_runtime(runtime: str, folders: Sequence[Path]) -> str:
    """Return `torch` or `onnx`: what `auto` stands for on this machine, for these models."""
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
    """Load models that answer together, by the mean of their probabilities over all the views.

    Args:
        folders: of the models; the members that `views` names must be among them.
        inference: how the networks are run.
        views: flips, turns and tiles.
        threads: that may be used on a CPU; None for all there are.
        many: whether it is for many images, of which several are then worked on at once by few
            threads each: that keeps the cores busier than all threads on one image.

    Raises:
        BadInput: a model is missing or damaged.
    """
    if resolve_runtime(inference.runtime, folders) == "onnx":
        opened = [open_onnx(folder, read_card(folder), threads, many=many) for folder in folders]
    else:  # on a CPU, PyTorch's own threads share an image, however many there are
        opened = [open_torch(folder, threads) for folder in folders]
    network = with_flips(mean_of([one.network for one in opened]), views.tta)
    calls = opened[0].calls
    return Runtime(network, calls, inference.batch_size, views.tile, views.tile_overlap)


def open_onnx(
    folder: Path, card: Card, threads: int | None = None, *, many: bool = False
) -> Runtime:
    """Load a model's ONNX export into ONNX Runtime, on the CPU (see `open_models`).

    Raises:
        BadInput: the file is missing or damaged, or is of other weights than those of the card.
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
    except Exception as error:  # its exceptions share no base of their own
        raise BadInput(f"{path}: cannot be loaded: {' '.join(str(error).split())}") from error
    exported = session.get_modelmeta().custom_metadata_map.get("weights_sha256")
    if exported != card.weights_sha256:
        raise BadInput(f"{path}: was exported from other weights than {folder / CARD} says")

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
    """Return the type that a network may compute in on a GPU, None for 32 bits.

    It is the one that it was trained in. Another may overflow: activations over 65,504, which bf16
    and 32 bits can hold, are infinite in 16 bits.
    """
    import torch

    return {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(
        str(training.get("precision"))
    )


def torch_network(
    segmenter: "Segmenter", device: "torch.device", dtype: "torch.dtype | None"
) -> Network:
    """Return a function that runs a segmenter on a device, in half precision if `dtype` is given.

    Its weights are cast once, and not in every call; the answers leave a GPU through pinned memory.
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
    """Lay a segmenter's weights out, and cast them, as it is to run; batch norm keeps 32 bits."""
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
    """Run a segmenter that is ready: (B, 1, H, W) uint8 to probabilities (B, C, H, W).

    They stay where the images are, as 32 bits; on a GPU as 16, which halves what is fetched.
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
    """Yield every item, in order, with what `finish` makes of its probability maps.

    Args:
        items: what to predict; they are taken as they are needed.
        read: turns an item into an image, (H, W) or (N, H, W). Called on other threads; what it
            refuses by `BadInput` is yielded with that.
        runtime: the network; asked by as many threads as it can answer at once.
        finish: is given an item and its maps, cut back to the image's size, which come block by
            block while it takes them; called on other threads.
    """

    def work(batch: Sequence[T]) -> list[tuple[T, R | BadInput]]:
        done: list[tuple[T, R | BadInput]] = []
        images = [(item, _try(read, item)) for item in batch]
        # neighbours that are padded to one size share a call of the network
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
    """Yield what `answers` does, for items that can all be read.

    Raises:
        BadInput: one cannot.
    """
    for item, answer in answers(items, read, runtime, finish):
        if isinstance(answer, BadInput):
            raise answer
        yield item, answer


def ahead(items: Iterable[T], function: Callable[[T], R], n_threads: int) -> Iterator[R]:
    """Map a function over items on other threads, which are at most one item ahead each."""
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@cache  # once is enough
def _say_tiled() -> None:
    logging.getLogger(__name__).warning(
        "images of more than %d pixels are too large for the network at once: they are predicted "
        "by overlapping tiles of %dx%d, near whose edges it sees less of the image",
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
