"""Data sets of any mill, drawn at random: every stage takes them, from the files to the report.

`STEELSEG_MILLS=20 pytest tests/test_any_mill.py` draws more of them.
"""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from clones import clone, run
from PIL import Image
from tiffs import tiff

from steelseg.core.files import write_text
from steelseg.data import rle

pytestmark = pytest.mark.pipeline

STAGES = "check_params pivot_csv stratified_split cache_masks train export_onnx tune_threshold"
STAGES += " predict submit report"
CHANNELS = {"grey": 1, "rgb": 3, "grey16": 1, "rgb16": 3, "lights16": 4}
CLASSES = {2: "scratch", 5: "dent"}


class Mill(NamedTuple):
    """What a data set is like."""

    kind: str
    has_tests: bool
    has_sample: bool
    test_share: float


def draw_mill(seed: int) -> Mill:
    rng = np.random.default_rng(seed)
    has_tests = bool(rng.integers(2))
    kinds = list(CHANNELS)
    return Mill(
        kinds[(seed + 3) % len(kinds)],
        has_tests,
        has_tests and bool(rng.integers(2)),
        float(rng.choice([0, 0.25])),
    )


def draw_image(rng: np.random.Generator, kind: str, mask_hw: Any, class_id: int) -> bytes:
    """A surface with a defect, brighter or darker, as the bytes of a file."""
    levels = rng.integers(90, 140, (CHANNELS[kind], *mask_hw.shape)) * 1.0
    levels[:, mask_hw == 1] = {2: 230, 5: 20}[class_id]
    if CHANNELS[kind] > 1:  # one of the channels sees the least, so that there are colours
        levels[0] *= 0.6
    if not kind.endswith("16"):
        stream = io.BytesIO()
        channels_last = levels.astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(channels_last.squeeze()).save(stream, "PNG")
        return stream.getvalue()
    levels = (levels * 16).astype(np.uint16)  # 12 of the 16 bits, as cameras have them
    pages = [levels.transpose(1, 2, 0)] if kind == "rgb16" else list(levels)
    return tiff(pages)


def write_mill(raw: Path, mill: Mill, seed: int) -> None:
    """Write 24 training images of 8 coils in folders, with all the files that are optional."""
    rng = np.random.default_rng(seed)
    tables = {
        "train.csv": ["ImageId,ClassId,EncodedPixels"],
        "images.csv": ["ImageId,group,label"],
        "ignored.csv": ["ImageId,EncodedPixels"],
        "classes.csv": ["ClassId,name,color", "2,scratch,#ff0000", "5,dent,"],
        "sample_submission.csv": ["ImageId,ClassId,EncodedPixels"],
    }
    suffix = ".tif" if mill.kind.endswith("16") else ".png"
    for number in range(24 + 4 * mill.has_tests):
        folder = "train_images" if number < 24 else "test_images"
        name = f"coil{number % 8}/{number:02d}{suffix}"
        size_hw = tuple(int(side) for side in rng.integers(40, 90, 2))
        mask_hw = np.zeros(size_hw, dtype=np.uint8)
        if number % 3:
            mask_hw[5:25, 8:30] = 1
        path = raw / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        class_id = list(CLASSES)[number % 2]
        path.write_bytes(draw_image(rng, mill.kind, mask_hw, class_id))
        if folder == "test_images":
            tables["sample_submission.csv"] += [f"{name},{c},1 1" for c in CLASSES]
            continue
        label = "unlabelled" if number == 7 else "labelled"
        tables["images.csv"].append(f"{name},coil {number % 8},{label}")
        if mask_hw.any() and number != 7:
            tables["train.csv"].append(f"{name},{class_id},{rle.encode(mask_hw)}")
        if number in {3, 4}:
            ignored_hw = np.zeros(size_hw, dtype=np.uint8)
            ignored_hw[:10] = 1
            tables["ignored.csv"].append(f"{name},{rle.encode(ignored_hw)}")
    if not mill.has_sample:
        del tables["sample_submission.csv"]
    for name, rows in tables.items():
        write_text(raw / name, "\n".join(rows) + "\n")


def run_stages(folder: Path, mill: Mill) -> str:
    """Run all stages in one process, which imports PyTorch once."""
    changes = {
        "dataset: sample": "dataset: mill",
        "epochs: 3": "epochs: 1",
        "test_share: 0 ": f"test_share: {mill.test_share} ",
        "runtime: auto": "runtime: torch",
        "shard_images: 1": "shard_images: 10",
        "part_images: 1": "part_images: 3",
    }
    params = (folder / "params.yaml").read_text()
    for old, new in changes.items():
        assert old in params, old
        params = params.replace(old, new)
    (folder / "params.yaml").write_text(params)
    code = (
        "import runpy, sys; sys.path.insert(0, 'stages')\n"
        f"for stage in '{STAGES}'.split():\n"
        "    runpy.run_path(f'stages/{stage}.py', run_name='__main__')\n"
    )
    return run(folder, sys.executable, "-c", code, STEELSEG_TRACKING="off")


@pytest.mark.parametrize("seed", range(int(os.environ.get("STEELSEG_MILLS", "1"))))
def test_every_stage_takes_them(seed: int, tmp_path: Path) -> None:
    """Mixed sizes, depths and channels; coils, ignored and unlabelled images; with tests or not."""
    mill, folder = draw_mill(seed), clone(tmp_path / "clone")
    write_mill(folder / "data/raw/mill", mill, seed)
    output = run_stages(folder, mill)
    assert "Traceback" not in output
    card = json.loads((folder / "models/model.json").read_text())
    assert card["pixels"]["channels"] == CHANNELS[mill.kind]
    assert card["pixels"]["depth"] == (16 if mill.kind.endswith("16") else 8)
    folds = pq.read_table(folder / "data/folds.parquet").to_pydict()
    assert len(folds["image"]) == 23, "the unlabelled image is left out"
    by_coil: dict[str, set[int]] = {}
    for image, fold in zip(folds["image"], folds["fold"], strict=True):
        by_coil.setdefault(image.split("/")[0], set()).add(fold)
    assert all(len(sides) == 1 for sides in by_coil.values())
    rows = list(csv.DictReader((folder / "submission.csv").read_text().splitlines()))
    tests = sorted((folder / "data/raw/mill/test_images").glob("*/*")) if mill.has_tests else []
    pairs = {(f"{path.parent.name}/{path.name}", str(c)) for path in tests for c in CLASSES}
    assert {(row["ImageId"], row["ClassId"]) for row in rows} == pairs
    table = pq.read_table(folder / "data/test_images.parquet").to_pylist()
    size_of = {row["image"]: (row["height"], row["width"]) for row in table}
    for row in rows:
        rle.parse(row["EncodedPixels"], size_of[row["ImageId"]])  # raises where it leaves the image
    scores = json.loads((folder / "metrics/tune_threshold.json").read_text())
    assert 0 <= scores["pair_dice"] <= 1
    assert "scratch" in (folder / "reports/index.html").read_text()
