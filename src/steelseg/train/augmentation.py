"""Augmentations of albumentations, given as data: a list of one-entry mappings in params.yaml."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from steelseg.core.errors import BadInput
from steelseg.core.params import nearest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network at import otherwise
import albumentations as A

Transforms = Sequence[Mapping[str, Mapping[str, Any]]]


def build_augmentation(transforms: Transforms) -> A.Compose:
    """Build a pipeline from entries such as `{HorizontalFlip: {p: 0.5}}`.

    Raises:
        BadInput: a transform or one of its arguments is unknown or out of range.
    """
    return A.Compose([_build(entry) for entry in transforms])


def augment(
    pipeline: A.Compose,
    image_hw: npt.NDArray[np.uint8],
    masks_chw: npt.NDArray[np.uint8],
    seed: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Apply a pipeline to an image and its masks; the same seed gives the same result."""
    if not pipeline.transforms:
        return image_hw, masks_chw
    pipeline.set_random_seed(seed)
    result = pipeline(image=image_hw, masks=masks_chw)
    return result["image"], np.asarray(result["masks"])


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
            warnings.simplefilter("error")  # a mistyped argument is but a warning to albumentations
            return transform(**(arguments or {}))
    except (TypeError, ValueError, UserWarning) as error:
        raise BadInput(f"`augment`: {name}: {' '.join(str(error).split())}") from error
