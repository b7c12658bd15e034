"""The tracking server for many of docs/experiments.md: its database, and its object store."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient
from servers import free_port, wait_until_up

from steelseg.__main__ import main
from steelseg.tracking import mlflow_run, store
from steelseg.tracking.mlflow_run import stage_run

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "x"}


@contextmanager
def serving(command: list[str], address: str, log: Path, **variables: str) -> Iterator[None]:
    """Run a server of the virtual environment until the block ends."""
    environment = os.environ | KEYS | variables
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=output, stderr=output
        )
    try:
        wait_until_up(address, server, log)
        yield
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def database(folder: Path, empty_store: Path) -> Iterator[str]:
    """Yield the address of a database: of PostgreSQL where it and psycopg are installed."""
    if not shutil.which("pg_ctl") or find_spec("psycopg") is None:
        yield f"sqlite:///{shutil.copy(empty_store, folder / 'server.db')}"
        return
    with postgresql() as address:
        yield address


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server of PostgreSQL, which refuses to be root's, and yield its address."""
    user = "nobody" if os.geteuid() == 0 else None
    with TemporaryDirectory() as folder:
        shutil.chown(folder, user or os.geteuid())
        port, data = free_port(), f"{folder}/data"
        start = f"-h 127.0.0.1 -p {port} -k {folder}"
        for words in (
            ["initdb", "-D", data, "-A", "trust", "-U", "steelseg"],
            ["pg_ctl", "-D", data, "-l", f"{folder}/log", "-o", start, "-w", "start"],
        ):
            subprocess.run(words, check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            yield f"postgresql://steelseg@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                ["pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, user=user, cwd=folder
            )


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """The address of a tracking server, with a database and an object store of this machine."""
    boto3 = pytest.importorskip("boto3", reason="needs `make setup-extras`")
    s3, address = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    bucket = ["moto.server", "-H", "127.0.0.1", "-p", s3.rpartition(":")[2]]
    mlflow = ["mlflow", "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    mlflow += ["--workers", "1", "--artifacts-destination", "s3://bucket/mlflow"]
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
    with ExitStack() as stack:
        stack.enter_context(serving(bucket, f"{s3}/moto-api/", tmp_path / "moto.log"))
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **keys).create_bucket(
            Bucket="bucket"
        )
        mlflow += ["--backend-store-uri", stack.enter_context(database(tmp_path, empty_store))]
        light |= {"MLFLOW_S3_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1"}
        log = tmp_path / "mlflow.log"
        stack.enter_context(serving(mlflow, f"{address}/health", log, **light))
        yield address


def test_runs_and_artifacts_are_kept_by_a_server(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing of a stage stays on the machine that trains, which needs no key of the store."""
    for name in ("DVC_EXP_NAME", "DVC_ROOT", mlflow_run.SWITCH, *KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("lr: 0.1\n")
    with stage_run("train") as tracker:
        tracker.epoch({"val_loss": 0.5}, 0)
        tracker.summary({"pair_dice": 0.8})
        tracker.artifact(Path("params.yaml"))
    assert capsys.readouterr().out == ""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(store.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.metrics == {"pair_dice": 0.8, "val_loss": 0.5}
    fetched = client.download_artifacts(parent.info.run_id, "params.yaml", str(tmp_path / "there"))
    assert Path(fetched).read_text() == "lr: 0.1\n"
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlartifacts").exists()
    main(["ui"])  # has nothing to start
    assert (
        f"MLflow: {server}/#/experiments/{experiment.experiment_id}/runs" in capsys.readouterr().out
    )
