"""Masks as image files, next to their images or in a separate folder.

`mask_names` defines the names of masks, `meaning` the meaning of their pixels. An image without a
mask is unlabelled. A mask without an image is an error, as is one that cannot be read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from steelseg.core.arrays import Uint8, Uint16
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_text
from steelseg.data import images, optional_files
from steelseg.data.listing import HIDDEN, list_below
from steelseg.formats import mask_items, mask_storage, meaning
from steelseg.formats.files import place
from steelseg.formats.mask_items import Item
from steelseg.formats.mask_names import (
    IMAGE_FOLDERS,
    Target,
    image_keys,
    match,
    split,
    targets,
)
from steelseg.formats.meaning import IGNORED, Meaning
from steelseg.formats.record import NOTHING, Options, Record, Source
from steelseg.formats.tally import overlap

SUFFIXES = mask_storage.SUFFIXES | images.SUFFIXES  # JPEG masks are refused, naming the file


def recognises(source: Path) -> bool:
    """Whether a folder contains images and masks named after them."""
    if not source.is_dir():
        return False
    pictures, masks = split(list_below(source, SUFFIXES).names)
    if not pictures or not masks:
        return False
    keys = image_keys(pictures)
    return any(targets(mask, keys) for mask in masks)


def read(source: Path, options: Options) -> Source:
    """Read images and masks; see `formats.record`."""
    listing = list_below(source, SUFFIXES)
    left_out = {name: reason.replace("_", " ") for name, reason in listing.passed_over.items()}
    if options.images is None:
        folder, (pictures, masks) = source, split(listing.names)
    else:
        folder, masks = options.images, listing.names
        others = list_below(folder)
        pictures = others.names
        left_out |= {n: reason.replace("_", " ") for n, reason in others.passed_over.items()}
    left_out.pop(optional_files.CLASSES, None)
    faults = Faults(str(source))
    given, colors = _given(source, options)
    keys = image_keys(pictures)
    found: dict[Target, str] = {}
    matched = list(match(masks, keys, given.labels() if given else {}, found, faults))
    _refuse_losses(listing.passed_over, keys, found, given, faults)
    if not matched:
        faults.raise_if_any()
        raise BadInput(f"{source}: expected masks named after images, but found none")
    classes = given or _infer(source, matched, options)
    items = _items(folder, source, pictures, matched, classes)
    records = mask_items.read(items, classes, options.threshold, source, faults)
    return Source(classes.classes, records, left_out, colors, classes.ids)


def write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None:
    """Write images, a label image for each labelled one, and the names of the classes.

    A label image has class ids as grey values, and the highest value for ignored pixels; it has 16
    bits if 8 are too few. If classes overlap, there is one file per class. Mask names contain the
    whole name of their image, since two images may differ only in their suffix.
    """
    ids = {info.name: info.id for info in classes}
    for record in records:
        place(record.path, folder / "images" / record.name)
        if record.labelled:
            path = folder / "masks" / f"{record.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            for label, values_hw in _files(record, ids):
                Image.fromarray(values_hw).save(path.with_stem(path.stem + label))
    write_text(folder / optional_files.CLASSES, optional_files.classes_text(classes))


def _files(record: Record, ids: Mapping[str, int]) -> Iterator[tuple[str, Uint8 | Uint16]]:
    """Yield the masks to write for an image: the end of the name, and the pixel values."""
    if overlap(record.masks):
        for name, mask in record.masks.items():
            yield f"_{ids[name]}", (mask > 0).astype(np.uint8) * 255
        if record.ignored is not None:
            yield f"_{IGNORED}", (record.ignored > 0).astype(np.uint8) * 255
        return
    kind = np.uint8 if max(ids.values()) < np.iinfo(np.uint8).max else np.uint16
    labels_hw = np.zeros(record.size_hw, kind)
    for name, mask in record.masks.items():
        labels_hw[mask > 0] = ids[name]
    if record.ignored is not None:
        labels_hw[record.ignored > 0] = np.iinfo(kind).max
    yield "", labels_hw


def _given(source: Path, options: Options) -> tuple[Meaning | None, Mapping[str, str]]:
    """Return the classes given by options or by classes.csv of the source, and their colours."""
    given = meaning.from_options(options)
    if given is None and (path := source / optional_files.CLASSES).is_file():
        classes = optional_files.read_classes(path)
        return meaning.from_classes(classes), {info.name: info.color for info in classes}
    return given, NOTHING


def _infer(source: Path, matched: Sequence[tuple[Target, str]], options: Options) -> Meaning:
    """Infer the classes from names or pixels."""
    words = {target.label for target, _ in matched if target.label is not None}
    words -= {IGNORED, *options.ignore}
    plain = [source / file for target, file in matched if target.label is None]
    if words and plain:
        raise BadInput(
            f"{source}: some masks have a class in their name ({quote(sorted(words)[0])}), others "
            f"have none ({quote(plain[0].name)}); name all classes with --classes"
        )
    known = meaning.named(words) if words else meaning.survey(plain, options, source)
    return known._replace(ignored=options.ignore | {IGNORED})


def _items(
    folder: Path,
    source: Path,
    pictures: Sequence[str],
    matched: Sequence[tuple[Target, str]],
    classes: Meaning,
) -> Iterator[Item]:
    labels = classes.labels()
    masks: dict[str, dict[Path, str | None]] = {}
    for target, file in matched:
        label = None if target.label is None else labels[target.label]
        masks.setdefault(target.image, {})[source / file] = label
    start = _common_folder(pictures)
    for name in pictures:
        own = masks.get(name, {})
        yield Item(folder / name, name.removeprefix(start), own, labelled=bool(own))


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all images are in, if it is merely named for images."""
    first = names[0].split("/")[0]
    is_common = first.lower() in IMAGE_FOLDERS and all(n.startswith(f"{first}/") for n in names)
    return f"{first}/" if is_common else ""


def _refuse_losses(
    passed_over: Mapping[str, str],
    keys: Mapping[str, list[str]],
    found: Mapping[Target, str],
    given: Meaning | None,
    faults: Faults,
) -> None:
    """Add skipped files to the faults that are named like a mask nothing else provides."""
    masked = {target.image for target in found}
    for file, reason in passed_over.items():
        for target in targets(file, keys):
            known = given is None or target.label in {None, *given.labels()}
            is_there = target.image in masked if target.label is None else target in found
            whole = Target(target.image, None) in found
            if reason != HIDDEN and known and not is_there and not whole:
                faults.add(
                    f"{quote(file)}: may be the mask of {quote(target.image)}; expected a PNG, "
                    "BMP, TIFF or GIF"
                )
