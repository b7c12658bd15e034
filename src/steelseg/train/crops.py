"""Training crops and validation images from the cache, as uint8 tensors.

All randomness of a training sample is drawn from (seed, sample number), and the numbers of an epoch
are a permutation drawn from (seed, epoch). So the batches depend neither on the number of workers
nor on what came before, and training can go on from any epoch as if it had never stopped.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from steelseg.core.sizes import pad
from steelseg.data.cache import BLACK, Cache, Rows
from steelseg.train import mixing
from steelseg.train.augmentation import Transforms, augment, build_augmentation
from steelseg.train.config import Phase, TrainConfig

BLACK_DRAWS = 10


class Batch(NamedTuple):
    """Images (B, 1, H, W) uint8, masks (B, C, h, w) uint8 with h <= H, w <= W, rows (B,) int64."""

    images: Tensor
    masks: Tensor
    rows: Tensor


class _Sample(NamedTuple):
    """An image (H, W) and masks (K, H, W) of some of the channels (K,), uint8; others are empty."""

    image_hw: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    channels: npt.NDArray[np.int64]


class TrainingCrops(Dataset[Batch]):
    """Augmented random crops; sample number `n` shows row `rows[n % len(rows)]`."""

    def __init__(
        self,
        cache: Cache,
        rows: Rows,
        crop_hw: tuple[int, int] | None,
        on_defect: float,
        transforms: Transforms,
        seed: int,
        max_black: float = 1,
        cutmix: float = 0,
        copy_paste: float = 0,
    ) -> None:
        """Take crops of `crop_hw` pixels (None: whole images) of the given rows of the cache.

        Images that are smaller are padded by their last row and column, and never stretched, up to
        the size of the crop or of the largest image.

        A crop is laid over a defect with the probability `on_defect`, if the image shows any; other
        crops avoid a share of black pixels above `max_black`. `cutmix` and `copy_paste` are
        probabilities of mixing in a crop of another image (see `steelseg.train.mixing`).
        """
        self.cache = cache
        self.rows = rows
        tallest, widest = np.max(cache.sizes_hw, axis=0).tolist()
        self.crop_hw = crop_hw or (tallest, widest)
        self.frame_hw = min(self.crop_hw[0], tallest), min(self.crop_hw[1], widest)
        self.on_defect = on_defect
        self.augmentation = build_augmentation(transforms)
        self.seed = seed
        self.max_black = max_black
        self.cutmix = cutmix
        self.copy_paste = copy_paste

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        images, masks, rows = self.__getitems__([number])
        return Batch(images[0], masks[0], rows[0])

    def __getitems__(self, numbers: list[int]) -> Batch:
        """Return a batch at once; empty masks are written there, and not worked on before."""
        samples = [self._sample(number) for number in numbers]
        images = np.stack([pad(sample.image_hw) for sample in samples])[:, None]
        n_classes, size_hw = len(self.cache.classes), samples[0].masks.shape[1:]
        masks = np.empty((len(samples), n_classes, *size_hw), dtype=np.uint8)
        for masks_chw, sample in zip(masks, samples, strict=True):
            some = dict(zip(sample.channels.tolist(), sample.masks, strict=True))
            for channel, mask_hw in enumerate(masks_chw):
                mask_hw[:] = some.get(channel, 0)
        rows = self.rows[np.array(numbers) % len(self.rows)]
        return Batch(*map(torch.from_numpy, (images, masks, rows)))

    def _sample(self, number: int) -> _Sample:
        row = int(self.rows[number % len(self.rows)])
        rng = np.random.default_rng((self.seed, number))
        sample, channels = self._crop(rng, row, self.on_defect)
        if self.copy_paste and rng.random() < self.copy_paste:
            other, _ = self._crop(rng, self._any(rng), on_defect=1)
            sample = mixing.copy_paste(rng, sample, other)
        if self.cutmix and rng.random() < self.cutmix:
            other, _ = self._crop(rng, self._any(rng), self.on_defect)
            sample = mixing.cutmix(rng, sample, other)
        augmented = augment(self.augmentation, *sample, seed=int(rng.integers(2**31)))
        return _Sample(*augmented, channels)

    def _any(self, rng: np.random.Generator) -> int:
        return int(rng.choice(self.rows))

    def _crop(
        self, rng: np.random.Generator, row: int, on_defect: float
    ) -> tuple[mixing.Sample, npt.NDArray[np.int64]]:
        """Draw a crop, with the masks of some channels; the others are empty."""
        packed, image_hw = self.cache.packed_masks(row), self.cache.image(row)
        width = image_hw.shape[1]
        shown = np.flatnonzero(packed.any(axis=(1, 2)))
        if len(shown) and rng.random() < on_defect:
            mask_hw = np.unpackbits(packed[rng.choice(shown)], axis=-1, count=width)
            window = defect_window(rng, mask_hw, self.crop_hw)
        else:
            window = lit_window(rng, image_hw, self.crop_hw, self.max_black)
        channels = self._channels(shown)
        masks = unpack_window(packed[channels], width, window)  # (K, h, w)
        height, width = np.subtract(self.frame_hw, masks.shape[1:]).tolist()
        if height or width:
            masks = np.pad(masks, ((0, 0), (0, height), (0, width)))
        return (pad(image_hw[window], self.frame_hw), masks), channels

    def _channels(self, shown: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Choose the masks to work on: those that show something, but all to mix, and never none.

        Some augmentations ask for a mask.
        """
        if self.cutmix or self.copy_paste:
            return np.arange(len(self.cache.classes))
        return shown if len(shown) else np.arange(1)


def training_crops(cache: Cache, rows: Rows, config: TrainConfig, phase: Phase) -> TrainingCrops:
    """Show rows of the cache as a phase of the training sees them."""
    return TrainingCrops(
        cache,
        rows,
        phase.crop_hw,
        config.crop_on_defect,
        config.transforms,
        config.seed,
        config.max_black,
        config.cutmix,
        config.copy_paste,
    )


class WholeImages(Dataset[Batch]):
    """Whole images, as they are."""

    def __init__(self, cache: Cache, rows: Rows) -> None:
        """Show the given rows of the cache."""
        self.cache = cache
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        row = int(self.rows[number])
        return _tensors(self.cache.image(row), self.cache.masks(row), row)

    def __getitems__(self, numbers: list[int]) -> Batch:
        """Return a batch of images of one size: masks are unpacked where they stay."""
        rows = self.rows[numbers]
        images = np.stack([pad(self.cache.image(row)) for row in rows])[:, None]
        packed = np.stack([self.cache.packed_masks(row) for row in rows])
        masks = np.unpackbits(packed, axis=-1, count=self.cache.sizes_hw[rows[0]][1])
        return Batch(*map(torch.from_numpy, (images, masks, rows)))


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.int64]]
"""Chooses so many of the images, as indices."""


class EpochSampler(Sampler[int]):
    """The sample numbers of one process in one epoch: shuffled, and shared out between processes.

    Every process gets the same number, so that their steps keep pace; what does not divide is left
    out, which differs from epoch to epoch.
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
        """Show each of `n_images` images `repeats` times an epoch, or those that `draw` chooses."""
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
        else:  # no number twice, in whatever epoch, as the randomness of samples hangs on it
            images = self.draw(rng, self.n_samples)
            numbers = images + self.n_images * np.arange(first, first + self.n_samples)
        share = numbers[: len(self) * self.world_size][self.rank :: self.world_size]
        return iter(share.tolist())


def random_window(
    rng: np.random.Generator, size_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Draw the rows and columns of a crop; an axis shorter than the crop is taken whole."""
    top, left = (
        int(rng.integers(max(size - crop, 0) + 1))
        for size, crop in zip(size_hw, crop_hw, strict=True)
    )
    return slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1])


def lit_window(
    rng: np.random.Generator,
    image_hw: npt.NDArray[np.uint8],
    crop_hw: tuple[int, int],
    max_black: float,
) -> tuple[slice, slice]:
    """Draw a crop with at most a share of `max_black` black pixels, or the least black of ten."""
    size_hw = image_hw.shape[0], image_hw.shape[1]
    best = random_window(rng, size_hw, crop_hw)
    least = black_share(image_hw[best]) if max_black < 1 else 0.0
    for _ in range(BLACK_DRAWS - 1):
        if least <= max_black:
            break
        window = random_window(rng, size_hw, crop_hw)
        if (share := black_share(image_hw[window])) < least:
            best, least = window, share
    return best


def black_share(image_hw: npt.NDArray[np.uint8]) -> float:
    """Return the share of pixels without a plate: grey levels of at most 10 of 255."""
    return np.count_nonzero(image_hw <= BLACK) / image_hw.size


def defect_window(
    rng: np.random.Generator, mask_hw: npt.NDArray[np.uint8], crop_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Draw a crop that holds a random pixel of a mask (not an empty one) at a random place."""
    pixels = np.flatnonzero(mask_hw.view(bool))  # several times as fast as on uint8
    pixel_hw = divmod(int(pixels[rng.integers(len(pixels))]), mask_hw.shape[1])
    top, left = (
        min(max(pixel - int(rng.integers(crop)), 0), max(size - crop, 0))
        for pixel, crop, size in zip(pixel_hw, crop_hw, mask_hw.shape, strict=True)
    )
    return slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1])


def unpack_window(
    packed: npt.NDArray[np.uint8], width: int, window: tuple[slice, slice]
) -> npt.NDArray[np.uint8]:
    """Unpack the pixels of a window, and hardly any others: (C, h, w) uint8 of 0 and 1.

    Args:
        packed: (C, H, ceil(W / 8)) as `Cache.packed_masks` returns them.
        width: W, in pixels.
        window: rows and columns.
    """
    rows, columns = window
    left, right = columns.start, min(columns.stop, width)
    first = left // 8  # byte
    unpacked = np.unpackbits(packed[:, rows, first : -(-right // 8)], axis=-1)
    return unpacked[..., left - 8 * first : right - 8 * first]


def collate(samples: list[Batch] | Batch) -> Batch:
    """Stack samples into a batch; what is one already stays."""
    if isinstance(samples, Batch):
        return samples
    images, masks, rows = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), torch.stack(rows))


def _tensors(image_hw: npt.NDArray[np.uint8], masks_chw: npt.NDArray[np.uint8], row: int) -> Batch:
    image = torch.from_numpy(np.ascontiguousarray(pad(image_hw)))
    masks = torch.from_numpy(np.ascontiguousarray(masks_chw))
    return Batch(image[None], masks, torch.tensor(row))
