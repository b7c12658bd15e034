"""Two gloo processes train as one does, score every image once, and survive a kill."""

import json
import shutil
import sys
from pathlib import Path

import distributed_training as tiny
import pandas as pd
import pytest
from faults.processes import Ended, finish, start
from mlflow import MlflowClient
from tiny_training import NETWORK, ROOT, config

from steelseg.core.files import read_json
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.tracking.runs import STAGE_TAG
from steelseg.train.keeper import newest_checkpoint
from steelseg.train.totals import TIMINGS

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("one_thread")]

History = list[dict[str, float]]


def two_processes(cache: Cache, work: Path, *trainings: str) -> Ended:
    """Run tiny trainings by torchrun."""
    variables = {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, tiny.__file__, str(cache.folder), str(work), *trainings]
    log = work / "log"
    return finish(start(work, command, log, **variables), log)


def write_project(folder: Path, cache: Cache, empty_store: Path) -> None:
    """Write what `stages/train.py` reads, for two processes."""
    (folder / "data").mkdir(parents=True)
    for name in ("src", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data/cache").symlink_to(cache.folder)
    columns = {"image": cache.names, "fold": tiny.FOLDS, "group": range(12), "combination": ""}
    fold_table.write(folder / "data/folds.parquet", pd.DataFrame(columns), cache.annotations)
    params = NETWORK.model_dump() | {"train": config(devices=2).model_dump()}
    params |= {"data_root": "raw", "dataset": "tiny"}
    (folder / "params.yaml").write_text(json.dumps(params))
    shutil.copy(empty_store, folder / "mlflow.db")


def seen(work: Path, training: str) -> tuple[History, str]:
    history, weights = json.loads((work / f"{training}.json").read_text())
    return without_timings(history), weights


def without_timings(history: History) -> History:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in history]


@pytest.fixture(scope="module")
def trained(tiny_cache: Cache, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four trainings by two processes, `resumed` being one that had been killed.

    `moving` is the same without a break, and in `still` the weights stay what they are. `stage` is
    the project of a whole stage, of three epochs.
    """
    work = tmp_path_factory.mktemp("trained")
    write_project(work / "stage", tiny_cache, empty_store)
    killed = two_processes(tiny_cache, work, "resumed", "killed")
    assert killed.returncode != 0
    assert not (work / "resumed.json").exists()
    newest = newest_checkpoint(work / "resumed")
    assert newest is not None
    assert newest.stem == "epoch-0000"
    ended = two_processes(tiny_cache, work, "resumed", "moving", "still", "stage")
    assert ended.returncode == 0, ended.output
    assert ended.output.count("resuming after epoch-0000") == 1  # one process alone speaks
    assert ended.output.count("epoch 1/2:") == 2
    return work


def test_half_batches_give_the_losses_of_whole_ones(
    tiny_cache: Cache, trained: Path, tmp_path: Path
) -> None:
    """Three steps an epoch from the same crops: loss and metrics are those of one process."""
    alone = without_timings(tiny.run(tiny_cache, tmp_path, 1, tiny.MOVING).history)
    together, _ = seen(trained, "moving")
    assert len(alone) == len(together) == 2
    for one, two in zip(alone, together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)
        assert two == pytest.approx(one, abs=1e-3)


def test_every_validation_image_is_counted_once(
    tiny_cache: Cache, trained: Path, tmp_path: Path
) -> None:
    """With weights that stay, five images shared out unevenly give exactly the same metrics."""
    alone = without_timings(tiny.run(tiny_cache, tmp_path, 1, tiny.STILL).history)
    together, _ = seen(trained, "still")
    for one, two in zip(alone, together, strict=True):
        exact = {k for k in one if k.startswith("val_") and k != "val_loss"}
        assert len(exact) > 5
        assert {k: two[k] for k in exact} == {k: one[k] for k in exact}
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-6)


def test_a_killed_training_of_two_goes_on_bit_identically(trained: Path) -> None:
    """Killed after the first epoch, both go on from its checkpoint to the same weights."""
    assert seen(trained, "resumed") == seen(trained, "moving")


@pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own
def test_the_first_process_of_a_stage_writes_and_logs(trained: Path) -> None:
    """And it alone; the scores are of all images."""
    folder = trained / "stage"
    assert (trained / "log").read_text().count("epoch 1/3:") == 1
    assert read_json(folder / "metrics/train.json")["all_empty_pair_dice"] > 0
    assert len((folder / "plots/train.csv").read_text().splitlines()) == 4
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("steelseg").experiment_id])
    (run,) = [run for run in found if run.data.tags.get(STAGE_TAG) == "train"]
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in history] == [0, 1, 2]
