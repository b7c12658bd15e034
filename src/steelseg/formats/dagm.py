"""DAGM 2007 as published: ten textures, each with its own kind of defect.

    Class1/Train/0576.PNG                a texture; `Test` likewise
    Class1/Train/Label/0576_label.PNG    an ellipse around its defect, if it has one

The folders Class1 to Class10 are the classes. Images without a label are clean.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from steelseg.core.errors import BadInput, Faults
from steelseg.data.listing import list_below
from steelseg.formats import mask_items, meaning
from steelseg.formats.mask_items import Item
from steelseg.formats.record import Options, Source

LABELS = "Label"
_LISTS = "not used: lists of images"


def recognises(source: Path) -> bool:
    """Whether there is a texture folder with labels."""
    return any(source.glob(f"Class*/Tr*/{LABELS}"))


def read(source: Path, options: Options) -> Source:
    """Read all textures; see `formats.record`."""
    textures = sorted(
        (path.name for path in source.glob("Class*") if path.is_dir()),
        key=lambda name: (int(re.sub(r"\D", "", name) or 0), name),
    )
    if not textures:
        raise BadInput(f"{source}: expected folders Class1, Class2, ..., but found none")
    classes = meaning.from_options(options._replace(classes=options.classes or tuple(textures)))
    assert classes is not None
    if unknown := [name for name in textures if name not in classes.classes]:
        raise BadInput(f"{source / unknown[0]}: is not in --classes")
    listing = list_below(source)
    left_out = {
        name: _LISTS if Path(name).suffix.lower() == ".txt" else reason.replace("_", " ")
        for name, reason in listing.passed_over.items()
    }
    faults = Faults(str(source))
    names = [name for name in listing.names if name.split("/")[0] in textures]
    items = _items(source, names, faults)
    records = mask_items.read(items, classes, options.threshold, source, faults)
    return Source(classes.classes, records, left_out, ids=classes.ids)


def _items(source: Path, names: list[str], faults: Faults) -> Iterator[Item]:
    masks = {name for name in names if Path(name).parent.name == LABELS}
    lonely = set(masks)
    for name in names:
        if name in masks:
            continue
        path = Path(name)
        label = (path.parent / LABELS / f"{path.stem}_label{path.suffix}").as_posix()
        own: dict[Path, str | None] = {source / label: path.parts[0]} if label in masks else {}
        lonely.discard(label)
        yield Item(source / name, name, own, labelled=True)
    for mask in sorted(lonely):
        faults.add(f"{source / mask}: no image of this name in the parent folder")
