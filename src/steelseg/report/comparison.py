"""A page with what two models find in the same images, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from steelseg.core.pixels import size_of
from steelseg.data import rle
from steelseg.data.cache import Cache
from steelseg.report.drawing import draw
from steelseg.report.gallery import Picture, to_source
from steelseg.tune.metrics import pair_dice
from steelseg.tune.outcome import counts_of

TEMPLATE = Path(__file__).with_name("comparison.html.jinja")


def render(
    tables: Mapping[str, pd.DataFrame],
    images: Mapping[str, Sequence[str]],
    lines: Sequence[str],
    cache: Cache,
) -> str:
    """Return the page; images that are not in the cache are left out.

    Args:
        tables: as `tune.outcome.read_validation` returns them, by the names of the two models.
        images: names of images, by heading.
        lines: of text for the top of the page.
        cache: of the annotated images.
    """
    rows = {name: row for row, name in enumerate(cache.names)}
    known = {kind: [name for name in names if name in rows] for kind, names in images.items()}
    drawn = {
        kind: {
            name: [
                _picture(model, table, name, cache, rows[name]) for model, table in tables.items()
            ]
            for name in names
        }
        for kind, names in known.items()
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    first, second = tables
    sections = {"lines": lines, "classes": cache.class_infos, "kinds": drawn}
    return template.render(first=first, second=second, **sections) + "\n"


def _picture(model: str, table: pd.DataFrame, name: str, cache: Cache, row: int) -> Picture:
    of_image = table[table["image"] == name]
    image, size_hw = cache.image(row), size_of(cache.image(row))
    rles = zip(of_image["class_id"], of_image["honest_rle"], strict=True)
    found = {class_id: rle.decode(text, size_hw) for class_id, text in rles}
    truth = dict(zip(cache.classes, cache.masks(row), strict=True))
    picture = draw(image, cache.class_infos, found, truth, cache.ignored(row))
    dice = pair_dice(counts_of(of_image, honest=True)).mean()
    return Picture(to_source(picture), name, f"{model}: Dice {dice:.3f}")
