"""Component tables and their images for tests, and the Dice they are held to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steelseg.core.arrays import Float32, Uint8
from steelseg.core.sealed import write_sealed_table
from steelseg.data import rle
from steelseg.predict.postprocess import ClassRule, postprocess
from steelseg.tune import outcome
from steelseg.tune.components import ComponentTable
from steelseg.tune.search import TuneConfig

# small enough for the plain loop; the areas matter on images of some 7x7 pixels
SMALL = TuneConfig(
    thresholds=[0.3, 0.4, 0.6],
    min_component_areas=[0, 2, 4],
    min_areas=[0, 3, 8],
    gates=[0.0, 0.65, 0.8],
    smoothing=0,
)
LEVELS = [0.0, 0.3, 0.35, 0.5, 0.65, 0.7, 0.9]
RULES = st.builds(
    ClassRule,
    enabled=st.sampled_from([True, True, True, False]),
    threshold=st.sampled_from(SMALL.thresholds),
    min_component_area=st.integers(0, 9),
    min_area=st.integers(0, 12),
    gate=st.sampled_from([0.0, 0.3, 0.5, 0.65, 0.7]),
)


def clean_mask(probability_hw: Float32, rule: ClassRule) -> Uint8:
    """Return the mask whose RLE `postprocess` gives."""
    return rle.decode(postprocess(probability_hw, rule).rle, probability_hw.shape)


@st.composite
def images(draw, max_images=5):
    """Draw probabilities and masks of N images with 2 classes: (N, 2, H, W)."""
    shape = (draw(st.integers(1, max_images)), 2, draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    levels = st.sampled_from([float(np.float32(level)) for level in LEVELS])
    probabilities = draw(hnp.arrays(np.float32, shape, elements=levels))
    masks = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    shown = draw(hnp.arrays(np.bool_, shape[:2]))
    return probabilities, masks * shown[..., None, None]


def fill_table(probabilities, masks, config=SMALL):
    """Add all images (N, C, H, W) to a fresh table."""
    table = ComponentTable(config.thresholds, probabilities.shape[1])
    for probability_chw, mask_chw in zip(probabilities, masks, strict=True):
        table.add(probability_chw, mask_chw)
    return table


def fill_from_pixels(pixels, config):
    """Make a table of 1x1 images with one class, from (probability, truth) pairs."""
    probabilities = np.array([p for p, _ in pixels], dtype=np.float32).reshape(-1, 1, 1, 1)
    masks = np.array([t for _, t in pixels], dtype=np.uint8).reshape(-1, 1, 1, 1)
    return fill_table(probabilities, masks, config)


def dice(predicted_hw, true_hw):
    """Kaggle's Dice of one pair."""
    both = int(predicted_hw.sum()) + int(true_hw.sum())
    return 1.0 if both == 0 else 2 * int((predicted_hw & true_hw).sum()) / both


def validation_table(hits: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Table images as tune_threshold does: of each class 10 px are true and found, and some both.

    Args:
        hits: by image, how many pixels of each class are both; the Dice is a tenth of it.
    """
    rows = [
        {"image": name, "group": group, "class_id": number, "honest_true_positive": n}
        for group, (name, of_image) in enumerate(hits.items())
        for number, n in enumerate(of_image, 1)
    ]
    table = pd.DataFrame(rows)
    for column in ("true", "predicted", "honest_predicted"):
        table[column] = 10
    table["true_positive"] = table["honest_true_positive"]
    table["confidence"] = table["raw_confidence"] = np.float32(0.5)
    table["defect_sizes"], table["defects_found"] = [[5]] * len(rows), [[True]] * len(rows)
    table["false_components"], table["honest_rle"] = 0, "1 10"
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write such a table to be read by `outcome.read_validation`."""
    arrow = pa.Table.from_pandas(table, outcome._SCHEMA, preserve_index=False)
    write_sealed_table(path, arrow.replace_schema_metadata(None))
