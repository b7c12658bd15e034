"""Draws the training images of an epoch and their order."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Shown = npt.NDArray[np.bool_]


def image_weights(shown: Shown, balance: float) -> Reals:
    """Weigh images so that rare classes are drawn more often: (N,), sums to 1.

    An image weighs f^-balance, where f is the share of images that show its rarest class; clean
    images count as a class. So 0 weighs all images equally, and with 1, classes that never occur
    together are drawn equally often.

    Args:
        shown: (N, C), which image shows which class.
        balance: 0 to 1.
    """
    groups = np.column_stack([shown, ~shown.any(axis=1)])
    shares = groups.mean(axis=0)
    factors = np.maximum(shares, 1 / len(shown)) ** -balance
    weights = np.where(groups, factors, 0).max(axis=1)
    normalised: Reals = weights / weights.sum()
    return normalised


def draw(
    rng: np.random.Generator,
    n_samples: int,
    shown: Shown,
    balance: float,
    hard_negatives: float,
    false_pixels: Integers,
) -> Integers:
    """Draw the images of an epoch: (n_samples,) indices.

    Args:
        rng: the random generator.
        n_samples: how many to draw.
        shown: (N, C), which image shows which class.
        balance: see `image_weights`; with 0 every image is drawn equally often.
        hard_negatives: the share of the samples of clean images that are redrawn in proportion to
            their false positive pixels.
        false_pixels: (N,), false positive pixels of each image; if all are 0, nothing is redrawn.
    """
    if balance:
        images = rng.choice(len(shown), n_samples, p=image_weights(shown, balance))
    else:
        images = rng.permutation(n_samples) % len(shown)
    clean = np.flatnonzero(~shown.any(axis=1))
    alarms = false_pixels[clean]
    if hard_negatives and alarms.any():
        again = np.isin(images, clean) & (rng.random(n_samples) < hard_negatives)
        images[again] = rng.choice(clean, int(again.sum()), p=alarms / alarms.sum())
    return images.astype(np.int64)


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.int64]]
"""Draws a number of image indices."""


class EpochSampler(Sampler[int]):
    """The sample numbers of one process in one epoch: shuffled, and divided between processes.

    Every process gets the same number, so that their steps keep pace. The remainder is left out; it
    differs from epoch to epoch.
    """

    def __init__(
        self,
        n_images: int,
        repeats: int,
        seed: int,
        rank: int,
        world_size: int,
        draw: Draw | None = None,
    ) -> None:
        """Show each of `n_images` images `repeats` times per epoch, or those chosen by `draw`."""
        self.n_images, self.n_samples, self.draw = n_images, n_images * repeats, draw
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        first = self.epoch * self.n_samples
        if self.draw is None:
            numbers = first + rng.permutation(self.n_samples)
        else:  # numbers never repeat across epochs, since the randomness of samples depends on them
            images = self.draw(rng, self.n_samples)
            numbers = images + self.n_images * np.arange(first, first + self.n_samples)
        share = numbers[: len(self) * self.world_size][self.rank :: self.world_size]
        return iter(share.tolist())
