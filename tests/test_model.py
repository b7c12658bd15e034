"""A model as its users open it: findings of images, and what is refused."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from saved_models import change_card, change_rules, maps_of, open_runtime

import steelseg
from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data.decoding import read
from steelseg.model.card import EXPORT, read_card
from steelseg.predict import inference, tiles
from steelseg.predict.postprocess import ClassRule, postprocess
from steelseg.predict.rules import Probe, compare, read_rules, take_probe

RNG = np.random.default_rng(3)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="module")
def image(tiny_dataset: Path) -> Path:
    """The path of an image."""
    return tiny_dataset / "test_images" / "0012.png"


def test_the_package_is_light_until_a_model_is_asked_for() -> None:
    """`import steelseg` takes no seconds: neither torch nor MLflow nor OpenCV is imported."""
    heavy = ["torch", "mlflow", "cv2", "onnxruntime", "pandas", "numpy"]
    code = f"import sys, steelseg; print([m for m in {heavy} if m in sys.modules], steelseg.Model)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[] <class 'steelseg.predict.model.Model'>\n"


def test_public_names_are_two() -> None:
    """And another is refused as of any module."""
    assert steelseg.Finding._fields == (
        *("class_id", "rle", "area", "confidence", "size_hw", "class_name", "raw_confidence"),
        *("alarm", "area_mm2"),
    )
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        steelseg.Modell  # noqa: B018 - asked for to be refused


def test_a_path_bytes_and_an_array_are_one_image(tiny_model: Path, image: Path) -> None:
    """Each gives the findings that the network and the rules give by hand."""
    model = steelseg.Model.open(tiny_model)
    image_hw = read(image, GREY).image
    maps_chw = maps_of([image_hw], open_runtime(tiny_model))[0]
    expected = [
        steelseg.Finding(
            *(class_id, *(found := postprocess(map_hw, rule)), image_hw.shape),
            *(f"class {class_id}", found.confidence),
        )
        for (class_id, rule), map_hw in zip(model.rules.by_class.items(), maps_chw, strict=True)
    ]
    assert any(found.area for found in expected)
    for given in (image, str(image), image.read_bytes(), image_hw, image_hw[..., None]):
        assert model.predict(given) == expected


def test_a_large_image_is_answered_by_tiles(
    tiny_model: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its findings are those of the blended maps as one, in whichever way it is predicted."""
    model = steelseg.Model.open(tiny_model)
    whole = model.probabilities(image)
    monkeypatch.setattr(tiles, "WHOLE", 1000)
    monkeypatch.setattr(inference, "TILE", (32, 32))
    blended = model.probabilities(image)
    assert blended.shape == whole.shape
    assert not np.allclose(blended, whole, atol=1e-3)  # a tile shows less
    assert model.predict(image) == model.findings(blended)
    assert list(model.predict_many([image])) == [model.findings(blended)]


def test_a_finding_has_its_mask(tiny_model: Path, image: Path) -> None:
    """(H, W) uint8 of 0 and 1, as large as it says, and empty where nothing was found."""
    for found in steelseg.Model.open(tiny_model).predict(image):
        assert found.mask.shape == found.size_hw == (48, 80)
        assert found.mask.sum() == found.area
    assert not steelseg.Finding(1, "", 0, 0.1, (5, 7), "class 1", 0.1).mask.any()


def test_any_number_of_images_of_any_size_come_in_their_order(tiny_model: Path) -> None:
    """Read as they are needed, batched where neighbours fit, and the same as one by one."""
    sizes = [(48, 80), (48, 80), (30, 70), (64, 96), (48, 80), (33, 31)]
    images = [RNG.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    taken = []

    def lazily() -> object:
        for number, one in enumerate(images):
            taken.append(number)
            yield one

    for batch_size in (1, 4):
        inference = steelseg.predict.inference.InferenceConfig(inference_batch_size=batch_size)
        model = steelseg.Model.open(tiny_model, inference=inference, threads=1)
        expected = [model.predict(one) for one in images]
        assert list(model.predict_many(images)) == expected
    taken.clear()
    next(iter(steelseg.Model.open(tiny_model, threads=1).predict_many(lazily())))
    assert len(taken) < len(images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Path("nowhere.png"), "nowhere.png: cannot be read"),
        (b"no image", "expected JPEG, PNG"),
        (np.zeros((4, 4), np.float32), r"expected levels of shape .* but got \(4, 4\) float32"),
        (np.zeros((4, 4, 2), np.uint8), r"but got \(4, 4, 2\) uint8"),
        (np.zeros((0, 4), np.uint8), "expected levels of shape"),
        (17, "expected a path, bytes or an array, but got 17"),
    ],
)
def test_what_is_no_image_is_refused(tiny_model: Path, given: object, message: str) -> None:
    """In one sentence, alone or among others."""
    model = steelseg.Model.open(tiny_model)
    with pytest.raises(BadInput, match=message):
        model.predict(given)
    with pytest.raises(BadInput, match=message):
        list(model.predict_many([np.zeros((32, 32), np.uint8), given]))


def test_rules_of_other_classes_are_refused(folder: Path) -> None:
    """They would be zipped with the wrong maps."""
    change_card(folder, classes=[1, 3])
    with pytest.raises(BadInput, match=r"expected rules for the classes \[1, 3\]"):
        steelseg.Model.open(folder)


def test_rules_of_other_weights_are_refused(folder: Path) -> None:
    """Their thresholds mean nothing here."""
    change_rules(folder, weights_sha256="0" * 64)
    with pytest.raises(BadInput, match="was tuned on other weights"):
        steelseg.Model.open(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "postprocess.json"])
def test_files_that_are_not_what_the_card_says_are_refused(folder: Path, name: str) -> None:
    """Before any image is looked at."""
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=f"{name}: "):
        steelseg.Model.open(folder)


def test_without_an_export_torch_answers(folder: Path, image: Path) -> None:
    """`auto` takes what there is, and the masks are the same."""
    expected = steelseg.Model.open(folder).predict(image)
    (folder / EXPORT).write_bytes(b"")
    found = steelseg.Model.open(folder).predict(image)
    assert [(one.class_id, one.rle) for one in found] == [(e.class_id, e.rle) for e in expected]


def test_a_model_that_answers_as_when_it_was_tuned_is_silent(
    folder: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its probe survives the file, and both runtimes give its answers."""
    image_hw = read(image, GREY).image
    probe = take_probe(image_hw, open_runtime(folder, "onnx").network)
    change_rules(folder, probe=probe)
    kept = read_rules(folder, read_card(folder)).probe
    assert np.array_equal(kept.image, image_hw)
    for runtime in ("onnx", "torch"):
        assert compare(kept, open_runtime(folder, runtime).network, folder) < 1e-3
    steelseg.Model.open(folder).predict(image)
    assert not caplog.records


def test_a_model_that_answers_differently_says_so(
    folder: Path, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each way to run it, with what to do; it goes on all the same."""
    probe = take_probe(read(image, GREY).image, open_runtime(folder, "onnx").network)
    change_rules(folder, probe=Probe(probe.image, probe.answers + 0.05))
    model = steelseg.Model.open(folder)
    with caplog.at_level(logging.WARNING):
        model.predict(image)
        model.predict(image)
    (message,) = caplog.messages
    assert "answers differently from when its rules were tuned (by up to 0.05" in message
    assert "dvc repro -f tune_threshold" in message


def test_other_rules_may_be_tried(tiny_model: Path, image: Path) -> None:
    """On maps that are kept, as the demo does."""
    model = steelseg.Model.open(tiny_model)
    maps_chw = model.probabilities(image)
    assert model.findings(maps_chw) == model.predict(image)
    closed = dict.fromkeys(model.classes, ClassRule(enabled=False))
    assert all(not found.rle for found in model.findings(maps_chw, closed))
