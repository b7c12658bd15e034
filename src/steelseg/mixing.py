"""Samples made of two: cutmix and copy-paste. Images (H, W) and masks (C, H, W), both uint8."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Sample = tuple[Pixels, Pixels]


def cutmix(rng: np.random.Generator, sample: Sample, other: Sample) -> Sample:
    """Replace a rectangle by that of another sample, masks and all.

    Its share of the area is drawn from 0 to 1, Beta(1, 1), as by Yun et al. (2019), and it has the
    sample's proportions.
    """
    side = np.sqrt(rng.random())
    window = []
    for size in sample[0].shape:
        length = round(size * side)
        start = int(rng.integers(size - length + 1))
        window.append(slice(start, start + length))
    where = np.zeros(sample[0].shape, dtype=bool)
    where[tuple(window)] = True
    return _take(where, sample, other)


def copy_paste(rng: np.random.Generator, sample: Sample, other: Sample) -> Sample:
    """Paste the pixels of one class of another sample, at their place; it hides what was there.

    The class is drawn from those that the other sample shows; if it shows none, nothing is pasted.
    """
    shown = np.flatnonzero(other[1].any(axis=(1, 2)))
    if not len(shown):
        return sample
    return _take(other[1][rng.choice(shown)].astype(bool), sample, other)


def _take(where: npt.NDArray[np.bool_], sample: Sample, other: Sample) -> Sample:
    return np.where(where, other[0], sample[0]), np.where(where, other[1], sample[1])
