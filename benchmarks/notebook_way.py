"""The starter notebook's method, written anew: what the pipeline is measured against.

It does what the notebook does, in its order (image by image, class by class, component by
component), with the same packages. One thing is put right, so that both ways can be checked to give
the same: runs start at 1, where the notebook shifts every mask by a pixel.
"""

from collections.abc import Sequence
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from torch import Tensor
from torch.utils.data import Dataset

from steelseg.core.arrays import Float32, Uint8

Mask = Uint8
Probability = Float32

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def decode(rle: str, size_hw: tuple[int, int]) -> Mask:
    """Decode an RLE run by run: (H, W) uint8."""
    numbers = rle.split(" ")
    flat = np.zeros(size_hw[0] * size_hw[1], dtype=np.uint8)
    for start, length in zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True):
        flat[start - 1 : start - 1 + length] = 1
    return flat.reshape(size_hw, order="F")


def encode(mask_hw: Mask) -> str:
    """Encode a mask by the borders in its flattened transpose."""
    framed = np.concatenate([[0], mask_hw.T.flatten(), [0]])
    borders = np.where(framed[1:] != framed[:-1])[0] + 1
    borders[1::2] -= borders[::2]
    return " ".join(str(number) for number in borders)


def pivot(train_csv: Path, names: Sequence[str], classes: Sequence[int]) -> pd.DataFrame:
    """Make a table with a row for each image and a column for each class, NaN for no mask."""
    rows = pd.read_csv(train_csv)
    table = rows.pivot(index="ImageId", columns="ClassId", values="EncodedPixels")
    return table.reindex(index=list(names), columns=list(classes))


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images (3, H, W) float32 and masks (C, H, W) float32, decoded at every access."""

    def __init__(self, folder: Path, table: pd.DataFrame, size_hw: tuple[int, int]) -> None:
        """Read the images of `folder` that the table lists."""
        self.folder = folder
        self.table = table
        self.size_hw = size_hw
        self.transform = A.Compose([A.Normalize(IMAGENET_MEAN, IMAGENET_STD), ToTensorV2()])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.table.iloc[index]
        masks_hwc = np.zeros((*self.size_hw, len(row)), dtype=np.float32)
        for channel, rle in enumerate(row.values):
            if isinstance(rle, str):
                masks_hwc[:, :, channel] = decode(rle, self.size_hw)
        image_hwc = cv2.imread(str(self.folder / str(row.name)))
        result = self.transform(image=image_hwc, mask=masks_hwc)
        return result["image"], result["mask"].permute(2, 0, 1)


class Meter:
    """Collects Dice and IoU of an epoch's images, all classes of an image taken as one mask."""

    def __init__(self) -> None:
        """Start without an image."""
        self.dice: list[float] = []
        self.dice_neg: list[float] = []
        self.dice_pos: list[float] = []
        self.iou: list[float] = []

    def update(self, masks: Tensor, logits: Tensor) -> None:
        """Add a batch: masks and logits (B, C, H, W)."""
        probabilities = torch.sigmoid(logits)
        predicted = (probabilities.view(len(masks), -1) > 0.5).float()
        true = (masks.view(len(masks), -1) > 0.5).float()
        n_true = true.sum(-1)
        dice_pos = (2 * (predicted * true).sum(-1) / (predicted + true).sum(-1))[n_true >= 1]
        dice_neg = (predicted.sum(-1) == 0).float()[n_true == 0]
        self.dice_pos += dice_pos.tolist()
        self.dice_neg += dice_neg.tolist()
        self.dice += torch.cat([dice_pos, dice_neg]).tolist()
        answers = (np.copy(probabilities.numpy()) > 0.5).astype("uint8")
        ious = [_iou(p, t) for p, t in zip(np.copy(answers), masks.numpy(), strict=True)]
        self.iou.append(float(np.nanmean(ious)) if not np.all(np.isnan(ious)) else np.nan)

    def scores(self) -> dict[str, float]:
        """Average over the images, and the IoU over the batches."""
        every = {"dice": self.dice, "dice_neg": self.dice_neg, "dice_pos": self.dice_pos}
        return {n: float(np.nanmean(v)) for n, v in {**every, "iou": self.iou}.items() if v}


def postprocess(probability_hw: Probability, threshold: float, min_size: int) -> Mask:
    """Keep the components of more than `min_size` pixels, looking for each in the whole mask."""
    mask_hw = cv2.threshold(probability_hw, threshold, 1, cv2.THRESH_BINARY)[1]
    n_labels, labels_hw = cv2.connectedComponents(mask_hw.astype(np.uint8))
    kept_hw = np.zeros(probability_hw.shape, np.float32)
    for label in range(1, n_labels):
        component = labels_hw == label
        if component.sum() > min_size:
            kept_hw[component] = 1
    return kept_hw.astype(np.uint8)


def dice(predicted_hw: Mask, true_hw: Mask) -> float:
    """Dice of one pair, 1 where both masks are empty."""
    n_pixels = int(predicted_hw.sum()) + int(true_hw.sum())
    return 1.0 if n_pixels == 0 else 2 * int((predicted_hw * true_hw).sum()) / n_pixels


def _iou(predicted_chw: Mask, true_chw: npt.NDArray[np.generic]) -> float:
    predicted_chw[true_chw == 255] = 0
    true = true_chw == 1
    if np.sum(true) == 0:
        return np.nan
    predicted = predicted_chw == 1
    return float(np.logical_and(predicted, true).sum() / np.logical_or(predicted, true).sum())
