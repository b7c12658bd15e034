"""MVTec AD as published: one category, such as `metal_nut`.

    train/good/000.png                   clean
    test/good/000.png                    clean
    test/scratch/000.png                 defects of the class `scratch`
    ground_truth/scratch/000_mask.png    and their masks

All images are used for training, since only those in `test` have defects.
"""

from collections.abc import Iterator
from pathlib import Path

from steelseg.core.errors import BadInput, Faults
from steelseg.data.listing import list_below
from steelseg.formats import mask_items, meaning
from steelseg.formats.mask_items import Item
from steelseg.formats.record import Options, Source

GOOD, MASKS = "good", "ground_truth"


def recognises(source: Path) -> bool:
    """Whether there are clean images, and masks in a separate folder."""
    return (source / "train" / GOOD).is_dir() and (source / MASKS).is_dir()


def read(source: Path, options: Options) -> Source:
    """Read one category; see `formats.record`."""
    masks = list_below(source / MASKS)
    found = sorted({name.split("/")[0] for name in masks.names})
    given = meaning.from_options(options)
    classes = given or meaning.named(found)
    if unknown := [name for name in found if name not in classes.classes]:
        raise BadInput(f"{source / MASKS / unknown[0]}: is not in --classes")
    faults = Faults(str(source))
    pictures = [
        f"{part}/{name}" for part in ("test", "train") for name in list_below(source / part).names
    ]
    items = _items(source, pictures, set(masks.names), faults)
    records = mask_items.read(items, classes, options.threshold, source, faults)
    return Source(classes.classes, records, dict(masks.passed_over), ids=classes.ids)


def _items(source: Path, pictures: list[str], masks: set[str], faults: Faults) -> Iterator[Item]:
    for name in pictures:
        part, defect, *_ = name.split("/")
        mask = f"{name.removeprefix(f'{part}/').rpartition('.')[0]}_mask.png"
        own: dict[Path, str | None] = {}
        if part == "test" and mask in masks:
            masks.remove(mask)
            own[source / MASKS / mask] = defect
        yield Item(source / name, name, own, labelled=bool(own) or defect == GOOD)
    for mask in sorted(masks):
        faults.add(f"{source / MASKS / mask}: no image of this name in {source / 'test'}")
