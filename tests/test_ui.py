"""`python -m steelseg ui` opens on the scores of the experiments, from any folder and shell."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import open_browser
from servers import free_port, wait_until_up

LOG_FIVE = """
import os
from pathlib import Path
from steelseg.core.sealed import write_sealed_json
from steelseg.tracking.mlflow_run import stage_run

for number, lr in enumerate((0.0003, 0.001, 0.002, 0.004, 0.008)):
    os.environ["DVC_EXP_NAME"] = f"exp-{number}"
    trained = {"training": {"lr": lr}, "cache": "0123456789abcdef"}
    Path("models/model.json").unlink(missing_ok=True)
    if number < 3:
        with stage_run("train", None, trained) as tracker:
            tracker.params({"lr": lr})
            for epoch in range(3):
                tracker.epoch({"lr": lr / 2**epoch, "train_loss": 1 / (epoch + 1)}, epoch)
    write_sealed_json(Path("models/model.json"), trained)  # as from DVC's cache for the others
    with stage_run("tune_threshold") as tracker:
        tracker.summary({"pair_dice": 0.7 + number / 100, "all_empty_pair_dice": 0.6})
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The page that the command prints, in a folder with an odd name and five experiments.

    The virtual environment is not on PATH.
    """
    folder = tmp_path_factory.mktemp("ui") / "50%20 #1"
    folder.mkdir()
    (folder / "params.yaml").write_text("data_root: raw\ndataset: mine\nfold: 0\nlr: auto\n")
    shutil.copy(empty_store, folder / "mlflow.db")
    subprocess.run([sys.executable, "-c", LOG_FIVE], cwd=folder, check=True)
    port, log = free_port(), folder / "log"
    ui = [sys.executable, "-m", "steelseg", "ui", "--port", str(port)]
    environment = os.environ | {"PATH": os.defpath, "MLFLOW_TRACKING_URI": ""}
    with log.open("w") as output:
        server = subprocess.Popen(ui, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", server, log)
        (address,) = re.findall(r"MLflow: (http://127\.0\.0\.1:\S+)", log.read_text())
        yield address
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    """A window of a browser, which loads MLflow's code once."""
    with open_browser() as browser:
        yield browser.new_page(viewport={"width": 1440, "height": 900})


def test_a_newcomer_sees_what_counts(page: str, window: Any) -> None:
    """Model training, best first, with the values that were trained with; no stage among them."""
    window.goto(page)
    window.get_by_text("exp-4").wait_for(timeout=60_000)
    table = window.inner_text("body")
    names = re.findall(r"exp-\d\S*", table)
    assert names == [f"exp-{number}" for number in (4, 3, 2, 1, 0)]
    for said in ("Compare experiments by", "pair_dice", "0.74", "0.008", "mine (0123456789ab)"):
        assert said in table
    assert "Training runs" not in table  # of the side for LLMs


def test_the_learning_rate_is_charted_against_pair_dice(page: str, window: Any) -> None:
    """Five points, two of them of experiments whose training DVC had in its cache."""
    window.goto(f"{page}&compareRunsMode=CHART")
    window.get_by_text("lr vs. pair_dice").wait_for(timeout=60_000)
    points = window.locator(".js-plotly-plot").first.locator(".scatterlayer .point")
    points.first.wait_for(timeout=60_000)
    assert points.count() == 5
