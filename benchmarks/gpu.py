"""What a GPU changes: epoch metrics, training at Severstal's size, and prediction.

A timing is of 250 calls of the network and more; of training it is an epoch. Few images are drawn,
and the cache has each many times, so all of them lie in memory, as Severstal's 7.7 GB do in that of
a GPU machine.
"""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch.optim import Adam
from torch.utils.data import DataLoader, RandomSampler

from benchmarks import epoch_metrics, loading, prediction
from benchmarks.inputs import ROOT, DataSet, Scale, data_set, many_times
from benchmarks.notebook_way import Meter
from benchmarks.table import Row
from benchmarks.training_step import BARE, Measured, measure, network_of_params, synchronise
from benchmarks.turns import in_turns
from steelseg.core.device import gpus, has_gpu
from steelseg.core.params import load
from steelseg.core.pixels import batch_of
from steelseg.core.sizes import Size
from steelseg.data.cache import Cache
from steelseg.model.card import ModelConfig
from steelseg.model.network import Segmenter
from steelseg.predict.inference import InferenceConfig, half_type, make_ready, maps_on_device
from steelseg.predict.model import Model
from steelseg.train.auto import (
    BYTES_A_PIXEL,
    BYTES_OF_OTHERS,
    Setting,
    TrainParams,
    fingerprint,
    resolve,
)
from steelseg.train.config import TrainConfig

N_WORKERS = 6  # the notebook's
BATCH_SIZE, ACCUMULATE = 4, 8
PREDICTED_AT_ONCE = (1, 8, 16)
RATE = "images/s"


def rows(scale: Scale) -> Iterator[Row]:
    """On the GPU; without one, on the CPU, which shows that it runs."""
    yield from epoch_metrics.rows(scale, device().type)
    with data_set(scale) as drawn:
        folder = drawn.folder.parent / "many"
        data = DataSet(drawn.folder, many_times(drawn.cache, scale.n_copies, folder))
        yield from training(data, scale)
        yield from predicting(drawn, scale)


def device() -> torch.device:
    """Return the GPU, or the CPU without one."""
    return torch.device("cuda" if has_gpu() else "cpu")


def training(data: DataSet, scale: Scale) -> Iterator[Row]:
    """Crops as params.yaml and `auto` have it, and whole images by the notebook's network."""
    n_validation, epochs = len(data.cache) // 5, scale.rounds + 1
    network = network_of_params()
    config = resolved(data.cache, network, epochs=epochs)
    measured = measure(data.cache, config, network, n_validation)
    yield from of_epochs("crops", network, config, scale.size_hw, measured)
    network = network_of_params(encoder="resnet18", arch_options={})
    batch_size = min(BATCH_SIZE * ACCUMULATE, len(data.cache) - n_validation)
    whole = {"crop": None, "crops_per_image": 1, "batch_size": batch_size}
    config = resolved(data.cache, network, epochs=epochs, **whole)
    notebook = NotebookSteps(data, scale.n_steps)
    measured = measure(data.cache, config, network, n_validation, {"notebook": notebook})
    yield from of_epochs("whole images", network, config, scale.size_hw, measured)
    ours = measured.n_images / measured.found["ours"]
    theirs = scale.n_steps * BATCH_SIZE / measured.found["notebook"]
    what = f"the notebook, {scale.n_steps} steps of {BATCH_SIZE}"
    yield Row("training, whole images", ours, what, theirs, 10, RATE)


def resolved(cache: Cache, network: ModelConfig, **changes: Any) -> TrainConfig:
    """Return what params.yaml, with changes, and `auto` make of a cache, for one GPU."""
    changes |= {"devices": 1, "num_nodes": 1}
    params = load(TrainParams, "train", ROOT / "params.yaml").model_copy(update=changes)
    data = fingerprint(params, cache, np.arange(len(cache)))
    return resolve(params, data, Setting(gpus(), network.encoder, pretrained=False))[0]


def of_epochs(
    what: str, network: ModelConfig, config: TrainConfig, size_hw: Size, measured: Measured
) -> Iterator[Row]:
    """Tell what a training took."""
    n_steps, n_images, found, validated = measured
    what = f"training, {what}"
    ours, bare = (n_images / found[way] for way in ("ours", "bare"))
    yield Row(f"{what}: {n_steps} steps of {config.batch_size}", ours, BARE, bare, 0.95, RATE)
    share = 100 * found["waiting"] / found["ours"]
    yield Row(f"{what}: share of the time that waits for data", share, unit="%")
    name = f"{what}: an epoch with validation and checkpoint"
    yield Row(name, found["epoch"], "its steps", found["ours"])
    yield Row(f"{what}: validation", validated, unit=RATE)
    area = math.prod(config.crop or size_hw)
    reckoned = config.batch_size * area * BYTES_A_PIXEL.get(network.encoder, BYTES_OF_OTHERS)
    sizes = found["memory"] / 2**20, reckoned / 2**20
    yield Row(f"{what}: peak memory", sizes[0], "what `auto` reckons with", sizes[1], unit="MiB")


class NotebookSteps:
    """Steps of the notebook: float32, BCE, and a loss and masks fetched after every batch."""

    def __init__(self, data: DataSet, n_steps: int) -> None:
        """Build the network, the loader, whose workers stay, and the optimiser."""
        images = loading.notebooks(data)
        self.network = smp.Unet("resnet18", encoder_weights=None, classes=4).to(device())
        self.loader = DataLoader(
            images,
            BATCH_SIZE,
            sampler=RandomSampler(images, num_samples=n_steps * BATCH_SIZE),
            num_workers=N_WORKERS if has_gpu() else 0,
            persistent_workers=has_gpu(),
            pin_memory=has_gpu(),
        )
        self.optimizer = Adam(self.network.parameters(), lr=5e-4)

    def __call__(self) -> dict[str, float]:
        """Train, and return the scores."""
        meter, loss_of = Meter(), torch.nn.BCEWithLogitsLoss()
        self.optimizer.zero_grad()
        running = 0.0
        for number, (images, masks) in enumerate(self.loader, start=1):
            logits = self.network(images.to(device()))
            loss = loss_of(logits, masks.to(device())) / ACCUMULATE
            loss.backward()
            if number % ACCUMULATE == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()
            running += loss.item()
            meter.update(masks, logits.detach().cpu())
        return {"loss": running, **meter.scores()}


def predicting(data: DataSet, scale: Scale) -> Iterator[Row]:
    """JPEG to findings by PyTorch, with as many images at once as are tried."""
    paths = sorted((data.folder / "train_images").iterdir())
    precision = {"precision": "16-mixed" if has_gpu() else "32-true"}
    segmenter = prediction.untrained(data.cache, dict(scale.arch_options))
    with tempfile.TemporaryDirectory() as folder:
        prediction.finish(segmenter, data.cache, scale, Path(folder), precision)
        for n in PREDICTED_AT_ONCE:
            n_images = scale.n_steps * n
            inference = InferenceConfig(runtime="torch", inference_batch_size=n)
            model = Model.open(folder, inference=inference)
            ours = partial(find_all, model, [*islice(cycle(paths), n_images)])
            alone = network_alone(segmenter, half_type(precision), data.cache, n, n_images)
            times = in_turns({"ours": ours, "alone": alone}, scale.rounds)
            rates = [n_images / seconds for seconds in times.values()]
            what = f"prediction, JPEG to findings, {n} at once"
            yield Row(what, rates[0], "the network alone", rates[1], unit=RATE)


def find_all(model: Model, paths: Sequence[Path]) -> None:
    """Look for defects in images, and drop what is found."""
    for _ in model.predict_many(paths):
        pass


def network_alone(
    segmenter: Segmenter, dtype: torch.dtype | None, cache: Cache, n: int, n_images: int
) -> Callable[[], None]:
    """Return a function that gives a network `n` images that are on its device, again and again."""
    network = copy.deepcopy(segmenter).to(device())
    make_ready(network, device(), dtype)
    some = batch_of([cache.image(row % len(cache)) for row in range(n)])
    batch = torch.from_numpy(some).to(device())

    def run() -> None:
        with torch.inference_mode():
            for _ in range(n_images // n):
                maps_on_device(network, batch, dtype)
        synchronise()

    return run
