"""Which file is the mask of which image, and of which class, by names alone.

A mask has the name of its image, or that with its suffix, and around it any of these:

    masks/plate7.png, plate7_mask.png, plate7_GT.png    a folder for masks, a suffix for masks
    plate7_2.png, plate7_scratch.png                    the class at the end of the name
    scratch/plate7.png                                  the class as a folder
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.listing import check_image_name, name_key
from steelseg.formats.mask_file import SUFFIXES

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "train_images"})
MASK_FOLDERS = frozenset(
    {"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth"}
    | {"groundtruth", "segmentation", "segmentations", "segmentationclass"}
)
_MASK_SUFFIX = re.compile(r"[_.-](mask|gt|label|labels|seg|segmentation|ground_?truth)$", re.I)
_LOSSY = frozenset({".jpg", ".jpeg"})


class Target(NamedTuple):
    """What a mask's name says: its image, and the class, or None where its pixels say it."""

    image: str
    label: str | None


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the images of one folder from their masks.

    Masks are what lies in a folder for masks, or has a suffix for masks beside its image. Where
    there is neither, of two files that differ in their suffix only the JPEG is the image.
    """
    stems = {_stem(name) for name in names}
    masks = {n for n in names if _is_in(n, MASK_FOLDERS) or stems & _owners(_bare(_stem(n)))}
    if not masks:
        lossy = {_stem(name) for name in names if _suffix(name) in _LOSSY}
        masks = {n for n in names if _suffix(n) in SUFFIXES and lossy & _owners(_stem(n))}
    return [name for name in names if name not in masks], sorted(masks)


def without_masks(names: Sequence[str]) -> list[str]:
    """Return the images of a folder in which masks may lie too."""
    return split(names)[0]


def image_keys(images: Sequence[str], where: str) -> dict[str, str]:
    """Return the images by what their masks are named after, with and without suffix.

    Raises:
        BadInput: two images would have the same mask, or a name that cannot stand in a csv.
    """
    keys: dict[str, str] = {}
    with Faults(where) as faults:
        for name in images:
            try:
                for step in name.split("/"):
                    check_image_name(step)
            except BadInput as error:
                faults.add(str(error))
            other = keys.setdefault(_key(_stem(name)), name)
            if other != name:
                faults.add(
                    f"{quote(name)} and {quote(other)}: expected names that differ before `.`"
                )
    return {_key(name): name for name in images} | keys


def targets(mask: str, keys: Mapping[str, str]) -> list[Target]:
    """Return what a file of this name can be the mask of.

    Args:
        mask: its path in the source.
        keys: see `image_keys`.
    """
    stem = _key(_stem(mask))
    return list(dict.fromkeys(_targets(stem, keys)))


def match(
    masks: Sequence[str],
    keys: Mapping[str, str],
    labels: Collection[str],
    found: dict[Target, str],
    faults: Faults,
) -> Iterator[tuple[Target, str]]:
    """Yield each mask and its file, add them to `found`, and note those that belong nowhere.

    Args:
        masks: their paths in the source.
        keys: see `image_keys`.
        labels: what a class can be called in a name; if there are none, every word is a class.
        found: of which masks the files were seen.
        faults: where to note those that belong to no image, or to several.
    """
    for file in masks:
        possible = targets(file, keys)
        likely = [t for t in possible if not labels or t.label in {None, *labels}] or possible
        if len(likely) > 1:
            owners = " or ".join(quote(target.image) for target in likely)
            faults.add(f"{quote(file)}: may belong to {owners}")
        elif not likely:
            faults.add(
                f"{quote(file)}: no such image as `<image>.png` or `<image>_<class>.png` name"
            )
        elif labels and likely[0].label not in {None, *labels}:
            faults.add(
                f"{quote(file)}: no such image, or class {likely[0].label!r} is none of --classes "
                f"{', '.join(labels)}"
            )
        elif other := found.get(likely[0]) or found.get(Target(likely[0].image, None)):
            faults.add(f"{quote(file)}: {quote(other)} has the classes of that image already")
        else:
            found[likely[0]] = file
            yield likely[0], file


def _targets(stem: str, keys: Mapping[str, str]) -> Iterator[Target]:
    for whole in dict.fromkeys((stem, _bare(stem))):
        if whole is None:
            continue
        if whole in keys:
            yield Target(keys[whole], None)
        *folders, name = whole.split("/")
        for at, sign in enumerate(name):
            image = "/".join([*folders, name[:at]])
            if sign in "_-" and image in keys and name[at + 1 :]:
                yield Target(keys[image], name[at + 1 :])
        for i, folder in enumerate(folders):
            image = "/".join([*folders[:i], *folders[i + 1 :], name])
            if image in keys:
                yield Target(keys[image], folder)


def _key(path: str) -> str:
    """Return a path without the folders that only say that images or masks are in them."""
    *folders, name = name_key(path).split("/")
    kept = [f for f in folders if f.lower() not in IMAGE_FOLDERS | MASK_FOLDERS]
    return "/".join([*kept, name])


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _bare(stem: str) -> str | None:
    """Return a stem without the suffix of masks, or None if it has none."""
    bare = _MASK_SUFFIX.sub("", stem)
    return bare if bare != stem else None


def _owners(stem: str | None) -> set[str]:
    """Return what images of a folder may be called to which a mask of this stem belongs."""
    if stem is None:
        return set()
    start = stem.rfind("/") + 1
    return {stem} | {stem[:at] for at in range(start + 1, len(stem)) if stem[at] in "_-"}


def _is_in(path: str, folders: Collection[str]) -> bool:
    return any(step.lower() in folders for step in path.split("/")[:-1])
