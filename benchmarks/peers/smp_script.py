"""A plain script around segmentation-models-pytorch: our encoder and its weights, nothing of ours.

Unet with its default decoder, BCE and Dice, Adam with a cosine over the budget, flips.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import albumentations as A
import numpy as np
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.job import Image, Job, Maps, Predict, run

ENCODER = "tu-tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)  # of the encoder's weights
LR, BATCH_SIZE, LARGEST_CROP = 1e-3, 16, 256
AUGMENTATION = [
    A.HorizontalFlip(p=0.5),
    A.VerticalFlip(p=0.5),
    A.RandomBrightnessContrast(p=0.5),
]


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, H, W) and masks (C, H, W) float32, cropped or padded to one size."""

    def __init__(self, job: Job, augmentation: list[Any], mean: Any, std: Any) -> None:
        self.job = job
        side = min(job.side, LARGEST_CROP)
        crop = A.RandomCrop(side, side, pad_if_needed=True)
        steps = [crop, *augmentation, A.Normalize(mean, std), A.pytorch.ToTensorV2()]
        self.transform = A.Compose(steps, seed=job.seed)

    def __len__(self) -> int:
        return len(self.job.train)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self.job.train[index]
        result = self.transform(image=self.job.image(name), mask=self.job.masks(name))
        return result["image"], result["mask"].permute(2, 0, 1).float()


def batches(crops: Crops, batch_size: int) -> Iterator[Any]:
    """Return the loader of one epoch."""
    return iter(DataLoader(crops, batch_size, shuffle=True, drop_last=True))


def train(job: Job) -> None:
    """Train until the budget is spent."""
    torch.manual_seed(job.seed)
    model = network(job)
    model.encoder.load_state_dict(load_file(job.encoder_weights))
    optimizer = torch.optim.Adam(model.parameters(), LR)
    dice = smp.losses.DiceLoss("multilabel")
    bce = nn.BCEWithLogitsLoss()
    crops = Crops(job, AUGMENTATION, MEAN, STD)
    while job.share() < 1:
        for images, masks in batches(crops, min(BATCH_SIZE, len(crops))):
            if (share := job.share()) >= 1:
                break
            optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * share)) / 2
            logits = model(images)
            optimizer.zero_grad()
            (bce(logits, masks) + dice(logits, masks)).backward()
            optimizer.step()
    torch.save(model.state_dict(), job.folder / "model.pt")


def network(job: Job) -> Any:
    """Build the Unet."""
    return smp.Unet(ENCODER, encoder_weights=None, classes=len(job.classes))


def load(job: Job) -> Predict:
    """Return the model, on whole images."""
    return predictor(job, network, MEAN, STD)


def predictor(job: Job, build: Callable[[Job], Any], mean: Any, std: Any) -> Predict:
    """Return the trained network as a function from an image to probabilities."""
    model = build(job).eval()
    model.load_state_dict(torch.load(job.folder / "model.pt", weights_only=True))
    normalise = A.Normalize(mean, std)

    def predict(image_hwc: Image) -> Maps:
        height, width = image_hwc.shape[:2]
        padded = np.pad(image_hwc, ((0, -height % 32), (0, -width % 32), (0, 0)))
        image = torch.from_numpy(normalise(image=padded)["image"]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            maps_chw = model(image)[0].sigmoid().numpy()
        return np.asarray(maps_chw[:, :height, :width], dtype=np.float32)

    return predict


if __name__ == "__main__":
    run("segmentation-models-pytorch", train, load)
