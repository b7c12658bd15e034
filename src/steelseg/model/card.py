"""The card of a model: which network it is, how its input is normalised, what it was trained on.

A model is a folder: the weights as safetensors, their card as JSON, the ONNX export with its
checksum, and the tuned rules. Nothing here needs torch.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_serializer

from steelseg.core.classes import ClassInfo, default_classes
from steelseg.core.errors import BadInput
from steelseg.core.files import sha256
from steelseg.core.params import Config
from steelseg.core.pixels import PixelFormat
from steelseg.core.sealed import read_sealed_json, write_sealed_json

MODEL_FORMAT = 2
WEIGHTS, CARD, EXPORT, RULES = "model.safetensors", "model.json", "model.onnx", "postprocess.json"
FILES = (WEIGHTS, CARD, EXPORT, "model.sha256")  # the last is the checksum of the export
NAME_DIGITS = 12  # of the weights' checksum, by which people name a model
Gate = Literal["none", "hard", "soft"]


class ModelConfig(Config):
    """Which network to build; flat parameters at the top level of params.yaml."""

    arch: str
    """an architecture of smp by name, such as `Unet` or `FPN`"""
    encoder: str
    """an encoder of smp by name, such as `resnet18`, or of timm with `tu-` before its name"""
    encoder_weights: str | None
    """`auto` (see `model/pretrained.py`), null, a name such as `imagenet` (downloaded), or the path
    of a safetensors file"""
    arch_options: dict[str, Any]
    """further arguments of the architecture, such as `decoder_channels`"""
    label_head: Gate = "none"
    """a second head on the encoder that says of each class whether the image shows it at all; it
    gates the pixels, hard or soft (see `gate`)"""


class Card(BaseModel, frozen=True, extra="forbid"):
    """What stands on the card."""

    format: int = MODEL_FORMAT
    weights_sha256: str
    model: ModelConfig
    """with `encoder_weights: null`, since the weights of all of it are in the file"""
    pixels: PixelFormat
    """what the images are read as"""
    mean: list[float]
    std: list[float]
    """of the levels of each channel, from 0 to 1"""
    classes: list[int]
    """class ids in channel order"""
    class_infos: list[ClassInfo] = []
    """their names and colours; older cards have none"""
    size_hw: tuple[int, int]
    """of the training images, in pixels"""
    cache: str | None = None
    """identity of the cache that it was trained on"""
    fold: int | None = None
    """the fold that it was validated on"""
    folds: str | None = None
    """SHA-256 of the table of folds"""
    pretrained: str | None = None
    """the weights that the encoder began with"""
    training: dict[str, Any] = {}
    """the training's configuration, with every `auto` resolved"""

    @field_serializer("class_infos")
    def _by_field(self, class_infos: list[ClassInfo]) -> list[dict[str, Any]]:
        return [one._asdict() for one in class_infos]

    @property
    def named_classes(self) -> list[ClassInfo]:
        """The classes in channel order, with the default names and colours if it has none."""
        return self.class_infos or default_classes(self.classes)

    @property
    def name(self) -> str:
        """The beginning of the weights' checksum."""
        return self.weights_sha256[:NAME_DIGITS]


def write_card(folder: Path, card: Card) -> None:
    """Write a card into a model's folder, whole or not at all, with a checksum."""
    write_sealed_json(folder / CARD, card.model_dump(mode="json"))


def read_card(folder: Path) -> Card:
    """Read what `write_card` wrote.

    Raises:
        BadInput: the file is missing or damaged, or of another version of this library.
    """
    path = folder / CARD
    entries = read_sealed_json(path)
    if entries.get("format") != MODEL_FORMAT:
        raise BadInput(f"{path}: expected a model of format {MODEL_FORMAT}; run `dvc repro` again")
    try:
        return Card.model_validate(entries)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{path}: is no card of a model: `{where}`: {fault['msg']}") from error


def check_weights(folder: Path, card: Card) -> None:
    """Check that the weights in a folder are those that the card describes.

    Raises:
        BadInput: the file is missing or is another.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"{weights}: no such file; run `dvc repro train`")
    if sha256(weights) != card.weights_sha256:
        raise BadInput(f"{weights}: is damaged, or is not the file that {folder / CARD} describes")
