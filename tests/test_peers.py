"""Peers get and give plain files, and are scored like the pipeline; without their packages."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import pivoted
from tables import dice

from benchmarks.peers import __main__ as command
from benchmarks.peers import job as jobs
from benchmarks.peers import project, scoring, table
from benchmarks.peers.job import Image, Job, Maps
from steelseg.core.files import write_json
from steelseg.data import annotations, fold_table, image_table, label_csv, rle
from steelseg.data.cache import Cache
from steelseg.data.inspection import inspect_folder
from steelseg.tune.components import ComponentTable

FOLDER = Path(command.__file__).parent
N_VALIDATION = 6
BRIGHT, DARK = 200, 50  # between noise and the two classes of the tiny data set


def look(image_hwc: Image) -> Maps:
    """Answer as a peer that is never sure: 0.3 where a defect is, and 0.15 elsewhere."""
    grey_hw = image_hwc[..., 0]
    found_chw = np.stack([grey_hw > BRIGHT, grey_hw < DARK])
    return np.where(found_chw, np.float32(0.3), np.float32(0.15))


@pytest.fixture
def prepared(tiny_dataset: Path, tiny_cache: Cache, tmp_path: Path) -> Path:
    """A data set as the stages leave it, and its files for peers: six images are for validation."""
    data = tmp_path / "project" / "data"
    data.mkdir(parents=True)
    params = {"data_root": str(tiny_dataset.parent), "dataset": tiny_dataset.name, "fold": 0}
    write_json(tmp_path / "project" / "params.yaml", params)
    (data / "cache").symlink_to(tiny_cache.folder)
    pixels = pivoted(tiny_dataset)[1].pixels
    tests = inspect_folder(tiny_dataset / "test_images", pixels, skip_bad=False)
    image_table.write(data / "test_images.parquet", annotations.build_unannotated(tests))
    n_images = len(tiny_cache)
    fold = np.repeat([0, 1], [N_VALIDATION, n_images - N_VALIDATION])
    columns = {"image": tiny_cache.names, "fold": fold, "group": range(n_images)}
    folds = pd.DataFrame({**columns, "combination": ""})
    fold_table.write(data / "folds.parquet", folds, tiny_cache.annotations)
    write_json(tmp_path / "files.json", project._write_files(tmp_path))
    return tmp_path


@pytest.fixture
def job(prepared: Path) -> Job:
    """A job on that data set."""
    folder = prepared / "peer-1-69"
    folder.mkdir()
    fixed = {"peer": "look", "seed": 69, "cpu_seconds": 1e9, "encoder_weights": ""}
    write_json(folder / "job.json", json.loads((prepared / "files.json").read_text()) | fixed)
    return jobs.read(folder)


def test_a_job_has_the_images_masks_and_folds_of_the_pipeline(job: Job, tiny_cache: Cache) -> None:
    """Every image is trained on, validated or tested, by the fold table; YOLO's labels repaint."""
    assert (len(job.train), len(job.validation), len(job.test)) == (6, N_VALIDATION, 3)
    assert (job.classes, job.channels, job.side) == ([1, 2], 1, 96)
    for row, name in enumerate([*job.validation, *job.train]):
        masks_chw = tiny_cache.masks(row)
        assert np.array_equal(job.image(name)[..., 2], tiny_cache.image(row))
        assert np.array_equal(job.masks(name), masks_chw.transpose(1, 2, 0))
        painted_chw = np.zeros_like(masks_chw)
        for line in (job.folder.parent / "labels" / f"{name}.txt").read_text().splitlines():
            label, *shares = line.split()
            points = np.array(shares, np.float32).reshape(-1, 2) * np.array([80, 48], np.float32)
            cv2.fillPoly(painted_chw[int(label)], [points.astype(np.int32)], 1)
        assert np.array_equal(painted_chw, masks_chw)


@given(hnp.arrays(np.uint8, (5, 4, 3), elements=st.integers(0, 1)))
def test_masks_survive_as_bits(masks_chw: np.ndarray) -> None:
    """Also where classes overlap."""
    assert np.array_equal(jobs.unpack(jobs.pack(masks_chw), 5), masks_chw.transpose(1, 2, 0))


def test_a_peer_is_scored_by_thresholds_chosen_on_other_images(job: Job, tiny_cache: Cache) -> None:
    """Low probabilities cost it nothing, and its answers are the masks, as the sample asks."""
    jobs.main("numpy", lambda _: None, lambda _: look, ["predict", str(job.folder)])
    facts = json.loads((job.folder / "predicted.json").read_text())
    assert facts["version"] == np.__version__
    assert facts["ms_per_image"] > 0
    scores, rules = scoring.score(job)
    found = [look(job.image(name)) > 0.2 for name in job.validation]
    each = [
        dice(found_hw, mask_hw)
        for row in range(N_VALIDATION)
        for found_hw, mask_hw in zip(found[row], tiny_cache.masks(row), strict=True)
    ]
    assert scores["pair_dice"] == pytest.approx(np.mean(each))
    assert scores["pair_dice_low"] <= scores["pair_dice"] <= scores["pair_dice_high"]
    answers = label_csv.read(scoring.submit(job, rules))
    for at, name in enumerate(job.test):
        wanted_chw = look(job.image(name)) > 0.2
        for row, wanted_hw in zip(answers.rows[2 * at : 2 * at + 2], wanted_chw, strict=True):
            assert (row.image, row.rle) == (f"{12 + at:04d}.png", rle.encode(wanted_hw))


def test_no_image_helps_to_choose_its_own_threshold() -> None:
    """One group needs another threshold than all others, and so is scored under theirs."""
    odd_hw, mask_hw = np.full((4, 4), 0.6, np.float32), np.zeros((4, 4), np.uint8)
    mask_hw[:2] = 1
    usual_hw = np.where(mask_hw == 1, np.float32(0.6), np.float32(0.1))
    odd_hw[:2] = 0.9  # only a threshold above 0.6 is right, where all others need one below it
    filled = ComponentTable(scoring.THRESHOLDS, 1)
    for map_hw in [odd_hw, *[usual_hw] * 9]:
        filled.add(map_hw[None], mask_hw[None])
    scores = scoring.figures(filled, np.arange(10), [1])
    assert scores["pair_dice"] == pytest.approx((9 + 2 / 3) / 10)


def test_rows_are_kept_in_the_order_of_the_table(tmp_path: Path) -> None:
    """The best first, by data set and budget, and a row of ours names its overrides."""
    row = {"dataset": "a", "budget": 30, "seed": 1, "pair_dice": 0.8, "pair_dice_low": 0.75}
    row |= {"pair_dice_high": 0.85, "positive_dice": 0.5, "cpu_minutes": 29.5, "version": "8.4"}
    row |= {"ms_per_image": 12.3, "overrides": [], "peer": "x", "pair_dice_by_our_rules": 0.81}
    path = tmp_path / "results.json"
    table.add(row, path)
    rows = table.add({**row, "pair_dice": 0.9, "peer": "ours", "overrides": ["tta=d4"]}, path)
    assert [r["peer"] for r in rows] == ["ours", "x"]
    assert table.read(path) == rows
    lines = table.as_markdown(rows).splitlines()
    assert lines[2].startswith("| a | 29.5 of 30 | ours `tta=d4` | 0.9000 | 0.7500 to 0.8500 |")
    assert lines[3].endswith("| 0.8000 | 0.7500 to 0.8500 | 0.5000 | 0.8100 | 12 | 1 | 8.4 |")
    assert len({line.count("|") for line in lines}) == 1


def test_a_budget_is_of_processor_time(job: Job) -> None:
    """It counts from the start of the process, and does not exceed 1."""
    assert 0 < job.share() < 1e-3
    assert job._replace(cpu_seconds=1e-9).share() == 1


@pytest.mark.parametrize("peer", command.PEERS)
def test_every_peer_has_a_module_and_pinned_packages(peer: str) -> None:
    """Of its own: none of them is a dependency of the project."""
    module, requirements = command.PEERS[peer]
    assert find_spec(f"benchmarks.peers.{module}")
    lines = (FOLDER / f"{requirements}.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)
