"""Builds albumentations transforms from a list of one-entry mappings in params.yaml."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Pixels, Uint8
from steelseg.core.errors import BadInput
from steelseg.core.params import nearest
from steelseg.core.pixels import WHITE

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it accesses the network on import
import albumentations as A

Transforms = Sequence[Mapping[str, Mapping[str, Any]]]


def build_augmentation(transforms: Transforms) -> A.Compose:
    """Build a pipeline from entries such as `{HorizontalFlip: {p: 0.5}}`.

    Raises:
        BadInput: a transform or one of its arguments is unknown or out of range.
    """
    return A.Compose([_build(entry) for entry in transforms])


def augment(
    pipeline: A.Compose, image: Pixels, masks_chw: Uint8, seed: int
) -> tuple[Pixels, Uint8]:
    """Apply a pipeline to an image and its masks; the same seed gives the same result."""
    if not pipeline.transforms:
        return image, masks_chw
    pipeline.set_random_seed(seed)
    result = pipeline(image=to_transforms(image), masks=masks_chw)
    return from_transforms(result["image"], image.dtype), np.asarray(result["masks"])


def to_transforms(image: Pixels) -> npt.NDArray[Any]:
    """Arrange an image for transforms: (H, W), or (H, W, N) for several channels.

    16 bits become float32 from 0 to 1, since most transforms accept only that or uint8.
    """
    last = image if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, 0, -1))
    return last if last.dtype == np.uint8 else last / np.float32(WHITE)


def from_transforms(image: npt.NDArray[Any], dtype: npt.DTypeLike) -> Pixels:
    """Undo `to_transforms`; 16-bit values are restored exactly."""
    if image.dtype == np.float32 and dtype == np.uint16:
        image = (image * WHITE).round().clip(0, WHITE).astype(np.uint16)
    return image if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))


def _build(entry: Mapping[str, Mapping[str, Any]]) -> A.BasicTransform:
    if len(entry) != 1:
        raise BadInput(f"`augment`: expected entries with one transform, but got {dict(entry)!r}")
    name, arguments = next(iter(entry.items()))
    transform = getattr(A, name, None)
    if not (isinstance(transform, type) and issubclass(transform, A.BasicTransform)):
        known = [n for n in dir(A) if n[0].isupper()]
        raise BadInput(f"`augment`: unknown transform {name!r}{nearest(name, known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # albumentations only warns of a misspelt argument
            return transform(**(arguments or {}))
    except (TypeError, ValueError, UserWarning) as error:
        raise BadInput(f"`augment`: {name}: {' '.join(str(error).split())}") from error
