"""Models in folders for tests: saved, changed, and run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steelseg.core.arrays import Float32, Uint8
from steelseg.model import network
from steelseg.model.card import Card, ModelConfig, read_card, write_card
from steelseg.model.network import Segmenter
from steelseg.predict.ensemble import member_folders
from steelseg.predict.inference import InferenceConfig, Runtime, open_models, probability_maps
from steelseg.predict.rules import read_rules, write_rules
from steelseg.predict.views import ViewsConfig


def save_model(folder: Path, segmenter: Segmenter, config: ModelConfig) -> None:
    """Write the weights and the card of a network for the classes 1 and 2."""
    network.save_model(folder, segmenter, config, classes=[1, 2], size_hw=(48, 80))


def change_card(folder: Path, **facts: Any) -> None:
    """Write other facts on a card, with a checksum that fits."""
    write_card(folder, Card.model_validate(read_card(folder).model_dump() | facts))


def change_rules(folder: Path, **changes: Any) -> None:
    """Write other rules, with a checksum that fits."""
    write_rules(folder, read_rules(folder, read_card(folder))._replace(**changes))


def open_runtime(
    folder: Path, runtime: str = "auto", batch_size: int = 1, views: ViewsConfig | None = None
) -> Runtime:
    """Open a model and the members that its views name."""
    views = views or ViewsConfig()
    inference = InferenceConfig.model_validate(
        {"runtime": runtime, "inference_batch_size": batch_size}
    )
    return open_models(member_folders(folder, views.ensemble), inference, views)


def maps_of(images: Iterable[Uint8], runtime: Runtime) -> list[Float32]:
    """Return the probability maps of images, (C, H, W) each."""
    found = probability_maps(images, lambda image: image, runtime, lambda _, maps: maps.whole())
    return [maps for _, maps in found]
