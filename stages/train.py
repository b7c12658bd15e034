"""Train the network on all folds but one, and keep the weights that do best on that one."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from steelseg.core.checkpoints import work_folder
from steelseg.core.device import gpus, is_first_process
from steelseg.core.files import sha256, write_json
from steelseg.core.params import load
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import WEIGHTS, Card, ModelConfig, write_card
from steelseg.model.pretrained import resolve as resolve_weights
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.stage import run
from steelseg.train.auto import Choice, Setting, TrainParams, fingerprint, resolve
from steelseg.train.fold_data import FoldData
from steelseg.train.loop import train
from steelseg.train.totals import without_timings, write_history
from steelseg.train.trial import least_batch, try_training

FOLDS = Path("data/folds.parquet")
MODEL = Path("models")


def main() -> None:
    """Write the model, the history of the epochs and the best epoch's scores."""
    network, pretrained = resolve_weights(load(ModelConfig))
    given = load(TrainParams, "train")
    cache = Cache(Path("data/cache"))
    folds = fold_table.fold_numbers(fold_table.read(FOLDS, cache.names, cache.annotations))
    found = fingerprint(given, cache, np.flatnonzero(folds != given.fold))
    is_pretrained = network.encoder_weights is not None
    setting = Setting(gpus(), network.encoder, is_pretrained, least_batch(network))
    config, choices = resolve(given, found, setting)
    data = FoldData(cache, folds, config)
    try_training(network, config, cache.sizes_hw)
    params = network.model_dump() | config.model_dump()
    trained: dict[str, Any] = {
        "cache": cache.identity,
        "fold": config.fold,
        "folds": sha256(FOLDS),
        "training": config.model_dump(),
    }
    identity = {
        "params": {k: v for k, v in params.items() if k != "num_workers"},  # changes no result
        "transforms": config.transforms,
        "cache": cache.identity,
        "folds": trained["folds"],
        "encoder_weights": models.encoder_file_sha256(network),
    }
    first = is_first_process()
    if pretrained.source:
        choices["encoder_weights"] = Choice(pretrained.name, pretrained.source)
    for name, (value, reason) in choices.items() if first else ():
        print(f"{name}: {value} ({reason})")
    with (
        work_folder("train", identity, owner=first) as folder,
        stage_run("train", folder, trained, active=first) as tracker,
    ):
        tracker.params(params)
        L.seed_everything(config.seed, verbose=False)
        segmenter = models.build(network, len(cache.classes), cache.mean, cache.std)
        keeper = train(segmenter, config, data, folder, tracker.epoch)
        if not first:
            return
        segmenter.network.load_state_dict(keeper.best_weights)
        models.save_weights(MODEL / WEIGHTS, segmenter)
        card = Card(
            weights_sha256=sha256(MODEL / WEIGHTS),
            model=network.model_copy(update={"encoder_weights": None}),
            mean=cache.mean,
            std=cache.std,
            classes=cache.classes,
            size_hw=cache.typical_size_hw,
            **trained,
        )
        write_card(MODEL, card)
        write_history(Path("plots/train.csv"), keeper.history)
        scores = {"best_epoch": keeper.best_epoch, **without_timings(keeper.kept_scores)}
        write_json(Path("metrics/train.json"), scores)
        tracker.metrics({f"best_{name}": value for name, value in scores.items()})


if __name__ == "__main__":
    run(main)
