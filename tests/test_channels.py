"""Images of several channels and 16 bits on their way: cache, crops, network, predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_training
import torch
from hypothesis import given
from hypothesis import strategies as st
from saved_models import save_model
from test_pixels import deep_png
from tiffs import tiff

import steelseg
from steelseg.core.classes import default_classes
from steelseg.core.errors import BadInput
from steelseg.core.files import sha256
from steelseg.core.pixels import RGB, PixelFormat
from steelseg.data import annotations, cache_writer, label_csv, rle
from steelseg.data.cache import Cache
from steelseg.data.decoding import decode
from steelseg.data.inspection import inspect_folder
from steelseg.export import onnx
from steelseg.model.network import Segmenter
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import Probe, Rules, read_rules, write_rules
from steelseg.registry.log import encode
from steelseg.train.augmentation import from_transforms, to_transforms
from steelseg.train.batch import packed_bytes
from steelseg.train.config import PRESETS, read_preset
from steelseg.train.crops import TrainingCrops, WholeImages
from steelseg.train.mixing import Blend, blend_images
from steelseg.train.trial import try_augmentation, try_params

WHITE = 4095  # of the camera
SIZES = [(40, 64), (33, 70), (64, 40), (20, 20), (48, 48), (40, 64)]
FORMATS = [PixelFormat(channels=n, depth=depth) for n in (1, 2, 3, 5) for depth in (8, 16)]  # type: ignore[arg-type]


def raw_levels(number: int) -> Any:
    """An image of the data set: colours of 12 bits, and number 2 is grey."""
    height, width = SIZES[number]
    shape = (height, width) if number == 2 else (height, width, 3)
    image = np.random.default_rng(number).integers(1000, 3000, shape).astype(np.uint16)
    image[4:14, 5:15] = WHITE if number % 2 else 100
    if image.ndim > 2:
        image[:4, :4] = (WHITE, 0, 0)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of five sizes in two formats of files, with a square each."""
    folder = tmp_path_factory.mktemp("deep")
    rows = []
    for number, size_hw in enumerate(SIZES):
        image = raw_levels(number)
        data = tiff([image], ">") if number == 1 else deep_png(image)
        name = f"{number}.{'tif' if number == 1 else 'png'}"
        (folder / name).write_bytes(data)
        mask_hw = np.zeros(size_hw, np.uint8)
        mask_hw[4:14, 5:15] = 1
        rows.append(label_csv.Row(name, 1 + number % 2, rle.encode(mask_hw), 0))
    (folder / "train.csv").write_text(label_csv.to_text(rows))
    return folder


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Their cache, in shards of four."""
    inspection = inspect_folder(folder, skip_bad=False)
    labels = label_csv.read(folder / "train.csv")
    table = annotations.build(inspection, labels, default_classes([1, 2]), folder / "train.csv")
    out = tmp_path_factory.mktemp("cache")
    assert list(cache_writer.write(out, folder, table, 4)) == [4, 2]
    return Cache(out)


@pytest.fixture(scope="module")
def model(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> steelseg.Model:
    """An untrained network of theirs, with rules."""
    out = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    segmenter = tiny_training.network(cache, tiny_training.config()).eval()
    save_model(out, segmenter, tiny_training.NETWORK)
    rule = ClassRule(threshold=0.5)
    rules = Rules({1: rule, 2: rule}, sha256(out / "model.safetensors"))
    write_rules(out, rules)
    (out / "model.onnx").write_bytes(b"")
    return steelseg.Model.open(out)


def spread(image: Any) -> Any:
    """What the limits make of levels, channels first."""
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    return np.round(np.moveaxis(colours, -1, 0) / WHITE * 65535).astype(np.uint16)


def test_the_cache_has_16_bits_of_all_channels(cache: Cache) -> None:
    """Between the limits, in each image's own size, and with statistics per channel."""
    assert cache.pixels == PixelFormat(channels=3, depth=16, low=0, high=WHITE)
    images = [cache.image(row) for row in range(len(cache))]
    for number, image in enumerate(images):
        assert image.dtype == np.uint16
        assert np.abs(image.astype(int) - spread(raw_levels(number))).max() <= 1
    together = np.concatenate([image.reshape(3, -1) for image in images], axis=1) / 65535
    assert cache.mean == pytest.approx(together.mean(axis=1).tolist(), abs=1e-4)
    assert cache.std == pytest.approx(together.std(axis=1).tolist(), abs=1e-4)


def test_crops_keep_channels_and_16_bits(cache: Cache) -> None:
    """With every kind of mixing; without, they are windows of the images."""
    rows = np.arange(len(cache))
    strong: Any = [{k: v or {} for k, v in one.items()} for one in read_preset("strong")]
    crops = TrainingCrops(cache, rows, (32, 32), 0.5, strong, 1, 0.5, cutmix=0.5, copy_paste=0.5)
    batch = crops.__getitems__(list(range(12)))
    assert batch.images.shape == (12, 3, 32, 32)
    assert batch.images.dtype == torch.uint16
    packed = batch.pack()
    size = sum(tensor.nbytes for tensor in (packed.images, packed.masks, packed.rows))
    assert size == 12 * packed_bytes((32, 32), 2, cache.pixels.bytes_a_pixel)
    plain = TrainingCrops(cache, rows, (32, 32), 0.5, [], seed=1)
    (image,) = plain.__getitems__([3]).images.numpy()
    np.testing.assert_array_equal(image[:, :20, :20], cache.image(3))
    whole = WholeImages(cache, rows).__getitems__([0, 5]).images
    assert whole.shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(whole[0, :, :40].numpy(), cache.image(0))


def test_a_step_of_training_sees_every_channel(cache: Cache) -> None:
    """Gradients are finite and none is zero; a mixup is of levels."""
    segmenter = tiny_training.network(cache, tiny_training.config())
    crops = TrainingCrops(cache, np.arange(len(cache)), (32, 32), 0.5, [], seed=1)
    images = crops.__getitems__([0, 1]).images
    blend = Blend(0.75, torch.tensor([1, 0]))
    mixed = blend_images(images, blend)
    torch.testing.assert_close(mixed[0], 0.75 * images[0].float() + 0.25 * images[1].float())
    segmenter(mixed).square().mean().backward()
    first = next(p for p in segmenter.network.parameters() if p.ndim == 4)
    assert first.shape[1] == 3
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert (first.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


def test_a_model_reads_files_bytes_and_arrays_alike(
    model: steelseg.Model, folder: Path, cache: Cache
) -> None:
    """By the limits on its card, which an image of one's own does not change."""
    for number, name in enumerate(cache.names):
        path, image = folder / name, raw_levels(number)
        expected = model.probabilities(path)
        assert expected.shape == (2, *SIZES[number])
        for same in (path.read_bytes(), image, np.asfortranarray(image), image[..., :]):
            np.testing.assert_array_equal(model.probabilities(same), expected)
        np.testing.assert_array_equal(model.read(path), cache.image(number))
    dark = (raw_levels(0) // 4).astype(np.uint16)
    assert np.abs(model.read(dark).astype(int) - spread(dark)).max() <= 1
    with pytest.raises(BadInput, match=r"shape \(H, W, 3\) and uint16, but got .* uint8"):
        model.predict(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match=r"but got \(8, 8, 4\) uint16"):
        model.predict(np.zeros((8, 8, 4), np.uint16))


@pytest.mark.parametrize("pixels", FORMATS[1:], ids=lambda p: f"{p.channels}x{p.depth}")
def test_probes_and_examples_come_back(pixels: PixelFormat, tmp_path: Path) -> None:
    """A probe exactly; an example as a file that is read as the data set's are."""
    shape = (12, 16) if pixels.channels == 1 else (pixels.channels, 12, 16)
    image = np.random.default_rng(1).integers(0, pixels.white + 1, shape).astype(pixels.dtype)
    write_rules(tmp_path, Rules({1: ClassRule()}, "x", probe=Probe(image, np.zeros((1, 8, 8)))))
    card: Any = type("Card", (), {"weights_sha256": "x", "classes": [1]})
    found = read_rules(tmp_path, card).probe
    assert found is not None
    np.testing.assert_array_equal(found.image, image)
    assert found.image.dtype == image.dtype
    limits = {"low": 0.0, "high": 65535.0} if pixels.depth == 16 else {}
    exact = pixels.model_copy(update=limits)
    if exact.channels == 3 and exact.depth == 8:  # a JPEG
        image[:] = np.array([10, 100, 200])[:, None, None]
    back = decode(encode(image, exact), exact).astype(int)
    assert np.abs(back - image).max() <= (2 if exact.channels == 3 else 0)


@pytest.mark.parametrize("pixels", FORMATS, ids=lambda p: f"{p.channels}x{p.depth}")
@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_take_any_number_of_channels(preset: str, pixels: PixelFormat) -> None:
    """And both depths."""
    transforms: Any = [{k: v or {} for k, v in one.items()} for one in read_preset(preset)]
    try_augmentation(transforms, (32, 32), pixels)


def test_a_transform_of_colours_is_refused_for_lights() -> None:
    """Before the training, by its name."""
    hue: Any = [{"HueSaturationValue": {"p": 1.0}}]
    try_augmentation(hue, (32, 32), RGB)
    with pytest.raises(BadInput, match="HueSaturationValue cannot work on 5 channels crops"):
        try_augmentation(hue, (32, 32), PixelFormat(channels=5))


def test_what_needs_colours_is_refused_early_only_for_grey() -> None:
    """With `auto`, params.yaml alone does not tell what the images have."""
    params = tiny_training.config(augment=[{"HueSaturationValue": {"p": 1.0}}])
    for channels in ("auto", "rgb"):
        try_params(tiny_training.NETWORK, params, channels)
    with pytest.raises(BadInput, match="HueSaturationValue cannot work on grey crops"):
        try_params(tiny_training.NETWORK, params, "grey")
    with pytest.raises(BadInput, match="`augment`: unknown transform 'Nothing'"):
        try_params(tiny_training.NETWORK, tiny_training.config(augment=[{"Nothing": {}}]))


@given(st.integers(0, 99), st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]))
def test_transforms_are_given_and_give_back_every_level(seed: int, n: int, dtype: Any) -> None:
    """16 bits survive as float32 from 0 to 1."""
    shape = (5, 7) if n == 1 else (n, 5, 7)
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    given_ = to_transforms(image)
    assert given_.shape[:2] == (5, 7)
    assert given_.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    back = from_transforms(given_, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)


def test_an_export_takes_16_bits(tmp_path: Path) -> None:
    """As uint16, and answers as the network does."""
    torch.manual_seed(1)
    pixels = PixelFormat(channels=2, depth=16)
    segmenter = Segmenter(torch.nn.Conv2d(2, 1, 3, padding=1), pixels, [0.4, 0.6], [0.1, 0.2])
    onnx.export(segmenter, tmp_path / "model.onnx")  # which compares the two
    (given_,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()
    assert (given_.type, given_.shape[1]) == ("tensor(uint16)", 2)
