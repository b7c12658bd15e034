"""The parameters of the stage `train`, apart from the network itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from steelseg.core.errors import BadInput
from steelseg.core.params import Config, nearest, read_yaml

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


Share = Annotated[float, Field(ge=0, le=1)]
Crop = Annotated[list[Positive], Field(min_length=2, max_length=2)] | None
ClassWeights = list[Annotated[float, Field(ge=0)]] | None
PRESETS = Path(__file__).with_name("augmentations")


class FinishConfig(Config):
    """The last epochs of a training in two phases; one schedule runs through both."""

    epochs: Positive
    """how many of the `epochs`"""
    crop: Crop
    batch_size: Positive
    crops_per_image: Positive


class Preset(Config):
    """A file of augmentations."""

    augment: list[dict[str, dict[str, Any] | None]]


class Phase(NamedTuple):
    """What an epoch trains on; `crop_hw` is None for whole images."""

    crop_hw: tuple[int, int] | None
    batch_size: int
    crops_per_image: int


class TrainConfig(Config):
    """How to train; the first block stands flat at the top level of params.yaml."""

    seed: NotNegative
    """of the initial weights, the shuffling, the crops and the augmentations"""
    fold: NotNegative
    """the fold to validate on; the others are trained on"""
    loss: str | dict[str, float]
    """a name (`bce`) or a weighted sum (`{bce: 0.6, dice: 0.4}`); see steelseg.train.losses"""
    optimizer: Literal["adam", "adamw"]
    lr: Annotated[float, Field(gt=0)]
    """learning rate; for `one_cycle` the highest"""
    scheduler: Literal["constant", "plateau", "cosine", "one_cycle"]
    epochs: Positive
    batch_size: Positive
    """images a step and process"""
    accumulate: Positive
    """steps whose gradients are added up before the weights change"""
    crop: Crop
    """height and width of the training crops in pixels; null trains on whole images"""
    devices: Positive
    """GPUs (or, without any, processes) a node"""

    crop_on_defect: Share
    """share of the crops of a defective image that are laid over one of its defects, every class
    of the image being as likely"""
    augment: str | list[dict[str, dict[str, Any] | None]]
    """transforms of albumentations with their arguments, applied in this order, or the name of a
    preset, a file of src/steelseg/augmentations: `light`, `square` or `strong`; the mask of a class
    that an image does not show stays empty, whatever fills the others' borders"""
    crops_per_image: Positive
    """how often an epoch shows each image"""
    max_black: Share
    """crops that are not laid over a defect are drawn up to ten times until at most this share of
    their pixels is black, beside the plate; 1 takes the first"""
    balance_classes: Share
    """how far rare classes, and clean images, are shown more often: 0 shows images as they are, 1
    weighs an image by 1 / the share of images that show its rarest class"""
    hard_negatives: Share
    """share of the samples of clean images that are drawn in proportion to the pixels that were
    wrongly found on each in the epoch before"""
    mixup: Share
    """probability of blending a batch's images and losses with those of its other images, by a
    share from Beta(0.4, 0.4)"""
    cutmix: Share
    """probability of replacing a rectangle of a crop by one of another image"""
    copy_paste: Share
    """probability of pasting a defect of another image into a crop"""
    finish: FinishConfig | None
    """how the last epochs train, where it is otherwise: crops first and whole images after"""
    weight_decay: Annotated[float, Field(ge=0)]
    encoder_lr_factor: Annotated[float, Field(gt=0)]
    """learning rate of the encoder as a share of `lr`, for pretrained encoders"""
    freeze_encoder_epochs: NotNegative
    """first epochs in which the encoder stays as it is, with its batch-norm statistics"""
    label_loss_weight: Annotated[float, Field(ge=0)]
    """factor of the labels' cross-entropy in the loss, where the network has a `label_head`"""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    """validate and keep an exponential moving average of the weights with at most this decay a step
    (1 - (1 + step)^(-2/3) in the beginning) instead of the weights themselves"""
    average_best: Positive
    """keep the mean of the weights of this many best epochs; 1 keeps the best"""
    class_weights: ClassWeights
    """factors of the classes in the loss `bce`, in the order of the class ids; null weighs alike"""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """the loss `bce` is given masks of this much and 1 minus this much instead of 0 and 1"""
    plateau_patience: NotNegative
    """epochs without a better validation loss before `plateau` divides the learning rate by 10"""
    select_by: Literal["tuned_pair_dice", "pair_dice", "loss"]
    """what decides which epoch's weights are kept: the contest's metric with each class's threshold
    and minimum area tuned, the same metric as it is at threshold 0.5, or the loss"""
    validation_batch_size: Positive
    num_workers: NotNegative | Literal["auto"]
    """loader processes of each training process; `auto` is none on a CPU, where the network needs
    the cores, and else as many as there are cores and shared memory for, at most 8"""
    num_nodes: Positive
    strategy: Literal["auto", "ddp_find_unused_parameters_true"]
    """of Lightning; `auto` is DDP where there are several processes, the other is for networks that
    do not use all of their parameters"""
    sync_batchnorm: bool
    """batch-norm statistics over all GPUs instead of each one's own share of the batch"""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    compile: bool
    """torch.compile: faster steps after a start of some minutes"""
    deterministic: bool
    """bit-identical repetition on a GPU too, at some cost; on a CPU it is so anyway"""

    def phase(self, epoch: int) -> Phase:
        """Return what an epoch, counted from 0, trains on."""
        own = self.finish if self.finish and epoch >= self.epochs - self.finish.epochs else self
        crop_hw = (own.crop[0], own.crop[1]) if own.crop else None
        return Phase(crop_hw, own.batch_size, own.crops_per_image)

    @property
    def transforms(self) -> list[Mapping[str, Mapping[str, Any]]]:
        """The augmentations, of a preset too, with no arguments where none are given.

        Raises:
            BadInput: there is no such preset.
        """
        entries = read_preset(self.augment) if isinstance(self.augment, str) else self.augment
        return [{name: args or {} for name, args in entry.items()} for entry in entries]


def loss_weights(loss: str | Mapping[str, float]) -> Mapping[str, float]:
    """Return what `loss` names, a loss or a weighted sum of some, as weights by name."""
    return {loss: 1.0} if isinstance(loss, str) else loss


def read_preset(name: str) -> list[dict[str, dict[str, Any] | None]]:
    """Read the transforms of a preset.

    Raises:
        BadInput: there is none of this name, or its file holds something else.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        known = ", ".join(names)
        raise BadInput(f"`augment`: expected {known}, but got {name!r}{nearest(name, names)}")
    path = PRESETS / f"{name}.yaml"
    try:
        return Preset.model_validate(read_yaml(path)).augment
    except ValidationError as error:
        raise BadInput(f"{path}: expected `augment`, a list of transforms") from error
