"""Builds the report, one self-contained page, from the outputs of the stages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from steelseg.core.arrays import Int64, Uint8
from steelseg.core.classes import ClassInfo, enumerated
from steelseg.data.cache import Cache
from steelseg.data.image_table import ImageTable
from steelseg.predict.ensemble import out_of_fold_maps
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Finding, Model
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.tiles import Maps
from steelseg.report import gallery
from steelseg.report.drawing import draw
from steelseg.report.gallery import Picture
from steelseg.train.config import TrainConfig
from steelseg.train.crops import training_crops
from steelseg.train.sampling import EpochSampler
from steelseg.tune import metrics
from steelseg.tune.outcome import counts_of

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def example_pictures(cache: Cache, images: ImageTable, n_images: int) -> Iterator[Picture]:
    """Draw annotated images of each class, their masks tinted."""
    examples = gallery.examples({c: images.rles(c) for c in images.classes}, n_images)
    for one in cache.class_infos:
        for row in examples[one.id]:
            masks = _by_class(cache, cache.masks(row))
            classes, ignored_hw = cache.class_infos, cache.ignored(row)
            picture = draw(cache.image(row), classes, masks, filled=masks, ignored_hw=ignored_hw)
            caption = f"{one.name}, {int(masks[one.id].sum()):,} px"
            yield Picture(gallery.to_source(picture), cache.names[row], caption)


def crop_pictures(
    cache: Cache, rows: Int64, config: TrainConfig, n_crops: int
) -> Iterator[Picture]:
    """Draw the first crops of the first epoch, augmented, as the network sees them.

    Args:
        cache: of all annotated images.
        rows: the training images.
        config: of the training.
        n_crops: their number.
    """
    crops = training_crops(cache, rows, config, config.phase(0))
    sampler = EpochSampler(len(rows), config.crops_per_image, config.seed, rank=0, world_size=1)
    for number in islice(sampler, n_crops):
        (image,), (masks,), (row,) = crops.__getitems__([number])
        masks_chw, classes = masks.numpy(), cache.class_infos
        height, width = masks_chw.shape[1:]
        by_class = _by_class(cache, masks_chw[: len(classes)])
        ignored_hw = masks_chw[-1] if cache.has_ignored else None
        shown_nhw = image.numpy()[:, :height, :width]
        picture = draw(shown_nhw, classes, by_class, filled=by_class, ignored_hw=ignored_hw)
        shown = [one for one in classes if by_class[one.id].any()]
        caption = enumerated(shown) if shown else "clean"
        yield Picture(gallery.to_source(picture), cache.names[int(row)], caption)


def gallery_pictures(
    cache: Cache,
    table: pd.DataFrame,
    predict: Callable[[list[int]], Mapping[int, Sequence[Finding]]],
    n_images: int,
    mm_per_pixel: float | None = None,
) -> dict[str, list[Picture]]:
    """Draw the best, worst and most surprising validation images: truth tinted, found outlined.

    `predict` maps rows of the cache to their findings.
    """
    classes = cache.class_infos
    texts = gallery.captions(table, classes, mm_per_pixel)
    pictures: dict[str, list[Picture]] = {}
    for kind, names in gallery.choose(table, n_images).items():
        rows = [cache.names.index(name) for name in names]
        pictures[kind] = []
        findings = predict(rows)
        for row in rows:
            found = {one.class_id: one.mask for one in findings[row]}
            truth, ignored_hw = _by_class(cache, cache.masks(row)), cache.ignored(row)
            picture = draw(cache.image(row), classes, found, filled=truth, ignored_hw=ignored_hw)
            name = cache.names[row]
            pictures[kind].append(Picture(gallery.to_source(picture), name, texts[name]))
    return pictures


def out_of_fold_findings(
    model: Model,
    models: Mapping[int, Sequence[Path]],
    folds: Int64,
    cache: Cache,
    inference: InferenceConfig,
    rows: Sequence[int],
) -> dict[int, list[Finding]]:
    """Find the defects of rows of the cache by models that have not seen them.

    Args:
        model: whose rules and views hold.
        models: by the fold that they were validated on.
        folds: (N,) the fold of each row of the cache.
        cache: of all annotated images.
        inference: how the networks are run.
        rows: which images.
    """

    def find(row: int, maps: Maps) -> list[Finding]:
        return model.findings(maps.outside(cache.ignored(row)))

    rows_of = {fold: [row for row in rows if folds[row] == fold] for fold in models}
    views = model.rules.views
    return dict(out_of_fold_maps(models, rows_of, cache.image, inference, views, find))


def validated_on(models: Mapping[int, Sequence[Path]], n_images: int) -> str:
    """Describe how many images of which folds were predicted, and by how many models."""
    n_models = sum(map(len, models.values()))
    folds = f"fold{'s' * (len(models) > 1)} {', '.join(map(str, models))}"
    among = "" if n_models == 1 else f", each by those of {n_models} models that have not seen it"
    return f"the {n_images} images of {folds}{among}"


def class_scores(table: pd.DataFrame, rules: Mapping[int, ClassRule]) -> list[dict[str, Any]]:
    """Tabulate each class's cross-fitted scores, those of predicting nothing, and its rule.

    A score that is undefined, because no validation image shows the class, is None.
    """
    counts = counts_of(table, honest=True)
    columns = {
        "pair_dice": metrics.pair_dice(counts).mean(axis=0),
        "all_empty": (counts[..., metrics.TRUE] == 0).mean(axis=0),
        "positive_dice": metrics.positive_dice(counts),
        "iou": metrics.class_iou(counts),
    }
    shown = (counts[..., metrics.TRUE] > 0).sum(axis=0)
    return [
        {
            "class_id": class_id,
            "images": int(shown[at]),
            "rule": rule,
            **{k: None if np.isnan(v[at]) else float(v[at]) for k, v in columns.items()},
        }
        for at, (class_id, rule) in enumerate(rules.items())
    ]


def render(classes: Sequence[ClassInfo], sections: Mapping[str, Any]) -> str:
    """Fill the template; every text but the SVG of our own figures is escaped.

    Raises:
        jinja2.UndefinedError: the template asks for a section that is not given.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    by_id = {one.id: one for one in classes}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(sections, classes=by_id) + "\n"


def _by_class(cache: Cache, masks_chw: Uint8) -> dict[int, Uint8]:
    return dict(zip(cache.classes, masks_chw, strict=True))
