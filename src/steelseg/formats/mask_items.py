"""Images and the files of their masks, read into records."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.formats import mask_file, meaning
from steelseg.formats.files import size_of
from steelseg.formats.mask_storage import Colour
from steelseg.formats.meaning import IGNORED, Meaning
from steelseg.formats.record import Record


class Item(NamedTuple):
    """An image and its masks: each file, and its class, or None where its pixels say it.

    The class of a mask that must show nothing is "", that of regions nobody knows is `IGNORED`.
    """

    path: Path
    name: str
    masks: Mapping[Path, str | None]
    labelled: bool
    group: str | None = None


def read(
    items: Iterable[Item], classes: Meaning, threshold: int | None, root: Path, faults: Faults
) -> Iterator[Record]:
    """Read the masks of every image; what is wrong with one is added to the faults.

    Args:
        items: one for each image.
        classes: what masks mean that have no class in their name.
        threshold: see `Options`.
        root: the folder that masks are named from in messages.
        faults: of files, those of the masks among them.

    Raises:
        BadInput: at the end, if there are any faults.
    """
    palette: dict[int, Colour] = {}
    with faults:
        for item in items:
            try:
                size_hw = size_of(item.path)
            except BadInput as error:
                faults.add(f"its image cannot be read: {error}" if item.masks else str(error))
                continue
            masks: dict[str, Uint8] = {}
            ignored = None
            for path, given in item.masks.items():
                label = classes.classes[0] if given is None and classes.is_binary else given
                try:
                    if label is None:
                        painted = meaning.paint(path, size_hw, classes, palette)
                        masks |= painted.masks
                        ignored = painted.ignored
                    else:
                        masks[label] = mask_file.read_foreground(path, size_hw, threshold)
                except BadInput as error:
                    faults.add(f"{quote(path.relative_to(root).as_posix())}: {error}")
            if "" in masks and masks.pop("").any():
                faults.add(f"{item.path}: has a mask, but its folder says that it is clean")
            ignored = masks.pop(IGNORED, ignored)
            masks = {name: mask for name, mask in masks.items() if mask.any()}
            yield Record(item.path, item.name, size_hw, masks, ignored, item.labelled, item.group)
