"""The totals of an epoch: losses, pixel counts and metrics; and the history of all epochs."""

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from steelseg.core.files import atomic_path
from steelseg.tune import metrics

TIMINGS = frozenset({"train_images_per_second", "val_images_per_second"})  # differ in every run

Scores = dict[str, float]
JOIN_EVERY = 64  # batches; many small long-lived tensors would fragment the memory
MIN_AREA_SHARES = (0, 0.0005, 0.001, 0.002, 0.005, 0.01)  # of the image, for the tuned metric


def pixel_counts(logits: Tensor, masks: Tensor, thresholds: Sequence[float] = (0.5,)) -> Tensor:
    """Count pixels at each of T probability thresholds: (B, C, T, 3) int64.

    The last axis has the true positive, the predicted and the true pixels, as in
    `steelseg.tune.metrics`.

    Args:
        logits: (B, C, H, W) float.
        masks: (B, C, H, W) uint8 of 0 and 1.
    """
    levels = [math.log(threshold / (1 - threshold)) for threshold in thresholds]
    if logits.device.type == "cpu":
        return _pixel_counts_on_cpu(logits, masks, levels)
    truth = masks.bool()
    true = truth.sum(dim=(-2, -1))
    counts = []
    for level in levels:
        predicted = logits > level
        overlap = (predicted & truth).sum(dim=(-2, -1))
        counts.append(torch.stack([overlap, predicted.sum(dim=(-2, -1)), true], dim=-1))
    return torch.stack(counts, dim=2)


def _pixel_counts_on_cpu(logits: Tensor, masks: Tensor, levels: Sequence[float]) -> Tensor:
    """Count as `pixel_counts` does, about 30 times faster: torch's sums widen every pixel."""
    n_images, n_classes = logits.shape[:2]
    logits_phw = logits.float().contiguous().flatten(0, 1).numpy()  # p counts the pairs, B * C
    truth_phw = masks.contiguous().flatten(0, 1).view(torch.bool).numpy()
    counts = np.empty((n_images * n_classes, len(levels), 3), dtype=np.int64)
    for pair, (logits_hw, truth_hw) in enumerate(zip(logits_phw, truth_phw, strict=True)):
        true = np.count_nonzero(truth_hw)
        for index, level in enumerate(levels):
            predicted_hw = logits_hw > level
            overlap = np.count_nonzero(predicted_hw & truth_hw) if true else 0
            counts[pair, index] = overlap, np.count_nonzero(predicted_hw), true
    return torch.from_numpy(counts.reshape(n_images, n_classes, len(levels), 3))


class Gathered(NamedTuple):
    """Losses (N,), counts (N, C, T, 3) and cache rows (N,) of an epoch, the last two by row."""

    losses: Tensor
    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    seconds: float

    def summarise(self, classes: Sequence[int], n_pixels: int) -> dict[str, float]:
        """Compute all metrics; `n_pixels` is the size of an image."""
        scores = metrics.summarise(self.counts[:, :, 0], classes)
        if self.counts.shape[2] > 1:
            overlap, predicted, true = np.moveaxis(self.counts, -1, 0)
            min_areas = [round(share * n_pixels) for share in MIN_AREA_SHARES]
            scores["tuned_pair_dice"] = metrics.best_pair_dice(
                predicted, overlap, true[:, :, 0], min_areas
            )
        mean_loss = math.fsum(self.losses.double().tolist()) / len(self.losses)
        return {"loss": mean_loss, "images_per_second": len(self.losses) / self.seconds, **scores}


class EpochTotals:
    """Collects the totals of an epoch on the device until the epoch ends."""

    def __init__(self) -> None:
        self._parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        self._started = time.perf_counter()
        self._ended: float | None = None

    def add(self, losses: Tensor, counts: Tensor, rows: Tensor) -> None:
        """Add the losses (B,), counts (B, C, T, 3) and cache rows (B,) of a batch."""
        for parts, part in zip(self._parts, (losses, counts, rows), strict=True):
            parts.append(part)
            if len(parts) >= JOIN_EVERY:
                parts[:] = [torch.cat(parts)]

    def stop(self) -> None:
        """Stop the clock once the device has finished."""
        if self._parts[0]:
            self._parts[0][-1].cpu()  # waits
        if self._ended is None:
            self._ended = time.perf_counter()

    def gather(self) -> Gathered:
        """Gather the epoch from all processes.

        Rows are sorted, so that results do not depend on batch size or number of workers.
        """
        self.stop()
        assert self._ended is not None
        own = [torch.cat(parts).cpu() for parts in self._parts]
        losses, counts, rows = map(torch.cat, zip(*_shares(own), strict=True))
        order = np.lexsort((losses.numpy(), rows.numpy()))
        seconds = self._ended - self._started
        return Gathered(losses, counts.numpy()[order], rows.numpy()[order], seconds)


def false_pixels(gathered: Gathered, n_images: int) -> npt.NDArray[np.int64]:
    """Sum the predicted pixels of classes that a crop does not show: (n_images,) by row."""
    counts = gathered.counts[:, :, 0]
    wrong = np.where(counts[..., metrics.TRUE] == 0, counts[..., metrics.PREDICTED], 0).sum(axis=1)
    return np.bincount(gathered.rows, wrong, minlength=n_images).astype(np.int64)


def write_history(path: Path, history: Sequence[Scores]) -> None:
    """Write all scores except timings as csv, one row per epoch; scores may be missing."""
    names = {name for row in history for name in row} - TIMINGS - {"epoch"}
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *sorted(names)], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)


def validation_scores(row: Scores) -> Scores:
    """Return the validation scores of an epoch under plain names."""
    return {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}


def without_timings(scores: Scores) -> Scores:
    """Drop the scores that differ from run to run."""
    return {name: value for name, value in scores.items() if f"val_{name}" not in TIMINGS}


def _shares(own: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors of every process, by process."""
    if not dist.is_initialized():
        return [own]
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    return shares
