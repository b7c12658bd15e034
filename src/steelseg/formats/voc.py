"""Pascal VOC: images in JPEGImages, label images of the same name in SegmentationClass.

`labelmap.txt` of CVAT and datumaro lists the colour of each class, `class_names.txt` of labelme its
value; without either, the values found are the classes. 255 is void: ignored. ImageSets are not
used, since the pipeline makes its own folds.
"""

from collections.abc import Iterator
from pathlib import Path

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.listing import list_below, name_key
from steelseg.formats import mask_items, mask_storage, meaning
from steelseg.formats.documents import read_text
from steelseg.formats.mask_items import Item
from steelseg.formats.meaning import BACKGROUND, Meaning
from steelseg.formats.record import Options, Source

IMAGES = "JPEGImages"
MASKS = ("SegmentationClass", "SegmentationClassPNG")  # the second is labelme's
VOID, VOID_COLOUR = 255, 0xE0E0C0
_UNUSED = "not used: only images and masks of classes are"


def recognises(source: Path) -> bool:
    """Whether there is a folder of class masks."""
    return any((source / folder).is_dir() for folder in MASKS)


def read(source: Path, options: Options) -> Source:
    """Read images and masks; see `formats.record`."""
    folder = options.images or source / IMAGES
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; name the folder of images with --images")
    pictures = list_below(folder)
    masks = _mask_files(source)
    if not masks:
        raise BadInput(f"{source}: expected masks in the folder {MASKS[0]}, but found none")
    left_out = dict(pictures.passed_over)
    used = {IMAGES, *MASKS, "labelmap.txt", "class_names.txt"}
    left_out |= {p.name: _UNUSED for p in sorted(source.iterdir()) if p.name not in used}
    classes, colors = _classes(source, list(masks.values()), options)
    faults = Faults(str(source))
    items = _items(folder, pictures.names, masks, faults)
    records = mask_items.read(items, classes, None, source, faults)
    return Source(classes.classes, records, left_out, colors, classes.ids)


def _mask_files(source: Path) -> dict[str, Path]:
    """Return the masks by the stems of their images."""
    found: dict[str, Path] = {}
    for name in MASKS:
        if (source / name).is_dir():
            for path in list_below(source / name, mask_storage.SUFFIXES).names:
                found[_stem(path)] = source / name / path
    return found


def _items(
    folder: Path, names: list[str], masks: dict[str, Path], faults: Faults
) -> Iterator[Item]:
    for name in names:
        mask = masks.pop(_stem(name), None)
        yield Item(folder / name, name, {} if mask is None else {mask: None}, mask is not None)
    for path in masks.values():
        faults.add(f"{path}: no image of this name in {folder}")


def _classes(source: Path, masks: list[Path], options: Options) -> tuple[Meaning, dict[str, str]]:
    """Return the meaning of masks, and the colours of classes if the source has them."""
    if not options.legend and (path := source / "labelmap.txt").is_file():
        legend = _read_labelmap(path)
        colors = {name: color for color, name in legend.items() if name not in BACKGROUND}
        known = meaning.from_options(options._replace(legend=legend))
        if known is None:
            raise BadInput(f"{path}: expected the name of a class, but there is none")
        return _with_void(known), colors
    if given := meaning.from_options(options):
        return _with_void(given), {}
    if (path := source / "class_names.txt").is_file():
        lines = map(str.strip, read_text(path).splitlines())
        names = tuple(n for n in lines if n and n not in {"__ignore__", *BACKGROUND})
        known = meaning.from_options(options._replace(classes=names))
        if known is None:
            raise BadInput(f"{path}: expected the name of a class, but there is none")
        return _with_void(known), {}
    without_void = options._replace(ignore=options.ignore | {str(VOID)})
    return _with_void(meaning.survey(masks, without_void, source, may_be_binary=False)), {}


def _with_void(classes: Meaning) -> Meaning:
    """Add VOC's void value 255, unless it has another meaning."""
    if classes.colours:
        return classes._replace(colours={VOID_COLOUR: None} | dict(classes.colours))
    values = {VOID: None} | dict(classes.values)
    return classes._replace(values=values, is_binary=False)


def _read_labelmap(path: Path) -> dict[str, str]:
    """Read lines such as `scratch:255,0,0::` into class names by colour."""
    legend: dict[str, str] = {}
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        levels = rest.split(":")[0].split(",")
        if len(levels) != 3 or not all(v.strip().isdecimal() and int(v) < 256 for v in levels):
            raise BadInput(f"{path}: line {number}: expected `name:r,g,b::`, but got {quote(line)}")
        color = "#" + bytes(map(int, levels)).hex()
        if color in legend:
            raise BadInput(f"{path}: line {number}: {legend[color]!r} also has the colour {color}")
        legend[color] = name
    if not legend:
        raise BadInput(f"{path}: expected one line per class, but there are none")
    return legend


def _stem(name: str) -> str:
    return name_key(name).rpartition(".")[0]
