"""The layout of Kaggle's Severstal task, which is that of a data set of ours.

train.csv, train_images/                   masks as run lengths; an image in no row is clean
test_images/, sample_submission.csv        images to predict, and in which rows
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data import label_csv, rle
from steelseg.data.label_csv import LabelCsv, Row
from steelseg.data.listing import list_files, name_key
from steelseg.formats.files import size_of
from steelseg.formats.record import Options, Record, Source

LABELS, IMAGES, TESTS, SAMPLE = "train.csv", "train_images", "test_images", "sample_submission.csv"


def recognises(source: Path) -> bool:
    """Whether there are both the csv of masks and the folder of images."""
    return (source / LABELS).is_file() and (source / IMAGES).is_dir()


def read(source: Path, options: Options) -> Source:
    """Read a data set; see `formats.record`."""
    labels = label_csv.read(source / LABELS)
    folder = options.images or source / IMAGES
    listing = list_files(folder)
    sample, tests = source / SAMPLE, source / TESTS
    ids = {row.class_id for row in labels.rows}
    if sample.is_file():
        ids |= {row.class_id for row in label_csv.read(sample).rows}
    names = {class_id: f"class {class_id}" for class_id in sorted(ids)}
    if options.classes:
        names = _rename(names, options.classes)
    return Source(
        list(names.values()),
        _records(source, folder, listing.names, labels, names),
        {name: reason.replace("_", " ") for name, reason in listing.passed_over.items()},
        ids=tuple(names),
        test_images=tests if tests.is_dir() else None,
        sample_submission=sample if sample.is_file() else None,
    )


def _rename(names: Mapping[int, str], classes: tuple[str, ...]) -> dict[int, str]:
    """Give the classes 1, 2, ... the names that a person gave."""
    given = dict(enumerate(classes, start=1))
    if unknown := sorted(names.keys() - given.keys()):
        raise BadInput(f"--classes: expected a name for class {unknown[0]} too")
    return given


def _records(
    source: Path,
    folder: Path,
    images: list[str],
    labels: LabelCsv,
    names: Mapping[int, str],
) -> Iterator[Record]:
    by_image: dict[str, list[Row]] = {}
    for row in labels.rows:
        by_image.setdefault(name_key(row.image), []).append(row)
    with Faults(str(source / LABELS)) as faults:
        for name in images:
            rows = by_image.pop(name_key(name), [])
            try:
                size_hw = size_of(folder / name)
            except BadInput as error:
                faults.add(str(error))
                continue
            masks = {}
            for row in rows:
                try:
                    if row.rle:
                        masks[names[row.class_id]] = rle.decode(row.rle, size_hw)
                except BadInput as error:
                    faults.add(f"line {row.line}: image {quote(name)}: {error}")
            yield Record(folder / name, name, size_hw, masks)
        for row in (row for rows in by_image.values() for row in rows):
            faults.add(f"line {row.line}: image {quote(row.image)}: no such file in {folder}")
