"""Our training loop against a bare one on tensors in memory: seconds per image."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter
from timeit import Timer
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.optim import Adam

from benchmarks.inputs import ROOT, Scale, data_set
from benchmarks.table import Row
from steelseg.core.device import has_gpu
from steelseg.core.params import load
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.model.network import Segmenter
from steelseg.predict.inference import half_type
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
BARE = "forward, backward, step on tensors in memory"


class Turns(L.Callback):
    """Times the steps of each epoch, and after each epoch other ways to train.

    Lightning runs the loop, so that its own part of the turns is timed between two of its hooks.

    Attributes:
        found: of each epoch the seconds of its steps (`ours`), those in which they waited for their
            data, and for whatever else lies between two steps (`waiting`), those of the epoch with
            its validation and checkpoint (`epoch`), those of each other way, by its name, and the
            most bytes that were held at once (`memory`).
    """

    def __init__(self, others: Mapping[str, Callable[[], object]]) -> None:
        """Take turns with other ways, each called once an epoch."""
        self.others = {name: Timer(other) for name, other in others.items()}
        names = ("ours", "waiting", "epoch", "memory", *others)
        self.found: dict[str, list[float]] = {name: [] for name in names}
        self.started = 0.0
        self.moments: list[Any] = []  # the epoch's start, then each step's beginning and end

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the watch."""
        peak_memory()
        self.started, self.moments = perf_counter(), [moment()]

    def on_train_batch_start(self, *_: Any) -> None:
        """Note when a step begins, its data being there."""
        self.moments.append(moment())

    def on_train_batch_end(self, *_: Any) -> None:
        """Note when it ends."""
        self.moments.append(moment())

    def on_validation_start(self, *_: Any) -> None:
        """Stop the watch, as all steps are done."""
        synchronise()
        self.found["ours"].append(perf_counter() - self.started)
        ends, beginnings = self.moments[::2], self.moments[1::2]
        self.found["waiting"].append(sum(map(seconds_between, ends, beginnings)))
        self.found["memory"].append(peak_memory())

    def on_train_epoch_end(self, *_: Any) -> None:
        """Let the others have their turn; the checkpoint is written."""
        self.found["epoch"].append(perf_counter() - self.started)
        for name, other in self.others.items():
            self.found[name].append(other.timeit(1))


class Measured(NamedTuple):
    """What a training took: medians of all its epochs but the first."""

    n_steps: int
    """of an epoch"""
    n_images: int
    """that these train on"""
    found: dict[str, float]
    """see `Turns`; `bare` is the time of as many bare steps"""
    validated: float
    """images a second"""


def rows(scale: Scale) -> Iterator[Row]:
    """The sample's recipe, but for the network: a Unet with a resnet18 of half the usual width."""
    config = recipe(epochs=ROUNDS_MORE * scale.rounds + 1, crops_per_image=2)
    if scale.size_hw[0] < 128:
        config = recipe(epochs=2, crop=[32, 32], batch_size=2, crops_per_image=1)
    with data_set(scale) as data:
        network = network_of_params(encoder="resnet18")
        _, n_images, found, _ = measure(data.cache, config, network, N_VALIDATION)
        ours, theirs = (found[way] / n_images for way in ("ours", "bare"))
        yield Row("training step", ours, BARE, theirs, 0.95)


def recipe(**changes: Any) -> TrainConfig:
    """Return what params.yaml makes of the sample on a CPU, with changes."""
    base = load(TrainParams, "train", ROOT / "params.yaml").model_dump()
    base |= {"lr": 2e-3, "batch_size": 8, "crop": [128, 128], "scheduler": "constant"}
    base |= {"precision": "32-true", "validation_batch_size": 4}
    return TrainConfig(**base | changes)


def network_of_params(**changes: Any) -> ModelConfig:
    """Return the network of params.yaml, of random weights, with changes."""
    network = load(ModelConfig, path=ROOT / "params.yaml")
    return network.model_copy(update={"encoder_weights": None, **changes})


def measure(
    cache: Cache,
    config: TrainConfig,
    network: ModelConfig,
    n_validation: int,
    others: Mapping[str, Callable[[], object]] | None = None,
) -> Measured:
    """Train for some epochs, in turns with the bare loop and other ways."""
    L.seed_everything(0, verbose=False)
    segmenter = models.build(network, len(cache.classes), cache.mean, cache.std, cache.pixels)
    segmenter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folds = (np.arange(len(cache)) >= n_validation).astype(int)
    n_steps = (len(cache) - n_validation) * config.crops_per_image // config.batch_size
    with tempfile.TemporaryDirectory() as folder:
        data = FoldData(cache, folds, config)
        bare = bare_loop(copy.deepcopy(segmenter), config, data, n_steps)
        turns = Turns({"bare": bare, **(others or {})})
        loop._quieten()
        keeper = EpochKeeper(Path(folder), config, lambda *_: None)
        trainer = loop._trainer(config, keeper)
        trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        trainer.fit(SegmentationTask(segmenter, config, cache), datamodule=data)
    found = {name: median(values[1:]) for name, values in turns.found.items()}
    validated = median(epoch["val_images_per_second"] for epoch in keeper.history[1:])
    return Measured(n_steps, n_steps * config.batch_size, found, validated)


def bare_loop(
    segmenter: Segmenter, config: TrainConfig, data: FoldData, n_steps: int
) -> Callable[[], None]:
    """Return a function that trains on one batch again and again."""
    device = torch.device("cuda" if has_gpu() else "cpu")
    dtype = half_type(config.model_dump())
    segmenter.to(device).train()
    loss_of = build_loss(config.loss, config.class_weights, config.label_smoothing)
    optimizer = Adam(segmenter.parameters(), lr=config.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    crops = training_crops(data.cache, data.training_rows, config, config.phase(0))
    numbers = [i % len(crops) for i in range(config.batch_size)]
    batch = Batch(*(t.to(device) for t in crops.__getitems__(numbers)))
    masks = batch.masks.float()

    def steps() -> None:
        for _ in range(n_steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = loss_of(segmenter(batch.images), masks)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        synchronise()

    return steps


def moment() -> Any:
    """Note this moment: on a GPU, when it will have done what it was given so far; no one waits."""
    if not has_gpu():
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(first: Any, last: Any) -> float:
    """Return the seconds between two moments that have passed."""
    return float(first.elapsed_time(last) / 1000 if has_gpu() else last - first)


def peak_memory() -> int:
    """Return the most bytes held at once: on a GPU since the last call, else by this process."""
    if not has_gpu():
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if has_gpu():
        torch.cuda.synchronize()
