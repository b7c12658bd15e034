"""The card of a model: its network, the normalisation of its input, and its training.

A model is a folder: the weights as safetensors, their card as JSON, the ONNX export with its
checksum, and the tuned rules. Nothing here needs torch.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_serializer

from steelseg.core.classes import ClassInfo, default_classes
from steelseg.core.errors import BadInput, quote
from steelseg.core.files import sha256
from steelseg.core.params import Config
from steelseg.core.pixels import PixelFormat
from steelseg.core.sealed import read_sealed_json, write_sealed_json

MODEL_FORMAT = 2
WEIGHTS, CARD, EXPORT, RULES = "model.safetensors", "model.json", "model.onnx", "postprocess.json"
FILES = (WEIGHTS, CARD, EXPORT, "model.sha256")  # the last is the checksum of the export
NAME_DIGITS = 12  # of the weights' checksum, which serve as the model's name
Gate = Literal["none", "hard", "soft"]


class ModelConfig(Config):
    """Which network to build; flat parameters at the top level of params.yaml."""

    arch: str
    """name of an smp architecture, such as `Unet` or `FPN`"""
    encoder: str
    """name of an smp encoder, such as `resnet18`, or of a timm model with the prefix `tu-`"""
    encoder_weights: str | None
    """`auto` (see `model/pretrained.py`), null, a name such as `imagenet` (downloaded), or the path
    of a safetensors file"""
    arch_options: dict[str, Any]
    """further arguments of the architecture, such as `decoder_channels`"""
    label_head: Gate = "none"
    """a second head on the encoder that predicts for each class whether the image shows it; it
    gates the pixels, hard or soft (see `gate`)"""


class Card(BaseModel, frozen=True, extra="forbid"):
    """The content of a card."""

    format: int = MODEL_FORMAT
    weights_sha256: str
    model: ModelConfig
    """with `encoder_weights: null`, since the file has the weights of the whole network"""
    pixels: PixelFormat
    """the format that images are read as"""
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
    """identity of the cache it was trained on"""
    fold: int | None = None
    """the fold it was validated on"""
    folds: str | None = None
    """SHA-256 of the table of folds"""
    pretrained: str | None = None
    """the initial weights of the encoder"""
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
    """Write a card into a model's folder atomically, with a checksum."""
    write_sealed_json(folder / CARD, card.model_dump(mode="json"))


def read_card(folder: Path) -> Card:
    """Read what `write_card` wrote.

    Raises:
        BadInput: the file is missing or damaged, or from another version of this library.
    """
    path = folder / CARD
    entries = read_sealed_json(path)
    if entries.get("format") != MODEL_FORMAT:
        raise BadInput(
            f"{path}: expected a model of format {MODEL_FORMAT}, but got "
            f"{quote(entries.get('format'))}, from another version of steelseg; use that version, "
            "or train the model again (`dvc repro`, or `dvc exp run` with its params)"
        )
    try:
        return Card.model_validate(entries)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{path}: is not a model's card: `{where}`: {fault['msg']}") from error


def check_weights(folder: Path, card: Card) -> None:
    """Check that the weights in a folder are those of the card.

    Raises:
        BadInput: the file is missing or a different one.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"{weights}: no such file; run `dvc repro train`")
    if sha256(weights) != card.weights_sha256:
        raise BadInput(f"{weights}: is damaged, or is not the file that {folder / CARD} describes")
