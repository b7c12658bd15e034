"""The parameters of the stage `train`, except the network."""

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
    """The last epochs of a training in two phases; one schedule spans both."""

    epochs: Positive
    """number of the last `epochs`"""
    crop: Crop
    batch_size: Positive
    crops_per_image: Positive


class Preset(Config):
    """A file of augmentations."""

    augment: list[dict[str, dict[str, Any] | None]]


class Phase(NamedTuple):
    """The crops of an epoch; `crop_hw` is None for whole images."""

    crop_hw: tuple[int, int] | None
    batch_size: int
    crops_per_image: int


class TrainConfig(Config):
    """How to train; the first block is at the top level of params.yaml."""

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
    """images per step and process"""
    accumulate: Positive
    """steps whose gradients are accumulated before the weights change"""
    crop: Crop
    """height and width of the training crops in pixels; null trains on whole images"""
    devices: Positive
    """GPUs (or, without any, processes) per node"""

    crop_on_defect: Share
    """share of the crops of a defective image that cover one of its defects; every class of the
    image is equally likely"""
    augment: str | list[dict[str, dict[str, Any] | None]]
    """albumentations transforms with their arguments, applied in this order, or the name of a
    preset, a file of src/steelseg/train/augmentations: `light`, `square` or `strong`; the mask of a
    class that an image does not show stays empty, whatever fills the borders of others"""
    crops_per_image: Positive
    """crops of each image per epoch"""
    max_black: Share
    """crops that need not cover a defect are drawn up to ten times until at most this share of
    their pixels is black, outside the plate; 1 accepts the first"""
    balance_classes: Share
    """how much more often rare classes, and clean images, are shown: 0 shows all images equally, 1
    weighs an image by 1 / the share of images that show its rarest class"""
    hard_negatives: Share
    """share of the samples of clean images that are drawn in proportion to the false positive
    pixels of each in the previous epoch"""
    mixup: Share
    """probability of blending a batch's images and losses with those of its other images, by a
    share from Beta(0.4, 0.4)"""
    cutmix: Share
    """probability of replacing a rectangle of a crop by one of another image"""
    copy_paste: Share
    """probability of pasting a defect of another image into a crop"""
    finish: FinishConfig | None
    """overrides for the last epochs, such as whole images after crops"""
    weight_decay: Annotated[float, Field(ge=0)]
    encoder_lr_factor: Annotated[float, Field(gt=0)]
    """learning rate of the encoder as a share of `lr`, for pretrained encoders"""
    freeze_encoder_epochs: NotNegative
    """first epochs in which the encoder and its batch-norm statistics are frozen"""
    label_loss_weight: Annotated[float, Field(ge=0)]
    """factor of the labels' cross-entropy in the loss, if the network has a `label_head`"""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    """validate and keep an exponential moving average of the weights with at most this decay per
    step (1 - (1 + step)^(-2/3) at first) instead of the weights themselves"""
    average_best: Positive
    """keep the mean of the weights of this many best epochs; 1 keeps the best"""
    class_weights: ClassWeights
    """factors of the classes in the loss `bce`, in the order of the class ids; null is 1 each"""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """targets of the loss `bce` are this value and 1 minus it instead of 0 and 1"""
    plateau_patience: NotNegative
    """epochs without a better validation loss before `plateau` divides the learning rate by 10"""
    select_by: Literal["tuned_pair_dice", "pair_dice", "loss"]
    """the score that selects the epoch whose weights are kept: the contest's metric with each
    class's threshold and minimum area tuned, the same metric at threshold 0.5, or the loss"""
    validation_batch_size: Positive
    num_workers: NotNegative | Literal["auto"]
    """loader processes per training process; `auto` is 0 on a CPU, where the network needs the
    cores, and otherwise as many as cores and shared memory allow, at most 8"""
    num_nodes: Positive
    strategy: Literal["auto", "ddp_find_unused_parameters_true"]
    """of Lightning; `auto` is DDP for several processes, the other is for networks that do not use
    all of their parameters"""
    sync_batchnorm: bool
    """batch-norm statistics over all GPUs instead of each GPU's share of the batch"""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    compile: bool
    """torch.compile: faster steps after a start of some minutes"""
    deterministic: bool
    """bit-identical results on a GPU too, at some cost; on a CPU they always are"""

    def phase(self, epoch: int) -> Phase:
        """Return what an epoch, counted from 0, trains on."""
        own = self.finish if self.finish and epoch >= self.epochs - self.finish.epochs else self
        crop_hw = (own.crop[0], own.crop[1]) if own.crop else None
        return Phase(crop_hw, own.batch_size, own.crops_per_image)

    @property
    def transforms(self) -> list[Mapping[str, Mapping[str, Any]]]:
        """The augmentations, with presets resolved and missing arguments empty.

        Raises:
            BadInput: there is no such preset.
        """
        entries = read_preset(self.augment) if isinstance(self.augment, str) else self.augment
        return [{name: args or {} for name, args in entry.items()} for entry in entries]


def loss_weights(loss: str | Mapping[str, float]) -> Mapping[str, float]:
    """Return a loss, or a weighted sum of losses, as weights by name."""
    return {loss: 1.0} if isinstance(loss, str) else loss


def read_preset(name: str) -> list[dict[str, dict[str, Any] | None]]:
    """Read the transforms of a preset.

    Raises:
        BadInput: there is no such preset, or its file is malformed.
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
