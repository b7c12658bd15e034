"""The command `export`: writes labels or predictions in a format that other tools read."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from steelseg.core.classes import ClassInfo, default_classes
from steelseg.core.errors import BadInput
from steelseg.data import label_csv, optional_files
from steelseg.data.label_csv import Row
from steelseg.data.listing import list_files
from steelseg.formats import kaggle, known
from steelseg.formats.dataset_folder import whole_folder
from steelseg.formats.record import Options, Record
from steelseg.predict import predictions


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `export` to a parser and return the function that runs it."""
    parser.description = (
        "Write the labels of a data set, or predictions, in a format that other tools read, "
        "together with the images. `import` reads them back with the same pixels."
    )
    parser.add_argument(
        "source", type=Path, help="data set (data/raw/<name>), predictions.parquet or a csv of rows"
    )
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    parser.add_argument("--format", choices=known.WRITABLE, required=True, help="format to write")
    parser.add_argument(
        "--images",
        type=Path,
        help="for predictions: the image folder; classes.csv next to it names the classes",
    )
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    if arguments.to.exists():
        raise BadInput(f"{arguments.to}: already exists; name a new folder")
    counted = [0, 0]
    if arguments.source.is_dir():
        records, classes = _labels(arguments.source)
    elif arguments.images is None:
        raise BadInput("expected --images, the folder of the images that were predicted")
    else:
        records, classes = _predictions(arguments.source, arguments.images)
    with whole_folder(arguments.to) as folder:
        known.load(arguments.format).write(folder, _count(records, counted), classes)
    names = ", ".join(info.name for info in classes)
    yield f"{arguments.to}: {counted[0]} images, {counted[1]} masks of {names}"


def _labels(folder: Path) -> tuple[Iterator[Record], list[ClassInfo]]:
    source = kaggle.read(folder, Options())
    classes = [
        info._replace(name=name, color=source.colors.get(name) or info.color)
        for info, name in zip(default_classes(source.ids), source.classes, strict=True)
    ]
    return source.records, classes


def _predictions(path: Path, images: Path) -> tuple[Iterator[Record], list[ClassInfo]]:
    rows = _rows(path)
    ids = {row.class_id for row in rows}
    classes = optional_files.find_classes(images.parent, [], ids)
    names = {info.id: info.name for info in classes}
    if unknown := sorted(ids - names.keys()):
        raise BadInput(
            f"{path}: class {unknown[0]} is not in {images.parent / optional_files.CLASSES}"
        )
    return kaggle.read_rows(path, images, list_files(images).names, rows, names, {}, {}), classes


def _rows(path: Path) -> Sequence[Row]:
    if path.suffix == ".csv":
        return label_csv.read(path).rows
    predicted = predictions.read_predictions(path)
    return [
        Row(row.image, row.class_id, row.rle, line) for line, row in enumerate(predicted, start=1)
    ]


def _count(records: Iterable[Record], counted: list[int]) -> Iterator[Record]:
    for record in tqdm(records, "exporting", unit="image", disable=None):
        counted[0] += 1
        counted[1] += len(record.masks)
        yield record
