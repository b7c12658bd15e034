"""Models that answer together: who they are, which images they may be judged on, what they say."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from saved_models import change_card, open_runtime

from steelseg.core import sealed
from steelseg.core.errors import BadInput
from steelseg.core.files import seal, sha256
from steelseg.model.card import RULES, read_card
from steelseg.predict import ensemble
from steelseg.predict.ensemble import (
    by_fold,
    files_of,
    member_folders,
    out_of_fold_maps,
)
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.rules import read_rules, write_rules
from steelseg.predict.views import ViewsConfig
from steelseg.registry.member import add_member

CONFIG = InferenceConfig(runtime="torch", inference_batch_size=2)
IMAGE = np.full((32, 64), 120, dtype=np.uint8)


def constant_model(source: Path, folder: Path, logit: float, **facts: Any) -> Path:
    """Copy the tiny model with a head that answers the same probability everywhere."""
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["segmentation_head.0.weight"] *= 0
    tensors["segmentation_head.0.bias"][:] = logit
    save_file(tensors, weights)
    change_card(folder, weights_sha256=sha256(weights), **facts)
    (folder / "model.onnx").write_bytes(b"")
    seal(folder / "model.onnx")
    return folder


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> dict[int, Path]:
    """Models of three folds, as folders; the first is the pipeline's own."""
    return {
        fold: constant_model(tiny_model, tmp_path / f"fold-{fold}", logit, fold=fold, **facts())
        for fold, logit in enumerate((-1.0, 0.0, 3.0))
    }


def facts() -> dict[str, str]:
    return {"cache": "c", "folds": "f"}


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def test_an_ensemble_answers_with_the_mean(models: dict[int, Path]) -> None:
    """Three networks that say sigmoid(-1), 0.5 and sigmoid(3) everywhere."""
    names = [add_member(models[fold], models[0]) for fold in (1, 2)]
    runtime = open_runtime(models[0], "torch", views=ViewsConfig(ensemble=names))
    expected = (sigmoid(-1) + 0.5 + sigmoid(3)) / 3
    np.testing.assert_allclose(runtime(IMAGE[None, None]), expected, atol=1e-6)
    alone = open_runtime(models[0], "torch")
    np.testing.assert_allclose(alone(IMAGE[None, None]), sigmoid(-1), atol=1e-6)


def test_no_model_is_judged_on_what_it_was_trained_on(models: dict[int, Path]) -> None:
    """Each image is answered by the model of its own fold alone; of two, by their mean."""
    names = [add_member(models[fold], models[0]) for fold in (1, 2)]
    folders = member_folders(models[0], names)
    sorted_ = by_fold([*folders, folders[1]], 0, "c", "f")
    assert {fold: len(of_fold) for fold, of_fold in sorted_.items()} == {0: 1, 1: 2, 2: 1}
    rows = {0: [3, 7], 1: [1], 2: [0]}
    means = out_of_fold_maps(
        sorted_,
        rows,
        lambda _: IMAGE,
        CONFIG,
        ViewsConfig(),
        lambda _, maps: float(maps.whole().mean()),
    )
    found = dict(means)
    assert list(found) == [3, 7, 1, 0]
    expected = {3: sigmoid(-1), 7: sigmoid(-1), 1: 0.5, 0: sigmoid(3)}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["cache", "folds"])
def test_a_member_of_other_folds_is_refused(models: dict[int, Path], name: str) -> None:
    """Its score here would be on images that it may have been trained on."""
    change_card(models[1], **{name: "another"})
    folders = member_folders(models[0], [add_member(models[1], models[0])])
    with pytest.raises(BadInput, match="trained on other images, masks or folds"):
        by_fold(folders, 0, "c", "f")


def test_a_member_is_what_its_name_says(models: dict[int, Path]) -> None:
    """It is collected once, and refused when absent, exchanged or of other classes."""
    name = add_member(models[1], models[0])
    assert add_member(models[1], models[0]) == name
    assert name == sha256(models[1] / "model.safetensors")[:12]
    with pytest.raises(BadInput, match=r"`ensemble`: there is no .*/members/0123456789ab"):
        member_folders(models[0], ["0123456789ab"])
    own = models[0] / ensemble.MEMBERS / name
    change_card(own, classes=[1, 5])
    with pytest.raises(BadInput, match=r"expected a model of classes \[1, 2\], but got \[1, 5\]"):
        member_folders(models[0], [name])
    shutil.rmtree(own)
    shutil.copytree(models[2], own)
    with pytest.raises(BadInput, match="contains another model than its name states"):
        member_folders(models[0], [name])


def test_a_damaged_model_does_not_answer(models: dict[int, Path]) -> None:
    """Not even alone, nor by an export that is sound."""
    (models[0] / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"model\.safetensors: is damaged"):
        member_folders(models[0], [])


def test_a_model_is_no_member_of_itself(models: dict[int, Path]) -> None:
    """It answers anyway, and would count twice."""
    name = add_member(models[0], models[0])
    with pytest.raises(BadInput, match=f"`ensemble`: {name} is .* itself"):
        member_folders(models[0], [name])


def test_experiments_in_temporary_folders_find_the_members_of_the_repository(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC says where that is; a member in the folder itself comes first."""
    repository = tmp_path / "repository"
    monkeypatch.setenv("DVC_ROOT", str(repository))
    name = add_member(models[1], repository / "models")
    own, found = member_folders(models[0], [name])
    assert (own, found) == (models[0], repository / "models" / "members" / name)
    add_member(models[1], models[0])
    assert member_folders(models[0], [name])[1] == models[0] / "members" / name


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
def test_a_member_that_came_to_harm_is_mended(models: dict[int, Path], file: str) -> None:
    """By collecting it again; nothing else is left beside it."""
    name = add_member(models[1], models[0])
    harmed = models[0] / "members" / name / file
    harmed.write_bytes(b"x")
    assert add_member(models[1], models[0]) == name
    assert harmed.read_bytes() == (models[1] / file).read_bytes()
    assert [path.name for path in (models[0] / "members").iterdir()] == [name]


def test_a_model_without_its_export_is_not_collected(models: dict[int, Path]) -> None:
    """The message says how to make it."""
    (models[1] / "model.onnx").unlink()
    with pytest.raises(BadInput, match=r"model\.onnx: is missing or damaged; run `dvc repro exp"):
        add_member(models[1], models[0])


def test_the_files_of_an_ensemble_are_a_model_elsewhere(
    models: dict[int, Path], tmp_path: Path
) -> None:
    """Copied to another machine, its folder answers the same; a member not asked for stays."""
    (models[0] / "postprocess.json").write_text("{}")
    names = [add_member(models[fold], models[0]) for fold in (1, 2)]
    elsewhere = tmp_path / "elsewhere"
    for path, source in files_of(member_folders(models[0], names[:1])).items():
        (elsewhere / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, elsewhere / path)
    assert [path.name for path in (elsewhere / "members").iterdir()] == names[:1]
    runtime = open_runtime(elsewhere, "torch", views=ViewsConfig(ensemble=names[:1]))
    np.testing.assert_allclose(runtime(IMAGE[None, None]), (sigmoid(-1) + 0.5) / 2, atol=1e-6)


def test_a_damaged_model_is_not_collected(models: dict[int, Path]) -> None:
    """Nothing is left of the attempt."""
    with (models[1] / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadInput, match="is damaged, or is not the file that"):
        add_member(models[1], models[0])
    assert not (models[0] / ensemble.MEMBERS).exists()


def test_rules_carry_their_views(tiny_model: Path, tmp_path: Path) -> None:
    """What was tuned with flips and tiles is read back with them; a file from before has none."""
    card = read_card(tiny_model)
    views = ViewsConfig(tta="flips", tile=[32, 64], ensemble=["0123456789ab"])
    written = read_rules(tiny_model, card)._replace(views=views)
    write_rules(tmp_path, written)
    assert read_rules(tmp_path, card).views == views
    old = sealed.read_sealed_json(tmp_path / RULES)
    del old["views"], old["probe"]
    sealed.write_sealed_json(tmp_path / RULES, old)
    assert read_rules(tmp_path, card).views == ViewsConfig()


def test_flips_are_part_of_what_a_tuned_model_answers(tiny_model: Path) -> None:
    """The tiny network is not symmetric: with flips it answers otherwise, by the mean of four."""
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 64), dtype=np.uint8)
    plain = open_runtime(tiny_model, "onnx")
    flipped = open_runtime(tiny_model, "onnx", views=ViewsConfig(tta="flips"))(image)
    views = [image, image[..., ::-1], image[..., ::-1, :], image[..., ::-1, ::-1]]
    answers = [plain(np.ascontiguousarray(view)) for view in views]
    back = [
        answers[0],
        answers[1][..., ::-1],
        answers[2][..., ::-1, :],
        answers[3][..., ::-1, ::-1],
    ]
    np.testing.assert_allclose(flipped, np.mean(back, axis=0), atol=1e-6)
    assert np.abs(flipped - answers[0]).max() > 1e-3
