"""Our training loop against a bare one on tensors in memory: seconds per image."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.optim import Adam

from benchmarks.inputs import ROOT, DataSet, Scale, data_set
from benchmarks.table import Row
from steelseg.core.params import load
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.model.network import Segmenter
from steelseg.train import loop
from steelseg.train.auto import TrainParams
from steelseg.train.batch import Batch
from steelseg.train.config import TrainConfig
from steelseg.train.crops import training_crops
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper
from steelseg.train.losses import build_loss
from steelseg.train.task import SegmentationTask

N_VALIDATION = 2
ROUNDS_MORE = 3  # the two ways are so close that five rounds gave anything from 0.91 to 1.13


class Turns(L.Callback):
    """Times the steps of each epoch, and after each epoch as many steps of the bare loop.

    Lightning runs the loop, so that its own part of the turns is timed between two of its hooks.
    """

    def __init__(self, bare: Callable[[], None]) -> None:
        """Take turns with `bare`, an epoch's number of steps."""
        self.bare = Timer(bare)
        self.started = 0.0
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the watch."""
        self.started = perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the watch, as all steps are done."""
        synchronise()
        self.ours.append(perf_counter() - self.started)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the other have its turn."""
        self.theirs.append(self.bare.timeit(1))


def rows(scale: Scale) -> Iterator[Row]:
    """The sample's recipe, but for the network: a Unet with a resnet18 of half the usual width."""
    config = recipe(epochs=ROUNDS_MORE * scale.rounds + 1, crops_per_image=2)
    if scale.size_hw[0] < 128:
        config = recipe(epochs=2, crop=[32, 32], batch_size=2, crops_per_image=1)
    with data_set(scale) as data:
        yield compare(data, config, "training step", 0.95)


def recipe(**changes: Any) -> TrainConfig:
    """Return what params.yaml makes of the sample on a CPU, with changes."""
    base = load(TrainParams, "train", ROOT / "params.yaml").model_dump()
    base |= {"lr": 2e-3, "batch_size": 8, "crop": [128, 128], "scheduler": "constant"}
    base |= {"precision": "32-true", "validation_batch_size": 4}
    return TrainConfig(**base | changes)


def compare(data: DataSet, config: TrainConfig, what: str, target: float | None) -> Row:
    """Train for some epochs, of which the first is not counted, in turns with the bare loop."""
    L.seed_everything(0, verbose=False)
    cache = data.cache
    network = load(ModelConfig, path=ROOT / "params.yaml")
    network = network.model_copy(update={"encoder": "resnet18", "encoder_weights": None})
    segmenter = models.build(network, len(cache.classes), cache.mean, cache.std)
    segmenter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folds = (np.arange(len(cache)) >= N_VALIDATION).astype(int)
    n_steps = (len(cache) - N_VALIDATION) * config.crops_per_image // config.batch_size
    with tempfile.TemporaryDirectory() as folder:
        fold_data = FoldData(cache, folds, config)
        turns = Turns(bare_loop(copy.deepcopy(segmenter), config, fold_data, n_steps))
        loop._quieten()
        trainer = loop._trainer(config, EpochKeeper(Path(folder), config, lambda *_: None))
        trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        trainer.fit(SegmentationTask(segmenter, config, cache), datamodule=fold_data)
    n_images = n_steps * config.batch_size
    ours, theirs = (median(seconds[1:]) / n_images for seconds in (turns.ours, turns.theirs))
    return Row(what, ours, "forward, backward, step on tensors in memory", theirs, target)


def bare_loop(
    segmenter: Segmenter, config: TrainConfig, data: FoldData, n_steps: int
) -> Callable[[], None]:
    """Return a function that trains on one batch again and again."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter.to(device).train()
    loss_of = build_loss(config.loss, config.class_weights, config.label_smoothing)
    optimizer = Adam(segmenter.parameters(), lr=config.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    crops = training_crops(data.cache, data.training_rows, config, config.phase(0))
    numbers = [i % len(crops) for i in range(config.batch_size)]
    batch = Batch(*(t.to(device) for t in crops.__getitems__(numbers)))
    masks = batch.masks.float()

    def steps() -> None:
        for _ in range(n_steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                loss = loss_of(segmenter(batch.images), masks)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        synchronise()

    return steps


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
