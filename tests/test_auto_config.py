"""What `auto` makes of the data and the device."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import ROOT

from steelseg.core import params
from steelseg.core.device import Gpus
from steelseg.data.cache import Cache
from steelseg.train import auto
from steelseg.train.auto import Fingerprint, Setting, TrainParams, fingerprint, resolve
from steelseg.train.config import TrainConfig

CPU = Setting(gpus=None, encoder="resnet18", pretrained=False)
SAMPLE = Fingerprint((256, 1600), 192, (0.01, 0.02, 0.03, 0.04))
SEVERSTAL = Fingerprint((256, 1600), 10_054, (0.0008, 0.0002, 0.02, 0.01))
NEU = Fingerprint((200, 200), 2852, (0.02, 0.05, 0.03))


def given_params(**changes: Any) -> TrainConfig:
    """The parameters of params.yaml, with changes."""
    base = params.load(TrainParams, "train", ROOT / "params.yaml").model_dump()
    return TrainParams(**base | changes)


def chosen(data: Fingerprint, setting: Setting = CPU, **changes: Any) -> dict[str, Any]:
    _, choices = resolve(given_params(**changes), data, setting)
    return {name: choice.value for name, choice in choices.items()}


def gpu(
    gibibytes: int,
    number: int = 1,
    *,
    bf16: bool = True,
    encoder: str = "resnet18",
    pretrained: bool = True,
) -> Setting:
    return Setting(Gpus(number, gibibytes * 2**30, bf16), encoder, pretrained)


def test_the_sample_has_its_recipe() -> None:
    """The one that its committed results are of."""
    assert chosen(SAMPLE, CPU._replace(pretrained=True)) == {
        "precision": "32-true",
        "crop": [128, 128],
        "crops_per_image": 4,
        "batch_size": 8,
        "validation_batch_size": 4,
        "epochs": 10,
        "lr": 1e-3,
    }


def test_no_batch_is_smaller_than_the_network_can_train_with() -> None:
    """Whole large images on a small GPU, of which one fits."""
    large = Fingerprint((8192, 8192), 100, (0.01,))
    assert chosen(large, gpu(8), crop=None)["batch_size"] == 1
    needs_two = gpu(8)._replace(least_batch=2)
    assert chosen(large, needs_two, crop=None)["batch_size"] == 2


@pytest.mark.parametrize(
    ("data", "setting", "expected"),
    [
        # 200x200 on a CPU: crops of 128, 2.4 times of which fit into an image
        (NEU, CPU, {"crop": [128, 128], "crops_per_image": 1, "batch_size": 8, "epochs": 4}),
        # on 16 GiB, 0.6 * 2^34 / (4096 * 256 * 256) = 38.4 crops fit of an encoder not known: 32
        (
            SEVERSTAL,
            gpu(16, encoder="tu-convnext_tiny"),
            {"crop": [256, 256], "crops_per_image": 2, "batch_size": 32, "epochs": 20, "lr": 1e-3},
        ),
        # of a resnet18, 0.6 * 2^34 / (750 * 256 * 256) = 209.7: the largest; 33.6 whole images
        (SEVERSTAL, gpu(16), {"batch_size": 64, "lr": 1e-3, "validation_batch_size": 16}),
        (SEVERSTAL, gpu(16, pretrained=False), {"lr": 4e-3}),  # 2e-3 * sqrt(8) is too high
        # small enough to be trained on whole
        (Fingerprint((64, 64), 500, (0.1,)), CPU, {"crop": None, "crops_per_image": 1}),
        # ten images: many epochs, but not without end; a million: the fewest
        (Fingerprint((200, 200), 8, (0.1,)), CPU, {"epochs": 200}),
        (Fingerprint((256, 1600), 10**6, (0.1,)), gpu(16), {"epochs": 4}),
        # 4096 x 4096: 32 crops of 128 a side make 1024, ten doublings
        (Fingerprint((4096, 4096), 100, (0.1,)), CPU, {"crops_per_image": 10}),
        (Fingerprint((40, 1600), 100, (0.1,)), CPU, {"crop": [64, 64]}),  # no higher than padded
    ],
)
def test_other_data_and_devices(
    data: Fingerprint, setting: Setting, expected: dict[str, Any]
) -> None:
    """By the rules, computed by hand."""
    assert chosen(data, setting).items() >= expected.items()


@pytest.mark.parametrize(
    ("setting", "changes", "expected"),
    [
        (CPU, {}, ("32-true", 1)),
        (gpu(16, 2), {}, ("16-mixed", 2)),
        (gpu(16), {"loss": {"focal": 1.0, "dice": 1.0}}, ("bf16-mixed", 1)),
        (gpu(16, bf16=False), {"loss": "focal"}, ("16-mixed", 1)),  # a T4 has no bf16
    ],
)
def test_precision_and_devices(
    setting: Setting, changes: dict[str, Any], expected: tuple[str, int]
) -> None:
    """Half precision and all GPUs where there are some, bf16 for the small gradients of focal."""
    config, _ = resolve(given_params(precision="auto", devices="auto", **changes), SAMPLE, setting)
    assert (config.precision, config.devices) == expected


def test_the_learning_rate_is_for_all_processes() -> None:
    """1e-3 * sqrt(2 GPUs * 1 / 8), and of as many nodes again."""
    few = {"devices": "auto", "batch_size": 1}
    assert chosen(SEVERSTAL, gpu(80, 2), **few)["lr"] == 5e-4
    assert chosen(SEVERSTAL, gpu(80, 2), **few, num_nodes=2)["lr"] == 7.1e-4


def test_32_bits_take_twice_the_memory() -> None:
    """0.6 * 2^33 / (2 * 2831 * 256 * 256) = 13.9 crops, and 27.8 in half."""
    setting = gpu(8, encoder="efficientnet-b4")
    assert chosen(SEVERSTAL, setting, precision="32-true")["batch_size"] == 8
    assert chosen(SEVERSTAL, setting)["batch_size"] == 16


def test_rules_build_on_what_is_given() -> None:
    """A crop and a batch that were given decide the rest, and are left as they are."""
    config, choices = resolve(given_params(crop=[256, 1600], batch_size=32), SAMPLE, CPU)
    assert (config.crop, config.batch_size, config.crops_per_image) == ([256, 1600], 32, 1)
    assert (config.epochs, config.lr) == (40, 4e-3)
    assert not {"crop", "batch_size"} & set(choices)


def test_class_weights_are_for_rare_classes() -> None:
    """1 / sqrt of 0.04 and 0.01 is 5 and 10: 0.667 and 1.33; null for a loss without `bce`."""
    data = Fingerprint((256, 256), 100, (0.04, 0.01))
    assert chosen(data, class_weights="auto", loss="bce")["class_weights"] == [0.667, 1.33]
    assert chosen(data, class_weights="auto", loss={"dice": 1.0})["class_weights"] is None


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.04, 0.04, 0.04, 0.0), [1.0, 1.0, 1.0, 1.0]),  # in no image: nothing is known of it
        ((0.04, 0.0, 0.01), [0.667, 1.0, 1.33]),  # and the others are as they are without it
        ((0.04, 0.04, 1e-8), [0.5, 0.5, 2.0]),  # of one pixel: 4 times the others and no more
        ((0.0, 0.0), [1.0, 1.0]),  # not a defect anywhere
    ],
)
def test_an_odd_class_leaves_the_others_their_weights(
    shares: tuple[float, ...], expected: list[float]
) -> None:
    """The mean stays 1, and a class that hardly exists does not take it all."""
    data = Fingerprint((256, 256), 100, shares)
    assert chosen(data, class_weights="auto", loss="bce")["class_weights"] == expected


def test_a_cache_is_measured_by_its_masks(tiny_cache: Cache) -> None:
    """Against counting the unpacked pixels of the training rows."""
    rows = np.array([0, 3, 4, 7])
    found = fingerprint(given_params(class_weights="auto"), tiny_cache, rows)
    masks = np.stack([tiny_cache.masks(int(row)) for row in rows])
    assert (found.size_hw, found.n_images) == (tiny_cache.typical_size_hw, 4)
    np.testing.assert_allclose(found.pixel_shares, masks.mean(axis=(0, 2, 3)))
    assert fingerprint(given_params(), tiny_cache, rows).pixel_shares == ()  # not asked for


@given(
    size_hw=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    n_images=st.integers(0, 10**7),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    gibibytes=st.none() | st.integers(1, 200),
    number=st.integers(1, 64),
    encoder=st.sampled_from(["resnet18", "efficientnet-b4", "another"]),
)
def test_any_data_gives_a_legal_training(
    size_hw: tuple[int, int],
    n_images: int,
    shares: list[float],
    gibibytes: int | None,
    number: int,
    encoder: str,
) -> None:
    """Crops are multiples of 32 and no larger than the padded image, numbers positive."""
    gpus = Gpus(number, gibibytes * 2**30, bf16=True) if gibibytes else None
    everything = dict.fromkeys(auto._RULES, "auto")
    setting = Setting(gpus, encoder, pretrained=False)
    config, choices = resolve(
        given_params(**everything), Fingerprint(size_hw, n_images, tuple(shares)), setting
    )
    assert isinstance(config, TrainConfig)
    assert set(choices) == set(everything)
    for side, size in zip(config.crop or [], size_hw, strict=False):
        assert side % 32 == 0
        assert side < size + 32
    assert 1 <= config.batch_size <= 64
    assert 1 <= config.validation_batch_size <= 16
    assert 4 <= config.epochs <= 200
    assert 0 < config.lr <= 4e-3
    weights = config.class_weights or []
    assert len(weights) == len(shares)
    assert np.mean(weights) == pytest.approx(1, rel=0.01)  # they are rounded
    assert max(weights) <= 16.2 * min(weights)
