"""Training crops and validation images from the cache, a batch at a time.

All randomness of a training sample is drawn from (seed, sample number), and the order of an epoch's
sample numbers from (seed, epoch). So batches depend neither on the number of workers nor on earlier
epochs, and an interrupted training resumes as if it had never stopped.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from steelseg.core.arrays import Pixels
from steelseg.core.pixels import batch_of
from steelseg.core.sizes import largest_size, pad
from steelseg.data.cache import Cache, Rows
from steelseg.train import mixing
from steelseg.train.augmentation import Transforms, augment, build_augmentation
from steelseg.train.batch import Batch
from steelseg.train.config import Phase, TrainConfig
from steelseg.train.windows import defect_window, lit_window, unpack_window


class _Sample(NamedTuple):
    """An image, and the masks (K, H, W) of some of the classes (K,), uint8; others are empty."""

    image: Pixels
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
        """Crop `crop_hw` pixels (None: whole images) from the given rows of the cache.

        Smaller images are padded by their last row and column, and never stretched, to the size of
        the crop or of the largest image.

        A crop covers a defect with the probability `on_defect`, if the image shows any; other crops
        avoid a share of black pixels above `max_black`. `cutmix` and `copy_paste` are the
        probabilities of mixing in a crop of another image (see `steelseg.train.mixing`).
        """
        self.cache = cache
        self.rows = rows
        largest_hw = largest_size(cache.sizes_hw)
        self.crop_hw = crop_hw or largest_hw
        self.frame_hw = min(self.crop_hw[0], largest_hw[0]), min(self.crop_hw[1], largest_hw[1])
        self.on_defect = on_defect
        self.augmentation = build_augmentation(transforms)
        self.seed = seed
        self.max_black = max_black
        self.cutmix = cutmix
        self.copy_paste = copy_paste

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> Batch:
        """Return a whole batch; empty masks are filled in here and not augmented."""
        samples = [self._sample(number) for number in numbers]
        images = batch_of([pad(sample.image) for sample in samples])
        size_hw = samples[0].masks.shape[1:]
        masks = np.empty((len(samples), self.cache.n_masks, *size_hw), dtype=np.uint8)
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
            sample = mixing.copy_paste(rng, sample, other, len(self.cache.classes))
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
        packed, image = self.cache.packed_masks(row), self.cache.image(row)
        width = image.shape[-1]
        drawn = np.flatnonzero(packed.any(axis=(1, 2)))
        shown = drawn[drawn < len(self.cache.classes)]
        if len(shown) and rng.random() < on_defect:
            mask_hw = np.unpackbits(packed[rng.choice(shown)], axis=-1, count=width)
            window = defect_window(rng, mask_hw, self.crop_hw)
        else:
            window = lit_window(rng, image, self.crop_hw, self.max_black)
        channels = self._channels(drawn)
        masks = unpack_window(packed[channels], width, window)  # (K, h, w)
        height, width = np.subtract(self.frame_hw, masks.shape[1:]).tolist()
        if height or width:
            masks = np.pad(masks, ((0, 0), (0, height), (0, width)))
        return (pad(image[..., *window], self.frame_hw), masks), channels

    def _channels(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Choose the masks to augment: non-empty ones, or all for mixing, and at least one.

        Some augmentations require a mask.
        """
        if self.cutmix or self.copy_paste:
            return np.arange(self.cache.n_masks)
        return drawn if len(drawn) else np.arange(1)


def training_crops(cache: Cache, rows: Rows, config: TrainConfig, phase: Phase) -> TrainingCrops:
    """Build the crops of some rows of the cache for a phase of the training."""
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
    """Whole images, unchanged."""

    def __init__(self, cache: Cache, rows: Rows) -> None:
        """Show the given rows of the cache."""
        self.cache = cache
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> Batch:
        """Return a batch of images of one size; masks are unpacked straight into the batch."""
        rows = self.rows[numbers]
        images = batch_of([pad(self.cache.image(row)) for row in rows])
        packed = np.stack([self.cache.packed_masks(row) for row in rows])
        masks = np.unpackbits(packed, axis=-1, count=self.cache.sizes_hw[rows[0]][1])
        return Batch(*map(torch.from_numpy, (images, masks, rows)))
