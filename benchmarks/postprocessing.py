"""From a probability map to an RLE: threshold, components, area filter, run lengths."""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np

from benchmarks import notebook_way
from benchmarks.inputs import Probability, Scale, components
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.predict.postprocess import ClassRule, postprocess

MIN_AREA = 150  # pixels; some components of the maps are smaller, some are larger
TARGETS = {0: 15.0, 200: 15.0}


def rows(scale: Scale) -> Iterator[Row]:
    """Masks with 0, 1, 20 and 200 components, against the notebook and against OpenCV alone."""
    for n in (0, 1, 20, 200):
        probability_hw = components(n, scale.size_hw)
        assert notebooks(probability_hw) == ours(probability_hw)
        foreground_hw = (probability_hw > 0.5).view(np.uint8)
        times = in_turns(
            {
                "ours": partial(ours, probability_hw),
                "notebook": partial(notebooks, probability_hw),
                "opencv": partial(cv2.connectedComponentsWithStats, foreground_hw),
                "maximum": probability_hw.max,
            },
            scale.rounds,
        )
        what = f"post-processing and RLE, {n} components"
        yield Row(what, times["ours"], "the notebook", times["notebook"], TARGETS.get(n))
        limit = "connectedComponentsWithStats alone" if n else "a maximum over the map"
        yield Row(what, times["ours"], limit, times["opencv" if n else "maximum"])


def ours(probability_hw: Probability) -> str:
    """Post-process with a rule that keeps what the notebook keeps."""
    return postprocess(probability_hw, ClassRule(min_component_area=MIN_AREA + 1)).rle


def notebooks(probability_hw: Probability) -> str:
    """Post-process and encode as the notebook does."""
    return notebook_way.encode(notebook_way.postprocess(probability_hw, 0.5, MIN_AREA))
