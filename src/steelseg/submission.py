"""Predictions as rows of a Parquet file, and as the csv that Kaggle asks for."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from steelseg import label_csv, rle
from steelseg.errors import BadInput, Faults, quote
from steelseg.files import atomic_path
from steelseg.label_csv import CLASS, IMAGE, JOINED, PIXELS, LabelCsv
from steelseg.params import Config
from steelseg.sealed_parquet import read_sealed, write_sealed

_ANSWERED = (JOINED, IMAGE, CLASS, PIXELS)


class SubmitConfig(Config):
    """Flat parameters that the stage `submit` reads."""

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
    write_sealed(path, pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA))


def read_predictions(path: Path) -> list[PredictionRow]:
    """Read what `write_predictions` wrote.

    Raises:
        BadInput: the file is missing, damaged, or has other columns.
    """
    table = read_sealed(path)
    if table.schema != SCHEMA:
        raise BadInput(f"{path}: expected the columns {SCHEMA.names}, but got {table.schema.names}")
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
        BadInput: an (image, class) pair was not predicted, its RLE is not legal, or the sample has
            a column that nobody knows how to answer.
    """
    by_pair = {(row.image, row.class_id): row.rle for row in predictions}
    answers = []
    with Faults(str(where)) as faults:
        for column in sample.columns:
            if column not in _ANSWERED:
                faults.add(f"line 1: unknown column {quote(column)}; expected {_ANSWERED}")
        for row in sample.rows:
            pair = f"line {row.line}: image {quote(row.image)}, class {row.class_id}"
            text = by_pair.get((row.image, row.class_id))
            if text is None:
                faults.add(f"{pair}: expected an image and a class that were predicted")
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
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(answers)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        written = [(r.image, str(r.class_id), r.rle) for r in label_csv.read(temporary).rows]
        if written != [(a[IMAGE], a[CLASS], a[PIXELS]) for a in answers]:
            raise BadInput(f"{path}: what was written does not read back as the same rows")
