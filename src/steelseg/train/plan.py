"""The plan of a training: network, configuration and data, with every `auto` resolved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from steelseg.core.device import gpus
from steelseg.core.files import sha256
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.model.card import ModelConfig
from steelseg.model.network import encoder_file_sha256
from steelseg.model.pretrained import resolve as resolve_weights
from steelseg.train.auto import Choice, Setting, fingerprint, resolve
from steelseg.train.config import TrainConfig
from steelseg.train.fold_data import FoldData
from steelseg.train.trial import least_batch, try_training


class Plan(NamedTuple):
    """Everything that the result depends on."""

    network: ModelConfig
    config: TrainConfig
    data: FoldData
    folds_sha256: str
    choices: dict[str, Choice]
    """the value of each `auto`, and its rule"""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the network and of its training."""
        return self.network.model_dump() | self.config.model_dump()

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the training for the model's card and its MLflow run."""
        return {
            "cache": self.data.cache.identity,
            "fold": self.config.fold,
            "folds": self.folds_sha256,
            "pretrained": Path(weights).name if (weights := self.network.encoder_weights) else None,
            "training": self.config.model_dump(),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal to resume an interrupted training."""
        return {
            "params": {k: v for k, v in self.params.items() if k != "num_workers"},  # no effect
            "transforms": self.config.transforms,
            "cache": self.data.cache.identity,
            "folds": self.folds_sha256,
            "encoder_weights": encoder_file_sha256(self.network),
        }

    def describe(self) -> Iterator[str]:
        """Format the choices for the terminal."""
        for name, (value, reason) in self.choices.items():
            yield f"{name}: {value} ({reason})"


def plan(network: ModelConfig, given: TrainConfig, cache: Cache, folds_path: Path) -> Plan:
    """Resolve every `auto`, and try a training step on small tensors.

    Args:
        network: as in params.yaml.
        given: `TrainParams`.
        cache: of all annotated images.
        folds_path: the table of folds of the same images.

    Raises:
        BadInput: the training cannot work, or the folds are of other images.
    """
    network, pretrained = resolve_weights(network)
    folds = fold_table.fold_numbers(fold_table.read(folds_path, cache.names, cache.annotations))
    found = fingerprint(given, cache, fold_table.trained_on(folds, given.fold))
    is_pretrained = network.encoder_weights is not None
    setting = Setting(gpus(), network.encoder, is_pretrained, least_batch(network, cache.pixels))
    config, choices = resolve(given, found, setting)
    if pretrained.source:
        choices["encoder_weights"] = Choice(pretrained.name, pretrained.source)
    data = FoldData(cache, folds, config)
    try_training(network, config, cache.sizes_hw, cache.pixels)
    return Plan(network, config, data, sha256(folds_path), choices)
