"""A submission has the rows, the order and the columns of its sample, or is not written."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import SAMPLE_CSV, SIZE_HW, label_rows

from steelseg.core import sealed
from steelseg.core.errors import BadInput
from steelseg.data import label_csv
from steelseg.data.label_csv import LabelCsv, Row
from steelseg.predict import submission
from steelseg.predict.submission import PredictionRow

PREDICTIONS = [
    PredictionRow("u.png", 2, "48 1", 1, 0.75),
    PredictionRow("t.png", 1, "1 3 10 2", 5, 1.0),
    PredictionRow("t.png", 2, "", 0, 0.25),
    PredictionRow("u.png", 1, "", 0, 0.0),
]


def answer(path: Path, sample: str, predictions: list[PredictionRow] = PREDICTIONS) -> str:
    """Answer the text of a sample submission with the text of a submission."""
    (path / "sample.csv").write_text(sample)
    read = label_csv.read(path / "sample.csv")
    answers = submission.answer(read, path / "sample.csv", predictions, SIZE_HW)
    submission.write_submission(path / "submission.csv", read, answers)
    return (path / "submission.csv").read_text()


def test_the_layout_of_2019(tmp_path: Path) -> None:
    """Placeholders give way to predictions; where there is none, the field is empty."""
    assert answer(tmp_path, SAMPLE_CSV) == (
        "ImageId_ClassId,EncodedPixels\nt.png_1,1 3 10 2\nt.png_2,\nu.png_1,\nu.png_2,48 1\n"
    )


def test_rows_and_columns_keep_their_order(tmp_path: Path) -> None:
    """Kaggle compares neither by name only; nor need the sample ask for every pair."""
    sample = "EncodedPixels,ImageId,ClassId\n1 1,u.png,2\n1 1,t.png,1\n1 1,u.png,1\n"
    assert answer(tmp_path, sample) == (
        "EncodedPixels,ImageId,ClassId\n48 1,u.png,2\n1 3 10 2,t.png,1\n,u.png,1\n"
    )


BAD_SAMPLES = {
    "an image that is not there": (SAMPLE_CSV + "v.png_1,\n", "line 6: image 'v.png', class 1"),
    "an unknown class": (SAMPLE_CSV + "t.png_3,\n", "line 6: image 't.png', class 3: expected"),
    "a pair twice": (SAMPLE_CSV + "t.png_1,\n", "line 6: .* already stands in line 2"),
    "a missing column": ("ImageId,ClassId\nt.png,1\n", "line 1: missing column `EncodedPixels`"),
    "an unknown column": (
        "ImageId_ClassId,EncodedPixels,Usage\nt.png_1,,Public\n",
        "line 1: unknown column 'Usage'",
    ),
    "a path": (SAMPLE_CSV + "../v.png_1,\n", "line 6: .* but got '../v.png'"),
    "no rows": ("ImageId_ClassId,EncodedPixels\n", "expected rows below the header"),
}


@pytest.mark.parametrize(("sample", "expected"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_a_bad_sample_is_refused(sample: str, expected: str, tmp_path: Path) -> None:
    """With its row, and no submission is written."""
    with pytest.raises(BadInput, match=rf"sample\.csv: {expected}"):
        answer(tmp_path, sample)
    assert [p.name for p in tmp_path.iterdir()] == ["sample.csv"]


@pytest.mark.parametrize("rle", ["1", "0 1", "47 3", "3 3 1 1", "x"])
def test_an_illegal_prediction_is_refused(rle: str, tmp_path: Path) -> None:
    """Kaggle would refuse the whole file, and say less."""
    predictions = [PredictionRow("t.png", 1, rle, 1, 1.0), *PREDICTIONS[2:], PREDICTIONS[0]]
    with pytest.raises(BadInput, match=r"line 2: image 't\.png', class 1: the prediction is not"):
        answer(tmp_path, SAMPLE_CSV, predictions)


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    """Every pair that nobody predicted is named."""
    with pytest.raises(BadInput, match="2 faults") as caught:
        answer(tmp_path, SAMPLE_CSV, PREDICTIONS[:2])
    assert "line 3: " in str(caught.value)
    assert "line 4: " in str(caught.value)


def test_an_old_submission_survives_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in place stays until something sound takes its place: here a row gets lost."""
    before = answer(tmp_path, SAMPLE_CSV)
    write_all = csv.DictWriter.writerows
    monkeypatch.setattr(
        csv.DictWriter, "writerows", lambda self, rows: write_all(self, list(rows)[:-1])
    )
    with pytest.raises(BadInput, match="does not read back"):
        answer(tmp_path, SAMPLE_CSV)
    assert (tmp_path / "submission.csv").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sample.csv", "submission.csv"]


@given(label_rows())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_legal_name_is_written_so_that_it_reads_back(
    tmp_path: Path, rows: list[tuple[str, int, str]]
) -> None:
    """Quotes, commas and HTML in a name are its own business."""
    predictions = [PredictionRow(image, c, rle, 1, 1.0) for image, c, rle in rows]
    for columns in (["ImageId_ClassId", "EncodedPixels"], ["EncodedPixels", "ClassId", "ImageId"]):
        sample = LabelCsv(columns, [Row(i, *row) for i, row in enumerate(rows, start=2)])
        answers = submission.answer(sample, tmp_path, predictions, (4, 4))
        submission.write_submission(tmp_path / "submission.csv", sample, answers)
        back = label_csv.read(tmp_path / "submission.csv")
        assert back.columns == columns
        assert [row[1:] for row in back.rows] == rows


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    """In their order, with confidences as float32; none at all are some too."""
    for rows in (PREDICTIONS, []):
        submission.write_predictions(tmp_path / "p.parquet", rows)
        assert submission.read_predictions(tmp_path / "p.parquet") == rows


def test_predictions_of_other_columns_are_refused(tmp_path: Path) -> None:
    """A sound table of something else is no prediction."""
    sealed.write_sealed_table(tmp_path / "p.parquet", pa.table({"image": ["t.png"]}))
    with pytest.raises(BadInput, match=r"p\.parquet: expected the columns .* but got \['image'\]"):
        submission.read_predictions(tmp_path / "p.parquet")
    with pytest.raises(BadInput, match=r"q\.parquet: no such file"):
        submission.read_predictions(tmp_path / "q.parquet")
