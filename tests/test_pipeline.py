"""The pipeline itself, run by DVC on a tiny sample in clones of this repository."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from browsers import open_browser
from clones import hashes, run, stages_run
from faults.processes import finish, interrupt, start
from mlflow import MlflowClient

from steelseg.tracking.runs import STAGE_TAG

pytestmark = pytest.mark.pipeline

UNLOADED = """[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"""
# text of a figure that leaves it, by more than a pixel
CUT_OFF = """[...document.querySelectorAll('figure svg text')].filter(text => {
  const [t, s] = [text, text.closest('svg')].map(e => e.getBoundingClientRect());
  return t.left < s.left - 1 || t.right > s.right + 1
    || t.top < s.top - 1 || t.bottom > s.bottom + 1;
}).map(text => text.textContent)"""


def test_it_ends_with_a_submission_and_a_summary(pipeline: Path) -> None:
    """Every row of the sample is answered, and the closing words say how well."""
    sample = (pipeline / "data/raw/sample/sample_submission.csv").read_text().splitlines()
    answers = (pipeline / "submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in answers] == [row.split(",")[0] for row in sample]
    summary = run(pipeline, sys.executable, "-m", "steelseg", "summary")
    assert "predicting nothing" in summary
    scores = json.loads((pipeline / "metrics/tune_threshold.json").read_text())
    assert 0 <= scores["pair_dice"] <= 1
    assert list((pipeline / ".checkpoints").iterdir()) == []


def test_the_report_shows_well_in_a_browser(pipeline: Path) -> None:
    """Every picture is there, nothing is wider than the window, and nothing is asked of anyone."""
    page_file = (pipeline / "reports/index.html").as_uri()
    with open_browser() as browser:
        for width, scheme in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            errors: list[str] = []
            page.on("console", lambda message, errors=errors: errors.append(message.text))
            page.goto(page_file)
            assert page.locator("figure img").count() > 20
            assert page.locator("figure svg").count() >= 14
            assert page.evaluate(UNLOADED) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CUT_OFF) == []
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert errors == []
            if folder := os.environ.get("STEELSEG_SCREENSHOTS"):
                name = f"report-{width}-{scheme}.png"
                page.screenshot(path=Path(folder) / name, full_page=True)
            page.close()


def test_what_auto_chose_is_in_the_models_card(pipeline: Path) -> None:
    """As numbers, beside what was given."""
    training = json.loads((pipeline / "models/model.json").read_text())["training"]
    assert (training["batch_size"], training["lr"], training["crop"]) == (8, 0.002, [32, 32])


def test_a_second_run_does_nothing(pipeline: Path) -> None:
    """DVC finds all stages cached."""
    assert stages_run(run(pipeline, "dvc", "repro")) == []


def test_two_clones_give_identical_outputs(pipeline: Path, experiment: Path) -> None:
    """Every output is the same, bit for bit, in another folder, tracked or not.

    So it is whether `auto` has chosen the learning rate or an experiment was given the same.
    """
    assert hashes(experiment) == hashes(pipeline)
    for name in ("train", "tune_threshold", "predict", "submit"):
        metrics = [(f / f"metrics/{name}.json").read_text() for f in (pipeline, experiment)]
        assert metrics[0] == metrics[1]


def test_a_threshold_does_not_train_again(pipeline: Path) -> None:
    """Of the stages up to the one that reads the changed parameter, it alone runs.

    It runs in a temporary folder, and is tracked where the repository is.
    """
    change = ["-S", "tune_threshold.smoothing=0.5"]
    output = run(pipeline, "dvc", "exp", "run", "--temp", *change, "check_params", "tune_threshold")
    assert stages_run(output) == ["check_params", "tune_threshold"]
    assert (pipeline / "mlflow.db").is_file()


@pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy have some of their own
def test_an_experiment_is_tracked_as_a_parent_with_stages(experiment: Path) -> None:
    """`dvc exp run -S lr=2e-3` trains with a number, and MLflow shows it under the experiment."""
    client = MlflowClient(f"sqlite:///{experiment}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("steelseg").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "by-hand"]
    children = {
        run.data.tags[STAGE_TAG]: run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert set(children) == {"train", "tune_threshold", "predict", "report"}
    training = children["train"].data
    assert training.params["lr"] == "0.002"
    assert {run.info.status for run in runs} == {"FINISHED"}
    wanted = {"val_pair_dice", "train_loss", "epoch_lr", "train_images_per_second"}
    assert wanted | {"val_notebook_iou"} <= set(training.metrics)
    assert "pair_dice" in parent.data.metrics
    assert (parent.data.params["batch_size"], parent.data.params["lr"]) == ("8", "0.002")
    chosen = parent.data.tags["auto"].split(", ")
    assert ("batch_size" in chosen, "lr" in chosen) == (True, False)


def test_the_logged_model_answers_as_the_submission(experiment: Path) -> None:
    """Loaded from MLflow, it turns the bytes of a test image into exactly the submitted RLEs."""
    code = (
        "import mlflow, json, pandas as pd, pathlib;"
        "mlflow.set_tracking_uri('sqlite:///mlflow.db');"
        "runs = mlflow.search_runs(experiment_names=['steelseg'], order_by=['start_time asc']);"
        f"run = runs[runs['tags.{STAGE_TAG}'] == 'tune_threshold'].iloc[0].run_id;"
        "model = mlflow.pyfunc.load_model(f'runs:/{run}/model');"
        "images = sorted(pathlib.Path('data/raw/sample/test_images').iterdir());"
        "rows = model.predict(pd.DataFrame({'image': [i.read_bytes() for i in images]}));"
        "print(json.dumps([[images[r.image].name + '_' + str(r.class_id), r.rle]"
        " for r in rows.itertuples()]))"
    )
    lines = run(experiment, sys.executable, "-c", code).splitlines()
    answers = json.loads(next(line for line in lines if line.startswith("[[")))
    submitted = (experiment / "submission.csv").read_text().splitlines()[1:]
    assert sorted(map(tuple, answers)) == sorted(tuple(row.split(",")) for row in submitted)


def test_a_mistyped_parameter_stops_the_pipeline(pipeline: Path) -> None:
    """It is named, with the one that was meant, even where no stage would have read it."""
    params = pipeline / "params.yaml"
    text = params.read_text()
    try:
        params.write_text(text + "epchs: 3\n")
        output = run(pipeline, "dvc", "repro", fails=True)
        assert "unknown parameter `epchs`; did you mean `epochs`?" in output
        params.write_text(text.replace("epochs: 3", "epochs: abc"))
        output = run(pipeline, "dvc", "repro", fails=True)
        assert "`epochs`" in output
        assert "'abc'" in output
        assert "Traceback" not in output
    finally:
        params.write_text(text)


def test_two_runs_at_once_refuse_each_other(pipeline: Path, tmp_path: Path) -> None:
    """The second says who is at work, and the first ends as if nothing had been."""
    log = tmp_path / "log"
    first = start(pipeline, ["dvc", "repro", "--force", "--single-item", "submit"], log)
    assert interrupt(first, signal.SIGSTOP, lambda: "Running stage" in log.read_text())
    try:
        output = run(pipeline, "dvc", "repro", "--force", "--single-item", "submit", fails=True)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert re.search(r"lock|is busy", output), output
    assert finish(first, log).returncode == 0, log.read_text()
    # a failure that another test provoked may have left the check of the params to be done again
    assert set(stages_run(run(pipeline, "dvc", "repro"))) <= {"check_params"}
