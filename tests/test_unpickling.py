"""Nothing that the pipeline opens is unpickled: a pickle can run any code of whoever wrote it."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from steelseg.core import sealed
from steelseg.core.errors import BadInput
from steelseg.core.files import seal
from steelseg.core.pixels import GREY
from steelseg.data import image_table
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import read_card
from steelseg.predict.inference import open_onnx
from steelseg.predict.predictions import read_predictions
from steelseg.train.checkpoint_io import SafetensorsIO, load_tree
from steelseg.train.keeper import newest_checkpoint

pytestmark = pytest.mark.filterwarnings("default")  # MLflow has some of its own


class Malicious:
    """When it is unpickled, a file appears."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What is there if a pickle was opened; that it can be is shown here."""
    path = tmp_path / "unpickled"
    pickle.loads(pickle.dumps(Malicious(path)))  # noqa: S301
    path.unlink()
    return path


def plant(path: Path, marker: Path, *, by_torch: bool) -> Path:
    """Write a malicious pickle, as plain Python or as `torch.save` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if by_torch:
        torch.save({"weight": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(marker)))
    return path


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": load_tree,
    "annotations": image_table.read,
    "predictions": read_predictions,
    "encoder": lambda path: models.load_weights(path, torch.nn.Linear(1, 1), "this encoder"),
}


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_a_pickle_in_place_of_a_file_is_refused(
    reader: str, by_torch: bool, tmp_path: Path, marker: Path
) -> None:
    """Under the name that the file has, and whatever wrote it."""
    with pytest.raises(BadInput):
        READERS[reader](plant(tmp_path / "model.safetensors", marker, by_torch=by_torch))
    assert not marker.exists()


def test_a_sealed_pickle_is_refused(tiny_model: Path, tmp_path: Path, marker: Path) -> None:
    """Whoever can plant a file can plant its checksum: the format itself must not be pickle."""
    checkpoint = plant(tmp_path / "epoch-0000.safetensors", marker, by_torch=True)
    seal(checkpoint)
    assert newest_checkpoint(tmp_path) == checkpoint
    with pytest.raises(BadInput, match="cannot be read as a checkpoint"):
        SafetensorsIO().load_checkpoint(checkpoint)
    seal(plant(tmp_path / "model.onnx", marker, by_torch=False))
    with pytest.raises(BadInput, match=r"model\.onnx"):
        open_onnx(tmp_path, read_card(tiny_model))
    assert not marker.exists()


def test_a_model_of_pickled_weights_is_refused(tmp_path: Path, marker: Path) -> None:
    """With a card that fits it."""
    weights = plant(tmp_path / "model.safetensors", marker, by_torch=True)
    network = {
        "arch": "Unet",
        "encoder": "resnet18",
        "encoder_weights": None,
        "arch_options": {"decoder_channels": [16, 8, 8, 4, 4]},
    }
    card = {"format": 2, "model": network, "classes": [1], "mean": [0.5], "std": [0.2]}
    card["pixels"] = GREY.model_dump()
    card["size_hw"] = [32, 32]
    card["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    sealed.write_sealed_json(tmp_path / "model.json", card)
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        models.load(tmp_path)
    assert not marker.exists()


def test_a_pickled_shard_is_refused(tiny_cache: Cache, tmp_path: Path, marker: Path) -> None:
    """Its checksum in the manifest fits, too."""
    manifest = sealed.read_sealed_json(tiny_cache.folder / "manifest.json")
    shard = plant(tmp_path / "shard-00000.arrow", marker, by_torch=False)
    manifest["shards"] = {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest()}
    sealed.write_sealed_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(BadInput, match="cannot be read"):
        Cache(tmp_path)
    assert not marker.exists()


def test_mlflow_refuses_a_pickled_model(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is loaded from code; with pickles disallowed, nobody else's is loaded by accident."""

    class Innocent(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
            return model_input

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Innocent())
    (pickled,) = (tmp_path / "model").glob("*.pkl")
    pickled.write_bytes(pickle.dumps(Malicious(marker)))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"(?i)pickle"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert not marker.exists()
