"""Measures images once for all rules, by models that have not seen them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steelseg.core.arrays import Pixels, Uint8
from steelseg.data import rle
from steelseg.data.cache import Cache
from steelseg.predict.ensemble import out_of_fold_maps
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import PROBE_SIDE
from steelseg.predict.tiles import Maps
from steelseg.predict.views import ViewsConfig
from steelseg.tune.components import ComponentTable, PairComponents, measure
from steelseg.tune.matching import Matching, match

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps an iterable of a known length, to show the progress."""


class Validation(NamedTuple):
    """Images, as rows of the cache, and their table for all rules."""

    rows: list[int]
    table: ComponentTable


def validate(
    models: Mapping[int, Sequence[Path]],
    folds: npt.NDArray[np.integer[Any]],
    cache: Cache,
    thresholds: Sequence[float],
    inference: InferenceConfig,
    views: ViewsConfig,
    progress: Progress,
) -> Validation:
    """Predict every image of the models' folds, and measure it at all thresholds.

    Both happen on the threads that run the networks, image by image; the maps are not kept. Ignored
    pixels count as not found.

    Args:
        models: by the fold whose images they have not seen; all of them for the test set.
        folds: (N,) the fold of each row of the cache.
        cache: of all annotated images.
        thresholds: strictly increasing.
        inference: how the networks are run.
        views: the flips, turns and tiles.
        progress: wraps the rows, to show the progress.
    """

    def look(row: int, maps: Maps) -> list[PairComponents]:
        return measure(maps.outside(cache.ignored(row)).whole(), cache.masks(row), thresholds)

    rows_of = {fold: np.flatnonzero(folds == fold).tolist() for fold in models}
    rows = [row for of_fold in rows_of.values() for row in of_fold]
    table = ComponentTable(thresholds, len(cache.classes))
    found = out_of_fold_maps(models, rows_of, cache.image, inference, views, look)
    for _, pairs in progress(found, len(rows)):
        table.append(pairs)
    return Validation(rows, table)


def match_defects(
    validation: Validation, cache: Cache, rules: Sequence[Sequence[ClassRule]]
) -> list[list[Matching]]:
    """Match what rules find to the true components: C matchings for each of N images.

    Args:
        validation: N images of the cache.
        cache: of all annotated images.
        rules: (N, C), at the table's thresholds.
    """

    def matched(image: int, class_index: int, rule: ClassRule, mask_hw: Uint8) -> Matching:
        found = validation.table.find(image, class_index, rule, mask_hw.shape)
        return match(rle.encode(mask_hw), found, mask_hw.shape)

    return [
        [
            matched(image, at, rule, mask_hw)
            for at, (rule, mask_hw) in enumerate(zip(of_image, cache.masks(row), strict=True))
        ]
        for image, (row, of_image) in enumerate(zip(validation.rows, rules, strict=True))
    ]


def probe_image(cache: Cache, validation: Validation) -> Pixels:
    """Cut a small image out of the validation image with the largest defect, around its middle.

    There the answers of models differ; on a clean surface they all agree.
    """
    areas = [validation.table.truth_areas(c) for c in range(len(cache.classes))]
    row = validation.rows[int(np.sum(areas, axis=0).argmax())]
    image, mask_hw = cache.image(row), cache.masks(row).any(axis=0)
    pixels = np.argwhere(mask_hw)
    middle_hw = np.median(pixels, axis=0) if len(pixels) else np.array(mask_hw.shape) / 2
    window: list[Any] = []
    for middle, size in zip(middle_hw.tolist(), mask_hw.shape, strict=True):
        start = min(max(int(middle) - PROBE_SIDE // 2, 0), max(size - PROBE_SIDE, 0))
        window.append(slice(start, start + PROBE_SIDE))
    return np.ascontiguousarray(image[..., window[0], window[1]])
