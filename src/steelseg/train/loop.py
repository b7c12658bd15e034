"""Training of one fold with Lightning: resumable, on any number of devices."""

import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import SEAL, is_sealed, seal
from steelseg.data.cache import Cache
from steelseg.model.network import Segmenter
from steelseg.train import sampling
from steelseg.train.checkpoint_io import load_tree, save_tree
from steelseg.train.config import TrainConfig
from steelseg.train.crops import Batch, EpochSampler, Rows, WholeImages, collate, training_crops
from steelseg.train.task import SegmentationTask
from steelseg.train.totals import validation_scores

KEPT_CHECKPOINTS = 2
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
LOWER_IS_BETTER = frozenset({"loss"})

LogEpoch = Callable[[dict[str, float], int], None]
Weights = dict[str, Tensor]


class EpochKeeper(Checkpoint):
    """Keeps the history and the best weights, and writes a checkpoint after every epoch.

    The best weights are part of the checkpoint, so that one atomic file is the whole state.
    """

    def __init__(self, folder: Path, config: TrainConfig, log_epoch: LogEpoch) -> None:
        """Write checkpoints into `folder`; `log_epoch` is told each epoch's scores.

        It is told those of earlier epochs again when training goes on: it may have missed the last.
        """
        self.folder = folder
        self.select_by = config.select_by
        self.epochs = config.epochs
        self.log_epoch = log_epoch
        self.average_best = config.average_best
        self.history: list[dict[str, float]] = []
        self.best: dict[int, Weights] = {}  # by epoch, the best first
        self.kept_scores: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {
            "history": self.history,
            "best": self.best,
        }

    @property
    def best_epoch(self) -> int:
        """The best epoch so far, of equals the first; -1 before there is one."""
        return next(iter(self.best), -1)

    @property
    def best_weights(self) -> Weights:
        """The weights to keep: those of the best epoch, or the mean of the best epochs'."""
        return mean_weights(list(self.best.values()))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an interrupted training."""
        self.history = state_dict["history"]
        self.best = state_dict["best"]
        self.kept_scores = validation_scores(self.history[self.best_epoch])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See that all processes go on from the same epoch; on several nodes a folder may lag.

        Raises:
            SteelsegError: they do not.
        """
        path = trainer.ckpt_path
        number = int(Path(path).stem.rpartition("-")[2]) if path else -1
        numbers = trainer.strategy.all_gather(torch.tensor(number, device=pl_module.device))
        if (numbers != number).any():
            raise SteelsegError(
                f"the processes found different checkpoints in {self.folder}: is it shared, "
                "and does no other training work in it?"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell of the epochs before an interruption."""
        if trainer.is_global_zero:
            for scores in self.history:
                self.log_epoch(scores, int(scores["epoch"]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the scores, keep the weights if they are the best so far, and save."""
        assert isinstance(pl_module, SegmentationTask)
        epoch = trainer.current_epoch
        self.history.append({"epoch": epoch, **pl_module.epoch_scores})
        weights = pl_module.judged.network.state_dict()
        self.best[epoch] = {k: v.detach().cpu().clone() for k, v in weights.items()}
        ranking = sorted(self.best, key=self._score, reverse=True)  # stable: of equals the first
        self.best = {kept: self.best[kept] for kept in ranking[: self.average_best]}
        self.kept_scores = validation_scores(self.history[self.best_epoch])
        path = self.folder / f"epoch-{epoch:04d}.safetensors"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            seal(path)
            _drop_old(self.folder)
            self.log_epoch(self.history[-1], epoch)
            tqdm.write(_describe(self.history[-1], self.epochs))

    def _score(self, epoch: int) -> float:
        value = self.history[epoch][f"val_{self.select_by}"]
        return -value if self.select_by in LOWER_IS_BETTER else value


def mean_weights(weights: Sequence[Weights]) -> Weights:
    """Average weights and batch-norm statistics; what is counted in integers is the first's."""
    first, *others = weights
    if not others:
        return first
    return {
        name: torch.stack([of_one[name] for of_one in weights]).mean(dim=0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


class SafetensorsIO(CheckpointIO):
    """Lets Lightning write and read checkpoints without pickling."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        save_tree(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        checkpoint: dict[str, Any] = load_tree(Path(path))
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


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
        rows = np.arange(len(cache))
        self.training_rows: Rows = rows[folds != config.fold]
        self.validation_rows: Rows = rows[folds == config.fold]
        if not len(self.validation_rows) or not len(self.training_rows):
            raise BadInput(f"`fold`: expected 0 to {int(folds.max())}, but got {config.fold}")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of shuffled crops; an incomplete last batch is left out."""
        config, rows = self.config, self.training_rows
        assert self.trainer is not None
        phase = config.phase(self.trainer.current_epoch)
        crops = training_crops(self.cache, rows, config, phase)
        rank, size = self._rank_and_size()
        draw = self._draw if config.balance_classes or config.hard_negatives else None
        sampler = EpochSampler(len(rows), phase.crops_per_image, config.seed, rank, size, draw)
        drop_last = len(sampler) >= phase.batch_size
        return self._loader(crops, phase.batch_size, sampler=sampler, drop_last=drop_last)

    def total_steps(self) -> int:
        """Count the steps of the whole training, whose epochs may differ."""
        _, size = self._rank_and_size()
        phases = [self.config.phase(epoch) for epoch in range(self.config.epochs)]
        samples = [len(self.training_rows) * phase.crops_per_image // size for phase in phases]
        batches = [max(n // phase.batch_size, 1) for n, phase in zip(samples, phases, strict=True)]
        return sum(math.ceil(n / self.config.accumulate) for n in batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of whole validation images, each in one share only."""
        rank, size = self._rank_and_size()
        rows = self.validation_rows[rank::size]
        if not len(rows):
            raise BadInput(f"fold {self.config.fold} has fewer images than there are processes")
        return self._loader(WholeImages(self.cache, rows), self.config.validation_batch_size)

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

    def _loader(self, dataset: Any, batch_size: int, **options: Any) -> DataLoader[Batch]:
        on_gpu = torch.cuda.is_available()
        automatic = min(8, os.cpu_count() or 1) if on_gpu else 0
        workers = automatic if self.config.num_workers == "auto" else self.config.num_workers
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=on_gpu,
            collate_fn=collate,
            **options,
        )


def train(
    segmenter: Segmenter, config: TrainConfig, data: FoldData, folder: Path, log_epoch: LogEpoch
) -> EpochKeeper:
    """Train a segmenter, going on from the newest sound checkpoint in `folder` if there is one.

    Args:
        segmenter: trained in place; it is not left with the weights to keep.
        config: how to train.
        data: the loaders of one fold.
        folder: for checkpoints.
        log_epoch: is told the number and the scores of each finished epoch, by one process alone,
            and once more when an interrupted training goes on.

    Returns:
        The history of the epochs, the weights to keep, and their scores.

    Raises:
        SteelsegError: the loss is no longer finite.
    """
    _quieten()
    task = SegmentationTask(segmenter, config, data.cache)
    for module in (segmenter, task.judged) if config.channels_last else ():
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        segmenter.network.compile()
    keeper = EpochKeeper(folder, config, log_epoch)
    trainer = _trainer(config, keeper)
    resume = newest_checkpoint(folder)
    if resume is not None and trainer.is_global_zero:
        print(f"resuming after {resume.stem}")  # noqa: T201 - a person waits for this
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=False)
    if config.average_best > 1:
        task.judged.network.load_state_dict(keeper.best_weights)
        trainer.validate(task, datamodule=data, verbose=False)
        keeper.kept_scores = task.validation_scores()
    return keeper


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder that is what was written, None if there is none."""
    for path in sorted(folder.glob("epoch-*.safetensors"), reverse=True):
        if is_sealed(path):
            return path
    return None


def _trainer(config: TrainConfig, keeper: EpochKeeper) -> L.Trainer:
    on_gpu, on_terminal = torch.cuda.is_available(), sys.stderr.isatty()
    processes = config.num_nodes * (config.devices if isinstance(config.devices, int) else 1)
    # batch-norm statistics are sent round before validation only: with uneven shares of the
    # validation images, sending them in every forward pass would wait for ever
    distributed = DDPStrategy(
        broadcast_buffers=False,
        find_unused_parameters=config.strategy != "auto" or config.freeze_encoder_epochs > 0,
    )
    many = processes > 1 or (on_gpu and config.devices == "auto" and torch.cuda.device_count() > 1)
    return L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1 if config.devices == "auto" and not on_gpu else config.devices,
        num_nodes=config.num_nodes,
        strategy=distributed if many else "auto",
        precision=_precision(config),
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        deterministic=config.deterministic,
        sync_batchnorm=config.sync_batchnorm and on_gpu,  # torch has it for GPUs only
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1 if config.finish else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_model_summary=False,
        callbacks=[keeper, *([TQDMProgressBar(refresh_rate=5)] if on_terminal else [])],
        enable_progress_bar=on_terminal,
        plugins=[SafetensorsIO()],
    )


def _precision(config: TrainConfig) -> Precision:
    if config.precision != "auto":
        return config.precision
    # never bf16 on a CPU: without instructions for it, it is up to 100 times slower
    return "16-mixed" if torch.cuda.is_available() else "32-true"


def _drop_old(folder: Path) -> None:
    for path in sorted(folder.glob("epoch-*.safetensors"))[:-KEPT_CHECKPOINTS]:
        path.unlink()
        path.with_suffix(SEAL).unlink(missing_ok=True)


def _describe(scores: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {int(scores['epoch']) + 1}/{epochs}: "
        f"loss {scores['train_loss']:.4f} (validation {scores['val_loss']:.4f}), "
        f"pair-Dice {scores['val_pair_dice']:.4f} "
        f"(tuned {scores['val_tuned_pair_dice']:.4f}, "
        f"all-empty {scores['val_all_empty_pair_dice']:.4f})"
    )


def _quieten() -> None:
    """Silence what Lightning says in every run and nobody can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
