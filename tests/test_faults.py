"""Stages killed in the midst of their work end as if nothing had been, and damage is found."""

import json
import random
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from faults.damage import damage_inputs, damage_unfinished
from faults.kills import DVC_NOTE, mend, tracked_once
from faults.outcome import Outcome, Trial, is_clean, judge, table
from faults.processes import finish, interrupt, start
from faults.workplace import OUTS, Workplace

KEPT = {"cache_masks": "cache/shard-*", "train": "epoch-*.sha256", "predict": "part-*.sha256"}


@pytest.fixture(scope="module")
def place(
    experiment: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workplace:
    """A pipeline that has run, and a copy of it to do harm to."""
    copy = Workplace(experiment, tmp_path_factory.mktemp("faults") / "place")
    shutil.copy(empty_store, copy.folder / "mlflow.db")
    return copy


def kill_after_first_piece(place: Workplace, stage: str) -> None:
    place.remove_outs(stage)
    log, work = place.folder.with_suffix(".log"), place.folder / ".checkpoints"
    process = start(place.folder, [sys.executable, f"stages/{stage}.py"], log)
    begun = f"{stage}-*/{KEPT[stage]}"
    assert interrupt(process, signal.SIGKILL, lambda: any(work.glob(begun)))
    assert finish(process, log).returncode == -signal.SIGKILL
    assert any(work.glob(begun))


@pytest.mark.pipeline
@pytest.mark.parametrize("stage", KEPT)
def test_a_killed_stage_goes_on_bit_identically(place: Workplace, stage: str) -> None:
    """Killed after its first piece of work, the same command ends with the same bytes."""
    kill_after_first_piece(place, stage)
    ended = place.run(stage, STEELSEG_TRACKING="on")
    assert ended.returncode == 0, ended.output
    assert place.is_sound(stage, succeeded=True)
    if stage == "train":
        assert tracked_once(place.folder / "mlflow.db")
    place.restore()


@pytest.mark.pipeline
@pytest.mark.parametrize("change", ["two classes swapped", "an image deleted"])
def test_other_data_never_meets_unfinished_work(place: Workplace, change: str) -> None:
    """Caching was killed, then the data changed: what was cached by then is not used."""
    kill_after_first_piece(place, "cache_masks")
    raw, manifest = place.folder / "data/raw/sample", place.folder / "data/cache/manifest.json"
    if change == "two classes swapped":
        rows = (raw / "train.csv").read_text()
        swapped = re.sub(r",([12]),", lambda m: f",{3 - int(m[1])},", rows)
        (raw / "train.csv").write_text(swapped)
    else:
        labelled = (raw / "train.csv").read_text()
        clean = [p for p in (raw / "train_images").iterdir() if p.name not in labelled]
        clean[0].unlink()
    digests = []
    for unfinished in ("kept", "removed"):
        if unfinished == "removed":
            shutil.rmtree(place.folder / ".checkpoints")
        shutil.rmtree(manifest.parent)
        for stage in ("pivot_csv", "cache_masks"):
            assert place.run(stage).returncode == 0
        digests.append(manifest.read_bytes())
    assert digests[0] == digests[1]
    assert digests[0] != (place.finished / "data/cache/manifest.json").read_bytes()
    place.restore()


@pytest.mark.pipeline
def test_damage_is_found(place: Workplace) -> None:
    """A seeded few of the faults that `make faults` does, to stages that do not import PyTorch."""
    rng = random.Random(43)
    trials = [*damage_inputs(place, 4, rng), *damage_unfinished(place, rng, ("cache_masks",))]
    assert is_clean(trials), json.dumps([trial.what + trial.said for trial in trials])


@pytest.mark.parametrize(
    ("returncode", "output", "sound", "outcome"),
    [
        (0, "", True, Outcome.SURVIVED),
        (0, "", False, Outcome.WRONG),
        (1, "error: x: is damaged", True, Outcome.REFUSED),
        (1, "error: x: is damaged", False, Outcome.WRONG),  # it left a part of an output
        (1, "Traceback ... ValueError", True, Outcome.LOST),
        (-9, "", True, Outcome.LOST),
    ],
)
def test_outcomes(returncode: int, output: str, sound: bool, outcome: Outcome) -> None:
    """What is neither the undisturbed run nor a clear refusal does not pass."""
    assert judge(returncode, output, sound=sound) is outcome
    assert is_clean([Trial("k", "w", outcome)]) == (outcome in {Outcome.SURVIVED, Outcome.REFUSED})
    assert table([Trial("k", "w", outcome)]).splitlines()[-1].split()[1] == "1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # among DVC's own libraries
def test_a_note_of_dvc_cut_short_is_named_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the same command does its work; other failures are not mended."""
    monkeypatch.chdir(tmp_path)
    stage = {"stages": {"touch": {"cmd": "touch out", "outs": ["out"]}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(stage))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        (tmp_path / DVC_NOTE).touch()
        log = tmp_path / "log"
        ended = finish(start(tmp_path, ["dvc", "repro"], log), log)
        assert ended.returncode != 0
        assert not mend(tmp_path, ended._replace(output="error: another"))
        assert mend(tmp_path, ended)
        assert [stage.addressing for stage in repo.reproduce()] == ["touch"]


def test_every_stage_of_the_table_is_a_script() -> None:
    """No fault is done to a stage that is gone."""
    stages = Path(__file__).parents[1] / "stages"
    assert all((stages / f"{stage}.py").is_file() for stage in OUTS)
