"""An epoch's batches of logits to all metrics that are reported."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import Scale, guess, mask_sets
from benchmarks.notebook_way import Meter
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.train.totals import EpochTotals, pixel_counts

BATCH_SIZE = 4

Batches = list[tuple[Tensor, Tensor]]


def rows(scale: Scale, device: str = "cpu") -> Iterator[Row]:
    """Seconds per image, from logits (which stay on a GPU, if they are on one) to scores."""
    batches = stream(scale, device)
    check_equal(ours(batches), notebooks(batches))
    largest = torch.cat([logits for logits, _ in batches])
    times = in_turns(
        {
            "ours": lambda: ours(batches),
            "notebook": lambda: notebooks(batches),
            "one pass": lambda: largest.sum().item(),
        },
        scale.rounds,
    )
    mine, notebook, one_pass = (seconds / len(largest) for seconds in times.values())
    where = "" if device == "cpu" else " on the GPU"
    yield Row(f"epoch metrics from logits{where}", mine, "the notebook", notebook, 10)
    yield Row(f"epoch metrics from logits{where}", mine, "one sum over the logits", one_pass)


def stream(scale: Scale, device: str = "cpu") -> Batches:
    """Make up logits and masks (B, C, H, W), as validation has them."""
    masks = mask_sets(scale.n_images, scale.size_hw)
    probabilities = torch.from_numpy(guess(np.random.default_rng(0), masks))
    logits, truth = torch.logit(probabilities).to(device), torch.from_numpy(masks).to(device)
    return [
        (logits[i : i + BATCH_SIZE], truth[i : i + BATCH_SIZE])
        for i in range(0, len(truth), BATCH_SIZE)
    ]


def ours(batches: Batches) -> dict[str, float]:
    """Count pixels by batch and sum up once, as the training loop does."""
    totals = EpochTotals()
    for number, (logits, masks) in enumerate(batches):
        indices = torch.arange(len(masks), device=masks.device) + number * BATCH_SIZE
        losses = torch.zeros(len(masks), device=masks.device)
        totals.add(losses, pixel_counts(logits, masks), indices)
    n_classes, height, width = batches[0][1].shape[1:]
    return totals.gather().summarise(range(1, n_classes + 1), height * width)


def notebooks(batches: Batches) -> dict[str, float]:
    """Update a meter by batch, with the answers fetched from the GPU as the notebook does."""
    meter = Meter()
    for logits, masks in batches:
        meter.update(masks.cpu(), logits.cpu())
    return meter.scores()


def check_equal(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Compare the scores that both have; the notebook averages its IoU by batch, so not that."""
    for name in theirs.keys() - {"iou"}:
        assert abs(ours[f"notebook_{name}"] - theirs[name]) < 1e-5, name
