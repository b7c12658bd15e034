"""The registered champion, served by a real process, answers as the stage `predict` does."""

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from saved_models import change_rules, save_model
from servers import free_port, wait_until_up

from steelseg.__main__ import main
from steelseg.core.files import sha256
from steelseg.core.pixels import GREY
from steelseg.data.decoding import read
from steelseg.export import onnx
from steelseg.model import network
from steelseg.model.card import WEIGHTS, read_card
from steelseg.predict import parts
from steelseg.predict.model import Model
from steelseg.predict.views import ViewsConfig
from steelseg.registry import log as model_logging
from steelseg.registry.find import find_model
from steelseg.registry.log import log_model
from steelseg.registry.member import add_member
from steelseg.tracking import mlflow_run
from steelseg.tracking.mlflow_run import stage_run

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """An empty repository as the working directory."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "params.yaml").write_text("dataset: tiny\nfold: 0\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_EXP_NAME", "DVC_ROOT", mlflow_run.SWITCH):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def flipped_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model tuned for flips and for a member, and another member that takes no part."""
    folder = tmp_path_factory.mktemp("flipped") / "model"
    shutil.copytree(tiny_model, folder)
    name = add_member(_fainter(tiny_model, folder.with_name("fainter")), folder)
    shutil.copytree(tiny_model, folder / "members" / "unused")
    change_rules(folder, views=ViewsConfig(tta="flips", ensemble=[name]))
    return folder


def _fainter(source: Path, folder: Path) -> Path:
    """Make a model of other weights, with its export: a network whose head is half as sure."""
    folder.mkdir()
    segmenter, card = network.load(source)
    with torch.no_grad():
        segmenter.network.segmentation_head[0].weight *= 0.5
    save_model(folder, segmenter, card.model)
    onnx.export(segmenter, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def champion(repository: Path, flipped_model: Path, tiny_dataset: Path) -> str:
    """The address of a model that a stage logged and a person chose."""
    image_hw = read(tiny_dataset / "test_images" / "0012.png", GREY).image
    with stage_run("tune_threshold") as tracker:
        scores = {"pair_dice": 0.8, "all_empty_pair_dice": 0.6}
        log_model(tracker, Model.open(flipped_model).folders, image_hw, scores)
    main(["champion"])
    return "models:/steelseg@champion"


@pytest.fixture(scope="module")
def jpegs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The test images as JPEG files."""
    folder = tmp_path_factory.mktemp("jpegs")
    for path in sorted((tiny_dataset / "test_images").iterdir()):
        cv2.imwrite(str(folder / f"{path.stem}.jpg"), cv2.imread(str(path)))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def predicted(jpegs: list[Path], flipped_model: Path) -> list[tuple[int, int, str, int]]:
    """What the stage `predict` says of them: image, class, RLE, area."""
    model = Model.open(flipped_model)
    names, digests = [path.name for path in jpegs], [sha256(path) for path in jpegs]
    rows = list(parts.predict_images(jpegs[0].parent, names, digests, model))
    numbers = {path.name: number for number, path in enumerate(jpegs)}
    assert any(row.rle for row in rows)
    return sorted((numbers[row.image], row.class_id, row.rle, row.area) for row in rows)


@pytest.fixture(scope="module")
def address(champion: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the champion, by the README's command."""
    port = free_port()
    command = ["mlflow", "models", "serve", "--env-manager", "local", "-m", champion]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    environment.pop("PYTHONPATH", None)  # the model brings its code along
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/ping", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)  # its own session: the server's workers, and nothing else
        server.wait(timeout=20)


def ask(address: str, contents: list[bytes]) -> tuple[int, dict]:
    """Post images, and return the status and the answer."""
    records = [{"image": base64.b64encode(content).decode()} for content in contents]
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps({"dataframe_records": records}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def rows(answer: list[dict]) -> list[tuple[int, int, str, int]]:
    return [(r["image"], r["class_id"], r["rle"], r["area"]) for r in answer]


def test_the_server_answers_jpegs_as_predict_does(
    address: str, jpegs: list[Path], predicted: list
) -> None:
    """Row for row the same RLEs, for several images at once."""
    status, answer = ask(address, [path.read_bytes() for path in jpegs])
    assert status == 200
    assert rows(answer["predictions"]) == predicted
    assert all(0 < row["confidence"] <= 1 for row in answer["predictions"])


def test_the_server_says_what_is_wrong_with_an_image(address: str, jpegs: list[Path]) -> None:
    """The caller's fault, by number and reason, and without a traceback; it goes on serving."""
    truncated = jpegs[0].read_bytes()[:300]
    status, answer = ask(address, [jpegs[0].read_bytes(), truncated])
    assert status == 400
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "image 1: cannot be decoded as an image" in answer["message"]
    assert "Traceback" not in json.dumps(answer)
    assert ask(address, [jpegs[0].read_bytes()])[0] == 200


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"image\n/etc/passwd\n", "text/csv"),
        (b'{"dataframe_records": [{"picture": ""}]}', "application/json"),
        (b'{"dataframe_records": ' + b"[" * 100_000, "application/json"),
    ],
)
def test_the_server_answers_strangers_itself(address: str, body: bytes, content_type: str) -> None:
    """Where MLflow would open a path, fail with status 500 or send a traceback.

    The rest is sent to a server in this process: `test_hostile_requests.py`.
    """
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": content_type})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 400
    assert set(json.load(error.value)) == {"error_code", "message"}


def test_python_gives_bytes_and_no_paths(
    champion: str, jpegs: list[Path], predicted: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pickle forbidden; whoever asks a server could name its files, so paths are no images."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(champion)
    answer = model.predict(pd.DataFrame({"image": [path.read_bytes() for path in jpegs]}))
    assert rows(answer.to_dict("records")) == predicted
    with pytest.raises(mlflow.MlflowException, match="image 0: expected the base64"):
        model.predict(pd.DataFrame({"image": [str(jpegs[0])]}))


def test_the_model_says_what_it_takes_and_needs(champion: str) -> None:
    """Signature, an example that it answers, pinned requirements, and no pickle among its files."""
    info = mlflow.models.get_model_info(champion)
    assert [(c.name, c.type.name) for c in info.signature.inputs] == [("image", "binary")]
    names = [c.name for c in info.signature.outputs]
    expected = ["image", "class_id", "class_name", "rle", "area", "confidence", "alarm", "area_mm2"]
    assert names == expected
    scores = mlflow.get_logged_model(info.model_id).metrics
    assert {(m.key, m.value) for m in scores} == {("pair_dice", 0.8), ("all_empty_pair_dice", 0.6)}
    folder = Path(mlflow.artifacts.download_artifacts(champion))
    logged = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)  # of a server
    suffixes = {path.suffix for path in logged if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"}
    needed = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in needed)
    assert "onnxruntime" in {line.partition("==")[0] for line in needed}
    model = mlflow.pyfunc.load_model(champion)
    assert len(model.predict(model.input_example)) == 2


def test_the_members_that_answer_are_taken_along(champion: str, flipped_model: Path) -> None:
    """And no others that lie beside them."""
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=champion))
    found = [path.parent.parent for path in folder.rglob(f"members/*/{WEIGHTS}")]
    (name,) = Model.open(flipped_model).rules.views.ensemble
    assert [members.name for members in found] == ["members"]
    assert [member.name for member in found[0].iterdir()] == [name]


def test_a_model_is_found_by_every_address_and_shows_its_figures(champion: str) -> None:
    """Of the registry, of the logged model and of its run; the description has the scores."""
    version = MlflowClient().get_model_version_by_alias("steelseg", "champion")
    assert "| pair-Dice, cross-fitted | 0.8000 |" in version.description
    found = find_model(champion)
    assert found.version == "1"
    model_id = mlflow.models.get_model_info(champion).model_id
    for address in (f"models:/{model_id}", f"runs:/{version.run_id}/model"):
        other = find_model(address)
        assert (other.version, read_card(other.folder)) == (None, read_card(found.folder))


def test_a_store_without_a_registry_costs_no_stage(
    repository: Path,
    tiny_model: Path,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The model is logged all the same, and the log says what is missing."""

    def refuse(*_: object, **__: object) -> None:
        raise mlflow.MlflowException("no registry here")

    monkeypatch.setattr(MlflowClient, "create_registered_model", refuse)
    image_hw = read(tiny_dataset / "test_images" / "0012.png", GREY).image
    with stage_run("other") as tracker:
        log_model(tracker, [tiny_model], image_hw, {})
    assert "did not register it: no registry here" in caplog.text
    client = MlflowClient()
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert len(client.search_model_versions(f"name = '{model_logging.REGISTERED}'")) == 1
