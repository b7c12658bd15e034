"""Masks as PNG files, turned into the csv files of a data set.

For the image `plate7.jpg`, the folder of masks holds either of these, in the size of the image:

    plate7.png      the class of every pixel as its grey value (or palette index), 0 for none
    plate7_2.png    where the image shows class 2: 0 elsewhere, and 1 or 255 there

An image without a mask is clean. A mask without an image is a fault, as is any other grey value.
"""

import csv
import io
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.core.files import write_text
from steelseg.data import rle
from steelseg.data.images import FORMATS, MAX_PIXELS, list_images
from steelseg.data.label_csv import CLASS, IMAGE, PIXELS, check_image_name

Mask = npt.NDArray[np.uint8]
PLACEHOLDER = "1 1"
_MODES = ("1", "L", "P")
_MAX_CLASS = 255


class MaskFile(NamedTuple):
    """A mask and the image it belongs to; `class_id` is None where grey values are classes."""

    path: Path
    image: str
    class_id: int | None


class Pair(NamedTuple):
    """A class that an image shows, and where, as RLE."""

    image: str
    class_id: int
    rle: str


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `import-masks` to a parser and return what runs it."""
    parser.description = (
        "Turn a folder of mask images (PNG) into the train.csv of a data set, and write its "
        "sample_submission.csv if there is none. For plate7.jpg, the masks are plate7.png, with "
        "class ids as grey values (0 for none), or plate7_2.png, black and white, for class 2. "
        "An image without a mask is clean."
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


def read_pairs(images: Path, masks: Path, classes: Sequence[int]) -> list[Pair]:
    """Read every mask of a folder, as (image, class) pairs sorted by image and class.

    Raises:
        BadInput: a mask belongs to no image, or twice to one; it is no PNG, has another size than
            its image, has colours, or grey values that mean nothing. All faults are named.
    """
    names = list_images(images)
    with Faults(str(images)) as faults:
        _check_names(names, faults)
    pairs: list[Pair] = []
    seen: set[tuple[str, int | None]] = set()
    with Faults(str(masks)) as faults:
        for mask in _match(masks, names, classes, faults):
            if (mask.image, mask.class_id) in seen:
                faults.add(f"{quote(mask.path.name)}: {quote(mask.image)} has such a mask already")
                continue
            seen.add((mask.image, mask.class_id))
            try:
                pairs += _pairs(mask, _size_hw(images / mask.image), classes)
            except BadInput as error:
                faults.add(f"{quote(mask.path.name)}: {error}")
        if not pairs and not faults.count:
            faults.add("expected at least one mask that shows a defect, but found none")
    return sorted(pairs)


def write_labels(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as csv in Kaggle's current layout, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([IMAGE, CLASS, PIXELS])
    writer.writerows(pairs)
    write_text(path, text.getvalue())


def _run(arguments: Namespace) -> Iterator[str]:
    dataset = arguments.dataset or arguments.images.resolve().parent
    labels = dataset / "train.csv"
    if labels.exists() and not arguments.force:
        raise BadInput(f"{labels}: is there already; --force replaces it")
    pairs = read_pairs(arguments.images, arguments.masks, arguments.classes)
    write_labels(labels, pairs)
    shown = len({pair.image for pair in pairs})
    clean = len(list_images(arguments.images)) - shown
    yield f"{labels}: {len(pairs)} masks of {shown} images; {clean} images are clean"
    yield _write_sample(dataset, arguments.classes)


def _write_sample(dataset: Path, classes: Sequence[int]) -> str:
    sample, tests = dataset / "sample_submission.csv", dataset / "test_images"
    if sample.exists():
        return f"{sample}: is there already, and is left as it is"
    if not tests.is_dir():
        return f"{sample}: not written, since {tests} is not there; the pipeline needs both"
    names = list_images(tests)
    write_labels(sample, [Pair(name, c, PLACEHOLDER) for name in names for c in classes])
    return f"{sample}: {len(names)} images, classes {_join(classes)}"


def _class_ids(text: str) -> list[int]:
    words = text.split(",")
    if not all(w.isdecimal() and 1 <= int(w) <= _MAX_CLASS for w in words):
        raise ArgumentTypeError(f"expected ids from 1 to {_MAX_CLASS} such as 1,2,3, got {text!r}")
    return sorted(set(map(int, words)))


def _join(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes))


def _check_names(names: Sequence[str], faults: Faults) -> None:
    """Refuse images that a mask's name cannot tell apart."""
    first: dict[str, str] = {}
    for name in names:
        try:
            check_image_name(name)
        except BadInput as error:
            faults.add(str(error))
        other = first.setdefault(Path(name).stem, name)
        if other != name:
            faults.add(f"{quote(name)} and {quote(other)}: expected names that differ before `.`")


def _match(
    folder: Path, names: Sequence[str], classes: Sequence[int], faults: Faults
) -> Iterator[MaskFile]:
    """Yield the masks of a folder with the images that they belong to."""
    by_stem = {Path(name).stem: name for name in names}
    labelled: set[str] = set()
    for file in list_images(folder):
        stem, underscore, class_text = Path(file).stem.rpartition("_")
        of_class = bool(underscore) and stem in by_stem and class_text.isdecimal()
        whole = by_stem.get(Path(file).stem)
        if whole is not None and of_class:
            faults.add(f"{quote(file)}: may belong to {quote(whole)} or {quote(by_stem[stem])}")
        elif whole is not None:
            labelled.add(whole)
            yield MaskFile(folder / file, whole, None)
        elif not of_class:
            faults.add(
                f"{quote(file)}: no such image as `<image>.png` or `<image>_<class>.png` name"
            )
        elif by_stem[stem] in labelled:
            faults.add(
                f"{quote(file)}: {quote(stem + '.png')} has the classes of that image already"
            )
        elif class_text not in map(str, classes):
            known = _join(classes)
            faults.add(f"{quote(file)}: class {quote(class_text)} is none of --classes {known}")
        else:
            yield MaskFile(folder / file, by_stem[stem], int(class_text))


def _pairs(mask: MaskFile, size_hw: tuple[int, int], classes: Sequence[int]) -> list[Pair]:
    grey_hw = _read_mask(mask.path, size_hw)
    values = np.unique(grey_hw).tolist()
    if mask.class_id is None:
        _refuse_values(set(values) - {0, *classes}, f"0 and the classes {_join(classes)}")
        shown = [v for v in values if v]
        return [Pair(mask.image, c, rle.encode(grey_hw == c)) for c in shown]
    legal = {0, 1} if max(values) == 1 else {0, 255}
    _refuse_values(set(values) - legal, "0 and 255, or 0 and 1")
    return [Pair(mask.image, mask.class_id, rle.encode(grey_hw))] if any(values) else []


def _refuse_values(wrong: set[int], expected: str) -> None:
    if wrong:
        shown = ", ".join(map(str, sorted(wrong)[:5])) + (", ..." if len(wrong) > 5 else "")
        raise BadInput(
            f"expected only the grey values {expected}, but got {shown} "
            "(JPEG, and resizing with smoothing, leave values between)"
        )


def _read_mask(path: Path, size_hw: tuple[int, int]) -> Mask:
    """Read the grey values or palette indices of a PNG: (H, W) uint8."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
            if (height, width) != size_hw:
                raise BadInput(
                    f"expected {size_hw[0]}x{size_hw[1]} like its image, but got {height}x{width}"
                )
            if image.mode not in _MODES:
                raise BadInput(f"expected 8-bit grey values or a palette, but got {image.mode}")
            return np.asarray(image).astype(np.uint8)
    except BadInput:
        raise
    except Exception as error:  # decoders raise whatever a corrupt file leads them to
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"cannot be read as PNG: {reason}") from error


def _size_hw(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # as above
        raise BadInput(f"its image {path.name} cannot be read") from error
    if width * height > MAX_PIXELS:
        raise BadInput(f"its image {path.name} has more than {MAX_PIXELS} pixels")
    return height, width
