"""The layout of Kaggle's Severstal task, which this pipeline uses for its data sets.

train.csv, train_images/                   masks as run lengths; an image in no row is clean
test_images/, sample_submission.csv        images to predict, and the requested rows
classes.csv, images.csv, ignored.csv       only in data sets of this pipeline
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data import ignored, label_csv, optional_files, rle
from steelseg.data.csv_records import read_table
from steelseg.data.label_csv import IMAGE, PIXELS, Row
from steelseg.data.listing import list_files, name_key
from steelseg.data.optional_files import ImageFacts
from steelseg.formats.files import size_of
from steelseg.formats.record import NOTHING, Options, Record, Source

LABELS, IMAGES, TESTS, SAMPLE = "train.csv", "train_images", "test_images", "sample_submission.csv"


def recognises(source: Path) -> bool:
    """Whether there are a csv of masks and a folder of images."""
    return (source / LABELS).is_file() and (source / IMAGES).is_dir()


def read(source: Path, options: Options) -> Source:
    """Read a data set; see `formats.record`."""
    labels = label_csv.read(source / LABELS)
    folder = options.images or source / IMAGES
    listing = list_files(folder)
    sample, tests = source / SAMPLE, source / TESTS
    asked = label_csv.read(sample).rows if sample.is_file() else []
    infos = optional_files.find_classes(
        source, {row.class_id for row in asked}, {row.class_id for row in labels.rows}
    )
    names = {info.id: info.name for info in infos}
    if options.classes:
        names = _rename(names, options.classes)
    has_colors = (source / optional_files.CLASSES).exists() and not options.classes
    facts = optional_files.read_images(source / optional_files.IMAGES)
    regions = _read_ignored(source / ignored.FILE)
    return Source(
        list(names.values()),
        read_rows(source / LABELS, folder, listing.names, labels.rows, names, facts, regions),
        {name: reason.replace("_", " ") for name, reason in listing.passed_over.items()},
        colors={info.name: info.color for info in infos} if has_colors else NOTHING,
        ids=tuple(names),
        test_images=tests if tests.is_dir() else None,
        sample_submission=sample if sample.is_file() else None,
    )


def read_rows(
    where: Path,
    folder: Path,
    images: Sequence[str],
    rows: Iterable[Row],
    names: Mapping[int, str],
    facts: Mapping[str, ImageFacts],
    regions: Mapping[str, Row],
) -> Iterator[Record]:
    """Read the records of images whose masks are rows.

    Args:
        where: the file of the rows, for messages.
        folder: of the images.
        images: their names.
        rows: in any order.
        names: of the classes, by id.
        facts: the rows of images.csv, see `optional_files.read_images`.
        regions: ignored regions, by the key of the image's name.

    Raises:
        BadInput: at the end, if rows are illegal or of missing images.
    """
    by_image: dict[str, list[Row]] = {}
    for row in (*rows, *regions.values()):
        by_image.setdefault(name_key(row.image), []).append(row)
    with Faults(str(where)) as faults:
        for name in images:
            own = by_image.pop(name_key(name), [])
            try:
                size_hw = size_of(folder / name)
            except BadInput as error:
                faults.add(str(error))
                continue
            masks = _decode(own, size_hw, names, faults)
            fact = facts.get(name_key(name), ImageFacts())
            yield Record(
                folder / name,
                name,
                size_hw,
                {names[c]: mask for c, mask in masks.items() if c},
                masks.get(0),
                fact.labelled,
                fact.group or None,
            )
        for row in (row for rows in by_image.values() for row in rows):
            faults.add(f"line {row.line}: image {quote(row.image)}: no such file in {folder}")


def _decode(
    rows: Iterable[Row], size_hw: tuple[int, int], names: Mapping[int, str], faults: Faults
) -> dict[int, Uint8]:
    masks = {}
    for row in rows:
        try:
            if row.class_id not in {0, *names}:
                known = f"{optional_files.CLASSES}, else of {SAMPLE}, are {quote([*names])[1:-1]}"
                raise BadInput(f"unknown class {row.class_id}; those of {known}")
            if row.rle.strip():
                masks[row.class_id] = rle.decode(row.rle, size_hw)
        except BadInput as error:
            file = f"{ignored.FILE}: " if not row.class_id else ""
            faults.add(f"{file}line {row.line}: image {quote(row.image)}: {error}")
    return masks


def _read_ignored(path: Path) -> dict[str, Row]:
    """Return the ignored regions by image, as rows without a class."""
    regions: dict[str, Row] = {}
    if not path.exists():
        return regions
    with Faults(str(path)) as faults:
        for line, fields in read_table(path, [IMAGE, PIXELS], [], faults):
            row = Row(fields[IMAGE], 0, fields[PIXELS], line)
            if regions.setdefault(name_key(row.image), row) != row:
                faults.add(f"line {line}: image {quote(row.image)} appears twice")
    return regions


def _rename(names: Mapping[int, str], classes: tuple[str, ...]) -> dict[int, str]:
    """Name the classes 1, 2, ... by `--classes`, which may also be ids."""
    given = dict(enumerate(classes, start=1))
    if all(word.isdecimal() for word in classes):
        given = {int(word): f"class {word}" for word in classes}
    if unknown := sorted(names.keys() - given.keys()):
        raise BadInput(f"--classes: expected a name for class {unknown[0]} too")
    return given
