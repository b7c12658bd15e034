"""One folder per class, with a mask next to each image, as magnetic tiles are published:

    MT_Blowhole/Imgs/exp1_num_108889.jpg    a tile with a defect of the class `Blowhole`
    MT_Blowhole/Imgs/exp1_num_108889.png    its mask
    MT_Free/Imgs/exp1_num_10181.jpg         clean

Images and masks may also be in folders `images` and `masks` above those of the classes. A prefix
that all folders share is dropped from the class names. One folder must be named as clean.

In masks of magnetic tiles, greys above 127 are the defect, since the masks seem to have been JPEGs.
Each tile was taken under up to six exposures. Names number the exposures and the pictures:
`exp1_num_262480` to `exp6_num_262705` are one tile, and one group.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data import images
from steelseg.data.listing import list_below
from steelseg.formats import mask_items, mask_storage, meaning
from steelseg.formats.mask_items import Item
from steelseg.formats.mask_names import image_keys, key_of, split, targets
from steelseg.formats.record import Options, Record, Source

SUFFIXES = mask_storage.SUFFIXES | images.SUFFIXES
CLEAN = re.compile(r"(^|[_ -])(free|good|ok|normal|clean|no_?defects?)$", re.I)
TILE = re.compile(r"exp(?P<exposure>\d+)_num_(?P<number>\d+)")
TILE_THRESHOLD = 127
_EMPTY = "the mask is empty, though the folder names a class: unlabelled"
_LAST_EXPOSURE = 6
_TILE_PICTURES = 300  # largest gap between numbers of a tile's exposures; most are below 120


def recognises(source: Path) -> bool:
    """Whether one folder is named as clean, and others contain images with masks."""
    if not source.is_dir():
        return False
    pictures, masks = _split(list_below(source, SUFFIXES).names)
    return bool(masks) and any(CLEAN.search(_folder(name)) for name in pictures)


def read(source: Path, options: Options) -> Source:
    """Read all folders; see `formats.record`."""
    listing = list_below(source, SUFFIXES)
    pictures, masks = _split(listing.names)
    folders = sorted(set(map(_folder, pictures)))
    starts = {folder[: folder.find("_") + 1] for folder in folders}
    start = starts.pop() if len(starts) == 1 and len(folders) > 1 else ""
    labels = {f: "" if CLEAN.search(f) else f.removeprefix(start) for f in folders}
    names = tuple(name for name in labels.values() if name)
    classes = meaning.from_options(options._replace(classes=options.classes or names))
    if classes is None:
        raise BadInput(f"{source}: expected one folder per class, but found none")
    if unknown := [name for name in names if name not in classes.classes]:
        raise BadInput(f"{source}: the folder of {quote(unknown[0])} is not in --classes")
    tiles = find_tiles(pictures)
    threshold = TILE_THRESHOLD if tiles and options.threshold is None else options.threshold
    faults = Faults(str(source))
    items = _items(source, pictures, masks, labels, tiles, faults)
    left_out = {name: reason.replace("_", " ") for name, reason in listing.passed_over.items()}
    records = _doubt_empty(
        mask_items.read(items, classes, threshold, source, faults), labels, left_out
    )
    return Source(classes.classes, records, left_out, ids=classes.ids)


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the files in class folders into images and masks."""
    return split([name for name in names if "/" in key_of(name)])


def _folder(name: str) -> str:
    """Return the folder of the class."""
    return key_of(name).split("/")[0]


def find_tiles(names: Sequence[str]) -> dict[str, str]:
    """Return the tile of each image; empty if the names are not those of magnetic tiles.

    A tile begins with exposure 0 or 1, after the last exposure of the previous tile or after many
    other pictures. Tiles that were taken alternately, or lack exposures, are one group.
    """
    found = {name: TILE.fullmatch(Path(name).stem) for name in names}
    parts = {n: (int(m["number"]), int(m["exposure"])) for n, m in found.items() if m}
    if len(parts) < len(names):
        return {}
    tiles: dict[str, str] = {}
    tile, last_number, last_exposure = "", 0, _LAST_EXPOSURE
    for name, (number, exposure) in sorted(parts.items(), key=lambda item: item[1]):
        is_apart = last_exposure == _LAST_EXPOSURE or number - last_number > _TILE_PICTURES
        if (exposure <= 1 and is_apart) or not tile:
            tile = f"tile {number}"
        tiles[name] = tile
        last_number, last_exposure = number, exposure
    return tiles


def _doubt_empty(
    records: Iterator[Record], labels: dict[str, str], left_out: dict[str, str]
) -> Iterator[Record]:
    """Treat an image with an empty mask in the folder of a defect as unlabelled."""
    for record in records:
        is_empty = labels[_folder(record.name)] and not record.masks
        if is_empty and record.labelled:
            left_out[record.name] = _EMPTY
        yield record._replace(labelled=record.labelled and not is_empty)


def _items(
    source: Path,
    pictures: Sequence[str],
    masks: Sequence[str],
    labels: dict[str, str],
    tiles: dict[str, str],
    faults: Faults,
) -> Iterator[Item]:
    keys = image_keys(pictures)
    own: dict[str, dict[Path, str | None]] = {}
    for mask in masks:
        possible = targets(mask, keys)
        exact = [target for target in possible if target.label is None]
        owners = {target.image for target in exact or possible}
        if len(owners) != 1:
            faults.add(f"{quote(mask)}: expected the name of one image, but got {len(owners)}")
            continue
        (image,) = owners
        if image in own:
            faults.add(f"{quote(mask)}: {quote(image)} has another mask")
        own.setdefault(image, {})[source / mask] = labels[_folder(image)]
    for name in pictures:
        label = labels[_folder(name)]
        is_labelled = not label or name in own
        yield Item(source / name, name, own.get(name, {}), is_labelled, tiles.get(name))
