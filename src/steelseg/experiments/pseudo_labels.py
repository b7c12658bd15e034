"""The command `pseudo-label`: a data set with confident test predictions as training masks.

The result, `<dataset>-pseudo`, is an ordinary data set for a second training. Its pseudo-labelled
images are named `pseudo-...`, so that `stratified_split.never_validate` can exclude them from
validation.
"""

import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from steelseg.core.errors import BadInput
from steelseg.core.params import load
from steelseg.data import image_table, label_csv
from steelseg.data.annotations import PivotConfig
from steelseg.data.image_table import ImageTable
from steelseg.data.label_csv import Row
from steelseg.data.listing import list_files
from steelseg.data.splitting import find_duplicates
from steelseg.predict.predictions import PredictionRow, read_predictions

PREFIX = "pseudo-"
FOLDERS = "train_images", "test_images"
DATA = Path("data")


class Sure(NamedTuple):
    """The confidence from which a class counts as present, and up to which it counts as absent."""

    present: float
    absent: float


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `pseudo-label` to a parser and return the function that runs it."""
    parser.description = (
        "Make a data set of the training images and of those test images whose latest predictions "
        "are confident in every class. Near-duplicates of training images are left out."
    )
    add = parser.add_argument
    add(
        "--present",
        type=float,
        default=0.95,
        help="accept a mask from this confidence on (default: 0.95)",
    )
    add(
        "--absent",
        type=float,
        default=0.3,
        help="accept that a class is absent up to this confidence (default: 0.3)",
    )
    add("--out", type=Path, help="the data set's folder (default: data/raw/<dataset>-pseudo)")
    return _run


def choose(rows: Iterable[PredictionRow], sure: Sure) -> dict[str, list[PredictionRow]]:
    """Return the rows of the images that are confident in every class, by image.

    A class is confident if it has a mask and a confidence of at least `present`, or no mask and a
    confidence of at most `absent`.
    """
    chosen = {}
    for image, group in groupby(sorted(rows), key=lambda row: row.image):
        of_image = list(group)
        if all(_is_sure(row, sure) for row in of_image):
            chosen[image] = of_image
    return chosen


def without_twins(names: Iterable[str], train: ImageTable, test: ImageTable) -> list[str]:
    """Return the test images that are not near-duplicates of training images.

    A near-duplicate's original may be in the validation fold.
    """
    pairs = find_duplicates(train, test)
    twins = {test.names[int(second)] for second in pairs.second}
    return [name for name in names if name not in twins]


def write_dataset(
    raw: Path, csv_name: str, chosen: Mapping[str, Sequence[PredictionRow]], out: Path
) -> None:
    """Write a data set of the images and labels in `raw` and the chosen predictions.

    Files are hard-linked if the file system allows it. An older pseudo-labelled data set is
    replaced.

    Raises:
        BadInput: `out` exists and is not a pseudo-labelled data set.
    """
    if out.exists() and not any((out / FOLDERS[0]).glob(f"{PREFIX}*")):
        raise BadInput(f"{out}: exists already and is not a pseudo-labelled data set")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as temporary:
        new = Path(temporary) / out.name
        for folder in FOLDERS:
            for name in list_files(raw / folder).names:
                _link(raw / folder / name, new / folder / name)
        for image in chosen:
            _link(raw / FOLDERS[1] / image, new / FOLDERS[0] / f"{PREFIX}{image}")
        for path in raw.glob("*.csv"):
            shutil.copyfile(path, new / path.name)
        rows = label_csv.read(raw / csv_name).rows
        for of_image in chosen.values():
            rows += [Row(f"{PREFIX}{r.image}", r.class_id, r.rle) for r in of_image if r.rle]
        (new / csv_name).write_text(label_csv.to_text(rows), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)


def _run(arguments: Namespace) -> Iterator[str]:
    config = load(PivotConfig, "pivot_csv")
    raw = Path(config.data_root) / config.dataset
    train = image_table.read(DATA / "annotations.parquet")
    test = image_table.read(DATA / "test_images.parquet")
    sure = choose(
        read_predictions(DATA / "predictions.parquet"), Sure(arguments.present, arguments.absent)
    )
    chosen = {name: sure[name] for name in without_twins(sure, train, test)}
    yield (
        f"{len(sure)} of {len(test)} test images are confident in every class, "
        f"{len(sure) - len(chosen)} of them near-duplicates of training images"
    )
    if not chosen:
        raise BadInput("no test image is left; try a lower --present or a higher --absent")
    out = arguments.out or DATA / "raw" / f"{config.dataset}-pseudo"
    write_dataset(raw, config.csv, chosen, out)
    yield (
        f"{out}: {len(chosen)} pseudo-labelled images; to train with them, run\n"
        f"dvc exp run -S data_root={out.parent} -S dataset={out.name} "
        f"-S 'stratified_split.never_validate={PREFIX}*'"
    )


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _is_sure(row: PredictionRow, sure: Sure) -> bool:
    return row.confidence >= sure.present if row.rle else row.confidence <= sure.absent
