"""What a GPU changes: epoch metrics on the device, the training loop, and a whole epoch."""

from collections.abc import Iterator

import segmentation_models_pytorch as smp
import torch
from torch.optim import Adam
from torch.utils.data import DataLoader

from benchmarks import epoch_metrics, loading, training_step
from benchmarks.inputs import DataSet, Scale, data_set
from benchmarks.notebook_way import Meter
from benchmarks.table import Row
from benchmarks.turns import in_turns

N_WORKERS = 6  # the notebook's
BATCH_SIZE, ACCUMULATE = 4, 8


def rows(scale: Scale) -> Iterator[Row]:
    """Whole images of 256x1600 where it trains; the share that it waits is 1 minus the ratio."""
    yield from epoch_metrics.rows(scale, "cuda")
    with data_set(scale) as data:
        config = training_step.recipe(
            epochs=scale.rounds + 1, crop=None, crops_per_image=1, augment=[], loss="bce"
        )
        loop = training_step.compare(data, config, "training, whole images, on the GPU", 0.95)
        yield loop
        times = in_turns({"notebook": NotebookEpoch(data, "cuda")}, scale.rounds)
        each = times["notebook"] / len(data.cache)
        yield Row("training, whole images, on the GPU", loop.ours, "the notebook", each, 10)


class NotebookEpoch:
    """An epoch of the notebook: float32, BCE, and a loss and masks fetched after every batch."""

    def __init__(self, data: DataSet, device: str) -> None:
        """Build the network, the loader and the optimiser."""
        images = loading.notebooks(data)
        self.device = device
        self.network = smp.Unet("resnet18", encoder_weights=None, classes=4).to(device)
        n_workers = N_WORKERS if device == "cuda" else 0
        self.loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=n_workers)
        self.optimizer = Adam(self.network.parameters(), lr=5e-4)

    def __call__(self) -> dict[str, float]:
        """Train, and return the scores."""
        meter, loss_of = Meter(), torch.nn.BCEWithLogitsLoss()
        self.optimizer.zero_grad()
        running = 0.0
        for number, (images, masks) in enumerate(self.loader, start=1):
            logits = self.network(images.to(self.device))
            loss = loss_of(logits, masks.to(self.device)) / ACCUMULATE
            loss.backward()
            if number % ACCUMULATE == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()
            running += loss.item()
            meter.update(masks, logits.detach().cpu())
        return {"loss": running, **meter.scores()}
