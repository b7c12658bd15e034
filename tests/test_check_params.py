"""The stage `check_params` refuses what no stage could work with, and is quick about it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

from steelseg.check.known_params import refuse_retyped
from steelseg.check.values import CONFIGS, refuse_bad_values
from steelseg.core.errors import BadInput

TEXT = (REPOSITORY / "params.yaml").read_text()
PARAMS, PIPELINE, LOCK = Path("params.yaml"), REPOSITORY / "dvc.yaml", Path("dvc.lock")
DOCUMENT: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)


@pytest.fixture(scope="module")
def lock() -> str:
    """The dvc.lock of a project in which every stage has run."""
    stages = {}
    for name, stage in YAML(typ="safe", pure=True).load(PIPELINE)["stages"].items():
        asked = {key: DOCUMENT[key] for key in stage.get("params", [])}
        stages[name] = {"params": {"params.yaml": asked}}
    return json.dumps({"stages": stages})


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> Path:
    """A folder with the project's parameters, in which every stage has run with them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    PARAMS.write_text(TEXT)
    LOCK.write_text(lock)
    return tmp_path


def change(name: str, value: Any) -> None:
    """Set a parameter of params.yaml, such as `train.augment`."""
    document = YAML().load(PARAMS)
    *sections, leaf = name.split(".")
    place = document[sections[0]] if sections else document
    place[leaf] = value
    YAML().dump(document, PARAMS)


def check() -> None:
    refuse_bad_values(PARAMS, PIPELINE, LOCK)


WRONG = [
    ("sample_data.n_train", 0),
    ("sample_data.widht", 3),
    ("pivot_csv.on_bad_image", "halt"),
    ("stratified_split.n_folds", 1),
    ("cache_masks.shard_images", "many"),
    ("epochs", "abc"),
    ("lr", -1),
    ("label_head", "firm"),
    ("train.augmnet", []),
    ("train.cutmix", 2),
    ("runtime", "tensorrt"),
    ("inference_batch_size", 0),
    ("tta", "flip"),
    ("tile", [100, 128]),
    ("tile_overlap", 1),
    ("tune_threshold.thresholds", [0.5, 0.4]),
    ("tune_threshold.n_split", 3),
    ("predict.part_images", 0),
    ("report.crops", "x"),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[name for name, _ in WRONG])
def test_a_wrong_value_of_any_stage_is_refused(name: str, value: Any) -> None:
    """By its name, before the first stage and not by the last."""
    change(name, value)
    with pytest.raises(BadInput, match=rf"^params\.yaml: .*`{re.escape(name)}(\.\d)?`"):
        check()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fold", 5, "`fold`: expected 0 to 4, since `stratified_split.n_folds` is 5, but got 5"),
        ("stratified_split.n_folds", 2, None),
        ("ensemble", ["0123456789ab"], "`ensemble`: there is no .*/models/members/0123456789ab"),
        ("ensemble", ["best"], "`ensemble.0`: expected"),
        ("loss", "lovas", "`loss`: .* did you mean `lovasz`"),
        ("train.augment", "squere", "did you mean `square`"),
        ("train.augment", [{"Resize": {"height": 8, "width": 8}}], None),
        ("encoder", "resnet81", "`encoder`: unknown encoder 'resnet81'; did you mean"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, value: Any, expected: str | None) -> None:
    """And what may, of which the data have a say (the crops' size is `auto`), is not."""
    change(name, value)
    if expected is None:
        check()
        return
    with pytest.raises(BadInput, match=expected):
        check()


def test_members_of_the_repository_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For an experiment in a temporary folder."""
    (tmp_path / "parent" / "models" / "members" / "0123456789ab").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    change("ensemble", ["0123456789ab"])
    check()


def test_all_stages_are_checked_as_they_load() -> None:
    """Their configs, the first from the stage's own section and the others from the top level."""
    for stage, configs in CONFIGS.items():
        source = (REPOSITORY / "stages" / f"{stage}.py").read_text()
        loaded = re.findall(r"load\((\w+)(?:, \"(\w+)\")?\)", source)
        names = {name for name, _ in loaded}
        own = [name for name, section in loaded if section] or [loaded[0][0]]
        assert {section for _, section in loaded} <= {stage, ""}
        assert configs[0].rpartition(":")[2] == own[0]
        checked = {name.rpartition(":")[2] for names in CONFIGS.values() for name in names}
        assert names <= checked
    scripts = {p.stem for p in (REPOSITORY / "stages").glob("*.py")}
    assert set(CONFIGS) == scripts - {"check_params"}


def test_what_a_stage_has_run_with_takes_no_time(tmp_path: Path) -> None:
    """PyTorch, seconds of imports, is asked about another network only."""
    for name, value in {"seed": 69, "lr": 0.1, "epochs": 3, "dataset": "other"}.items():
        PARAMS.write_text(TEXT)
        change(name, value)
        PARAMS.rename(tmp_path / f"{name}.yaml")
    code = "import sys; from pathlib import Path as P; from steelseg.check.values import *\n"
    code += (
        f"for name in sys.argv[1:]: refuse_bad_values(P(name), P({str(PIPELINE)!r}), P('dvc.lock'))"
    )
    code += "\nprint('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "seed.yaml", "lr.yaml", "epochs.yaml", "dataset.yaml"]
    environment = {"PYTHONPATH": str(REPOSITORY / "src")}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_without_a_lock_everything_is_tried() -> None:
    """As in a new project."""
    LOCK.unlink()
    check()
    change("arch", "Unett")
    with pytest.raises(BadInput, match="did you mean `Unet`"):
        check()


@pytest.mark.parametrize(
    ("typed", "read"),
    [("007", "7"), ("1e3", "1000.0"), ("1.10", "1.1"), ("0x10", "16"), ("null", "None")],
)
def test_a_name_that_dvc_reads_otherwise_is_refused(typed: str, read: str) -> None:
    """It would look for another folder; in quotes it is what it says."""
    PARAMS.write_text(TEXT.replace("dataset: sample", f"dataset: {typed} "))
    expected = f"`dataset`: DVC would read {typed} as {read}; put it in quotes: '{typed}'"
    with pytest.raises(BadInput, match=re.escape(expected)):
        refuse_retyped(PARAMS, PIPELINE)
    PARAMS.write_text(TEXT.replace("dataset: sample", f"dataset: '{typed}' "))
    refuse_retyped(PARAMS, PIPELINE)


@pytest.mark.parametrize("typed", ["2024", "20240101", "1.5", "-3", "on", "yes", "true", "a-1"])
def test_a_name_that_dvc_reads_as_it_stands_is_taken(typed: str) -> None:
    """Whatever else YAML takes it for."""
    PARAMS.write_text(TEXT.replace("dataset: sample", f"dataset: {typed} "))
    refuse_retyped(PARAMS, PIPELINE)
