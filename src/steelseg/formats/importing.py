"""The command `import`: converts annotated images in any format to a data set folder."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from steelseg.core.errors import BadInput, Faults
from steelseg.data.listing import list_below
from steelseg.formats import known
from steelseg.formats.dataset_folder import (
    SAMPLE,
    Writer,
    abspath,
    check_replaceable,
    whole_folder,
)
from steelseg.formats.mask_names import without_masks
from steelseg.formats.record import Options, Record, Source


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `import` to a parser and return the function that runs it."""
    parser.description = (
        "Turn annotated images into a data set for the pipeline. The format is detected where "
        "possible. The source is never changed. docs/data.md has a recipe for each format."
    )
    parser.add_argument("source", type=Path, help="folder or file of annotations")
    parser.add_argument("--to", type=Path, required=True, help="the data set, data/raw/<name>")
    parser.add_argument("--format", choices=known.FORMATS, help="the format of the source")
    parser.add_argument("--images", type=Path, help="folder of the images, if not in the source")
    parser.add_argument(
        "--classes", type=_words, default=(), help="all classes, such as scratch,dent or 1,2,3"
    )
    parser.add_argument(
        "--legend",
        type=_legend,
        default={},
        help="meaning of colours or values in masks: '#ff0000=scratch,#00ff00=dent' or 7=scratch",
    )
    parser.add_argument(
        "--ignore",
        type=_words,
        default=(),
        help="labels, colours or values of regions to ignore, such as 255",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        metavar="GREY",
        help="black and white masks: greys above this are the defect",
    )
    parser.add_argument(
        "--unlabelled",
        choices=["skip", "clean"],
        default="skip",
        help="leave images without annotations out of training (default), or take them for clean",
    )
    parser.add_argument(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of images to predict, in the source or elsewhere; their labels are not read",
    )
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")
    parser.add_argument("--force", action="store_true", help="replace an existing data set")
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    options = _options(arguments)
    _check_apart(arguments.source, arguments.to)
    check_replaceable(arguments.to, force=arguments.force)
    with whole_folder(arguments.to) as folder:
        name = arguments.format or known.recognise(arguments.source, arguments.images)
        yield f"{arguments.source}: read as {name}"
        source = known.load(name).read(arguments.source, options)
        records = source.records
        if arguments.unlabelled == "clean":
            records = (record._replace(labelled=True) for record in records)
        with Faults(str(arguments.source)) as faults:
            writer = Writer(folder, source, copy=arguments.copy, faults=faults)
            writer.write(_shown(records), [abspath(folder) for folder in arguments.test])
            _add_tests(writer, source, arguments.test)
        _check_complete(arguments, writer)
        writer.finish()
        if source.sample_submission and not arguments.test:
            (folder / SAMPLE).write_bytes(source.sample_submission.read_bytes())
    yield f"{arguments.to}:"
    yield from writer.tally.lines()
    if writer.tally.unlabelled:
        yield "unlabelled images are not trained on; if they show no defects: --unlabelled clean"


def _options(arguments: Namespace) -> Options:
    return Options(
        arguments.classes,
        arguments.legend,
        frozenset(arguments.ignore),
        arguments.images,
        arguments.threshold,
    )


def _shown(records: Iterator[Record]) -> Iterator[Record]:
    yield from tqdm(records, "importing", unit="image", disable=None)


def _check_apart(source: Path, to: Path) -> None:
    """Refuse a data set inside its source, which is read, or around it, which is replaced."""
    inner, outer = source.resolve(), to.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise BadInput(f"--to {to}: expected a folder that neither is in {source} nor contains it")


def _add_tests(writer: Writer, source: Source, tests: Sequence[Path]) -> None:
    """Add the images of test folders, except annotated images of the source."""
    taken = list(writer.test_paths)
    for folder in tests or [path for path in (source.test_images,) if path]:
        if not any(path.is_relative_to(abspath(folder)) for path in taken):
            _add_folder(writer, folder)


def _add_folder(writer: Writer, folder: Path) -> None:
    listing = list_below(folder)
    names = without_masks(listing.names)
    if not names:
        raise BadInput(f"{folder}: expected images, but found none among {listing.describe()}")
    for name in names:
        writer.add_test(name, folder / name)


def _check_complete(arguments: Namespace, writer: Writer) -> None:
    if not writer.tally.images:
        raise BadInput(f"{arguments.source}: expected images to train on, but found none")
    if not writer.tally.shown:
        reasons = ", ".join(f"{count} {reason}" for count, reason in writer.tally.reasons())
        ignored = f"; ignored regions in {writer.tally.ignored} images" * (writer.tally.ignored > 0)
        raise BadInput(
            f"{arguments.source}: expected at least one mask with a defect, but found none"
            + ignored
            + (reasons and f"; left out: {reasons}")
        )


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len(set(words)) < len(words):
        raise ArgumentTypeError(f"expected different words such as scratch,dent, got {text!r}")
    return tuple(word.lower() if word.startswith("#") else word for word in words)


def _legend(text: str) -> dict[str, str]:
    """Read `#ff0000=scratch,7=dent`."""
    legend = {}
    for part in text.split(","):
        key, _, name = (word.strip() for word in part.partition("="))
        key = key.lower()
        if not name or not re.fullmatch(r"#[0-9a-f]{6}|\d{1,5}", key) or key in legend:
            raise ArgumentTypeError(f"expected '#rrggbb=name' or '7=name', got {part!r}")
        legend[key] = name
    return legend
