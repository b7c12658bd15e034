"""The loaders of one fold: training crops and validation images, shared out between processes."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import cv2
import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from steelseg.core.device import has_gpu, n_cores
from steelseg.core.errors import BadInput
from steelseg.core.sizes import Size
from steelseg.data.cache import Cache, Rows
from steelseg.train import sampling
from steelseg.train.config import Phase, TrainConfig
from steelseg.train.crops import Batch, EpochSampler, WholeImages, collate, training_crops

MOST_WORKERS = 8


class LazyLoader(DataLoader[Batch]):
    """A loader whose workers begin when its first batch is asked for, and not at `iter`.

    Lightning calls `iter` before it tells the sampler the epoch, and not again after that when it
    resumes, but workers begin to draw at once: they would draw the samples of epoch 0.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from super().__iter__()


class FoldData(L.LightningDataModule):
    """The loaders of one fold, shared out between the trainer's processes."""

    def __init__(
        self, cache: Cache, folds: npt.NDArray[np.integer[Any]], config: TrainConfig
    ) -> None:
        """Validate on the images whose fold is `config.fold` and train on the others."""
        super().__init__()
        self.cache = cache
        self.config = config
        self.false_pixels: Rows = np.zeros(len(cache), dtype=np.int64)  # of the epoch before
        self._training: tuple[Phase, DataLoader[Batch]] | None = None
        rows = np.arange(len(cache))
        self.training_rows: Rows = rows[folds != config.fold]
        self.validation_rows: Rows = rows[folds == config.fold]
        if not len(self.validation_rows) or not len(self.training_rows):
            raise BadInput(f"`fold`: expected 0 to {int(folds.max())}, but got {config.fold}")

    def state_dict(self) -> dict[str, Any]:
        """Return what the draws of the next epoch hang on."""
        return {"false_pixels": torch.from_numpy(self.false_pixels)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what an interrupted training saw."""
        self.false_pixels = state_dict["false_pixels"].numpy()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of shuffled crops; an incomplete last batch is left out.

        Lightning asks before every epoch where phases may differ; workers stay as long as they can.
        """
        assert self.trainer is not None
        phase = self.config.phase(self.trainer.current_epoch)
        if self._training is None or self._training[0] != phase:
            self._training = phase, self._crops(phase)
        return self._training[1]

    def _crops(self, phase: Phase) -> DataLoader[Batch]:
        config, rows = self.config, self.training_rows
        crops = training_crops(self.cache, rows, config, phase)
        rank, size = self._rank_and_size()
        draw = self._draw if config.balance_classes or config.hard_negatives else None
        sampler = EpochSampler(len(rows), phase.crops_per_image, config.seed, rank, size, draw)
        drop_last = len(sampler) >= phase.batch_size
        return self._loader(
            crops, batch_size=phase.batch_size, sampler=sampler, drop_last=drop_last
        )

    def total_steps(self) -> int:
        """Count the steps of the whole training, whose epochs may differ."""
        _, size = self._rank_and_size()
        phases = [self.config.phase(epoch) for epoch in range(self.config.epochs)]
        samples = [len(self.training_rows) * phase.crops_per_image // size for phase in phases]
        batches = [max(n // phase.batch_size, 1) for n, phase in zip(samples, phases, strict=True)]
        return sum(math.ceil(n / self.config.accumulate) for n in batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of whole validation images, each in one share only."""
        return self._validation

    @cached_property
    def _validation(self) -> DataLoader[Batch]:
        rank, size = self._rank_and_size()
        rows = self.validation_rows[rank::size]
        if not len(rows):
            raise BadInput(f"fold {self.config.fold} has fewer images than there are processes")
        images, sizes_hw = WholeImages(self.cache, rows), [self.cache.sizes_hw[row] for row in rows]
        batches = batches_of_one_size(sizes_hw, self.config.validation_batch_size)
        return self._loader(images, batch_sampler=batches)

    def _draw(self, rng: np.random.Generator, n_samples: int) -> Rows:
        config, false_pixels = self.config, self.false_pixels[self.training_rows]
        balance, negatives = config.balance_classes, config.hard_negatives
        return sampling.draw(rng, n_samples, self._shown, balance, negatives, false_pixels)

    @cached_property
    def _shown(self) -> npt.NDArray[np.bool_]:
        """Which training image shows which class."""
        masks = (self.cache.packed_masks(int(row)) for row in self.training_rows)
        return np.stack([packed.any(axis=(1, 2)) for packed in masks])

    def _rank_and_size(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Batch]:
        on_gpu = has_gpu()
        automatic = min(MOST_WORKERS, max(n_cores() // self.config.devices, 1)) if on_gpu else 0
        workers = automatic if self.config.num_workers == "auto" else self.config.num_workers
        return LazyLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=on_gpu,
            collate_fn=collate,
            worker_init_fn=_begin_worker,
            # of its own, so that torch's gives dropout the same after a resume
            generator=torch.Generator(),
            **options,
        )


def _begin_worker(_: int) -> None:
    cv2.setNumThreads(1)  # the workers themselves share out the cores


def batches_of_one_size(sizes_hw: Sequence[Size], batch_size: int) -> list[list[int]]:
    """Share numbers of images out to batches, in their order where all are of one size."""
    by_size: dict[Size, list[int]] = {}
    for number, size_hw in enumerate(sizes_hw):
        by_size.setdefault(size_hw, []).append(number)
    return [
        numbers[start : start + batch_size]
        for numbers in by_size.values()
        for start in range(0, len(numbers), batch_size)
    ]
