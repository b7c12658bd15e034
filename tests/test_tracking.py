"""Runs are found again, end as they should, and never share what varies by stage."""

import hashlib
import json
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from sqlalchemy import make_url

from steelseg.core.errors import SteelsegError
from steelseg.core.files import read_json
from steelseg.core.params import read_yaml
from steelseg.core.sealed import write_sealed_json
from steelseg.tracking import mlflow_run, store
from steelseg.tracking.experiment import NOTE
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.runs import STAGE_TAG

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a params.yaml and an empty store, as the working directory."""
    for name in ("DVC_EXP_NAME", "DVC_ROOT", mlflow_run.SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # restored after MLflow has set it
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("lr: 0.1\n")
    shutil.copy(empty_store, "mlflow.db")
    return tmp_path


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs(folder: Path) -> dict[str, list]:
    """The runs by stage, those of experiments by name."""
    client = client_of(folder)
    experiment = client.get_experiment_by_name(store.EXPERIMENT)
    found: dict[str, list] = {}
    for run in client.search_runs([experiment.experiment_id]):
        stage = run.data.tags.get(STAGE_TAG)
        found.setdefault(stage or run.info.run_name, []).append(run)
    return found


def test_stages_of_one_experiment_share_a_parent(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stages' runs hang under one run that is named after the DVC experiment."""
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hare")
    with stage_run("train") as tracker:
        tracker.params({"lr": 0.1})
        tracker.epoch({"val_loss": 0.5}, 0)
        tracker.epoch({"epoch": 1, "val_loss": 0.4}, 1)
        tracker.metrics({"best_epoch": 1})
        tracker.summary({"pair_dice": 0.7})
    with stage_run("tune_threshold") as tracker:
        tracker.params({"smoothing": 0.75})
        tracker.summary({"pair_dice": 0.8})
    found = runs(repository)
    (parent,) = found["brave-hare"]
    assert parent.data.metrics == {"pair_dice": 0.8, "val_loss": 0.4}
    assert parent.data.params == {"lr": "0.1"}
    for stage in ("train", "tune_threshold"):
        (child,) = found[stage]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.run_name == f"brave-hare/{stage}"
        assert child.info.status == "FINISHED"
    client = client_of(repository)
    for run in (found["train"][0], parent):
        history = client.get_metric_history(run.info.run_id, "val_loss")
        assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.4)]


PARAMS = """
data_root: raw
dataset: mine
lr: auto
epochs: auto
runtime: auto
train: {crops_per_image: auto, num_workers: auto}
tune_threshold: {smoothing: 0.75}
"""
TRAINED: dict[str, Any] = {
    "training": {"lr": 0.002, "epochs": 6, "crops_per_image": 4, "num_workers": "auto"},
    "cache": "0123456789abcdef" * 4,
    "folds": "fed",
}


@pytest.mark.parametrize("cached", [False, True])
def test_the_experiment_has_the_values_that_were_trained_with(
    repository: Path, cached: bool
) -> None:
    """In place of `auto`, which a tag tells; also where DVC had the trained model in its cache."""
    Path("params.yaml").write_text(PARAMS)
    if not cached:
        with stage_run("train", None, TRAINED):
            pass
    write_sealed_json(Path("models/model.json"), TRAINED)
    with stage_run("tune_threshold"):
        pass
    (parent,) = [run for name, (run,) in runs(repository).items() if name.startswith("repro")]
    assert parent.data.params == {
        "data_root": "raw",
        "dataset": "mine",
        "lr": "0.002",
        "epochs": "6",
        "runtime": "auto",
        "train.crops_per_image": "4",
        "train.num_workers": "auto",
        "tune_threshold.smoothing": "0.75",
    }
    assert parent.data.tags["auto"] == "lr, epochs, train.crops_per_image"


@pytest.mark.parametrize("changed", [{"training": {"lr": 0.001}}, {"cache": "other"}])
def test_what_was_trained_otherwise_is_another_experiment(
    repository: Path, changed: dict[str, Any]
) -> None:
    """With the same params.yaml: other data, or another device, for which `auto` is another."""
    Path("params.yaml").write_text(PARAMS)
    for trained in (TRAINED, TRAINED | changed, TRAINED):
        with stage_run("train", None, trained):
            pass
    assert len([name for name in runs(repository) if name.startswith("repro-")]) == 2


def test_the_data_is_an_input(repository: Path) -> None:
    """Of the experiment and its stages: name, digest and source, without a machine's path."""
    Path("params.yaml").write_text(PARAMS)
    with stage_run("train", None, TRAINED):
        pass
    write_sealed_json(Path("models/model.json"), TRAINED)
    for _ in range(2):
        with stage_run("tune_threshold"):
            pass
    for name, found in runs(repository).items():
        (given,) = found[0].inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("mine", "0123456789ab")
        assert json.loads(given.dataset.source) == {"uri": "raw/mine"}
        wanted = "validation" if name == "tune_threshold" else "training"
        assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", wanted)]


def test_models_can_be_ranked(repository: Path) -> None:
    """A logged model has its scores, the data they were measured on, and what it was trained with.

    The run has each score once, and the experiment shows its models.
    """
    Path("params.yaml").write_text(PARAMS)
    write_sealed_json(Path("models/model.json"), TRAINED)
    for name, score in (("worse", 0.7), ("better", 0.8)):
        with pytest.MonkeyPatch.context() as patch, stage_run("tune_threshold") as tracker:
            patch.setenv("DVC_EXP_NAME", name)
            with mlflow.start_run(run_id=tracker.run_id):
                model = mlflow.initialize_logged_model(name=name, params={"smoothing": "0.75"})
            tracker.summary({"pair_dice": score, "iou_class_1": 0.5}, model.model_id)
    client = client_of(repository)
    (experiment,) = client.search_experiments(filter_string=f"name = '{store.EXPERIMENT}'")
    order = [{"field_name": "metrics.pair_dice", "ascending": False}]
    ranked = client.search_logged_models([experiment.experiment_id], order_by=order)
    assert [model.name for model in ranked] == ["better", "worse"]
    (score,) = ranked[0].metrics
    assert (score.key, score.value) == ("pair_dice", 0.8)
    assert (score.dataset_name, score.dataset_digest) == ("mine", "0123456789ab")
    assert ranked[0].params["lr"] == "0.002"
    history = client.get_metric_history(ranked[0].source_run_id, "pair_dice")
    assert [metric.value for metric in history] == [0.8]
    stage = client.get_run(ranked[0].source_run_id)
    shown = client.get_run(stage.data.tags["mlflow.parentRunId"]).outputs.model_outputs
    assert {output.model_id for output in shown} == {model.model_id for model in ranked}


def test_the_experiment_opens_on_what_matters(repository: Path) -> None:
    """Older ones too: model training, a description, a view. What people wrote stays."""
    client = client_of(repository)
    experiment = client.create_experiment(
        store.EXPERIMENT,
        tags={"mlflow.experimentKind": "genai_development", "mlflow.note.content": "ours"},
    )
    with stage_run("train"):
        pass
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"] == "ours"
    assert json.loads(tags[f"mlflow.sharedViewState.{store.VIEW}"])["name"] == store.VIEW


def test_the_description_names_metrics_that_there_are() -> None:
    """Each name in its table is that of a metric or a parameter."""
    names = set(re.findall(r"`(\w+)`", NOTE.partition("|")[2])) - {"auto"}
    scores = set(read_json(ROOT / "metrics/tune_threshold.json"))
    epochs = set((ROOT / "plots/train.csv").read_text().partition("\n")[0].split(","))
    assert names <= scores | epochs | set(read_yaml(ROOT / "params.yaml"))
    assert len(names) == 9


def test_runs_say_what_they_were_made_of(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiment, baseline, data, fold and machine; a stage's inputs by hash, its code as one."""
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hare")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc123")
    (repository / "params.yaml").write_text("data_root: raw\ndataset: mine\nfold: 2\n")
    (repository / "folds.parquet").write_bytes(b"folds")
    (repository / "src").mkdir()
    (repository / "src/code.py").write_text("pass\n")
    deps = ["folds.parquet", "${data_root}/${dataset}/images", "src"]
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"deps": deps}}}))
    folder = {"path": "raw/mine/images", "md5": "0123.dir"}
    (repository / "dvc.lock").write_text(json.dumps({"stages": {"pivot": {"deps": [folder]}}}))
    with stage_run("train"):
        pass
    found = runs(repository)
    (parent,), (child,) = found["brave-hare"], found["train"]
    for tags in (parent.data.tags, child.data.tags):
        assert (tags["dataset"], tags["fold"]) == ("mine", "2")
        assert tags["host"] == socket.gethostname()
        assert tags["device"]
        assert tags["mlflow.source.git.commit"] == "abc123"
    assert parent.data.tags["mlflow.source.name"] == "dvc exp run"
    assert child.data.tags["mlflow.source.name"] == "stages/train.py"
    assert parent.data.tags["dvc.experiment"] == "brave-hare"
    assert parent.data.tags["dvc.baseline"] == "abc123"
    code = hashlib.md5(hashlib.md5(b"pass\n").hexdigest().encode()).hexdigest()
    hashes = {k: v for k, v in child.data.tags.items() if k.startswith("dep.")}
    assert hashes == {
        "dep.folds.parquet": hashlib.md5(b"folds").hexdigest(),
        "dep.raw/mine/images": "0123.dir",
        "dep.code": code,
    }


def test_the_machine_is_watched(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors and memory, by time."""
    monkeypatch.setattr(mlflow_run, "SAMPLING_SECONDS", 0.2)
    with stage_run("train"):
        time.sleep(1)
    (run,) = runs(repository)["train"]
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert 0 < run.data.metrics["system/system_memory_usage_percentage"] <= 100


def test_artifacts_outlive_a_temporary_folder(repository: Path) -> None:
    """They lie beside the local store, not where a stage happened to run."""
    with stage_run("train"):
        pass
    client = client_of(repository)
    experiment = client.get_experiment_by_name(store.EXPERIMENT)
    assert experiment.artifact_location == (repository / "mlartifacts").as_uri()


def test_other_params_are_another_experiment(repository: Path) -> None:
    """Without a name from DVC, an experiment is known by its params."""
    for lr in (0.1, 0.2, 0.1):
        (repository / "params.yaml").write_text(f"lr: {lr}\n")
        with stage_run("train"):
            pass
    parents = [name for name in runs(repository) if name.startswith("repro-")]
    assert len(parents) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")],
)
def test_a_stage_that_raises_does_not_stay_running(
    repository: Path, error: BaseException, status: str
) -> None:
    """Its run and its experiment's end, with the traceback as a tag."""
    with pytest.raises(type(error)), stage_run("train"):
        raise error
    for found in runs(repository).values():
        assert [run.info.status for run in found] == [status]
    assert type(error).__name__ in runs(repository)["train"][0].data.tags["traceback"]


def test_a_killed_stage_goes_on_with_its_run(repository: Path) -> None:
    """Killed and started again with the same work folder, it is one run, each epoch there once.

    The kill falls between the checkpoint of epoch 1, from which the next start tells of both
    epochs, and its logging.
    """
    killed = (
        "import os, pathlib, signal; from steelseg.tracking.mlflow_run import stage_run\n"
        "with stage_run('train', pathlib.Path('work')) as tracker:\n"
        "    tracker.params({'lr': 0.1}); tracker.epoch({'epoch': 0, 'val_loss': 0.5}, 0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert runs(repository)["train"][0].info.status == "RUNNING"
    with stage_run("train", repository / "work") as tracker:
        tracker.params({"lr": 0.1})
        for epoch, loss in enumerate([0.5, 0.4, 0.3]):
            tracker.epoch({"epoch": epoch, "val_loss": loss}, epoch)
    (run,) = runs(repository)["train"]
    assert run.info.status == "FINISHED"
    client = client_of(repository)
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.4), (2, 0.3)]


def test_runs_of_dead_processes_do_not_stay_running(repository: Path) -> None:
    """A killed stage that nobody goes on with is closed by the next one; a living one is not."""
    code = (
        "import mlflow, os, signal; from steelseg.tracking.mlflow_run import stage_run\n"
        "if os.fork() == 0:\n"
        "    with stage_run('dead'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "assert os.wait()[1] == signal.SIGKILL\n"
        "with stage_run('alive'): print('started', flush=True); input()"
    )
    alive = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert alive.stdout is not None
    assert alive.stdout.readline() == "started\n"
    with stage_run("next"):
        found = runs(repository)
    assert {name: found[name][0].info.status for name in ("dead", "alive", "next")} == {
        "dead": "KILLED",
        "alive": "RUNNING",
        "next": "RUNNING",
    }
    alive.communicate("\n", timeout=60)
    assert runs(repository)["alive"][0].info.status == "FINISHED"


def test_a_store_that_goes_away_does_not_undo_the_work(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a stage has written counts; that MLflow does not know is a warning."""
    with stage_run("train") as tracker:
        tracker.epoch({"epoch": 0, "val_loss": 0.5}, 0)
        (repository / "mlflow.db").write_bytes(b"no longer a database")
        tracker.params({"lr": 0.1})
        tracker.epoch({"epoch": 1, "val_loss": 0.4}, 1)
        tracker.summary({"pair_dice": 0.8}, "m-0123")
        tracker.tag("fold", "0")
        tracker.artifact(Path("params.yaml"))
    for lost in ("the parameters:", "the metrics of step 1", "the metrics of step 0"):
        assert f"MLflow lost {lost}" in caplog.text
    for lost in ("the parameters of the model", "the tag fold", "params.yaml"):
        assert f"MLflow lost {lost}" in caplog.text
    assert "MLflow did not record that the stage is FINISHED" in caplog.text


def test_four_processes_create_the_store_together(repository: Path) -> None:
    """From an empty folder, all of them land, under one experiment."""
    (repository / "mlflow.db").unlink()
    code = (  # they are forked once all is imported, so that they come at the same time
        "import mlflow, multiprocessing; from steelseg.tracking.mlflow_run import stage_run\n"
        "def log():\n    with stage_run('train') as t: t.params({'a': 1})\n"
        "fork = multiprocessing.get_context('fork')\n"
        "workers = [fork.Process(target=log) for _ in range(4)]\n"
        "for worker in workers: worker.start()\n"
        "for worker in workers: worker.join()\n"
        "assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert len(runs(repository)["train"]) == 4


def test_a_store_is_created_whole_or_not_at_all(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while MLflow makes its tables leaves no half database to the next run."""
    (repository / "mlflow.db").unlink()

    def killed(_: MlflowClient) -> None:
        assert len(list(repository.glob(".mlflow.db.*"))) == 1, "made beside, not in place"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", killed)
        with pytest.raises(KeyboardInterrupt), stage_run("train"):
            pass
    assert not list(repository.glob("*mlflow.db*"))


def test_an_unusable_store_is_explained(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message with the address and the ways out."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/such/place.db")
    with (
        pytest.raises(SteelsegError, match=r"/proc/no/such/place\.db cannot be used"),
        stage_run("x"),
    ):
        pass


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_store_that_is_no_database_is_refused_at_once(repository: Path, is_folder: bool) -> None:
    """MLflow itself would try again for two minutes."""
    path = repository / "mlflow.db"
    path.unlink()
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"no database " * 1000)
    with pytest.raises(SteelsegError, match=r"mlflow\.db cannot be used"), stage_run("x"):
        pass


def test_tracking_can_be_switched_off(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written then, and the stage need not know."""
    monkeypatch.setenv(mlflow_run.SWITCH, "off")
    with stage_run("train") as tracker:
        tracker.params({"a": 1})
        tracker.summary({"b": 2.0})
    assert {p.name for p in repository.iterdir()} == {"params.yaml", "mlflow.db"}
    assert not client_of(repository).search_experiments(filter_string="name = 'steelseg'")


def test_the_ui_command_names_the_store(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent repository's, where DVC runs a stage in a temporary folder."""
    monkeypatch.setenv("DVC_ROOT", str(repository))
    (repository / ".dvc/tmp/exps/x").mkdir(parents=True)
    monkeypatch.chdir(repository / ".dvc/tmp/exps/x")
    assert store.ui_command().endswith(f" sqlite:///{repository}/mlflow.db")
    assert "127.0.0.1" in store.ui_command()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ann:secret@mlflow.mill:5000", "http://ann:***@mlflow.mill:5000"),
        ("postgresql://ann:secret@db/mlflow", '"$MLFLOW_TRACKING_URI"'),
    ],
)
def test_no_password_is_printed(uri: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server the address is shown; what else was set, the shell knows."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store.ui_command().endswith(shown)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:1")
    with pytest.raises(SteelsegError, match=r"http://ann:\*\*\*@127") as error, stage_run("x"):
        pass
    assert "secret" not in str(error.value)


def test_a_repository_may_lie_in_any_folder(tmp_path: Path, empty_store: Path) -> None:
    """Runs and artifacts land in it, whatever has a meaning in addresses or shells.

    Nothing is left beside it.
    """
    names = ["a%20b c?d=e#f", "it's 100% Walzgüte", 'a "b" c:d@e']
    folders = [tmp_path / "odd" / name for name in sorted(names)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text("lr: 0.1\n")
        shutil.copy(empty_store, folder / "mlflow.db")
    code = (  # a process each, as of stages, since MLflow keeps a relative store open
        "import mlflow, os, sys\n"
        "from pathlib import Path\n"
        "from steelseg.tracking.mlflow_run import stage_run\n"
        "from steelseg.tracking.store import ui_command\n"
        "for folder in sys.argv[1:]:\n"
        "    if os.fork() == 0:\n"
        "        os.chdir(folder)\n"
        "        with stage_run('train') as tracker: tracker.artifact(Path('params.yaml'))\n"
        "        sys.exit(print(ui_command()))\n"
        "    assert os.wait()[1] == 0"
    )
    stage = [sys.executable, "-c", code, *map(str, folders)]
    said = subprocess.run(stage, check=True, capture_output=True, text=True).stdout.splitlines()
    for folder, command in zip(folders, said, strict=True):
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)
        assert len(list(folder.glob("mlartifacts/*/artifacts/params.yaml"))) == 1
        (address,) = [word for word in shlex.split(command) if word.startswith("sqlite:")]
        assert make_url(address).database == str(folder / "mlflow.db")
    assert sorted((tmp_path / "odd").iterdir()) == folders
