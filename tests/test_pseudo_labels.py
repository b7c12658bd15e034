"""Confident test predictions become training images that no score is computed on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from strategies import pivoted

from steelseg.__main__ import main
from steelseg.data import annotations, image_table, splitting
from steelseg.data.inspection import inspect_folder
from steelseg.data.splitting import NO_FOLD, SplitConfig
from steelseg.experiments import pseudo_labels
from steelseg.experiments.pseudo_labels import Sure, choose
from steelseg.predict.predictions import PredictionRow, write_predictions

PARAMS = """data_root: {root}
dataset: tiny
channels: auto
pivot_csv: {{csv: train.csv, on_bad_image: stop}}
"""


def row(image: str, class_id: int, rle: str, confidence: float) -> PredictionRow:
    return PredictionRow(image, class_id, rle, 4 if rle else 0, confidence)


def test_an_image_must_be_sure_in_every_class() -> None:
    """A sure mask beside a sure absence; not an unsure mask, nor a class that may be there."""
    rows = [
        row("sure", 1, "1 4", 0.97),
        row("sure", 2, "", 0.1),
        row("unsure mask", 1, "1 4", 0.9),
        row("unsure mask", 2, "", 0.1),
        row("unsure absence", 1, "1 4", 0.97),
        row("unsure absence", 2, "", 0.6),
        row("clean", 1, "", 0.3),
        row("clean", 2, "", 0.0),
    ]
    chosen = choose(rows, Sure(present=0.95, absent=0.3))
    assert sorted(chosen) == ["clean", "sure"]
    assert chosen["sure"] == rows[:2]


@pytest.fixture
def predicted(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository after `predict`: 0012 is sure, 0013 is not, 0014 is a turned training image."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw" / "tiny"
    for folder in ("train_images", "test_images"):
        (raw / folder).mkdir(parents=True)
        for path in (tiny_dataset / folder).iterdir():
            (raw / folder / path.name).write_bytes(path.read_bytes())
    for name in ("train.csv", "sample_submission.csv"):
        (raw / name).write_bytes((tiny_dataset / name).read_bytes())
    smooth = cv2.GaussianBlur(cv2.imread(str(raw / "train_images/0000.png"), 0), (0, 0), 3)
    cv2.imwrite(str(raw / "train_images/0000.png"), smooth)
    cv2.imwrite(str(raw / "test_images/0014.png"), np.flipud(smooth))
    (tmp_path / "data").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS.format(root=raw.parent))
    table = pivoted(raw)[0]
    test = inspect_folder(raw / "test_images", skip_bad=False)
    unannotated = annotations.build_unannotated(test)
    image_table.write(Path("data/annotations.parquet"), table)
    image_table.write(Path("data/test_images.parquet"), unannotated)
    sure = [("1 4", 0.99), ("", 0.0)]
    rows = [row(name, c, *sure[c - 1]) for name in ("0012.png", "0014.png") for c in (1, 2)]
    rows += [row("0013.png", c, "", 0.5) for c in (1, 2)]
    write_predictions(Path("data/predictions.parquet"), rows)
    return raw


def test_the_data_set_holds_what_is_sure(predicted: Path, capsys: pytest.CaptureFixture) -> None:
    """All training images and labels, the sure test image under its new name, and no twin."""
    for _ in range(2):  # the second time it is replaced
        main(["pseudo-label"])
    output = capsys.readouterr().out
    assert "2 of 3 test images are confident in every class, 1 of them near-duplicates" in output
    assert "-S dataset=tiny-pseudo -S 'stratified_split.never_validate=pseudo-*'" in output
    raw = Path("data/raw/tiny-pseudo")
    before, after = pivoted(predicted)[0], pivoted(raw)[0]
    assert after.names == [*before.names, "pseudo-0012.png"]
    assert after.rles(1) == [*before.rles(1), "1 4"]
    assert after.rles(2) == [*before.rles(2), None]
    assert sorted(p.name for p in (raw / "test_images").iterdir()) == [
        *("0012.png", "0013.png", "0014.png")
    ]


def test_another_data_set_is_not_replaced(predicted: Path) -> None:
    """The message names the folder, which stays."""
    Path("data/raw/tiny-pseudo").mkdir(parents=True)
    with pytest.raises(SystemExit, match="is not a pseudo-labelled data set"):
        main(["pseudo-label"])
    assert Path("data/raw/tiny-pseudo").is_dir()


def test_nothing_sure_is_said(predicted: Path) -> None:
    """And nothing is written."""
    with pytest.raises(SystemExit, match="no test image is left"):
        main(["pseudo-label", "--present", "1"])
    assert not Path("data/raw").exists()


def test_pseudo_labels_are_never_validated(predicted: Path) -> None:
    """They are in no fold, the others in those that they had; a twin of another stays with it."""
    main(["pseudo-label"])
    raw = Path("data/raw/tiny-pseudo")
    twin = cv2.imread(str(raw / "train_images/0000.png"), 0)
    cv2.imwrite(str(raw / "train_images/pseudo-twin.png"), np.fliplr(twin))
    config = SplitConfig(
        n_folds=3,
        seed=1,
        never_validate=f"{pseudo_labels.PREFIX}*",
        group_by=None,
        test_share=0,
    )
    table = splitting.split(pivoted(raw)[0], config).set_index("image")["fold"]
    assert table["pseudo-0012.png"] == NO_FOLD
    assert table["pseudo-twin.png"] == table["0000.png"] != NO_FOLD
    assert (table.drop(["pseudo-0012.png"]) >= 0).all()
