"""What cannot be trained is refused before the training, by trying it on noise."""

from typing import Any

import pytest
import torch
from tiny_training import NETWORK, config

from steelseg.core.errors import BadInput
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.train.auto import TrainParams
from steelseg.train.config import TrainConfig
from steelseg.train.trial import (
    Step,
    least_batch,
    try_augmentation,
    try_params,
    try_step,
    try_training,
)

SQUARE, OBLONG = (32, 32), (32, 64)
TURNS = ["RandomRotate90", "Transpose", "D4", "SquareSymmetry"]


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("p", [0.01, 1.0])
def test_turns_need_square_crops(name: str, p: float) -> None:
    """However rarely they turn."""
    try_augmentation([{name: {"p": p}}], SQUARE)
    with pytest.raises(BadInput, match=f"{name} makes 64x32 pixels of crops of 32x64.*square"):
        try_augmentation([{"HorizontalFlip": {}}, {name: {"p": p}}], OBLONG)


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([{"Resize": {"height": 16, "width": 16}}], "Resize makes 16x16"),
        ([{"RandomCrop": {"height": 8, "width": 64}}], "RandomCrop makes 8x64"),
        ([{"CenterCrop": {"height": 32, "width": 32}}], "CenterCrop makes 32x32"),
        ([{"PadIfNeeded": {"min_height": 64, "min_width": 64}}], "PadIfNeeded makes 64x64"),
        ([{"LongestMaxSize": {"max_size": 48}}], "LongestMaxSize makes 24x48"),
        ([{"RandomScale": {"scale_limit": 0.5, "p": 0.3}}], "RandomScale makes"),
        ([{"Transpose": {"p": 0.5}}, {"Transpose": {"p": 0.5}}], "Transpose makes 64x32"),
        ([{"RandomCrop": {"height": 48, "width": 48}}], "RandomCrop cannot work on grey crops"),
        ([{"HueSaturationValue": {}}], "HueSaturationValue cannot work on grey .*grayscale"),
        ([{"RandomSizedBBoxSafeCrop": {"height": 32, "width": 64}}], "cannot work on grey"),
        ([{"Normalize": {}}], "Normalize: expected a transform that leaves images of 8 bits"),
        ([{"ToFloat": {}}], "ToFloat: expected a transform that leaves images of 8 bits"),
        ([{"Pad": {"padding": 4, "fill_mask": 255}}], "Pad: expected .* masks of 0 and 1"),
        ([{"HorizontalFlipp": {}}], "unknown transform 'HorizontalFlipp'; did you mean"),
    ],
)
def test_what_makes_other_crops_is_refused(transforms: list[Any], expected: str) -> None:
    """With the transform's name, and what it makes of crops of 32x64 pixels."""
    with pytest.raises(BadInput, match=expected):
        try_augmentation(transforms, OBLONG)


def test_what_ends_at_the_size_it_began_with_is_taken() -> None:
    """A change of scale that is cut back, and every preset on square crops."""
    zoom = [
        {"RandomScale": {"scale_limit": 0.5}},
        {"PadIfNeeded": {"min_height": 32, "min_width": 64}},
        {"RandomCrop": {"height": 32, "width": 64}},
    ]
    try_augmentation(zoom, OBLONG)
    for preset in ("light", "square", "strong"):
        try_augmentation(config(augment=preset).transforms, SQUARE)
    for preset in ("light", "strong"):
        try_augmentation(config(augment=preset).transforms, OBLONG)


@pytest.mark.parametrize("size_hw", [(40, 32), (32, 40)])
@pytest.mark.parametrize("changes", [{"crop": None}, {"crop": [40, 40]}, {"crop": [64, 32]}])
def test_the_size_of_the_images_counts(changes: dict[str, Any], size_hw: tuple[int, int]) -> None:
    """Whole images that are oblong, and crops that are no longer square where an image ends."""
    if changes["crop"] == [64, 32] and size_hw == (32, 40):
        try_training(NETWORK, config(augment="square", **changes), [size_hw])  # 32x32 are left
        return
    with pytest.raises(BadInput, match="SquareSymmetry makes"):
        try_training(NETWORK, config(augment="square", **changes), [size_hw])


def test_images_of_several_sizes_are_padded_to_one() -> None:
    """To crops of 32x40 pixels, where one image is as high and another as wide."""
    turned = config(augment="square", crop=[40, 40])
    with pytest.raises(BadInput, match="SquareSymmetry makes 40x32 pixels"):
        try_training(NETWORK, turned, [(32, 32), (16, 40)])
    try_training(NETWORK, turned, [(40, 32), (16, 40)])


def network(arch: str, encoder: str = "tu-resnet10t") -> ModelConfig:
    return ModelConfig(arch=arch, encoder=encoder, encoder_weights=None, arch_options={})


@pytest.mark.parametrize("arch", ["Unet", "PSPNet", "DeepLabV3Plus", "PAN", "UPerNet"])
@pytest.mark.parametrize("crop_hw", [(32, 32), (128, 128)])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_trial_says_what_a_step_would(
    arch: str, crop_hw: tuple[int, int], batch_size: int
) -> None:
    """Without computing anything: it refuses just what raises when it is computed."""
    segmenter = models.build(network(arch), 2, mean=[0.5], std=[0.5]).train()
    images = torch.zeros((batch_size, 1, *crop_hw), dtype=torch.uint8)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    generator = torch.random.get_rng_state()
    try:
        try_step(segmenter, Step(crop_hw, batch_size))
        refused = None
    except BadInput as error:
        refused = str(error)
    assert torch.equal(generator, torch.random.get_rng_state())
    assert all(torch.equal(before[n], tensor) for n, tensor in segmenter.state_dict().items())
    try:
        with torch.no_grad():
            segmenter(images)
        assert refused is None
    except (ValueError, RuntimeError):
        assert refused
        assert refused.startswith(
            "`batch_size`: expected at least 2" if batch_size == 1 else "`crop`"
        )


def params(**changes: Any) -> TrainConfig:
    return TrainParams(**config().model_dump() | changes)


LAST = {"epochs": 1, "crop": None, "batch_size": 1, "crops_per_image": 1}


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("DeepLabV3Plus", {"batch_size": 1, "crop": [64, 64]}),
        ("PAN", {"batch_size": 1, "crop": [64, 64]}),
        ("UPerNet", {"batch_size": 1, "crop": "auto"}),
        ("DeepLabV3Plus", {"batch_size": 1, "crop": None, "accumulate": 8}),
        ("PAN", {"crop": [128, 128], "finish": LAST}),
        ("Unet", {"batch_size": 1, "crop": [32, 32]}),
    ],
)
def test_single_crops_are_refused_by_name(arch: str, changes: dict[str, Any]) -> None:
    """By params.yaml alone, in the last phase too, whatever the crops' size will be."""
    with pytest.raises(BadInput, match="`batch_size`: expected at least 2, but got 1"):
        try_params(network(arch), params(**changes))


def test_auto_knows_which_networks_need_two() -> None:
    """Those that pool an image to one value before they normalise."""
    assert least_batch(network("DeepLabV3Plus")) == 2
    assert least_batch(network("Unet")) == 1


def test_statistics_over_several_processes_take_single_crops() -> None:
    """`sync_batchnorm` normalises over all of them."""
    single = {"batch_size": 1, "crop": [64, 64], "sync_batchnorm": True}
    try_params(network("DeepLabV3Plus"), params(**single, devices=2))
    with pytest.raises(BadInput, match="`batch_size`"):
        try_params(network("DeepLabV3Plus"), params(**single))


def test_a_network_for_one_size_is_refused_for_others() -> None:
    """For crops by params.yaml alone, for whole validation images once their size is known."""
    fixed = network("DPT", "tu-vit_tiny_patch16_224")
    with pytest.raises(BadInput, match=r"`crop`: DPT with .* cannot work on 64x64 pixels: .*224"):
        try_params(fixed, params(crop=[64, 64]))
    try_params(fixed, params(crop="auto"))  # nobody knows
    with pytest.raises(BadInput, match=r"cannot work on images of 256x320 pixels: .*224"):
        try_training(fixed, params(crop=[224, 224]), [(224, 224), (256, 320)])


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        (network("Unett"), {}, "`arch`: unknown architecture 'Unett'; did you mean `Unet`"),
        (network("Unet", "resnet19"), {}, "`encoder`: unknown encoder 'resnet19'"),
        (network("Unet", "tu-resnot"), {}, "`encoder` tu-resnot: cannot be built"),
        (
            NETWORK.model_copy(update={"arch_options": {"decoder_channel": [1]}}),
            {},
            "Unet has no 'decoder_channel'; did you mean `decoder_channels`",
        ),
        (
            NETWORK.model_copy(update={"arch_options": {"decoder_channels": [8, 8]}}),
            {},
            "cannot be built",
        ),
        (
            NETWORK.model_copy(update={"encoder_weights": "none.safetensors"}),
            {},
            "none.safetensors",
        ),
        (NETWORK, {"loss": "bcee"}, "`loss`: expected one of .* did you mean `bce`"),
        (NETWORK, {"loss": {}}, "`loss`: expected one of"),
        (NETWORK, {"loss": "dice", "label_smoothing": 0.1}, "`label_smoothing` apply to `bce`"),
        (NETWORK, {"loss": "dice", "class_weights": [1.0]}, "`class_weights`"),
        (NETWORK, {"augment": "lihgt"}, "`augment`: expected light.* did you mean `light`"),
    ],
)
def test_names_and_options_are_refused(
    recipe: ModelConfig, changes: dict[str, Any], expected: str
) -> None:
    """Of networks, losses and augmentations, before anything is read."""
    with pytest.raises(BadInput, match=expected):
        try_params(recipe, params(**changes))


def test_what_auto_stands_for_is_no_matter_yet() -> None:
    """The sample's own parameters pass."""
    auto = dict.fromkeys(["crop", "batch_size", "crops_per_image", "epochs", "lr"], "auto")
    try_params(NETWORK, params(**auto, class_weights="auto"))
