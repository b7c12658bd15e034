"""A trial on noise before the training, so that mistakes are refused before hours of work.

Transforms and networks are tried and not looked up in lists, so that new ones work too.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import albumentations as A
import numpy as np
import torch
from torch.func import functional_call

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY, RGB, PixelFormat
from steelseg.core.sizes import Size, largest_size, padded_size
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.model.network import Segmenter
from steelseg.train.augmentation import Transforms, build_augmentation, to_transforms
from steelseg.train.config import FinishConfig, TrainConfig
from steelseg.train.losses import build_loss

DRAWS = 32  # of random transforms; if two undo each other, half of the draws still show it
STAND_IN = (256, 256)  # pixels, if the crop size is not known yet


class Step(NamedTuple):
    """The input of a training step; the size is None if it depends on the data."""

    crop_hw: Size | None
    batch_size: int


def try_params(network: ModelConfig, params: TrainConfig, channels: str = "auto") -> None:
    """Try what params.yaml alone determines: names, options, and crops of a given size.

    If `channels` is `auto`, working on either grey or colours suffices.

    Raises:
        BadInput: the training cannot work; the message names the parameter.
        SteelsegError: pretrained weights cannot be downloaded.
    """
    weights = params.class_weights if isinstance(params.class_weights, list) else None
    build_loss(params.loss, weights, params.label_smoothing)
    if network.encoder_weights not in (None, "auto"):
        models.build(network, 2, [0.5], [0.5])
    faults = []
    for pixels in {"grey": [GREY], "rgb": [RGB]}.get(channels, [GREY, RGB]):
        try:
            try_training(network, params, pixels=pixels)
        except BadInput as error:
            faults.append(error)
        else:
            return
    raise faults[0]


def try_training(
    network: ModelConfig,
    params: TrainConfig,
    sizes_hw: Sequence[Size] = (),
    pixels: PixelFormat = GREY,
) -> None:
    """Try the augmentation on crops, and the network on crops and whole images.

    Args:
        network: the network; pretrained weights make no difference.
        params: of the training; `auto` values are not tried.
        sizes_hw: heights and widths of the images, if known.
        pixels: the pixel format of the images.

    Raises:
        BadInput: see `try_params`.
    """
    segmenter = _untrained(network, pixels)
    what = f"{network.arch} with {network.encoder}"
    for step in _steps(params, largest_size(sizes_hw) if sizes_hw else None):
        try_augmentation(params.transforms, step.crop_hw, pixels)
        try_step(segmenter, step, what)
    for size_hw in sorted(_extremes(sizes_hw)):
        if reason := _failure(segmenter.eval(), size_hw, 1):
            raise BadInput(f"{what} cannot work on images of {_by(size_hw)} pixels: {reason}")


def least_batch(network: ModelConfig, pixels: PixelFormat = GREY) -> int:
    """Return the smallest batch of a network: 2 if it cannot normalise a single crop."""
    return 2 if _failure(_untrained(network, pixels), STAND_IN, 1) else 1


def try_augmentation(
    transforms: Transforms, crop_hw: Size | None, pixels: PixelFormat = GREY
) -> None:
    """Augment noise, which must keep its size and channels, and masks of 0 and 1.

    Raises:
        BadInput: a transform is unknown, does not work on such crops, or changes their form.
    """
    steps = build_augmentation(transforms).transforms
    if crop_hw is None:
        return
    for step in steps:
        step.p = 0.5 if 0 < step.p < 1 else step.p  # so that they are both applied and skipped
    for seed in range(DRAWS):
        _augment_once(steps, crop_hw, seed, pixels)


def try_step(segmenter: Segmenter, step: Step, what: str = "the network") -> None:
    """Run a network forward on a batch of crops, as in training.

    Raises:
        BadInput: it does not work on a batch or crops of this size.
    """
    crop_hw = step.crop_hw or STAND_IN
    reason = _failure(segmenter.train(), crop_hw, 2)
    if step.batch_size == 1:
        alone = _failure(segmenter, crop_hw, 1)
        if alone and _wording(alone) != _wording(reason):
            raise BadInput(
                f"`batch_size`: expected at least 2, but got 1: {what} normalises over a batch, "
                f"and one crop leaves it a single value ({alone})"
            )
    if reason and step.crop_hw:
        raise BadInput(f"`crop`: {what} cannot work on {_by(crop_hw)} pixels: {reason}")


def _untrained(network: ModelConfig, pixels: PixelFormat) -> Segmenter:
    """Build a network for a trial, in training mode."""
    bare = network.model_copy(update={"encoder_weights": None})
    half = [0.5] * pixels.channels
    return models.build(bare, 2, half, half, pixels).train()


def _extremes(sizes_hw: Sequence[Size]) -> set[Size]:
    """Return the sizes of images that are highest, lowest, widest and narrowest, padded."""
    if not sizes_hw:
        return set()
    chosen = [pick(sizes_hw, key=itemgetter(axis)) for pick in (min, max) for axis in (0, 1)]
    return {padded_size(size_hw) for size_hw in chosen}


def _steps(params: TrainConfig, size_hw: Size | None) -> Iterator[Step]:
    shared = params.sync_batchnorm and (params.devices != 1 or params.num_nodes > 1)
    phases: list[TrainConfig | FinishConfig] = [params, *filter(None, [params.finish])]
    for phase in phases:
        crop_hw = size_hw
        if isinstance(phase.crop, list):
            longest = size_hw or phase.crop
            crop_hw = min(phase.crop[0], longest[0]), min(phase.crop[1], longest[1])
        known = isinstance(phase.batch_size, int) and not shared
        yield Step(crop_hw, phase.batch_size if known else 2)


def _augment_once(
    steps: list[A.BasicTransform], crop_hw: Size, seed: int, pixels: PixelFormat
) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(256, size=crop_hw, dtype=np.uint8)
    mask = (noise > 127).astype(np.uint8)
    scaled = noise.astype(pixels.dtype) * np.array(pixels.white // 255, pixels.dtype)
    several = pixels.channels > 1
    image = to_transforms(np.repeat(scaled[None], pixels.channels, axis=0) if several else scaled)
    shape, dtype = image.shape, image.dtype
    kind = f"{pixels.channels} channels" if several else "grey"
    culprit = None
    for step in steps:
        name = type(step).__name__
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # such as for no effect on grey
                one = A.Compose([step], seed=int(rng.integers(2**31)))
                result = one(image=image, masks=[mask])
        except Exception as error:  # transforms raise anything on unsupported input
            reason = " ".join(str(error).split())
            raise BadInput(
                f"`train.augment`: {name} cannot work on {kind} crops of {_by(crop_hw)} pixels: "
                f"{reason}"
            ) from error
        image, mask = result["image"], np.asarray(result["masks"][0])
        if image.dtype != dtype or mask.max(initial=0) > 1:
            bits = "of 8 bits" if dtype == np.uint8 else "from 0 to 1"
            raise BadInput(
                f"`train.augment`: {name}: expected a transform that leaves images {bits}, and "
                f"masks of 0 and 1, as they are"
            )
        if culprit is None and image.shape != shape:
            culprit = f"{name} makes {_by(image.shape)} pixels of crops of {_by(shape)}"
    if image.shape != shape:
        raise BadInput(
            f"`train.augment`: {culprit}; expected the size to stay (turns need a square `crop`)"
        )


def _failure(segmenter: Segmenter, crop_hw: Size, batch_size: int) -> str:
    """Return why a network cannot run forward on a batch, tried on shapes only.

    On the device `meta` tensors have shapes only, so this needs neither time nor memory, and draws
    no random numbers. Empty if it can, or if it cannot be tried like this.
    """
    height, width = padded_size(crop_hw)
    tensors = {**dict(segmenter.named_parameters()), **dict(segmenter.named_buffers())}
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    shape = (batch_size, segmenter.pixels.channels, height, width)
    images = torch.empty(shape, dtype=torch.uint8, device="meta")
    try:
        functional_call(segmenter, shapes, (images,))
    except NotImplementedError:
        return ""
    except Exception as error:  # networks raise anything on unsupported input
        reason = " ".join(str(error).split())
        return "" if "meta" in reason else reason[:200]
    return ""


def _wording(reason: str) -> str:
    return re.sub(r"\d+", "", reason)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
