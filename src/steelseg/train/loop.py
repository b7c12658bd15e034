"""Training of one fold with Lightning: resumable, on any number of devices."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy

from steelseg.model.network import Segmenter
from steelseg.train.checkpoint_io import SafetensorsIO
from steelseg.train.config import TrainConfig
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper, LogEpoch, newest_checkpoint
from steelseg.train.task import SegmentationTask

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


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


def _quieten() -> None:
    """Silence what Lightning says in every run and nobody can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
