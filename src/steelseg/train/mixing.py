"""Mixes two samples: cutmix and copy-paste of crops, mixup of batches.

A crop is an image, (H, W) or (N, H, W) with N channels, and its masks (C, H, W). Ignored regions
may be a last mask, which moves with the pixels. Mixup (Zhang et al. 2018) runs on the device: it
blends images, and losses by the same share.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steelseg.core.arrays import Pixels, Uint8
from steelseg.core.pixels import size_of

Sample = tuple[Pixels, Uint8]
ALPHA = 0.4  # of mixup's Beta distribution: mostly a little of another image


class Blend(NamedTuple):
    """A mixup: each image keeps `share` of itself; the rest is from another of the batch."""

    share: float
    others: Tensor


def cutmix(rng: np.random.Generator, sample: Sample, other: Sample) -> Sample:
    """Replace a rectangle by that of another sample, including the masks.

    Its share of the area is drawn from Beta(1, 1), as by Yun et al. (2019), and it has the aspect
    ratio of the sample.
    """
    side = np.sqrt(rng.random())
    window = []
    size_hw = size_of(sample[0])
    for size in size_hw:
        length = round(size * side)
        start = int(rng.integers(size - length + 1))
        window.append(slice(start, start + length))
    where = np.zeros(size_hw, dtype=bool)
    where[tuple(window)] = True
    return _take(where, sample, other)


def copy_paste(rng: np.random.Generator, sample: Sample, other: Sample, n_classes: int) -> Sample:
    """Paste the pixels of one class of another sample at their position, over what was there.

    The class is drawn from those that the other sample shows; if it shows none, nothing is pasted.
    """
    shown = np.flatnonzero(other[1][:n_classes].any(axis=(1, 2)))
    if not len(shown):
        return sample
    return _take(other[1][rng.choice(shown)].astype(bool), sample, other)


def blend_images(images: Tensor, blend: Blend) -> Tensor:
    """Blend a batch of images (B, N, H, W) to float32 levels."""
    levels = images.float()
    return blend.share * levels + (1 - blend.share) * levels[blend.others]


def draw_blend(rng: np.random.Generator, probability: float, n_images: int) -> Blend | None:
    """Draw the mixup of a batch of `n_images`, None for no mixup.

    An image's own share is the larger one, since it is scored by its own masks.
    """
    if rng.random() >= probability:
        return None
    share = rng.beta(ALPHA, ALPHA)
    return Blend(max(share, 1 - share), torch.from_numpy(rng.permutation(n_images)))


def _take(where: npt.NDArray[np.bool_], sample: Sample, other: Sample) -> Sample:
    return np.where(where, other[0], sample[0]), np.where(where, other[1], sample[1])
