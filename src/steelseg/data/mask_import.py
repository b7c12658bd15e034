"""Masks as image files, turned into the csv files of a data set.

For the image `plate7.jpg`, the folder of masks holds either of these, in the size of the image:

    plate7.png      the class of every pixel as its grey value (or palette index), 0 for none
    plate7_2.png    where the image shows class 2: black elsewhere, and white there

PNG, BMP, TIFF and GIF are read, see `mask_file`. An image without a mask is clean. A mask without
an image is a fault, as is one that cannot be read, or that stands in a folder below.
"""

import posixpath
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_text
from steelseg.data import images, label_csv, mask_file, rle
from steelseg.data.label_csv import Row
from steelseg.data.listing import HIDDEN, Listing, check_image_name, list_files, name_key

PLACEHOLDER = "1 1"
SUFFIXES = mask_file.SUFFIXES | images.SUFFIXES  # a JPEG is no mask, and is refused by name


class Target(NamedTuple):
    """What a mask's name says: its image, and the class, or None where its pixels say it."""

    image: str
    class_id: int | None


class Imported(NamedTuple):
    """The masks of a folder as rows sorted by image and class, and what the folders hold."""

    rows: list[Row]
    images: Listing
    masks: Listing


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `import-masks` to a parser and return what runs it."""
    parser.description = (
        "Turn a folder of masks (PNG, BMP, TIFF or GIF) into the train.csv of a data set, and "
        "write its sample_submission.csv if there is none. For plate7.jpg, the masks are "
        "plate7.png, with class ids as grey values (0 for none), or plate7_2.png, black and "
        "white, for class 2. An image without a mask is clean."
    )
    parser.add_argument("images", type=Path, help="folder of images, data/raw/<name>/train_images")
    parser.add_argument("masks", type=Path, help="folder of their masks")
    parser.add_argument(
        "--classes", required=True, type=_class_ids, help="all class ids there are, such as 1,2,3"
    )
    parser.add_argument(
        "--dataset", type=Path, help="folder for train.csv (default: the one that holds the images)"
    )
    parser.add_argument("--force", action="store_true", help="replace a train.csv that is there")
    return _run


def read_masks(image_folder: Path, mask_folder: Path, classes: Sequence[int]) -> Imported:
    """Read every mask of a folder.

    Raises:
        BadInput: a mask belongs to no image, or twice to one; it is no mask, has another size than
            its image, or values or a palette that mean nothing; or a file that is passed over has
            the name of a mask that is missing. All faults are named.
    """
    listing, masks = list_files(image_folder), list_files(mask_folder, SUFFIXES)
    by_stem = _by_stem(image_folder, listing.names)
    rows: list[Row] = []
    found: dict[Target, str] = {}
    palette: dict[int, mask_file.Colour] = {}
    with Faults(str(mask_folder)) as faults:
        for target, file in _match(masks.names, by_stem, classes, found, faults):
            try:
                rows += _read(image_folder, mask_folder / file, target, classes, palette)
            except BadInput as error:
                faults.add(f"{quote(file)}: {error}")
        _refuse_losses(masks, by_stem, found, faults)
        if not rows and not faults.count:
            faults.add("expected at least one mask that shows a defect, but found none")
    return Imported(sorted(rows), listing, masks)


def _run(arguments: Namespace) -> Iterator[str]:
    dataset = arguments.dataset or arguments.images.resolve().parent
    labels = dataset / "train.csv"
    if labels.exists() and not arguments.force:
        raise BadInput(f"{labels}: is there already; --force replaces it")
    imported = read_masks(arguments.images, arguments.masks, arguments.classes)
    write_text(labels, label_csv.to_text(imported.rows))
    shown = len({row.image for row in imported.rows})
    clean = len(imported.images.names) - shown
    yield f"{arguments.images}: {imported.images.describe('images')}"
    yield f"{arguments.masks}: {imported.masks.describe()}"
    yield f"{labels}: {len(imported.rows)} masks of {shown} images; {clean} images are clean"
    yield _write_sample(dataset, arguments.classes)


def _write_sample(dataset: Path, classes: Sequence[int]) -> str:
    sample, tests = dataset / "sample_submission.csv", dataset / "test_images"
    if sample.exists():
        return f"{sample}: is there already, and is left as it is"
    if not tests.is_dir():
        return f"{sample}: not written, since {tests} is not there; the pipeline needs both"
    listing = list_files(tests)
    rows = [Row(name, c, PLACEHOLDER) for name in listing.names for c in classes]
    write_text(sample, label_csv.to_text(rows))
    return f"{sample}: classes {_join(classes)}; {tests}: {listing.describe('images')}"


def _class_ids(text: str) -> list[int]:
    words = text.split(",")
    if not all(w.isdecimal() and 1 <= int(w) <= mask_file.MAX_CLASS for w in words):
        raise ArgumentTypeError(
            f"expected ids from 1 to {mask_file.MAX_CLASS} such as 1,2,3, got {text!r}"
        )
    return sorted(set(map(int, words)))


def _join(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes))


def _by_stem(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the images by the key of their name before `.`, which their masks begin with."""
    by_stem: dict[str, str] = {}
    with Faults(str(folder)) as faults:
        for name in names:
            try:
                check_image_name(name)
            except BadInput as error:
                faults.add(str(error))
            other = by_stem.setdefault(name_key(Path(name).stem), name)
            if other != name:
                faults.add(
                    f"{quote(name)} and {quote(other)}: expected names that differ before `.`"
                )
    return by_stem


def _targets(file: str, by_stem: Mapping[str, str]) -> list[Target]:
    """Return what a file of this name can be the mask of."""
    stem = name_key(posixpath.splitext(posixpath.basename(file))[0])
    image, _, class_text = stem.rpartition("_")
    targets = [Target(by_stem[stem], None)] if stem in by_stem else []
    if image in by_stem and class_text.isdecimal():
        targets.append(Target(by_stem[image], int(class_text)))
    return targets


def _match(
    files: Sequence[str],
    by_stem: Mapping[str, str],
    classes: Sequence[int],
    found: dict[Target, str],
    faults: Faults,
) -> Iterator[tuple[Target, str]]:
    """Yield each mask and its file, add them to `found`, and note those that belong nowhere."""
    for file in files:
        targets = _targets(file, by_stem)
        if len(targets) > 1:
            owners = " or ".join(quote(target.image) for target in targets)
            faults.add(f"{quote(file)}: may belong to {owners}")
        elif not targets:
            faults.add(
                f"{quote(file)}: no such image as `<image>.png` or `<image>_<class>.png` name"
            )
        elif targets[0].class_id not in {None, *classes}:
            faults.add(
                f"{quote(file)}: class '{targets[0].class_id}' is none of --classes "
                f"{_join(classes)}"
            )
        elif other := found.get(targets[0]) or found.get(Target(targets[0].image, None)):
            faults.add(f"{quote(file)}: {quote(other)} has the classes of that image already")
        else:
            found[targets[0]] = file
            yield targets[0], file


def _refuse_losses(
    masks: Listing, by_stem: Mapping[str, str], found: Mapping[Target, str], faults: Faults
) -> None:
    """Note files that are passed over, but named like a mask that nothing else stands for."""
    masked = {target.image for target in found}
    for file, reason in masks.passed_over.items():
        for target in _targets(file, by_stem):
            is_there = target.image in masked if target.class_id is None else target in found
            if reason != HIDDEN and not is_there and Target(target.image, None) not in found:
                faults.add(
                    f"{quote(file)}: may be the mask of {quote(target.image)}; expected a PNG, "
                    "BMP, TIFF or GIF in the folder of masks itself"
                )


def _read(
    folder: Path,
    mask: Path,
    target: Target,
    classes: Sequence[int],
    palette: dict[int, mask_file.Colour],
) -> list[Row]:
    try:
        size_hw = images.size_of(images.read_bytes(folder / target.image))
    except BadInput as error:
        raise BadInput(f"its image {target.image} cannot be read: {error}") from error
    if target.class_id is None:
        labels_hw = mask_file.read_labels(mask, size_hw, classes, palette)
        masks = {c: labels_hw == c for c in classes}
    else:
        masks = {target.class_id: mask_file.read_foreground(mask, size_hw)}
    return [Row(target.image, c, rle.encode(m)) for c, m in masks.items() if m.any()]
