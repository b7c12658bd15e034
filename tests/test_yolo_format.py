"""YOLO-seg's labels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated import as_rle, put_image, put_text, read
from hypothesis import given
from hypothesis import strategies as st

from steelseg.core.errors import BadInput
from steelseg.formats import coco, cvat, labelme, labelstudio, yolo

NAMES = "path: .\ntrain: images/train\nval: images/val\nnames: {0: dent, 1: pit}\n"
TRIANGLE = "0 0.125 0.1667 0.8 0.2 0.2 0.8"


def put_labels(folder: Path, text: str, size_hw: tuple[int, int] = (6, 8)) -> None:
    put_text(folder, "data.yaml", NAMES)
    put_image(folder, "images/train/a.png", size_hw)
    put_text(folder, "labels/train/a.txt", text)


@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8),
    size_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_pixels_are_those_of_ultralytics(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[tuple[float, float]],
    size_hw: tuple[int, int],
) -> None:
    """float32, times width and height, truncated, and filled by OpenCV."""
    folder = tmp_path_factory.mktemp("yolo")
    put_labels(folder, " ".join(["1", *(f"{v!r}" for p in points for v in p)]), size_hw)
    segment = np.array(points, dtype=np.float32)
    segment[:, 0] *= size_hw[1]
    segment[:, 1] *= size_hw[0]
    expected = np.zeros(size_hw, dtype=np.uint8)
    cv2.fillPoly(expected, np.asarray([segment], dtype=np.int32), color=1)
    source, records = read(yolo, folder)
    found = records["train/a.png"].masks
    assert as_rle(found) == as_rle({"pit": expected} if expected.any() else {})
    assert bool(source.left_out) == (not expected.any())


def test_clean_and_unlabelled(tmp_path: Path) -> None:
    """An empty file is clean, no file is unlabelled, whatever Ultralytics makes of it."""
    put_labels(tmp_path, f"{TRIANGLE}\n\n1 .1 .1 .3 .1 .1 .3\n")
    put_image(tmp_path, "images/train/b.png")
    put_text(tmp_path, "labels/train/b.txt", "\n")
    put_image(tmp_path, "images/val/c.png")
    put_text(tmp_path, "labels/val/d.txt", TRIANGLE)
    source, records = read(yolo, tmp_path)
    assert source.classes == ["dent", "pit"]
    assert {n: (r.labelled, list(r.masks)) for n, r in records.items()} == {
        "train/a.png": (True, ["dent", "pit"]),
        "train/b.png": (True, []),
        "val/c.png": (False, []),
    }
    assert source.left_out == {"labels/val/d.txt": "labels of a missing image"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "names: [dent, pit]"),
        ("dataset.yml", "nc: 2\nnames:\n  1: pit\n  0: dent\n"),
        ("classes.txt", "dent\npit\n"),
    ],
)
def test_names_of_classes(tmp_path: Path, file: str, text: str) -> None:
    """As a list, by number, or in a file of their own; labels may lie beside the images."""
    put_image(tmp_path, "a.png")
    put_text(tmp_path, "labels/unused", "")
    put_text(tmp_path, "a.txt", TRIANGLE.replace("0", "1", 1))
    put_text(tmp_path, file, text)
    assert yolo.recognises(tmp_path)
    source, records = read(yolo, tmp_path)
    assert source.classes == ["dent", "pit"]
    assert list(records["a.png"].masks) == ["pit"]


def test_the_layout_of_roboflow(tmp_path: Path) -> None:
    """`train/images` and `train/labels`; the file itself can be the source."""
    path = put_text(tmp_path, "data.yaml", "train: ../train/images\nnames: [dent]")
    put_image(tmp_path, "train/images/a.png")
    put_text(tmp_path, "train/labels/a.txt", TRIANGLE)
    for source in (tmp_path, path):
        _, records = read(yolo, source)
        assert list(records["train/images/a.png"].masks) == ["dent"]


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    """Labels have the paths of the images then, in `labels` or not."""
    put_image(tmp_path, "pictures/coil/a.png")
    for folder, labels in [("one", "labels/coil/a.txt"), ("two", "coil/a.txt")]:
        put_text(tmp_path / folder, "data.yaml", NAMES)
        put_text(tmp_path / folder, labels, TRIANGLE)
        _, records = read(yolo, tmp_path / folder, images=tmp_path / "pictures")
        assert list(records["coil/a.png"].masks) == ["dent"]


def test_boxes_are_left_out(tmp_path: Path) -> None:
    """Labels for detection have no masks."""
    put_labels(tmp_path, f"0 0.5 0.5 0.2 0.2\n{TRIANGLE}")
    source, records = read(yolo, tmp_path)
    assert source.left_out == {"images/train/a.png: line 1": "box without a mask"}
    assert records["train/a.png"].masks


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .1 .1 .3 .1 .1 .3", "a.txt: line 2: the class '2' is not in '0, 1'"),
        ("-1 .1 .1 .3 .1 .1 .3", "line 2: the class"),
        ("dent .1 .1 .3 .1 .1 .3", "line 2: the class 'dent'"),
        ("0 .1 .1 .3 .1 .1", "a.png.*line 2: expected pairs"),
        ("0 .1 .1 .3 .1 .1 x", "line 2: expected pairs"),
        ("0 .1 .1 .3 .1 .1 nan", "line 2: expected coordinates from 0 to 1"),
        ("0 10 10 30 10 10 30", "line 2: expected coordinates from 0 to 1"),
    ],
)
def test_a_damaged_line_is_refused_by_number(tmp_path: Path, line: str, message: str) -> None:
    """With its file."""
    put_labels(tmp_path, f"{TRIANGLE}\n{line}")
    with pytest.raises(BadInput, match=message):
        read(yolo, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: dent", "expected `names` as a list"),
        ("names: {dent: 0}", "expected `names` as a list"),
        ("names: [dent", "cannot be read as YAML"),
        ("names", "cannot be read as YAML"),
        ("names: ['']", "expected the name of class 0"),
        ("names: !!python/object/apply:os.system [ls]", "cannot be read as YAML"),
    ],
)
def test_a_damaged_list_of_names_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """And nothing that it asks for is done."""
    put_labels(tmp_path, TRIANGLE)
    put_text(tmp_path, "data.yaml", text)
    with pytest.raises(BadInput, match=message):
        read(yolo, tmp_path)


def test_no_list_of_names_is_refused(tmp_path: Path) -> None:
    """Nor several of them."""
    put_image(tmp_path, "a.png")
    with pytest.raises(BadInput, match=r"expected one data\.yaml with `names`, but found none"):
        read(yolo, tmp_path)
    for name in ("a.yaml", "b.yaml"):
        put_text(tmp_path, name, NAMES)
    with pytest.raises(BadInput, match=r"found a\.yaml and b\.yaml"):
        read(yolo, tmp_path)


def test_two_images_of_one_file_are_refused(tmp_path: Path) -> None:
    """Ultralytics would take the same labels for both."""
    put_labels(tmp_path, TRIANGLE)
    put_image(tmp_path, "images/train/a.bmp")
    with pytest.raises(BadInput, match="one file has the labels of both"):
        read(yolo, tmp_path)


def test_no_other_format_takes_it_for_its_own(tmp_path: Path) -> None:
    """A folder of YOLO is recognised as that alone."""
    put_labels(tmp_path, TRIANGLE)
    assert yolo.recognises(tmp_path)
    assert not any(m.recognises(tmp_path) for m in (labelme, coco, cvat, labelstudio))
