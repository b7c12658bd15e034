"""What `auto` makes of the data and the device."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import ROOT

from steelseg.core import params
from steelseg.data.cache import Cache
from steelseg.train.auto import Fingerprint, Setting, fingerprint, resolve
from steelseg.train.config import AUTO, TrainConfig, TrainParams

CPU = Setting(gpu_bytes=None, processes=1, pretrained=False)
SAMPLE = Fingerprint((256, 1600), 192, (0.01, 0.02, 0.03, 0.04))
SEVERSTAL = Fingerprint((256, 1600), 10_054, (0.0008, 0.0002, 0.02, 0.01))
NEU = Fingerprint((200, 200), 2852, (0.02, 0.05, 0.03))


def given_params(**changes: Any) -> TrainParams:
    """The parameters of params.yaml, with changes."""
    base = params.load(TrainParams, "train", ROOT / "params.yaml").model_dump()
    return TrainParams(**base | changes)


def chosen(data: Fingerprint, setting: Setting = CPU, **changes: Any) -> dict[str, Any]:
    _, choices = resolve(given_params(**changes), data, setting)
    return {name: choice.value for name, choice in choices.items()}


def gpu(gibibytes: int, *, pretrained: bool = True) -> Setting:
    return Setting(gibibytes * 2**30, 1, pretrained)


def test_the_sample_has_its_recipe() -> None:
    """The one that its committed results are of."""
    assert chosen(SAMPLE) == {
        "crop": [128, 128],
        "crops_per_image": 4,
        "batch_size": 8,
        "epochs": 6,
        "lr": 2e-3,
    }


@pytest.mark.parametrize(
    ("data", "setting", "expected"),
    [
        # 200x200 on a CPU: crops of 128, 2.4 times of which fit into an image
        (NEU, CPU, {"crop": [128, 128], "crops_per_image": 1, "batch_size": 8, "epochs": 4}),
        # on 16 GiB, 0.6 * 2^34 / (4096 * 256 * 256) = 38.4 crops fit: 32
        (
            SEVERSTAL,
            gpu(16),
            {"crop": [256, 256], "crops_per_image": 2, "batch_size": 32, "epochs": 20, "lr": 5e-4},
        ),
        (SEVERSTAL, gpu(80), {"batch_size": 64, "lr": 7.1e-4}),  # 5e-4 * sqrt(2)
        (SEVERSTAL, gpu(16, pretrained=False), {"lr": 4e-3}),  # 2e-3 * sqrt(4)
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


def test_rules_build_on_what_is_given() -> None:
    """A crop and a batch that were given decide the rest, and are left as they are."""
    config, choices = resolve(given_params(crop=[256, 1600], batch_size=32), SAMPLE, CPU)
    assert (config.crop, config.batch_size, config.crops_per_image) == ([256, 1600], 32, 1)
    assert (config.epochs, config.lr) == (24, 4e-3)
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
    found = fingerprint(tiny_cache, rows)
    masks = np.stack([tiny_cache.masks(int(row)) for row in rows])
    assert (found.size_hw, found.n_images) == (tiny_cache.size_hw, 4)
    np.testing.assert_allclose(found.pixel_shares, masks.mean(axis=(0, 2, 3)))


@given(
    size_hw=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    n_images=st.integers(0, 10**7),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    gibibytes=st.none() | st.integers(1, 200),
    processes=st.integers(1, 64),
)
def test_any_data_gives_a_legal_training(
    size_hw: tuple[int, int],
    n_images: int,
    shares: list[float],
    gibibytes: int | None,
    processes: int,
) -> None:
    """Crops are multiples of 32 and no larger than the padded image, numbers positive."""
    setting = Setting(gibibytes and gibibytes * 2**30, processes, pretrained=False)
    everything = dict.fromkeys(AUTO, "auto")
    config, choices = resolve(
        given_params(**everything), Fingerprint(size_hw, n_images, tuple(shares)), setting
    )
    assert isinstance(config, TrainConfig)
    assert set(choices) == set(AUTO)
    for side, size in zip(config.crop or [], size_hw, strict=False):
        assert side % 32 == 0
        assert side < size + 32
    assert 1 <= config.batch_size <= 64
    assert 4 <= config.epochs <= 200
    assert 0 < config.lr <= 4e-3
    weights = config.class_weights or []
    assert len(weights) == len(shares)
    assert np.mean(weights) == pytest.approx(1, rel=0.01)  # they are rounded
    assert max(weights) <= 16.2 * min(weights)
