"""Metrics of single defects, cross-fitted."""

from collections.abc import Sequence

import numpy as np

from steelseg.core.arrays import Int64
from steelseg.quality.intervals import rate
from steelseg.tune import pod
from steelseg.tune.headline import named
from steelseg.tune.matching import Matching, defects, score

OVERLAPS = (10, 25, 50)  # percent of IoU


def figures(
    matchings: Sequence[Sequence[Matching]],
    groups: Int64,
    classes: Sequence[int],
    mm_per_pixel: float | None = None,
) -> dict[str, float]:
    """Score found components against true ones; undefined scores are left out.

    `panoptic_quality` (PQ) and `detection_f1_10`, `_25` and `_50`, at overlaps in percent, match
    components one to one. `defect_recall` is the share of true components that are touched, with
    its interval, and `defect_recall_quarter_1` to `_4` that of the smallest quarter to the largest,
    each up to the size `defect_size_quarter_1` and so on; `false_components` is the number per
    image that touch none. For each class, `a50`, `a90` and `a90_95` are sizes on the curve of
    `pod.fit`. All sizes are the longer sides of bounding boxes, in millimetres if the scale is
    known, else in pixels.

    Args:
        matchings: of N images, C classes each, by rules that were chosen without the image.
        groups: (N,) labels.
        classes: the ids of the C classes.
        mm_per_pixel: the scale, if it is known.
    """
    every = [one for of_image in matchings for one in of_image]
    if not every:
        return {}
    scores = {f"detection_f1_{x}": score(every, x / 100).recognition_quality for x in OVERLAPS}
    scores["panoptic_quality"] = score(every).panoptic_quality
    scores["false_components"] = sum(one.n_false for one in every) / len(matchings)
    sizes, found, of_group = defects(every, np.repeat(groups, len(classes)).tolist())
    scores |= named({"defect_recall": rate(found, of_group)})
    scale = mm_per_pixel or 1
    for number, band in enumerate(pod.recall_by_size(sizes * scale, found, of_group), 1):
        scores[f"defect_recall_quarter_{number}"] = band.found.value
        scores[f"defect_size_quarter_{number}"] = band.high
    for at, class_id in enumerate(classes):
        of_class = [of_image[at] for of_image in matchings]
        sizes, found, of_group = defects(of_class, groups.tolist())
        scores |= _sizes(pod.fit(sizes * scale, found, of_group), class_id)
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def _sizes(curve: pod.Pod | str, class_id: int) -> dict[str, float]:
    """Name the sizes found with 50% and 90%, and the bound of the 90% one."""
    if isinstance(curve, str):
        return {}
    (a50, _), (a90, bound) = curve.sizes[0.5], curve.sizes[0.9]
    sizes = {f"a50_class_{class_id}": a50, f"a90_class_{class_id}": a90}
    return sizes | ({f"a90_95_class_{class_id}": bound} if bound else {})
