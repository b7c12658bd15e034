"""A training of seconds that several test files share: a small network on the tiny cache."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import nn

from steelseg.core.arrays import Int64
from steelseg.core.params import load
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.model.network import Segmenter
from steelseg.train import loop
from steelseg.train.auto import TrainParams
from steelseg.train.config import TrainConfig
from steelseg.train.fold_data import FoldData
from steelseg.train.keeper import EpochKeeper

ROOT = Path(__file__).parents[1]
FOLDS = np.arange(12) // 4  # each fold shows both classes, so that each is trained on
NETWORK = ModelConfig(
    arch="Unet",
    encoder="tu-test_efficientnet",
    encoder_weights=None,
    arch_options={"decoder_channels": [16, 8, 8, 4, 4]},
)


def config(**changes: Any) -> TrainConfig:
    """The sample's recipe, made tiny."""
    tiny = {"epochs": 3, "batch_size": 4, "crop": [32, 32], "crops_per_image": 1, "num_workers": 0}
    tiny |= {"lr": 2e-3, "precision": "32-true", "validation_batch_size": 4}
    base = load(TrainParams, "train", ROOT / "params.yaml").model_dump()
    return TrainConfig(**base | tiny | changes)


def network(cache: Cache, settings: TrainConfig, label_head: models.Gate = "none") -> Segmenter:
    """The network as the seed makes it."""
    L.seed_everything(settings.seed, verbose=False)
    recipe = NETWORK.model_copy(update={"label_head": label_head})
    return models.build(recipe, len(cache.classes), cache.mean, cache.std, cache.pixels)


def run(
    cache: Cache,
    folder: Path,
    settings: TrainConfig,
    stop_after: int = 99,
    segmenter: Segmenter | None = None,
    dropout: float = 0,
    folds: Int64 = FOLDS,
) -> EpochKeeper:
    """Train from the seed, or go on from `folder`; `stop_after` epochs it is interrupted."""

    def log_epoch(_: dict[str, float], epoch: int) -> None:
        if epoch + 1 == stop_after:
            raise InterruptedError

    segmenter = segmenter or network(cache, settings)
    if dropout:
        segmenter.network.segmentation_head.insert(0, nn.Dropout(dropout))  # type: ignore[operator]
    data = FoldData(cache, folds, settings)
    return loop.train(segmenter, settings, data, folder, log_epoch)
