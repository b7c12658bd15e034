"""Runs are found again, end as they should, and never share what varies by stage."""

import hashlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from steelseg.core.errors import SteelsegError
from steelseg.tracking import mlflow_run
from steelseg.tracking.mlflow_run import stage_run

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository with a params.yaml, as the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT", mlflow_run.SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("lr: 0.1\n")
    return tmp_path


def runs(folder: Path) -> dict[str, list]:
    """The runs by stage, those of experiments by name."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name(mlflow_run.EXPERIMENT)
    found: dict[str, list] = {}
    for run in client.search_runs([experiment.experiment_id]):
        stage = run.data.tags.get(mlflow_run.STAGE_TAG)
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
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    for run in (found["train"][0], parent):
        history = client.get_metric_history(run.info.run_id, "val_loss")
        assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.4)]


def test_runs_say_what_they_were_made_of(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiment, baseline, data, fold and machine; a stage's inputs by hash, its code as one."""
    monkeypatch.setenv("DVC_EXP_NAME", "brave-hare")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc123")
    (repository / "params.yaml").write_text("data_root: raw\ndataset: mine\nfold: 2\n")
    (repository / "folds.parquet").write_bytes(b"folds")
    (repository / "code.py").write_text("pass\n")
    deps = ["folds.parquet", "${data_root}/${dataset}/images", "code.py"]
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
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    experiment = client.get_experiment_by_name(mlflow_run.EXPERIMENT)
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
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.4), (2, 0.3)]


def test_runs_of_dead_processes_do_not_stay_running(repository: Path) -> None:
    """A killed stage that nobody goes on with is closed by the next one; a living one is not."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    wait = "print('started', flush=True); input()"
    code = "from steelseg.tracking.mlflow_run import stage_run\nwith stage_run('{}'): {}"
    dead = [sys.executable, "-c", code.format("dead", kill)]
    assert subprocess.run(dead, check=False).returncode == -9
    alive = subprocess.Popen(
        [sys.executable, "-c", code.format("alive", wait)],
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
        tracker.epoch({"epoch": 1, "val_loss": 0.4}, 1)
    assert "MLflow lost the metrics of step 1" in caplog.text
    assert "MLflow does not know that the stage is FINISHED" in caplog.text


def test_four_processes_create_the_store_together(repository: Path) -> None:
    """From an empty folder, all of them land, under one experiment."""
    code = (
        "from steelseg.tracking.mlflow_run import stage_run\n"
        "with stage_run('train') as t: t.params({'a': 1})"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0, 0]
    assert len(runs(repository)["train"]) == 4


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
    store = repository / "mlflow.db"
    if is_folder:
        store.mkdir()
    else:
        store.write_bytes(b"no database " * 1000)
    with pytest.raises(SteelsegError, match=r"mlflow\.db cannot be used"), stage_run("x"):
        pass


def test_tracking_can_be_switched_off(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written then, and the stage need not know."""
    monkeypatch.setenv(mlflow_run.SWITCH, "off")
    with stage_run("train") as tracker:
        tracker.params({"a": 1})
        tracker.summary({"b": 2.0})
    assert [p.name for p in repository.iterdir()] == ["params.yaml"]


def test_the_ui_command_names_the_store(repository: Path) -> None:
    """The parent repository's, where DVC runs a stage in a temporary folder."""
    assert mlflow_run.ui_command().endswith(f"sqlite:///{repository}/mlflow.db")
    assert "127.0.0.1" in mlflow_run.ui_command()
