"""Scores the finished model on the images held out as a test set.

Neither they nor any image of their groups were used for training, tuning or validation.
"""

from collections.abc import Sequence

import numpy as np

from steelseg.core.arrays import Int64
from steelseg.data import rle
from steelseg.data.cache import Cache
from steelseg.predict.inference import Runtime, probability_maps
from steelseg.predict.postprocess import ClassRule, postprocess_maps
from steelseg.predict.tiles import Maps
from steelseg.quality.intervals import ratio
from steelseg.tune.headline import figures, named
from steelseg.tune.metrics import TRUE, pair_dice, summarise
from steelseg.tune.validation import Progress

PREFIX = "held_out_"


def count(
    cache: Cache, rows: Int64, runtime: Runtime, rules: Sequence[ClassRule], progress: Progress
) -> Int64:
    """Count the true positive, predicted and true pixels of every class of images: (N, C, 3).

    Ignored pixels count as not found.

    Args:
        cache: of all annotated images.
        rows: of the images in it.
        runtime: the networks, averaged.
        rules: of the classes, in channel order.
        progress: wraps the rows, to show the progress.
    """

    def compare(row: int, maps: Maps) -> Int64:
        masks_chw = cache.masks(row)
        found = postprocess_maps(maps.outside(cache.ignored(row)), rules)
        both = (
            rle.decode(one.rle, maps.size_hw) & m for one, m in zip(found, masks_chw, strict=True)
        )
        hits = [int(hit_hw.sum()) for hit_hw in both]
        true = masks_chw.sum(axis=(1, 2), dtype=np.int64)
        return np.stack([hits, [one.area for one in found], true], axis=-1)

    counted = probability_maps(rows.tolist(), cache.image, runtime, compare)
    return np.stack([counts for _, counts in progress(counted, len(rows))])


def report(counts: Int64, groups: Int64, classes: Sequence[int]) -> dict[str, float]:
    """Return all metrics of the images, the headline figures and each class's Dice with intervals.

    All names begin with `held_out_`; intervals end in `_low` and `_high`.

    Args:
        counts: (N, C, 3) of N images.
        groups: (N,) the group of each, the unit of the intervals.
        classes: the class ids, in channel order.
    """
    dice, shown = pair_dice(counts), counts[..., TRUE] > 0
    of_class = {
        f"positive_dice_class_{c}": ratio((dice * shown)[:, at], shown[:, at], groups)
        for at, c in enumerate(classes)
    }
    scores = {
        "images": len(counts),
        "groups": len(np.unique(groups)),
        **summarise(counts, classes),
        **figures(counts, groups),
        **named(of_class),
    }
    return {f"{PREFIX}{name}": value for name, value in scores.items()}
