"""Chooses hyper-parameters given as `auto` by fixed rules from the data and the device.

The rules are few and simple; docs/auto.md shows their choices for some data sets. On a CPU they are
calibrated on the embedded sample.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np
from pydantic import create_model

from steelseg.core.device import Gpus
from steelseg.core.sizes import MULTIPLE, Size
from steelseg.data.cache import Cache, Rows
from steelseg.train.config import TrainConfig, loss_weights

CROP_ON_CPU, CROP_ON_GPU = 128, 256
# activation bytes of a Unet per pixel of a crop, kept for the backward pass in half precision:
# counted on fake tensors, and not yet measured on a GPU
BYTES_A_PIXEL = MappingProxyType(
    {
        "resnet18": 750,
        "resnet34": 874,
        "timm-tf_efficientnet_lite0": 1254,
        "tu-tf_efficientnet_lite0": 1254,
        "resnet50": 1478,
        "mit_b2": 2023,
        "efficientnet-b4": 2831,
    }
)
BYTES_OF_OTHERS = 4096
SHARE_OF_MEMORY = 0.6
BATCH_ON_CPU, LARGEST_BATCH = 8, 64
VALIDATION_ON_CPU, LARGEST_VALIDATION = 4, 16
CROPS_ON_CPU, CROPS_ON_GPU = 7_500, 400_000  # of a whole training, if epochs allow
FEWEST_EPOCHS, MOST_EPOCHS = 4, 200
LR_SCRATCH, LR_PRETRAINED = 2e-3, 1e-3  # at batches of 8
HIGHEST_LR_SCRATCH, HIGHEST_LR_PRETRAINED = 4e-3, 1e-3
WEIGHT_LIMITS = 0.25, 4.0  # relative to the median class


class Fingerprint(NamedTuple):
    """The rules' input about the data: sizes, the training images, class pixel shares."""

    size_hw: Size
    """of a typical image"""
    n_images: int
    pixel_shares: tuple[float, ...]
    one_size: bool = True


class Setting(NamedTuple):
    """The rules' other input."""

    gpus: Gpus | None
    """None for a CPU"""
    encoder: str
    pretrained: bool
    least_batch: int = 1
    """smallest batch that the network accepts; see `steelseg.train.trial`"""


class Choice(NamedTuple):
    """The value chosen for a parameter, and the rule."""

    value: Any
    reason: str


def fingerprint(params: TrainConfig, cache: Cache, rows: Rows) -> Fingerprint:
    """Measure the training images, the given rows of the cache.

    Class shares are left out without `class_weights: auto`, since they require reading all masks.
    """
    weights: Any = params.class_weights
    if weights != "auto":
        return Fingerprint(cache.typical_size_hw, len(rows), (), cache.has_one_size)
    n_pixels = sum(math.prod(cache.sizes_hw[row]) for row in rows)
    areas = [np.bitwise_count(cache.packed_masks(int(r))).sum(axis=(1, 2)) for r in rows]
    n_classes = len(cache.classes)
    totals = np.atleast_1d(np.sum(areas, axis=0, dtype=np.int64))  # the last is of ignored pixels
    shares = totals[:n_classes] / max(n_pixels - totals[n_classes:].sum(), 1)
    shares_of_classes = tuple(shares.tolist())
    return Fingerprint(cache.typical_size_hw, len(rows), shares_of_classes, cache.has_one_size)


def resolve(
    params: TrainConfig, data: Fingerprint, setting: Setting
) -> tuple[TrainConfig, dict[str, Choice]]:
    """Replace every `auto` by a value; each rule may use the values before it.

    Args:
        params: `TrainParams`.
        data: the training images.
        setting: the network and the device.

    Returns:
        The config to train with, and the choices by parameter.
    """
    values, choices = params.model_dump(), {}
    for name, rule in _RULES.items():
        if values[name] == "auto":
            choices[name] = rule(values, data, setting)
            values[name] = choices[name].value
    return TrainConfig(**values), choices


def _devices(_: Mapping[str, Any], __: Fingerprint, setting: Setting) -> Choice:
    if setting.gpus is None:
        return Choice(1, "one process on a CPU")
    return Choice(setting.gpus.number, "all GPUs of this machine")


def _precision(values: Mapping[str, Any], _: Fingerprint, setting: Setting) -> Choice:
    if setting.gpus is None:  # up to 100 times slower without bf16 instructions
        return Choice("32-true", "on a CPU half precision is slow")
    if setting.gpus.bf16 and "focal" in loss_weights(values["loss"]):
        return Choice("bf16-mixed", "the gradients of `focal` are often too small for 16-mixed")
    return Choice("16-mixed", "on a GPU")


def _crop(_: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    limit = CROP_ON_GPU if setting.gpus else CROP_ON_CPU
    shorter = math.ceil(min(data.size_hw) / MULTIPLE) * MULTIPLE
    if data.one_size and shorter <= limit and max(data.size_hw) <= limit:
        return Choice(None, f"images of {_by(data.size_hw)} are trained on whole")
    side = min(limit, shorter)
    return Choice([side, side], f"at most {limit} per side, and no higher than the image")


def _crops_per_image(values: Mapping[str, Any], data: Fingerprint, _: Setting) -> Choice:
    ratio = data.size_hw[0] * data.size_hw[1] / _crop_area(values, data)
    count = max(int(math.log2(max(ratio, 1))), 1)
    return Choice(count, f"one per doubling from the crop to the image ({ratio:.1f} times)")


def _batch_size(values: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    if setting.gpus is None:
        return Choice(BATCH_ON_CPU, "on a CPU more steps are better than larger batches")
    choice = _fitting(LARGEST_BATCH, _crop_area(values, data), values, setting)
    return choice._replace(value=max(choice.value, setting.least_batch))


def _validation_batch_size(
    values: Mapping[str, Any], data: Fingerprint, setting: Setting
) -> Choice:
    if setting.gpus is None:
        return Choice(VALIDATION_ON_CPU, "on a CPU larger batches are not faster")
    area = data.size_hw[0] * data.size_hw[1]
    return _fitting(LARGEST_VALIDATION, area, values, setting)


def _fitting(largest: int, area: int, values: Mapping[str, Any], setting: Setting) -> Choice:
    """Choose the largest power of two of images of `area` pixels that fits into GPU memory."""
    assert setting.gpus
    bytes_a_pixel = BYTES_A_PIXEL.get(setting.encoder, BYTES_OF_OTHERS)
    bytes_a_pixel *= 2 if values["precision"] == "32-true" else 1
    fits = SHARE_OF_MEMORY * setting.gpus.memory / (bytes_a_pixel * area)
    size = 2 ** int(math.log2(min(max(fits, 1), largest)))
    memory = f"{setting.gpus.memory / 2**30:.0f} GiB"
    return Choice(size, f"about {fits:.0f} fit into {memory} at {bytes_a_pixel} bytes per pixel")


def _epochs(values: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    budget = CROPS_ON_GPU if setting.gpus else CROPS_ON_CPU
    per_epoch = max(data.n_images * values["crops_per_image"], 1)
    epochs = min(max(math.ceil(budget / per_epoch), FEWEST_EPOCHS), MOST_EPOCHS)
    reason = f"{budget} crops, {per_epoch} per epoch, in {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs"
    return Choice(epochs, reason)


def _lr(values: Mapping[str, Any], _: Fingerprint, setting: Setting) -> Choice:
    processes = values["devices"] * values["num_nodes"]
    batch = values["batch_size"] * values["accumulate"] * processes
    base, highest, start = LR_SCRATCH, HIGHEST_LR_SCRATCH, "from scratch"
    if setting.pretrained:
        base, highest, start = LR_PRETRAINED, HIGHEST_LR_PRETRAINED, "pretrained"
    lr = min(base * math.sqrt(batch / BATCH_ON_CPU), highest)
    reason = f"{start}, {base} at batches of {BATCH_ON_CPU}, by the square root of {batch}"
    return Choice(float(f"{lr:.2g}"), reason)


def _class_weights(values: Mapping[str, Any], data: Fingerprint, _: Setting) -> Choice:
    if "bce" not in loss_weights(values["loss"]):
        return Choice(None, "they apply to `bce`, which the loss lacks")
    shares = np.array(data.pixel_shares)
    shown, weights = shares > 0, np.ones(len(shares))
    if shown.any():  # by the median, since a single rare class would shift the mean
        rarity = shares[shown] ** -0.5
        weights[shown] = np.clip(rarity / np.median(rarity), *WEIGHT_LIMITS)
        weights[shown] /= weights[shown].mean()
    return Choice([float(f"{w:.3g}") for w in weights], "1 / square root of the pixels of a class")


def _crop_area(values: Mapping[str, Any], data: Fingerprint) -> int:
    height, width = values["crop"] or data.size_hw
    return int(height * width)


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"


_RULES: dict[str, Callable[[Mapping[str, Any], Fingerprint, Setting], Choice]] = {
    "devices": _devices,
    "precision": _precision,
    "crop": _crop,
    "crops_per_image": _crops_per_image,
    "batch_size": _batch_size,
    "validation_batch_size": _validation_batch_size,
    "epochs": _epochs,
    "lr": _lr,
    "class_weights": _class_weights,
}
_TYPES = get_type_hints(TrainConfig, include_extras=True)

TrainParams = create_model(  # type: ignore[call-overload]
    "TrainParams",
    __base__=TrainConfig,
    __doc__="The training in params.yaml, where `auto` lets a rule choose a value.",
    **{name: (_TYPES[name] | Literal["auto"], ...) for name in _RULES},
)
