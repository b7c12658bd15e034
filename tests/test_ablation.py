"""Ablation plans, the names of their experiments, and the table."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from steelseg.core.errors import BadInput
from steelseg.experiments import ablation, ablation_plan
from steelseg.experiments.ablation import Result
from steelseg.experiments.ablation_plan import BASELINE, Plan
from steelseg.tracking.runs import STAGE_TAG
from steelseg.tracking.store import EXPERIMENT

PLAN = Plan(
    title="Sample",
    base=["epochs=2"],
    seeds=[1, 2],
    switches={"plain BCE": ["loss=bce"], "flip TTA": ["tta=flips"]},
)


@pytest.fixture(autouse=True)
def in_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder with params.yaml and code."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("lr: 1\n")
    Path("dvc.yaml").write_text("stages: {train: {deps: [src/code.py, data]}}\n")
    Path("src").mkdir()
    for name in ("code.py", "other.py"):
        Path("src", name).write_text("pass\n")


def test_every_switch_is_tried_under_every_seed() -> None:
    """The baseline and two switches under two seeds, seed by seed, with the overrides in order."""
    planned = list(ablation_plan.trials(PLAN))
    assert [(t.switch, t.seed) for t in planned] == [
        (switch, seed) for seed in (1, 2) for switch in (BASELINE, "plain BCE", "flip TTA")
    ]
    experiment = planned[1].experiment
    assert experiment.overrides == ("epochs=2", "loss=bce", "seed=1")
    assert experiment.name.startswith("ablation-plain-bce-1-")


@pytest.mark.parametrize("changed", ["params.yaml", "src/code.py", "dvc.yaml"])
def test_what_changes_the_result_changes_the_name(changed: str) -> None:
    """So that an old result is never taken for a new one; without a change, it is found again."""
    before = {t.experiment.name for t in ablation_plan.trials(PLAN)}
    Path("src/other.py").write_text("# of no stage\n")
    assert {t.experiment.name for t in ablation_plan.trials(PLAN)} == before
    with Path(changed).open("a") as file:
        file.write("# changed\n" if changed != "params.yaml" else "batch_size: 3\n")
    assert not before & {t.experiment.name for t in ablation_plan.trials(PLAN)}


def test_gains_are_taken_seed_by_seed() -> None:
    """A switch that gains 0.1 and 0.3 on unlike seeds: 0.2, its spread not that of the seeds."""
    planned = list(ablation_plan.trials(PLAN))
    values = {(BASELINE, 1): 0.5, (BASELINE, 2): 0.7, ("plain BCE", 1): 0.6, ("plain BCE", 2): 1.0}
    done = {
        t.experiment.name: Result(values[t.switch, t.seed], 2.0)
        for t in planned
        if (t.switch, t.seed) in values
    }
    rows = ablation.table(PLAN, planned, done).splitlines()
    assert "| baseline |  | 0.6000 ± 0.1414 |  | 2.0 |" in rows
    assert "| plain BCE | `loss=bce` | 0.8000 ± 0.2828 | +0.2000 ± 0.1414 | 2.0 |" in rows
    assert "| flip TTA | `tta=flips` |  |  |  |" in rows  # not run yet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: []\nseeds: [1]\nswitches: {a: [x=1]}\n", "`title`: field required"),
        ("title: t\nbase: []\nseeds: []\nswitches: {a: [x=1]}\n", "`seeds`"),
        ("title: t\nbase: []\nseeds: [1]\nswitches: {a: []}\n", "`switches.a`"),
        ("title: t\nbase: []\nseeds: [1]\nswitches: {baseline: [x=1]}\n", "`switches`: 'baseline'"),
        ("title: t\nbase: []\nseeds: [1]\nswitches: {a: [x=1]}\nseed: 3\n", "`seed`: extra"),
    ],
)
def test_a_wrong_plan_is_refused(text: str, message: str) -> None:
    """With the file and the entry that is wrong."""
    Path("plan.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"plan\.yaml: ") as error:
        ablation_plan.read_plan(Path("plan.yaml"))
    assert message in str(error.value)


def test_a_table_is_put_between_its_comments() -> None:
    """What stands around them is kept, and a second time replaces the first."""
    page = Path("results.md")
    page.write_text("# Results\n<!-- sample -->\n<!-- /sample -->\nafter\n")
    ablation.insert(page, "sample", "old\n")
    ablation.insert(page, "sample", "new\n")
    assert page.read_text() == "# Results\n<!-- sample -->\nnew\n<!-- /sample -->\nafter\n"
    with pytest.raises(BadInput, match="<!-- other -->"):
        ablation.insert(page, "other", "x")


@pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own
def test_results_are_those_of_the_finished_stages(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric of tune_threshold and the minutes of train, if they finished; of each its own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment(EXPERIMENT)
    planned = list(ablation_plan.trials(PLAN))[:3]

    def log(stage: str, parent: str, status: str, **metrics: float) -> None:
        tags = {"mlflow.parentRunId": parent, STAGE_TAG: stage}
        run = client.create_run(experiment, start_time=60_000, tags=tags).info.run_id
        for name, value in metrics.items():
            client.log_metric(run, name, value)
        client.set_terminated(run, status, end_time=180_000)

    for number, trial in enumerate(planned):
        tags = {"dvc.experiment": trial.experiment.name}
        parent = client.create_run(experiment, tags=tags).info.run_id
        if number < 2:  # the second was trained by another experiment, whose result DVC had
            log("tune_threshold", parent, "FINISHED", pair_dice=0.8 + number / 10)
        else:
            log("tune_threshold", parent, "FAILED", pair_dice=0.1)
        if number != 1:
            log("train", parent, "FINISHED", pair_dice=0.2)
    names = [trial.experiment.name for trial in planned]
    expected = {names[0]: Result(0.8, 2.0), names[1]: Result(0.9, None)}
    assert ablation.results(planned, "pair_dice") == expected
