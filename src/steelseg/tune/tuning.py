"""All that is found out about trained models on images that they have not seen."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from steelseg.core.arrays import Float64, Int64
from steelseg.data import fold_table
from steelseg.data.cache import Cache
from steelseg.data.fold_table import HELD_OUT
from steelseg.predict.inference import InferenceConfig, open_models
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.rules import Rules, take_probe
from steelseg.predict.views import ViewsConfig
from steelseg.quality.verdicts import find
from steelseg.tune import defects, headline, held_out, search
from steelseg.tune.components import ComponentTable
from steelseg.tune.matching import Matching
from steelseg.tune.search import TuneConfig
from steelseg.tune.validation import Progress, match_defects, probe_image, validate

Show = Callable[[str], Progress]
"""Returns the progress bar of a task."""


class Setting(NamedTuple):
    """What is tuned, and on which images.

    `models` are by the fold that they were validated on, `folders` those that answer together;
    `folds` is the fold table, in the order of the cache's rows.
    """

    models: Mapping[int, Sequence[Path]]
    folders: Sequence[Path]
    cache: Cache
    folds: pd.DataFrame
    config: TuneConfig
    inference: InferenceConfig
    views: ViewsConfig


class Evidence(NamedTuple):
    """What rules and scores were derived from, for each of N images.

    `honest` (N, C, 3) are pixels under rules chosen without the image, `confidences` (N, C) are
    calibrated without it, and `matchings` are the defects of C classes, found and missed.
    """

    table: ComponentTable
    honest: Int64
    confidences: Float64
    matchings: list[list[Matching]]


class Tuned(NamedTuple):
    """The rules and the scores; `rows` (N,) of the cache, and `groups` (N,) of the images."""

    rules: Rules
    scores: dict[str, float]
    rows: list[int]
    groups: Int64
    evidence: Evidence


def tune(setting: Setting, weights_sha256: str, show: Show) -> Tuned:
    """Choose rules and verdicts on the validation images, and score them cross-fitted.

    The images of the test set, if there are any, are scored by the chosen rules.

    Args:
        setting: the models and images.
        weights_sha256: of the weights that the rules will stand beside.
        show: the progress bars.
    """
    models, folders, cache, folds, config, inference, views = setting
    numbers = fold_table.fold_numbers(folds)
    validation = validate(
        models, numbers, cache, config.thresholds, inference, views, show("validating")
    )
    rows, table = validation
    chosen = search.search(table, config)
    groups = _groups(folds, rows)
    honest, honest_rules = search.cross_fit(table, config, groups)
    images = headline.images_of(table, groups, config.n_splits)
    sizes_hw = [cache.sizes_hw[row] for row in rows]
    m2_per_image = headline.m2_per_image(images, sizes_hw, config.mm_per_pixel)
    verdicts = find(images, cache.classes, config.operating_point, m2_per_image)
    matchings = match_defects(validation, cache, honest_rules)
    scores = {
        **search.report(table, chosen, honest, cache.classes),
        **headline.figures(honest, groups),
        **headline.verdict_figures(images, verdicts),
        **defects.figures(matchings, groups, cache.classes, config.mm_per_pixel),
        **_score_test_set(setting, chosen, show),
    }
    probe = take_probe(
        probe_image(cache, validation), open_models(folders, inference, views).network
    )
    by_class = dict(zip(cache.classes, chosen, strict=True))
    rules = Rules(by_class, weights_sha256, views, probe, verdicts, config.mm_per_pixel)
    evidence = Evidence(table, honest, headline.calibrated(images), matchings)
    return Tuned(rules, scores, rows, groups, evidence)


def _score_test_set(setting: Setting, rules: Sequence[ClassRule], show: Show) -> dict[str, float]:
    _, folders, cache, folds, _, inference, views = setting
    numbers = fold_table.fold_numbers(folds)
    if HELD_OUT not in numbers:
        return {}
    thresholds = sorted({rule.threshold for rule in rules})
    rows, table = validate(
        {HELD_OUT: folders}, numbers, cache, thresholds, inference, views, show("testing")
    )
    return held_out.report(search.count(table, rules), _groups(folds, rows), cache.classes)


def _groups(folds: pd.DataFrame, rows: Sequence[int]) -> Int64:
    groups: Int64 = folds["group"].to_numpy(dtype=np.int64)[rows]
    return groups
