"""Reads images and their mask files into records."""

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
    """An image and its masks: each file with its class, or None if the pixels have the class.

    The class of a mask that must be empty is "", that of ignored regions is `IGNORED`.
    """

    path: Path
    name: str
    masks: Mapping[Path, str | None]
    labelled: bool
    group: str | None = None


def read(
    items: Iterable[Item], classes: Meaning, threshold: int | None, root: Path, faults: Faults
) -> Iterator[Record]:
    """Read the masks of every image; errors are added to the faults.

    Args:
        items: one per image.
        classes: the meaning of masks without a class in their name.
        threshold: see `Options`.
        root: the folder that mask paths in messages are relative to.
        faults: of all files, including masks.

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
                faults.add(f"{item.path}: has a mask, but is in a folder of clean images")
            ignored = masks.pop(IGNORED, ignored)
            masks = {name: mask for name, mask in masks.items() if mask.any()}
            yield Record(item.path, item.name, size_hw, masks, ignored, item.labelled, item.group)
