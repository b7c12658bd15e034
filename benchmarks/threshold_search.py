"""The search of the whole grid of thresholds and areas, against trying one rule after another."""

import os
from collections.abc import Iterator

import numpy as np

from benchmarks import notebook_way
from benchmarks.inputs import Mask, Probability, Scale, guess, mask_sets
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.predict.inference import ahead
from steelseg.predict.postprocess import ClassRule
from steelseg.tune import search
from steelseg.tune.components import ComponentTable, PairComponents, measure
from steelseg.tune.search import TuneConfig

SAMPLE = 400  # the loop tries one (rule, image, class) in this many, and its time is scaled up


def rows(scale: Scale) -> Iterator[Row]:
    """Seconds for all classes, 19 thresholds and 20 component areas; ours searches 200 times more.

    (Our grid has 20 areas of whole masks and 10 gates besides.)
    """
    check_optimum()
    masks = mask_sets(scale.n_validation, scale.size_hw)
    probabilities = guess(np.random.default_rng(0), masks)
    config = TuneConfig()
    trials = [
        (image, class_index, threshold, area)
        for image in range(len(masks))
        for class_index in range(masks.shape[1])
        for threshold in config.thresholds
        for area in config.min_component_areas
    ]
    step = min(SAMPLE, len(trials) // 100) | 1  # odd, to meet every area
    tried = trials[::step]

    def naive() -> None:
        for image, class_index, threshold, area in tried:
            probability_hw, mask_hw = probabilities[image, class_index], masks[image, class_index]
            naive_dice(probability_hw, mask_hw, threshold, area)

    times = in_turns({"ours": lambda: ours(probabilities, masks, config), "naive": naive}, 5)
    name = f"the loop over rules (1/{step} of it, scaled)"
    scaled = times["naive"] * len(trials) / len(tried)
    yield Row(f"threshold search, {len(masks)} images", times["ours"], name, scaled, 50)


def ours(probabilities: Probability, masks: Mask, config: TuneConfig) -> list[ClassRule]:
    """Measure the components of all images (N, C, H, W) on all cores, and search the grid."""
    table = ComponentTable(config.thresholds, masks.shape[1])

    def look(image: tuple[Probability, Mask]) -> list[PairComponents]:
        return measure(*image, config.thresholds)

    for pairs in ahead(zip(probabilities, masks, strict=True), look, os.cpu_count() or 1):
        table.append(pairs)
    return search.search(table, config)


def naive_dice(probability_hw: Probability, mask_hw: Mask, threshold: float, area: int) -> float:
    """Score one rule on one map, with the notebook's post-processing."""
    predicted_hw = notebook_way.postprocess(probability_hw, threshold, area - 1)
    return notebook_way.dice(predicted_hw, mask_hw)


def check_optimum() -> None:
    """Find the same best score by the loop as by the search, on few small images, unsmoothed."""
    masks = mask_sets(8, (64, 96))
    probabilities = guess(np.random.default_rng(1), masks)
    config = TuneConfig(
        thresholds=[0.2, 0.35, 0.5, 0.65, 0.8],
        min_component_areas=[0, 20, 100, 300],
        min_areas=[0],
        gates=[0.0],
        smoothing=0,
    )
    for class_index in range(masks.shape[1]):
        pairs = list(zip(probabilities[:, class_index], masks[:, class_index], strict=True))
        loop = [
            np.mean([naive_dice(p, m, threshold, area) for p, m in pairs])
            for threshold in config.thresholds
            for area in config.min_component_areas
        ]
        all_empty = np.mean([not m.any() for _, m in pairs])  # the class may be left out
        chosen = probabilities[:, class_index, None], masks[:, class_index, None]
        table = ComponentTable(config.thresholds, 1)
        for probability_chw, mask_chw in zip(*chosen, strict=True):
            table.add(probability_chw, mask_chw)
        found = search.evaluate(table, search.search(table, config)).mean()
        assert abs(found - max(*loop, all_empty)) < 1e-9
