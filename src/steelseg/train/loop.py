"""Trains one fold with Lightning: resumable, on any number of devices."""

import logging
import sys
import warnings
from ctypes import CDLL
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from steelseg.core.device import has_gpu
from steelseg.core.errors import BadInput
from steelseg.model.network import Segmenter
from steelseg.train.checkpoint_io import SafetensorsIO
from steelseg.train.config import TrainConfig, loss_weights
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper, LogEpoch, newest_checkpoint
from steelseg.train.task import SegmentationTask

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
TRIM_ABOVE = 2**31 - 1  # bytes of free memory; `mallopt` takes no larger number


def train(
    segmenter: Segmenter, config: TrainConfig, data: FoldData, folder: Path, log_epoch: LogEpoch
) -> EpochKeeper:
    """Train a segmenter, resuming from the newest intact checkpoint in `folder` if there is one.

    Args:
        segmenter: trained in place; its final weights are not the ones to keep.
        config: how to train.
        data: the loaders of one fold.
        folder: for checkpoints.
        log_epoch: receives the number and scores of each finished epoch, in one process only, and
            again when an interrupted training resumes.

    Returns:
        The history of the epochs, the weights to keep, and their scores.

    Raises:
        BadInput: `deterministic` is set, but not possible.
        SteelsegError: the loss is no longer finite.
    """
    refuse_what_cannot_repeat(config, segmenter)
    _quieten()
    keep_freed_memory()
    task = SegmentationTask(segmenter, config, data.cache)
    for module in (segmenter, task.judged) if config.channels_last else ():
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        segmenter.network.compile()
    keeper = EpochKeeper(folder, config, log_epoch)
    trainer = _trainer(config, keeper)
    resume = newest_checkpoint(folder)
    if resume is not None and trainer.is_global_zero:
        print(f"resuming after {resume.stem}")  # noqa: T201 - shows progress to the user
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=False)
    if config.average_best > 1:
        task.judged.network.load_state_dict(keeper.best_weights)
        trainer.validate(task, datamodule=data, verbose=False)
        keeper.kept_scores = task.validation_scores()
    return keeper


def _trainer(config: TrainConfig, keeper: EpochKeeper) -> L.Trainer:
    on_gpu, on_terminal = has_gpu(), sys.stderr.isatty()
    # batch-norm statistics are broadcast before validation only: with uneven shares of the
    # validation images, broadcasting them in every forward pass would deadlock
    distributed = DDPStrategy(
        broadcast_buffers=False,
        find_unused_parameters=config.strategy != "auto" or config.freeze_encoder_epochs > 0,
    )
    return L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=distributed if config.num_nodes * config.devices > 1 else "auto",
        precision=config.precision,
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        deterministic=config.deterministic,
        benchmark=on_gpu and not config.deterministic,
        sync_batchnorm=config.sync_batchnorm and on_gpu,  # GPUs only, in torch
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1 if config.finish else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_model_summary=False,
        callbacks=[keeper, *([TQDMProgressBar(refresh_rate=5)] if on_terminal else [])],
        enable_progress_bar=on_terminal,
        plugins=[SafetensorsIO()],
    )


def refuse_what_cannot_repeat(config: TrainConfig, segmenter: Segmenter) -> None:
    """Refuse what a GPU cannot compute reproducibly, before hours of training.

    Raises:
        BadInput: `deterministic` is set with a loss or a network for which torch has no
            deterministic operations.
    """
    if not (config.deterministic and has_gpu()):
        return
    if "lovasz" in loss_weights(config.loss):
        raise BadInput("`train.deterministic`: on a GPU the loss `lovasz` is not reproducible")
    pools = [m for m in segmenter.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    if any(pool.output_size not in {1, (1, 1)} for pool in pools):
        raise BadInput(
            "`train.deterministic`: on a GPU this `arch`, which pools into a grid (as PSPNet and "
            "UPerNet do), is not reproducible"
        )


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the next tensors.

    By default it returns large tensors to the system, which zeroes the pages of the next ones: a
    quarter of the sample's training. Now only the first tensors of a size need new pages, until
    there is a gap of that size. Results are the same bit for bit.
    """
    mallopt = getattr(CDLL(None), "mallopt", None)  # other systems have none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, TRIM_ABOVE)


def _quieten() -> None:
    """Silence warnings that Lightning logs in every run and users cannot act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
