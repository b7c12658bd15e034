"""Hyper-parameters given as `auto`: chosen by fixed rules from the data and the device.

The rules are few, and as simple as what is known about the task: docs/auto.md says what they make
of some data sets. On a CPU they are calibrated on the embedded sample.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from steelseg.data.cache import Cache
from steelseg.model.padding import MULTIPLE
from steelseg.train.config import AUTO, TrainConfig, TrainParams
from steelseg.train.crops import Rows

CROP_ON_CPU, CROP_ON_GPU = 128, 256
BYTES_A_PIXEL = 4096  # of a training batch on a GPU: twice what a Unet with a resnet takes
SHARE_OF_MEMORY = 0.6
BATCH_ON_CPU, LARGEST_BATCH = 8, 64
CROPS_ON_CPU, CROPS_ON_GPU = 4_500, 400_000  # that a whole training shows, if epochs allow
FEWEST_EPOCHS, MOST_EPOCHS = 4, 200
LR_SCRATCH, LR_PRETRAINED = 2e-3, 5e-4  # at batches of 8 and 32
HIGHEST_LR = 4e-3
WEIGHT_LIMITS = 0.25, 4.0  # of the median class's


class Fingerprint(NamedTuple):
    """What the rules know of the data: an image's size, the training images, class pixel shares."""

    size_hw: tuple[int, int]
    n_images: int
    pixel_shares: tuple[float, ...]


class Setting(NamedTuple):
    """What the rules know of the rest."""

    gpu_bytes: int | None
    """memory of a GPU; None for a CPU"""
    processes: int
    pretrained: bool


class Choice(NamedTuple):
    """What was chosen for a parameter, and by which rule."""

    value: Any
    reason: str


def fingerprint(cache: Cache, rows: Rows, *, masks: bool = True) -> Fingerprint:
    """Measure the training images, which are the given rows of the cache.

    Without `masks`, which takes reading them all, there are no shares of classes.
    """
    if not masks:
        return Fingerprint(cache.size_hw, len(rows), ())
    n_pixels = cache.size_hw[0] * cache.size_hw[1]
    areas = [np.bitwise_count(cache.packed_masks(int(r))).sum(axis=(1, 2)) for r in rows]
    shares = np.sum(areas, axis=0, dtype=np.int64) / (max(len(rows), 1) * n_pixels)
    return Fingerprint(cache.size_hw, len(rows), tuple(np.atleast_1d(shares).tolist()))


def resolve(
    params: TrainParams, data: Fingerprint, setting: Setting
) -> tuple[TrainConfig, dict[str, Choice]]:
    """Put a value in place of every `auto`; each rule may build on what stands before it.

    Returns:
        The config that is trained with, and what was chosen, by parameter.
    """
    values, choices = params.model_dump(), {}
    for name in AUTO:
        if values[name] == "auto":
            choices[name] = _RULES[name](values, data, setting)
            values[name] = choices[name].value
    return TrainConfig(**values), choices


def _crop(_: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    limit = CROP_ON_GPU if setting.gpu_bytes else CROP_ON_CPU
    shorter = math.ceil(min(data.size_hw) / MULTIPLE) * MULTIPLE
    if shorter <= limit and max(data.size_hw) <= limit:
        return Choice(None, f"images of {_by(data.size_hw)} are trained on whole")
    side = min(limit, shorter)
    return Choice([side, side], f"at most {limit} a side, and no higher than the image")


def _crops_per_image(values: Mapping[str, Any], data: Fingerprint, _: Setting) -> Choice:
    ratio = data.size_hw[0] * data.size_hw[1] / _crop_area(values, data)
    count = max(int(math.log2(max(ratio, 1))), 1)
    return Choice(count, f"one for each doubling from the crop to the image ({ratio:.1f} times)")


def _batch_size(values: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    if setting.gpu_bytes is None:
        return Choice(BATCH_ON_CPU, "on a CPU more steps are worth more than larger ones")
    fits = SHARE_OF_MEMORY * setting.gpu_bytes / (BYTES_A_PIXEL * _crop_area(values, data))
    size = 2 ** int(math.log2(min(max(fits, 1), LARGEST_BATCH)))
    return Choice(size, f"about {fits:.0f} fit into {setting.gpu_bytes / 2**30:.0f} GiB")


def _epochs(values: Mapping[str, Any], data: Fingerprint, setting: Setting) -> Choice:
    budget = CROPS_ON_GPU if setting.gpu_bytes else CROPS_ON_CPU
    per_epoch = max(data.n_images * values["crops_per_image"], 1)
    epochs = min(max(math.ceil(budget / per_epoch), FEWEST_EPOCHS), MOST_EPOCHS)
    reason = f"{budget} crops, {per_epoch} an epoch, in {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs"
    return Choice(epochs, reason)


def _lr(values: Mapping[str, Any], _: Fingerprint, setting: Setting) -> Choice:
    batch = values["batch_size"] * values["accumulate"] * setting.processes
    base, reference = (LR_PRETRAINED, 32) if setting.pretrained else (LR_SCRATCH, 8)
    lr = min(base * math.sqrt(batch / reference), HIGHEST_LR)
    start = "pretrained" if setting.pretrained else "from scratch"
    reason = f"{start}, {base} at batches of {reference}, by the square root of {batch}"
    return Choice(float(f"{lr:.2g}"), reason)


def _class_weights(values: Mapping[str, Any], data: Fingerprint, _: Setting) -> Choice:
    loss = values["loss"]
    if loss != "bce" and "bce" not in loss:
        return Choice(None, "the loss has no `bce`, which they are for")
    shares = np.array(data.pixel_shares)
    shown, weights = shares > 0, np.ones(len(shares))
    if shown.any():  # by the median, since a single rare class would move the mean
        rarity = shares[shown] ** -0.5
        weights[shown] = np.clip(rarity / np.median(rarity), *WEIGHT_LIMITS)
        weights[shown] /= weights[shown].mean()
    return Choice([float(f"{w:.3g}") for w in weights], "1 / square root of a class's pixels")


def _crop_area(values: Mapping[str, Any], data: Fingerprint) -> int:
    height, width = values["crop"] or data.size_hw
    return int(height * width)


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"


_RULES: dict[str, Callable[[Mapping[str, Any], Fingerprint, Setting], Choice]] = {
    "crop": _crop,
    "crops_per_image": _crops_per_image,
    "batch_size": _batch_size,
    "epochs": _epochs,
    "lr": _lr,
    "class_weights": _class_weights,
}
