"""Answers a sample submission, as the csv that Kaggle expects."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import atomic_path
from steelseg.core.params import Config
from steelseg.core.sizes import Size
from steelseg.data import label_csv, rle
from steelseg.data.label_csv import PIXELS, LabelCsv, Row
from steelseg.data.listing import name_key
from steelseg.predict.predictions import PredictionRow


class SubmitConfig(Config):
    """Top-level parameters that the stage `submit` reads."""

    data_root: str
    dataset: str


def ask_for_all(predictions: Iterable[PredictionRow]) -> LabelCsv:
    """Make a sample submission of all predictions, in Kaggle's current layout."""
    rows = [Row(p.image, p.class_id, "") for p in predictions]
    fields = [[row.image, str(row.class_id), row.rle] for row in rows]
    return LabelCsv([label_csv.IMAGE, label_csv.CLASS, PIXELS], rows, fields, {})


def answer(
    sample: LabelCsv,
    where: Path,
    predictions: Iterable[PredictionRow],
    sizes_hw: Mapping[str, Size],
) -> list[str]:
    """Answer every row of a sample submission with its RLE, in the sample's order.

    Args:
        sample: the sample submission; its placeholder masks are ignored.
        where: its path, for messages.
        predictions: a row for every requested image and class, in any order.
        sizes_hw: of each test image, by name.

    Raises:
        BadInput: an (image, class) pair was not predicted, its RLE is illegal, or the sample has an
            unknown column.
    """
    by_pair = {(name_key(row.image), row.class_id): row.rle for row in predictions}
    sizes = {name_key(name): size_hw for name, size_hw in sizes_hw.items()}
    answers = []
    with Faults(str(where)) as faults:
        label_csv.check_answerable(sample, faults)
        for row in sample.rows:
            try:
                text = by_pair.get((name_key(row.image), row.class_id))
                answers.append(_legal(text, sizes.get(name_key(row.image))))
            except BadInput as error:
                pair = f"image {quote(row.image)}, class {row.class_id}"
                faults.add(f"line {row.line}: {pair}: {error}")
    return answers


def write_submission(path: Path, sample: LabelCsv, answers: list[str]) -> None:
    """Write a sample with its answers, and read it back before moving it into place.

    All other fields are copied from the sample, since Kaggle compares them.

    Raises:
        BadInput: what was written does not read back as the same rows.
    """
    with atomic_path(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(sample.columns)
            at = sample.columns.index(PIXELS)
            for fields, text in zip(sample.fields, answers, strict=True):
                writer.writerow([*fields[:at], text, *fields[at + 1 :]])
        wanted = [row._replace(rle=a)[:3] for row, a in zip(sample.rows, answers, strict=True)]
        if wanted and [row[:3] for row in label_csv.read(temporary).rows] != wanted:
            raise BadInput(f"{path}: what was written does not read back as the same rows")


def _legal(text: str | None, size_hw: Size | None) -> str:
    if text is None or size_hw is None:
        raise BadInput("expected an image and a class that were predicted")
    try:
        rle.parse(text, size_hw)
    except BadInput as error:
        raise BadInput(f"the prediction is not legal: {error}") from error
    return text
