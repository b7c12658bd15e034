"""The loaders of one fold: training crops and validation images, divided between processes."""

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

from steelseg.core.device import SHARED_MEMORY, has_gpu, is_first_process, n_cores, shared_memory
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.sizes import Size, largest_size
from steelseg.data import fold_table
from steelseg.data.cache import Cache, Rows
from steelseg.train import sampling
from steelseg.train.batch import Batch, PackedBatch, collate, collate_packed, packed_bytes
from steelseg.train.config import Phase, TrainConfig
from steelseg.train.crops import WholeImages, training_crops
from steelseg.train.sampling import EpochSampler

MOST_WORKERS = 8
AHEAD = 2  # batches that a worker prepares


class LazyLoader(DataLoader[Any]):
    """A loader whose workers start with the first batch, and not at `iter`.

    Lightning calls `iter` before it sets the sampler's epoch, and not again when it resumes.
    Workers that start at once would draw the samples of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class FoldData(L.LightningDataModule):
    """The loaders of one fold, divided between the trainer's processes."""

    def __init__(
        self, cache: Cache, folds: npt.NDArray[np.integer[Any]], config: TrainConfig
    ) -> None:
        """Validate on the images whose fold is `config.fold` and train on the others."""
        super().__init__()
        self.cache = cache
        self.config = config
        self.false_pixels: Rows = np.zeros(len(cache), dtype=np.int64)  # of the previous epoch
        self._training: tuple[Phase, DataLoader[Any]] | None = None
        rows = np.arange(len(cache))
        self.training_rows: Rows = fold_table.trained_on(folds, config.fold)
        self.validation_rows: Rows = rows[folds == config.fold]
        if not len(self.validation_rows) or not len(self.training_rows):
            raise BadInput(f"`fold`: expected 0 to {int(folds.max())}, but got {config.fold}")
        self._n_workers = n_workers(config, self.largest_batch())

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next epoch's draws depend on."""
        return {"false_pixels": torch.from_numpy(self.false_pixels)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an interrupted training."""
        self.false_pixels = state_dict["false_pixels"].numpy()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of shuffled crops; an incomplete last batch is left out.

        Lightning reloads before every epoch if phases differ; workers are kept as long as possible.
        """
        assert self.trainer is not None
        phase = self.config.phase(self.trainer.current_epoch)
        if self._training is None or self._training[0] != phase:
            self._training = phase, self._crops(phase)
        return self._training[1]

    def _crops(self, phase: Phase) -> DataLoader[Any]:
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
        """Count the steps of the whole training, whose epochs may differ in length."""
        _, size = self._rank_and_size()
        phases = [self.config.phase(epoch) for epoch in range(self.config.epochs)]
        samples = [len(self.training_rows) * phase.crops_per_image // size for phase in phases]
        batches = [max(n // phase.batch_size, 1) for n, phase in zip(samples, phases, strict=True)]
        return sum(math.ceil(n / self.config.accumulate) for n in batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of whole validation images, each in one share only."""
        return self._validation

    @cached_property
    def _validation(self) -> DataLoader[Any]:
        rank, size = self._rank_and_size()
        rows = self.validation_rows[rank::size]
        if not len(rows):
            raise BadInput(f"fold {self.config.fold} has fewer images than there are processes")
        images, sizes_hw = WholeImages(self.cache, rows), [self.cache.sizes_hw[row] for row in rows]
        batches = batches_of_one_size(sizes_hw, self.config.validation_batch_size)
        return self._loader(images, batch_sampler=batches)

    def on_after_batch_transfer(self, batch: Batch | PackedBatch, _: int) -> Batch:
        """Unpack the masks on the training device."""
        return batch.unpack() if isinstance(batch, PackedBatch) else batch

    def _draw(self, rng: np.random.Generator, n_samples: int) -> Rows:
        config, false_pixels = self.config, self.false_pixels[self.training_rows]
        balance, negatives = config.balance_classes, config.hard_negatives
        return sampling.draw(rng, n_samples, self._shown, balance, negatives, false_pixels)

    @cached_property
    def _shown(self) -> npt.NDArray[np.bool_]:
        """Which training image shows which class."""
        masks = (self.cache.packed_masks(int(row)) for row in self.training_rows)
        return np.stack([packed[: len(self.cache.classes)].any(axis=(1, 2)) for packed in masks])

    def _rank_and_size(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size

    def largest_batch(self) -> int:
        """Return the size in bytes of the largest batch that a worker sends."""
        config, size_hw = self.config, largest_size(self.cache.sizes_hw)
        phases = [config.phase(epoch) for epoch in (0, config.epochs - 1)]
        batches = [(phase.batch_size, phase.crop_hw or size_hw) for phase in phases]
        batches.append((config.validation_batch_size, size_hw))
        n_masks, bytes_a_pixel = self.cache.n_masks, self.cache.pixels.bytes_a_pixel
        return max(n * packed_bytes(hw, n_masks, bytes_a_pixel) for n, hw in batches)

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        on_gpu, workers = has_gpu(), self._n_workers
        if workers:  # workers share the cores; setting this in a forked one hangs or crashes
            cv2.setNumThreads(1)
        return LazyLoader(
            dataset,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=on_gpu,
            collate_fn=collate_packed if on_gpu or workers else collate,
            # separate, so that torch's own gives the same dropout after a resume
            generator=torch.Generator(),
            **options,
        )


def n_workers(config: TrainConfig, batch_bytes: int) -> int:
    """Choose the number of loader processes per training process.

    Raises:
        SteelsegError: the shared memory is too small for the requested number; torch would be
        killed.
    """
    n_batches = shared_memory() // config.devices // batch_bytes
    fitting = max(n_batches - 1, 0) // AHEAD  # one is in use by the training step
    automatic = min(MOST_WORKERS, max(n_cores() // config.devices, 1)) if has_gpu() else 0
    wanted = automatic if config.num_workers == "auto" else config.num_workers
    if wanted <= fitting:
        return wanted
    room = shared_memory(), config.devices * (AHEAD * wanted + 1) * batch_bytes
    free, need = (f"{n / 2**20:.0f} MiB" for n in room)
    message = (
        f"{SHARED_MEMORY} has {free} free, but {wanted} loader processes need {need}, with batches "
        f"of {batch_bytes / 2**20:.1f}: give a container more with `docker run --shm-size=2g`"
    )
    if config.num_workers != "auto":
        raise SteelsegError(f"{message}, or set `train.num_workers: {fitting}`")
    if is_first_process():
        print(f"warning: {message}; {fitting} are used")  # noqa: T201 - explains a slow run
    return fitting


def batches_of_one_size(sizes_hw: Sequence[Size], batch_size: int) -> list[list[int]]:
    """Group image indices into batches of one size, in order if all sizes are equal."""
    by_size: dict[Size, list[int]] = {}
    for number, size_hw in enumerate(sizes_hw):
        by_size.setdefault(size_hw, []).append(number)
    return [
        numbers[start : start + batch_size]
        for numbers in by_size.values()
        for start in range(0, len(numbers), batch_size)
    ]
