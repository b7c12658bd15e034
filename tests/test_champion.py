"""The champion is chosen among runs that compare, and by command only."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tables import validation_table, write_table

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.registry import champion
from steelseg.registry.champion import Candidate, choose
from steelseg.tracking import mlflow_run
from steelseg.tracking.mlflow_run import stage_run
from steelseg.tracking.store import EXPERIMENT

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own


def candidate(name: str, score: float, **changes: str) -> Candidate:
    values = {"dataset": "sample", "fold": "0", "folds_md5": "abc", "version": name[-1]} | changes
    return Candidate(
        f"{name}-run-id", f"{name}/tune_threshold", "", score=score, baseline=0.6, **values
    )


A, B, C = candidate("exp-1", 0.7), candidate("exp-2", 0.9), candidate("exp-3", 0.8)


def test_the_best_score_wins_and_the_latest_of_equals() -> None:
    """Whatever their order."""
    assert choose([A, B, C]) == B
    assert choose([C, B, A]) == B
    again = candidate("exp-4", 0.9)
    assert choose([A, B, again]) == again


@pytest.mark.parametrize(
    "changes", [{"dataset": "severstal"}, {"fold": "1"}, {"folds_md5": "other"}]
)
def test_runs_on_other_images_are_not_compared(changes: dict[str, str]) -> None:
    """A score on other images says nothing; naming a run is no comparison."""
    other = candidate("exp-4", 0.95, **changes)
    with pytest.raises(BadInput, match="scores are not comparable") as error:
        choose([A, other])
    assert "sample fold 0 of abc" in str(error.value)
    assert choose([A, other], run="exp-4") == other


def test_one_can_be_named_in_many_ways() -> None:
    """By experiment, run name, run id or its beginning, and version."""
    for name in ("exp-1", "exp-1/tune_threshold", "exp-1-run-id", "exp-1-r"):
        assert choose([A, B, C], run=name) == A
    assert choose([A, B, C], version="3") == C
    with pytest.raises(BadInput, match="found no finished run with a model for run 'exp-9'"):
        choose([A, B], run="exp-9")
    with pytest.raises(BadInput, match="for version 9"):
        choose([A, B], version="9")
    with pytest.raises(BadInput, match="make repro"):
        choose([])


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A store in an empty repository."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for name in ("DVC_EXP_NAME", "DVC_ROOT", mlflow_run.SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def finish(client: MlflowClient, name: str, score: float, dataset: str = "sample") -> None:
    """Leave what tune_threshold leaves: a score, tags and a logged model."""
    Path("params.yaml").write_text(f"dataset: {dataset}\nfold: 0\nlr: {score}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_EXP_NAME", name)
        with stage_run("tune_threshold") as tracker:
            tracker.summary({"pair_dice": score, "all_empty_pair_dice": 0.6})
            with mlflow.start_run(run_id=tracker.run_id):
                model = mlflow.initialize_logged_model(name="model")
                mlflow.finalize_logged_model(model.model_id, "READY")


def log_table(client: MlflowClient, name: str, hits: dict[str, list[int]]) -> None:
    """Leave the table of validation images of an experiment's run."""
    path = Path("validation.parquet")
    write_table(path, validation_table(hits))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    (run,) = (run for run in runs if run.info.run_name == name)
    client.log_artifact(run.info.run_id, str(path))


def alias(client: MlflowClient) -> str:
    run_id = client.get_model_version_by_alias("steelseg", champion.ALIAS).run_id
    return str(client.get_run(run_id).info.run_name)


def test_the_alias_moves_when_told_to(client: MlflowClient, capsys: pytest.CaptureFixture) -> None:
    """To the best, with what it was compared with; unregistered runs are registered on the way."""
    finish(client, "first", 0.7)
    main(["champion"])
    assert alias(client) == "first/tune_threshold"
    finish(client, "second", 0.8)
    assert alias(client) == "first/tune_threshold"  # never silently
    capsys.readouterr()
    main(["champion"])
    assert alias(client) == "second/tune_threshold"
    said = capsys.readouterr().out
    assert "version 2 is now the champion, instead of version 1" in said
    assert "0.8000 +0.2000" in said
    assert "first/tune_threshold" in said
    tags = client.get_model_version("steelseg", "2").tags
    assert tags == {
        "experiment": "second",
        "dataset": "sample",
        "fold": "0",
        "pair_dice": "0.8000",
    }
    main(["champion"])
    assert "remains the champion" in capsys.readouterr().out
    main(["champion", "--version", "1"])
    assert alias(client) == "first/tune_threshold"
    finish(client, "third", 0.9, "severstal")
    with pytest.raises(SystemExit, match="scores are not comparable"):
        main(["champion"])
    assert alias(client) == "first/tune_threshold"
    main(["champion", "--dataset", "severstal"])
    assert alias(client) == "third/tune_threshold"


def test_a_difference_within_noise_needs_a_decision(
    client: MlflowClient, capsys: pytest.CaptureFixture
) -> None:
    """A run with a higher score, but not surely better, is refused; a surely better one is not."""
    finish(client, "first", 0.7)
    main(["champion"])
    finish(client, "second", 0.71)
    for name, swap in (("first", 0), ("second", 1)):
        hits = {f"{i}.png": [4 + (i % 2 == swap), 9] for i in range(8)}
        log_table(client, name, hits)
    with pytest.raises(SystemExit, match=r"not surely better .* pair-Dice [+-]0.0000") as error:
        main(["champion"])
    assert str(error.value).endswith(
        "within noise. To choose it all the same, add --anyway (make champion ARGS=--anyway)"
    )
    assert alias(client) == "first/tune_threshold"
    main(["champion", "--anyway"])
    assert alias(client) == "second/tune_threshold"
    finish(client, "third", 0.8)
    log_table(client, "third", {f"{i}.png": [8, 9] for i in range(8)})
    main(["champion"])
    assert alias(client) == "third/tune_threshold"
    finish(client, "of-an-older-version", 0.9)
    capsys.readouterr()
    main(["champion"])
    assert "not compared image by image: of-an-older-version" in capsys.readouterr().out
    assert alias(client) == "of-an-older-version/tune_threshold"


def test_models_in_mlflow_are_named_by_their_addresses(
    client: MlflowClient, capsys: pytest.CaptureFixture
) -> None:
    """To compare and to choose: by alias, version, run, and the id of a model."""
    for name, hits in (("first", 4), ("second", 6)):
        finish(client, name, hits / 10)
        main(["champion", "--run", name])
        log_table(client, name, {f"{i}.png": [hits, 9] for i in range(8)})
    first = client.get_model_version("steelseg", "1").run_id
    (model,) = client.search_logged_models(
        [client.get_run(first).info.experiment_id], f"source_run_id = '{first}'"
    )
    for address in ("models:/steelseg/1", f"runs:/{first}/model", model.model_uri):
        capsys.readouterr()
        main(["compare", address, "models:/steelseg@champion"])
        assert "pair-Dice  +0.1000 (95%: +0.1000 to +0.1000): better" in capsys.readouterr().out
        main(["champion", "--run", address])
        assert alias(client) == "first/tune_threshold"
        main(["champion", "--version", "2"])
    for address in ("models:/steelseg/9", "models:/steelseg@none", "runs:/0/model", "s3://model"):
        with pytest.raises(SystemExit, match=f"{address}: cannot be loaded from MLflow"):
            main(["compare", address, "models:/steelseg/2"])
    finish(client, "bare", 0.5)
    main(["champion", "--run", "bare"])
    with pytest.raises(SystemExit, match=r"bare/tune_threshold: has no validation\.parquet"):
        main(["compare", "models:/steelseg@champion", "models:/steelseg/2"])
