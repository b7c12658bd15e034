"""Predictions as rows of a Parquet file, and as the csv that Kaggle asks for."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from steelseg import label_csv, rle
from steelseg.errors import BadInput, Faults
from steelseg.files import atomic_path
from steelseg.label_csv import CLASS, IMAGE, JOINED, PIXELS, LabelCsv
from steelseg.params import Config


class SubmitConfig(Config):
    """Parameters of the stage `submit`."""

    data_root: str
    dataset: str


class PredictionRow(NamedTuple):
    """One class of one image: its mask as RLE (empty for none), pixels, and confidence 0 to 1."""

    image: str
    class_id: int
    rle: str
    area: int
    confidence: float


SCHEMA = pa.schema(
    {
        "image": pa.string(),
        "class_id": pa.int32(),
        "rle": pa.string(),
        "area": pa.int64(),
        "confidence": pa.float32(),
    }
)


def write_predictions(path: Path, rows: Iterable[PredictionRow]) -> None:
    """Write predictions as Parquet, whole or not at all."""
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_predictions(path: Path) -> list[PredictionRow]:
    """Read what `write_predictions` wrote.

    Raises:
        BadInput: the file is missing, damaged, or has other columns.
    """
    try:
        table = pq.read_table(path).cast(SCHEMA)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: is damaged, or was not written by predict: {error}") from error
    return [PredictionRow(**row) for row in table.to_pylist()]


def answer(
    sample: LabelCsv, where: Path, predictions: list[PredictionRow], size_hw: tuple[int, int]
) -> list[dict[str, str]]:
    """Answer every row of a sample submission, in its order and columns.

    Args:
        sample: the sample submission; its placeholders do not matter.
        where: its path, for messages.
        predictions: a row for every image and class that the sample asks for, in any order.
        size_hw: the size of every test image.

    Raises:
        BadInput: an (image, class) pair was not predicted, or its RLE is not legal.
    """
    by_pair = {(row.image, row.class_id): row.rle for row in predictions}
    answers = []
    with Faults(str(where)) as faults:
        for row in sample.rows:
            pair = f"line {row.line}: image {row.image!r}, class {row.class_id}"
            text = by_pair.get((row.image, row.class_id))
            if text is None:
                faults.add(f"{pair}: expected an image of the test folder and a class of train.csv")
                continue
            try:
                rle.parse(text, size_hw)
            except BadInput as error:
                faults.add(f"{pair}: the prediction is not legal: {error}")
            joined = f"{row.image}_{row.class_id}"
            answers.append(
                {JOINED: joined, IMAGE: row.image, CLASS: str(row.class_id), PIXELS: text}
            )
    return answers


def write_submission(path: Path, columns: list[str], answers: list[dict[str, str]]) -> None:
    """Write answers as csv and read them back before the file takes its place.

    Raises:
        BadInput: what was written does not read back as the same rows.
    """
    known = [c for c in columns if c in {JOINED, IMAGE, CLASS, PIXELS}]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, known, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(answers)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        written = [(r.image, str(r.class_id), r.rle) for r in label_csv.read(temporary).rows]
        if written != [(a[IMAGE], a[CLASS], a[PIXELS]) for a in answers]:
            raise BadInput(f"{path}: what was written does not read back as the same rows")
