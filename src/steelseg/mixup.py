"""Mixup on the device (Zhang et al. 2018): images are blended, and losses by the same share."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from steelseg.dataset import Batch

ALPHA = 0.4  # of the Beta distribution: mostly a little of another image


class Blend(NamedTuple):
    """A mixup: each image keeps `share` of itself, and takes the rest of another of the batch."""

    share: float
    others: Tensor


def blend_images(batch: Batch, blend: Blend) -> Batch:
    """Blend the images of a batch; they are float32 grey levels then, and the masks as before."""
    images = batch.images.float()
    images = blend.share * images + (1 - blend.share) * images[blend.others]
    return batch._replace(images=images)


def draw_blend(rng: np.random.Generator, probability: float, n_images: int) -> Blend | None:
    """Draw how a batch of so many images is blended, None for not at all.

    The greater share is an image's own, as it is its own masks that it is scored by.
    """
    if rng.random() >= probability:
        return None
    share = rng.beta(ALPHA, ALPHA)
    return Blend(max(share, 1 - share), torch.from_numpy(rng.permutation(n_images)))
