"""RLE of all real masks: encoding and decoding, also against pycocotools."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from benchmarks import inputs, notebook_way
from benchmarks.inputs import Scale
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.data import rle

try:
    from pycocotools import mask as coco
except ImportError:  # only for development: its columns are left out then
    coco = None

T = TypeVar("T")
Ways = dict[str, Callable[[], Any]]


def rows(scale: Scale) -> Iterator[Row]:
    """Times are those of all masks together."""
    which, texts = inputs.run_lengths(scale)
    masks = [rle.decode(text, scale.size_hw) for text in texts]
    plain = [np.ascontiguousarray(mask_hw) for mask_hw in masks]  # as a network's answer lies
    for text, mask_hw in zip(texts, plain, strict=True):
        assert rle.encode(mask_hw) == notebook_way.encode(mask_hw) == text
        assert np.array_equal(notebook_way.decode(text, scale.size_hw), mask_hw)
    decoders: Ways = {
        "ours": lambda: each(texts, lambda text: rle.decode(text, scale.size_hw)),
        "notebook": lambda: each(texts, lambda text: notebook_way.decode(text, scale.size_hw)),
    }
    encoders: Ways = {
        "ours": lambda: each(plain, rle.encode),
        "notebook": lambda: each(plain, notebook_way.encode),
    }
    if coco is None:
        print("pycocotools is not installed: its rows are left out")
    else:
        encoded = [coco.encode(mask_hw) for mask_hw in masks]
        decoders["coco"] = lambda: each(encoded, coco.decode)
        # which takes masks in column-major order only
        encoders["coco"] = lambda: each(plain, lambda m: coco.encode(np.asfortranarray(m)))
    decoding, encoding = in_turns(decoders, scale.rounds), in_turns(encoders, scale.rounds)
    for what, times, target in (("decode", decoding, 2), ("encode", encoding, 3)):
        yield Row(f"RLE: {what} {which}", times["ours"], "the notebook", times["notebook"], target)
        if "coco" in times:
            yield Row(f"RLE: {what} {which}", times["ours"], "pycocotools", times["coco"])


def each(items: Iterable[T], function: Callable[[T], Any]) -> None:
    """Call a function on every item and drop what it returns, as the pipeline does."""
    for item in items:
        function(item)
