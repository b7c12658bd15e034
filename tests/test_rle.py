"""Tests of steelseg.rle against hand-made masks, real rows and the reference COCO encoder."""

import csv
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from steelseg.core.errors import BadInput
from steelseg.data import rle

DATA = Path(os.environ.get("STEELSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
SEVERSTAL_HW = (256, 1600)
MASKS = hnp.arrays(
    st.sampled_from([np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.integers(0, 1),
)

HAND_MADE = [
    # the example of the module: columns are read from top to bottom, starts count from 1
    ([[0, 1, 1], [0, 1, 0]], "3 3"),
    # a run goes on from the foot of one column to the head of the next
    ([[0, 1], [1, 0]], "2 2"),
    # the same pixels in a row are runs of their own
    ([[1, 0, 1]], "1 1 3 1"),
    # first and last pixel: no background beside them
    ([[1, 0], [0, 1]], "1 1 4 1"),
    # the smallest masks
    ([[1]], "1 1"),
    ([[0]], ""),
    # all foreground is one run
    ([[1, 1, 1], [1, 1, 1]], "1 6"),
    # all background is the empty string
    ([[0, 0], [0, 0]], ""),
]

MALFORMED = [
    ("1", "pairs of start and length, but got 1 values"),
    ("1 2 3", "pairs of start and length, but got 3 values"),
    ("1 a", "whole numbers separated by spaces, but got 'a'"),
    ("1 1.5", "but got '1.5'"),
    ("1 -1", "but got '-1'"),
    ("1,1", "but got '1,1'"),
    ("1\t1", "whole numbers separated by spaces"),
    ("nan", "but got 'nan'"),
    ("\u0661 1", "whole numbers separated by spaces"),  # an Arabic digit, which int() would read
    ("\ud800 1", "whole numbers separated by spaces"),  # half a surrogate pair has no encoding
    ("0 1", "run `0 1`: expected starts of at least 1"),
    ("1 0", "run `1 0`: expected lengths of at least 1"),
    ("12 2", "run `12 2`: runs past the end of 3x4 pixels"),
    ("13 1", "run `13 1`: runs past the end of 3x4 pixels"),
    ("1 3 3 1", "run `3 1`: expected runs that are sorted and do not overlap"),
    ("5 1 1 1", "run `1 1`: expected runs that are sorted"),
    ("1 1 1 1", "run `1 1`: expected runs that are sorted"),
    ("1 999999999999999999", "runs past the end"),
    ("999999999999999999 999999999999999999", "runs past the end"),
    ("1 9999999999999999999999", "numbers inside the image, but got '9999999999999999999999'"),
    ("1 " + "9" * 5000, "inside the image, but got '" + "9" * 24 + "...'"),
]


@pytest.mark.parametrize(("mask", "expected"), HAND_MADE)
def test_masks_are_written_column_by_column(mask, expected):
    """A mask is read top to bottom, then left to right, and starts count from 1."""
    mask_hw = np.array(mask, dtype=np.uint8)
    assert rle.encode(mask_hw) == expected
    assert np.array_equal(rle.decode(expected, mask_hw.shape), mask_hw)


@given(MASKS)
def test_decode_undoes_encode(mask_hw):
    """Any mask comes back as uint8 of 0 and 1."""
    decoded = rle.decode(rle.encode(mask_hw), mask_hw.shape)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, mask_hw)


@given(MASKS)
def test_memory_order_does_not_matter(mask_hw):
    """Views, whether transposed, reversed or cut out, are encoded as what they show."""
    expected = rle.encode(mask_hw)
    assert rle.encode(np.asfortranarray(mask_hw)) == expected
    assert rle.encode(np.ascontiguousarray(mask_hw[::-1, ::-1])[::-1, ::-1]) == expected
    assert rle.encode(np.pad(mask_hw, 2)[2:-2, 2:-2]) == expected
    assert rle.encode(np.repeat(mask_hw, 2, axis=1)[:, ::2]) == expected


# what the released pycocotools does with NumPy 2
ignore_coco_warning = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")


@ignore_coco_warning
@given(MASKS)
def test_runs_agree_with_coco(mask_hw):
    """The runs cover the pixels that the COCO encoder's do, which reads columns too."""
    theirs = coco.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    runs = rle.find_runs(mask_hw)
    assert runs.dtype == np.int64
    assert runs[:, 1].sum() == coco.area(theirs)
    assert np.array_equal(rle.fill(runs, mask_hw.shape), coco.decode(theirs))


@given(st.lists(st.integers(0, 10**18 - 1), min_size=2, max_size=40))
def test_numbers_of_any_length_are_written_in_full(numbers):
    """The fast writer gives what str() gives, inner and trailing zeros included."""
    runs = np.array(numbers[: len(numbers) // 2 * 2], dtype=np.int64).reshape(-1, 2)
    runs[:, 1] += 1  # a length of zero is no run
    expected = " ".join(f"{start + 1} {length}" for start, length in runs.tolist())
    assert rle.to_string(runs) == expected


@given(MASKS)
def test_encoding_is_canonical(mask_hw):
    """Encoding again what was decoded gives the same string, so runs are as long as possible."""
    text = rle.encode(mask_hw)
    assert rle.encode(rle.decode(text, mask_hw.shape)) == text


def test_any_value_but_zero_is_foreground():
    """A mask of 0 and 255, or of several labels, is encoded as a mask of 0 and 1."""
    for dtype in (np.uint8, np.int64, np.float32):
        assert rle.encode(np.array([[255, 1, 2, 0]], dtype=dtype)) == "1 3"


def test_masks_without_pixels_are_empty():
    """A mask of no rows or no columns has no runs."""
    assert rle.encode(np.zeros((0, 5), dtype=np.uint8)) == ""
    assert rle.encode(np.zeros((5, 0), dtype=bool)) == ""


def test_masks_of_other_dimensions_are_refused():
    """An image with channels is not a mask."""
    with pytest.raises(ValueError, match=r"shape \(H, W\), but got \(2, 2, 1\)"):
        rle.encode(np.zeros((2, 2, 1), dtype=np.uint8))


def test_encode_leaves_its_input_alone():
    """Neither the mask nor the runs given are written to."""
    mask_hw = np.array([[0, 1], [1, 1]], dtype=np.uint8)
    mask_hw.flags.writeable = False
    rle.encode(mask_hw)
    runs = np.array([[0, 2]])
    runs.flags.writeable = False
    rle.to_string(runs)
    rle.fill(runs, (2, 2))


@pytest.mark.parametrize("blank", ["", " ", "   "])
def test_blank_text_is_an_empty_mask(blank):
    """No runs are an empty mask, not an error."""
    assert rle.parse(blank, (3, 4)).shape == (0, 2)
    assert not rle.decode(blank, (3, 4)).any()


def test_touching_runs_and_spare_spaces_are_legal():
    """Other writers may break a run in two, or pad with spaces; the pixels count."""
    assert rle.encode(rle.decode(" 1 2  3 1 ", (3, 4))) == "1 3"


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_malformed_text_is_refused_with_the_reason(text, message):
    """Whatever is not a legal RLE of a 3x4 mask is a BadInput that shows the offending part."""
    with pytest.raises(BadInput) as caught:
        rle.decode(text, (3, 4))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 120


def test_gigantic_runs_are_refused_before_memory_is_taken():
    """A run beyond the image costs no memory, however long it claims to be."""
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="runs past the end"):
            rle.decode("1 100000000000000000", SEVERSTAL_HW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@given(st.text(alphabet="0123456789 ", max_size=12))
def test_parse_either_reads_or_refuses(text):
    """No text of digits and spaces gets past `parse` with runs that leave the image or overlap."""
    try:
        runs = rle.parse(text, (3, 4))
    except BadInput:
        return
    stops = runs[:, 0] + runs[:, 1]
    assert (runs >= [0, 1]).all()
    assert (stops <= 12).all()
    assert (runs[1:, 0] >= stops[:-1]).all()
    assert list(map(int, text.split())) == (runs + np.array([1, 0])).ravel().tolist()


def decode_with_coco(text):
    """Decode a Severstal RLE by way of COCO's counts of 0s and 1s in turn."""
    values = np.array(text.split(), dtype=np.int64)
    starts, stops = values[::2] - 1, values[::2] - 1 + values[1::2]
    borders = np.concatenate([[0], np.column_stack([starts, stops]).ravel(), [256 * 1600]])
    counts = np.diff(borders).tolist()
    return coco.decode(coco.frPyObjects({"size": SEVERSTAL_HW, "counts": counts}, *SEVERSTAL_HW))


@ignore_coco_warning
@pytest.mark.realdata
def test_real_rows_survive_the_round_trip():
    """All real rows are decoded as COCO does, and written back to the same text."""
    path = DATA / "rle" / "severstal_rows.csv"
    if not path.exists():
        pytest.skip(f"no rows in {path}: set STEELSEG_DATA")
    with path.open(newline="") as file:
        texts = [row["EncodedPixels"] for row in csv.DictReader(file)]
    masks = [text for text in texts if text]
    assert len(masks) == 1064
    for text in masks:
        mask_hw = rle.decode(text, SEVERSTAL_HW)
        assert np.array_equal(mask_hw, decode_with_coco(text))
        assert rle.encode(mask_hw) == rle.encode(np.ascontiguousarray(mask_hw)) == text


@given(MASKS)
def test_the_area_is_the_number_of_pixels(mask_hw):
    """Of the empty mask too, and without its size."""
    assert rle.area(rle.encode(mask_hw)) == mask_hw.sum()
