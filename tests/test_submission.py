"""A submission has the rows, the order and the columns of its sample, or is not written."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import SAMPLE_CSV, SIZE_HW, label_rows

from steelseg.core import sealed
from steelseg.core.errors import BadInput
from steelseg.data import label_csv
from steelseg.data.label_csv import LabelCsv, Row
from steelseg.predict.predictions import (
    PredictionRow,
    judge_groups,
    read_predictions,
    write_predictions,
)
from steelseg.submit import answers

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
    sizes = {row.image: SIZE_HW for row in predictions}
    rles = answers.answer(read, path / "sample.csv", predictions, sizes)
    answers.write_submission(path / "submission.csv", read, rles)
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


def test_everything_but_the_masks_stays_as_it_stands(tmp_path: Path) -> None:
    """An index column, classes as floats: what Kaggle compares, and what it does not look at."""
    sample = "\ufeff,ImageId,ClassId,EncodedPixels\n0,u.png,2.0,1 1\n1,t.png,1.0,\n"
    assert answer(tmp_path, sample) == (
        ",ImageId,ClassId,EncodedPixels\n0,u.png,2.0,48 1\n1,t.png,1.0,1 3 10 2\n"
    )


@pytest.mark.parametrize(("asked", "on_disk"), [("\u00f6", "o\u0308"), ("o\u0308", "\u00f6")])
def test_names_are_answered_in_the_sample_s_unicode_form(
    asked: str, on_disk: str, tmp_path: Path
) -> None:
    """Kaggle compares bytes; the image's file may have been through a Mac."""
    predictions = [PredictionRow(f"{on_disk}.png", 1, "1 3", 3, 1.0)]
    sample = f"ImageId_ClassId,EncodedPixels\n{asked}.png_1,\n"
    text = f"ImageId_ClassId,EncodedPixels\n{asked}.png_1,1 3\n"
    assert answer(tmp_path, sample, predictions) == text


def test_masks_are_held_to_the_size_of_their_own_image(tmp_path: Path) -> None:
    """What is legal in the larger image is not in the smaller."""
    rows = "t.png_1,\nu.png_1,\n"
    (tmp_path / "sample.csv").write_text("ImageId_ClassId,EncodedPixels\n" + rows)
    read = label_csv.read(tmp_path / "sample.csv")
    sizes = {"t.png": (2, 3), "u.png": (5, 7)}

    def given(*images: str) -> list[PredictionRow]:
        return [
            PredictionRow(image, 1, "35 1" if image in images else "", 1, 1.0) for image in sizes
        ]

    assert answers.answer(read, tmp_path, given("u.png"), sizes) == ["", "35 1"]
    with pytest.raises(BadInput, match=r"image 't\.png', class 1: the prediction is not legal"):
        answers.answer(read, tmp_path, given("t.png"), sizes)


BAD_SAMPLES = {
    "an image that is not there": (SAMPLE_CSV + "v.png_1,\n", "line 6: image 'v.png', class 1"),
    "an unknown class": (SAMPLE_CSV + "t.png_3,\n", "line 6: image 't.png', class 3: expected"),
    "a pair twice": (SAMPLE_CSV + "t.png_1,\n", "line 6: .* is already in line 2"),
    "a missing column": ("ImageId,ClassId\nt.png,1\n", "line 1: missing column `EncodedPixels`"),
    "an unknown column": (
        "ImageId_ClassId,EncodedPixels,Usage\nt.png_1,,Public\n",
        "line 1: unknown column 'Usage'",
    ),
    "a column that does not count": (
        ",ImageId_ClassId,EncodedPixels\n0.5,t.png_1,\n",
        "line 1: unknown column ''",
    ),
    "no class": (
        "ImageId,ClassId,EncodedPixels\nt.png,1,\nu.png,,\n",
        "line 3: image 'u.png': expected a class id",
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
    read = label_csv.read

    def lose_a_row(path: Path) -> LabelCsv:
        labels = read(path)
        return labels if path.name == "sample.csv" else labels._replace(rows=labels.rows[:-1])

    monkeypatch.setattr(label_csv, "read", lose_a_row)
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
        fields = [
            {"ImageId": i, "ClassId": str(c), "EncodedPixels": "1 1", "ImageId_ClassId": f"{i}_{c}"}
            for i, c, _ in rows
        ]
        sample = LabelCsv(
            columns,
            [Row(*row, line) for line, row in enumerate(rows, start=2)],
            [[row[column] for column in columns] for row in fields],
            {},
        )
        rles = answers.answer(
            sample, tmp_path, predictions, {row.image: (4, 4) for row in predictions}
        )
        answers.write_submission(tmp_path / "submission.csv", sample, rles)
        back = label_csv.read(tmp_path / "submission.csv")
        assert back.columns == columns
        assert [row[:3] for row in back.rows] == rows


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    """In their order, with confidences as float32; none at all are some too."""
    for rows in (PREDICTIONS, []):
        write_predictions(tmp_path / "p.parquet", rows)
        assert read_predictions(tmp_path / "p.parquet") == rows


def test_predictions_of_other_columns_are_refused(tmp_path: Path) -> None:
    """A sound table of something else is no prediction."""
    sealed.write_sealed_table(tmp_path / "p.parquet", pa.table({"image": ["t.png"]}))
    with pytest.raises(BadInput, match=r"p\.parquet: expected the columns .* but got \['image'\]"):
        read_predictions(tmp_path / "p.parquet")
    with pytest.raises(BadInput, match=r"q\.parquet: no such file"):
        read_predictions(tmp_path / "q.parquet")


def test_groups_are_judged_by_class() -> None:
    """An alarm in one image stops the group; what cannot be read or judged is not in order."""
    rows = pd.DataFrame(
        [
            *[("a1", 3, False), ("a1", 5, True), ("a2", 3, False), ("a2", 5, True)],
            *[("b1", 3, False), ("b1", 5, False), ("c1", 3, None), ("c1", 5, None)],
            *[("lone", 3, True), ("lone", 5, True)],
        ],
        columns=["image", "class_id", "alarm"],
    )
    groups = {name: name[0] for name in ("a1", "a2", "b1", "c1", "d1")}
    for parts in ([rows], [rows[:3], rows[3:5], rows[5:]]):
        table = judge_groups(parts, groups, [3, 5], ["d1", "nobody's"])
        assert table["group"].tolist() == [*"aabbccdd"]
        assert table["images"].tolist() == [2, 2, 1, 1, 1, 1, 0, 0]
        assert table["unreadable"].tolist() == [0] * 6 + [1, 1]
        assert table["alarms"].tolist() == [0, 2, 0, 0, 0, 0, 0, 0]
        expected = [False, False, True, True, None, None, None, None]
        assert table["in_order"].tolist() == expected
    assert judge_groups([], {}, [3, 5]).empty
