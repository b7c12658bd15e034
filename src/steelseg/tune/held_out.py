"""Scores the finished model on the images held out as a test set.

Neither they nor any image of their groups were used for training, tuning or validation.
"""

from collections.abc import Sequence

import numpy as np

from steelseg.core.arrays import Int64
from steelseg.quality.intervals import ratio
from steelseg.tune.headline import figures, named
from steelseg.tune.metrics import TRUE, pair_dice, summarise

PREFIX = "held_out_"


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
