"""Matches masks to images and classes by name.

A mask has the name of its image, with or without suffix, and any of these:

    masks/plate7.png, plate7_mask.png, plate7_GT.png    a mask folder, a mask suffix
    plate7_2.png, plate7_scratch.png                    the class at the end of the name
    scratch/plate7.png                                  the class as a folder
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from steelseg.core.errors import Faults, quote
from steelseg.data.listing import name_key
from steelseg.formats.mask_storage import SUFFIXES
from steelseg.formats.meaning import IGNORED

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "train_images"})
MASK_FOLDERS = frozenset(
    {"masks", "mask", "msk", "labels", "label", "annotations", "annotation", "gt", "ground_truth"}
    | {"groundtruth", "segmentation", "segmentations", "segmentationclass"}
)
_MASK_SUFFIX = re.compile(r"[_.-](mask|gt|label|labels|seg|segmentation|ground_?truth)$", re.I)
_LOSSY = frozenset({".jpg", ".jpeg"})


class Target(NamedTuple):
    """The image and class in a mask's name; the class is None if the pixels have it."""

    image: str
    label: str | None


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the files of one folder into images and masks.

    Masks are the files in mask folders; if there are none, files with a mask suffix next to their
    image; else, of two files that differ only in their suffix, the one that is not a JPEG.
    """
    masks = {name for name in names if _kind(name) in MASK_FOLDERS}
    if not masks:
        stems = {_stem(name) for name in names}
        masks = {n for n in names if stems & _owners(_bare(_stem(n)))}
    if not masks:
        lossy = {_stem(name) for name in names if _suffix(name) in _LOSSY}
        masks = {n for n in names if _suffix(n) in SUFFIXES and lossy & _owners(_stem(n))}
    return [name for name in names if name not in masks], sorted(masks)


def without_masks(names: Sequence[str]) -> list[str]:
    """Return the images of a folder that may also contain masks."""
    return split(names)[0]


def image_keys(images: Sequence[str]) -> dict[str, list[str]]:
    """Return the images by the names that their masks may have, with and without suffix."""
    keys: dict[str, list[str]] = {}
    for name in images:
        for key in (key_of(_stem(name)), key_of(name)):
            keys.setdefault(key, []).append(name)
    return keys


def targets(mask: str, keys: Mapping[str, list[str]]) -> list[Target]:
    """Return the images and classes that a file of this name can be a mask of.

    Args:
        mask: its path in the source.
        keys: see `image_keys`.
    """
    named = _targets(key_of(_stem(mask)), keys)
    return list(dict.fromkeys(Target(image, label) for key, label in named for image in keys[key]))


def match(
    masks: Sequence[str],
    keys: Mapping[str, list[str]],
    labels: Mapping[str, str],
    found: dict[Target, str],
    faults: Faults,
) -> Iterator[tuple[Target, str]]:
    """Yield each mask and its file, and add the files to `found`, or to the faults.

    Args:
        masks: their paths in the source.
        keys: see `image_keys`.
        labels: the class by its possible words in a name; empty: every word is a class.
        found: filled with the files of each mask.
        faults: filled with files that match no image, or several.
    """
    known = {name: word for word, name in labels.items() if name != IGNORED}.values()
    possible_of = {file: targets(file, keys) for file in masks}
    whole = {t.image for possible in possible_of.values() for t in possible if t.label is None}
    for file, possible in possible_of.items():
        likely = [t for t in possible if not labels or t.label in {None, *labels}] or possible
        if len(likely) > 1:  # `a_2.png` shows no class of `a` if that has `a.png`
            likely = [t for t in likely if t.label is None or t.image not in whole]
        if len(likely) > 1:
            owners = " or ".join(quote(target.image) for target in likely)
            faults.add(
                f"{quote(file)}: may belong to {owners}; expected names that differ before `.`"
            )
        elif not likely:
            faults.add(
                f"{quote(file)}: no such image, as in `<image>.png` or `<image>_<class>.png`"
            )
        elif labels and likely[0].label not in {None, *labels}:
            faults.add(
                f"{quote(file)}: no such image, or class {likely[0].label!r} is not in --classes "
                f"{', '.join(known)}"
            )
        elif other := found.get(likely[0]) or found.get(Target(likely[0].image, None)):
            faults.add(f"{quote(file)}: {quote(other)} already has the classes of that image")
        else:
            found[likely[0]] = file
            yield likely[0], file


def _targets(stem: str, keys: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the image keys in a mask's name, each with the class in the rest of the name."""
    for whole in dict.fromkeys((stem, _bare(stem))):
        if whole is None:
            continue
        if whole in keys:
            yield whole, None
        *folders, name = whole.split("/")
        for at, sign in enumerate(name):
            image = "/".join([*folders, name[:at]])
            if sign in "_-" and image in keys and name[at + 1 :] and not _is_suffix(name[at:]):
                yield image, name[at + 1 :]
        for i, folder in enumerate(folders):
            image = "/".join([*folders[:i], *folders[i + 1 :], name])
            if image in keys:
                yield image, folder


def key_of(path: str) -> str:
    """Return a path without a folder that is merely named `images`, `masks` or the like."""
    steps = name_key(path).split("/")
    kind = _kind(path)
    at = next((i for i, step in enumerate(steps[:-1]) if step.lower() == kind), len(steps))
    return "/".join([*steps[:at], *steps[at + 1 :]])


def _kind(path: str) -> str | None:
    """Return the first folder of a path that is named for images or masks, if any."""
    folders = map(str.lower, path.split("/")[:-1])
    return next((f for f in folders if f in IMAGE_FOLDERS | MASK_FOLDERS), None)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _bare(stem: str) -> str | None:
    """Return a stem without its mask suffix, or None if it has none."""
    bare = _MASK_SUFFIX.sub("", stem)
    return bare if bare != stem else None


def _is_suffix(text: str) -> bool:
    return _MASK_SUFFIX.fullmatch(text) is not None


def _owners(stem: str | None) -> set[str]:
    """Return the possible names of the images of a mask with this stem."""
    if stem is None:
        return set()
    start = stem.rfind("/") + 1
    return {stem} | {stem[:at] for at in range(start + 1, len(stem)) if stem[at] in "_-"}
