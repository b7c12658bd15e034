"""Which training images an epoch shows, where that is not simply each as often as any other."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Shown = npt.NDArray[np.bool_]


def image_weights(shown: Shown, balance: float) -> Reals:
    """Weigh images so that rare classes are drawn more often: (N,), sums to 1.

    An image weighs f^-balance, where f is the share of images that show its rarest class; the clean
    images count as a class. So 0 weighs all images alike, and with 1 classes that stand alone in
    their images are drawn equally often.

    Args:
        shown: (N, C), which image shows which class.
        balance: 0 to 1.
    """
    groups = np.column_stack([shown, ~shown.any(axis=1)])
    shares = groups.mean(axis=0)
    factors = np.maximum(shares, 1 / len(shown)) ** -balance
    weights = np.where(groups, factors, 0).max(axis=1)
    normalised: Reals = weights / weights.sum()
    return normalised


def draw(
    rng: np.random.Generator,
    n_samples: int,
    shown: Shown,
    balance: float,
    hard_negatives: float,
    false_pixels: Integers,
) -> Integers:
    """Draw the images of an epoch: (n_samples,) indices.

    Args:
        rng: makes the draws.
        n_samples: how many.
        shown: (N, C), which image shows which class.
        balance: see `image_weights`; with 0 every image is drawn equally often.
        hard_negatives: the share of the samples of clean images that are drawn anew, in proportion
            to what was wrongly found on them.
        false_pixels: (N,), pixels wrongly found on each image; if on none, nothing is drawn anew.
    """
    if balance:
        images = rng.choice(len(shown), n_samples, p=image_weights(shown, balance))
    else:
        images = rng.permutation(n_samples) % len(shown)
    clean = np.flatnonzero(~shown.any(axis=1))
    alarms = false_pixels[clean]
    if hard_negatives and alarms.any():
        again = np.isin(images, clean) & (rng.random(n_samples) < hard_negatives)
        images[again] = rng.choice(clean, int(again.sum()), p=alarms / alarms.sum())
    return images.astype(np.int64)
