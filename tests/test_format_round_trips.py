"""What a format writes, it reads again: the same pixels, names, classes, clean and unlabelled."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CLASSES, Mask, as_rle, put_image, read
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steelseg.formats import coco, cvat, labelme, yolo
from steelseg.formats.record import Record

SIZES = st.tuples(st.integers(1, 14), st.integers(1, 14))
FORMATS = [coco, cvat, labelme, yolo]


@st.composite
def records(draw: Any) -> list[tuple[str, tuple[int, int], dict[str, Mask], Mask | None, bool]]:
    """Draw images of random sizes with random masks; some are clean, ignored or unlabelled."""
    images = []
    for name in ("images/a.png", "coil 1/ä.b.png"):
        size_hw = draw(SIZES)
        shown = hnp.arrays(np.uint8, size_hw, elements=st.integers(0, 1))
        masks = {c.name: draw(shown) for c in CLASSES if draw(st.booleans())}
        ignored = draw(shown) if draw(st.integers(0, 3)) == 0 else None
        labelled = not images or draw(st.booleans())
        masks = {n: m for n, m in masks.items() if labelled and m.any()}
        if not labelled or ignored is None or not ignored.any():
            ignored = None
        images.append((name, size_hw, masks, ignored, labelled))
    return images


@pytest.mark.parametrize("module", FORMATS, ids=lambda m: m.__name__.rpartition(".")[2])
@given(images=records())
@settings(max_examples=12)
def test_what_is_written_is_read_again(module: Any, images: list[Any]) -> None:
    """Pixel by pixel, with holes, and where classes overlap."""
    with tempfile.TemporaryDirectory() as folder:
        given_records = [
            Record(put_image(Path(folder, "in"), name, size_hw), name, size_hw, *rest)
            for name, size_hw, *rest in images
        ]
        module.write(Path(folder, "out"), given_records, CLASSES)
        assert module.recognises(Path(folder, "out"))
        source, found = read(module, Path(folder, "out"))
        assert source.classes == [c.name for c in CLASSES]
        assert set(found) == {record.name for record in given_records}
        for record in given_records:
            again = found[record.name]
            assert (again.labelled, again.size_hw) == (record.labelled, record.size_hw)
            assert again.path.read_bytes() == record.path.read_bytes()
            assert as_rle(again.masks) == as_rle(record.masks)
            assert (again.ignored is None) == (record.ignored is None)
            if record.ignored is not None:
                np.testing.assert_array_equal(again.ignored, record.ignored)
        if module is cvat:
            assert source.colors == {c.name: c.color for c in CLASSES}
