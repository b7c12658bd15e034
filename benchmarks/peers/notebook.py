"""The starter notebook's recipe: Unet-resnet18, BCE, Adam 5e-4, the epoch with the least loss.

Batches of 4 accumulated to 32, horizontal flips, the rate reduced on a plateau. The notebook starts
from ImageNet weights, which are on a hub: here from scratch.
"""

import copy
from typing import Any

import albumentations as A
import segmentation_models_pytorch as smp
import torch
from torch import nn

from benchmarks.peers.job import Job, Predict, run
from benchmarks.peers.smp_script import Crops, batches, predictor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR, BATCH_SIZE, ACCUMULATE, PATIENCE = 5e-4, 4, 8, 3


def train(job: Job) -> None:
    """Train epoch after epoch until the budget is spent, and keep the best."""
    torch.manual_seed(job.seed)
    model = network(job)
    optimizer = torch.optim.Adam(model.parameters(), LR)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=PATIENCE)
    training = Crops(job, [A.HorizontalFlip(p=0.5)], MEAN, STD)
    validation = Crops(job._replace(train=job.validation), [], MEAN, STD)
    least, best, cost = float("inf"), None, 0.1  # the cost of a validation, not yet known
    while job.share() + cost < 1:
        _train_epoch(job, model, optimizer, training, cost)
        start = job.share()
        loss = _validate(model, validation)
        cost = job.share() - start
        plateau.step(loss)
        if loss < least:
            least, best = loss, copy.deepcopy(model.state_dict())
    torch.save(best, job.folder / "model.pt")


def _train_epoch(job: Job, model: Any, optimizer: Any, crops: Crops, reserve: float) -> None:
    """Train for an epoch, or until only the reserve is left, a share of the budget."""
    model.train()
    for step, (images, masks) in enumerate(batches(crops, BATCH_SIZE), start=1):
        loss: Any = nn.functional.binary_cross_entropy_with_logits(model(images), masks)
        (loss / ACCUMULATE).backward()
        if step % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
        if job.share() + reserve >= 1:
            return


def _validate(model: Any, crops: Crops) -> float:
    model.eval()
    bce = nn.functional.binary_cross_entropy_with_logits
    with torch.inference_mode():
        losses = [bce(model(images), masks).item() for images, masks in batches(crops, BATCH_SIZE)]
    return sum(losses) / max(len(losses), 1)


def network(job: Job) -> Any:
    """Build the Unet."""
    return smp.Unet("resnet18", encoder_weights=None, classes=len(job.classes))


def load(job: Job) -> Predict:
    """Return the model, on whole images."""
    return predictor(job, network, MEAN, STD)


if __name__ == "__main__":
    run("segmentation-models-pytorch", train, load)
