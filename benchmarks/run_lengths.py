"""RLE of all real masks: encoding and decoding, also against pycocotools."""

from collections.abc import Iterator

import numpy as np

from benchmarks import inputs, notebook_way
from benchmarks.inputs import Scale
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg import rle

try:
    from pycocotools import mask as coco
except ImportError:  # only for development: its columns are left out then
    coco = None


def rows(scale: Scale) -> Iterator[Row]:
    """Times are those of all masks together."""
    which, texts = inputs.run_lengths(scale)
    masks = [rle.decode(text, scale.size_hw) for text in texts]
    plain = [np.ascontiguousarray(mask_hw) for mask_hw in masks]  # as a network's answer lies
    for text, mask_hw in zip(texts, plain, strict=True):
        assert rle.encode(mask_hw) == notebook_way.encode(mask_hw) == text
        assert np.array_equal(notebook_way.decode(text, scale.size_hw), mask_hw)
    decoders = {
        "ours": lambda: [rle.decode(text, scale.size_hw) for text in texts],
        "notebook": lambda: [notebook_way.decode(text, scale.size_hw) for text in texts],
    }
    encoders = {
        "ours": lambda: [rle.encode(mask_hw) for mask_hw in plain],
        "notebook": lambda: [notebook_way.encode(mask_hw) for mask_hw in plain],
    }
    if coco is None:
        print("pycocotools is not installed: its rows are left out")
    else:
        encoded = [coco.encode(mask_hw) for mask_hw in masks]
        decoders["coco"] = lambda: [coco.decode(one) for one in encoded]
        # which takes masks in column-major order only
        encoders["coco"] = lambda: [coco.encode(np.asfortranarray(mask_hw)) for mask_hw in plain]
    decoding, encoding = in_turns(decoders, scale.rounds), in_turns(encoders, scale.rounds)
    for what, times, target in (("decode", decoding, 2), ("encode", encoding, 3)):
        yield Row(f"RLE: {what} {which}", times["ours"], "the notebook", times["notebook"], target)
        if "coco" in times:
            yield Row(f"RLE: {what} {which}", times["ours"], "pycocotools", times["coco"])
