"""LabelMe's JSON files."""

import base64
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CLASSES, as_rle, given_cases, put_image, put_json, put_text, read
from PIL import Image
from strategies import noise, to_bytes

from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.formats import coco, cvat, labelme, labelstudio, yolo
from steelseg.formats.record import Record

TRIANGLE = [[1, 1], [6, 1], [1, 4]]


def shape(label: str = "dent", points: Any = TRIANGLE, kind: str = "polygon") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, "group_id": None}


def document(*shapes: dict[str, Any], path: str = "a.png", **others: Any) -> dict[str, Any]:
    return {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": path} | {
        "imageData": None,
        "imageHeight": 6,
        "imageWidth": 8,
        **others,
    }


@pytest.mark.parametrize("case", range(12))
def test_pixels_are_those_of_labelme(tmp_path: Path, case: int) -> None:
    """Random shapes of all types, one over the other, as its `shapes_to_label` paints them."""
    given = given_cases("labelme")["cases"][case]
    contents = given["document"]
    put_image(tmp_path, "a.png", (contents["imageHeight"], contents["imageWidth"]))
    put_json(tmp_path, "a.json", contents)
    assert labelme.recognises(tmp_path)
    _, records = read(labelme, tmp_path)
    record = records["a.png"]
    found = as_rle(record.masks)
    if record.ignored is not None:
        found["__ignore__"] = rle.encode(record.ignored)
    assert found == given["expected"]


def test_clean_and_unlabelled(tmp_path: Path) -> None:
    """No shapes is clean, no file is unlabelled; names keep their folders."""
    put_image(tmp_path, "coil1/a.png")
    put_image(tmp_path, "coil1/b.png")
    put_image(tmp_path, "c.png")
    put_json(tmp_path, "coil1/a.json", document())
    put_json(tmp_path, "c.json", document(shape(), path="c.png"))
    source, records = read(labelme, tmp_path)
    assert source.classes == ["dent"]
    assert {n: (r.labelled, list(r.masks)) for n, r in records.items()} == {
        "c.png": (True, ["dent"]),
        "coil1/a.png": (True, []),
        "coil1/b.png": (False, []),
    }


def test_an_image_elsewhere_in_the_folder_is_found(tmp_path: Path) -> None:
    """By a path with `..` and backslashes, as LabelMe writes it on Windows."""
    put_image(tmp_path, "images/a.png")
    put_json(tmp_path, "labels/a.json", document(shape(), path="..\\images\\a.png"))
    _, records = read(labelme, tmp_path)
    assert list(records["a.png"].masks) == ["dent"]


def test_an_image_of_an_old_path_is_found_beside_its_file(tmp_path: Path) -> None:
    """Files are moved and renamed together."""
    put_image(tmp_path, "new.png")
    put_json(tmp_path, "new.json", document(shape(), path="/home/anna/old.png"))
    _, records = read(labelme, tmp_path)
    assert list(records["new.png"].masks) == ["dent"]


def test_a_missing_image_is_not_taken_from_another_folder(tmp_path: Path) -> None:
    """Parts are photographed under the same names; a file refers to the folder it is in."""
    for name in ("part1/1.png", "part2/1.png", "part3/2.png"):
        put_image(tmp_path, name)
    put_json(tmp_path, "part1/1.json", document(shape(), path="1.png"))
    put_json(tmp_path, "part3/1.json", document(shape(), path="1.png"))
    put_json(tmp_path, "part1/2.json", document(shape(), path="2.png"))
    source, records = read(labelme, tmp_path)
    assert [name for name, record in records.items() if record.labelled] == ["part1/1.png"]
    assert list(source.left_out.values()) == ["annotations of a missing image"] * 2


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    """In a folder that is named; what is not there either is left out."""
    put_image(tmp_path, "pictures/coil/a.png")
    put_json(tmp_path, "labels/a.json", document(shape()))
    put_json(tmp_path, "labels/b.json", document(shape(), path="b.png"))
    source, records = read(labelme, tmp_path / "labels", images=tmp_path / "pictures")
    assert list(records["coil/a.png"].masks) == ["dent"]
    assert list(source.left_out.values()) == ["annotations of a missing image"]


@pytest.mark.parametrize("photos", ["photos", "elsewhere/photos"])
def test_paths_lead_from_the_labels_to_the_images(tmp_path: Path, photos: str) -> None:
    """As LabelMe writes them with `--output`; images may have been moved since."""
    for part in ("Süd", unicodedata.normalize("NFD", "Öl")):
        put_image(tmp_path, f"{photos}/{part}/1.png")
        path = f"..\\..\\photos\\{part}\\1.png"
        put_json(tmp_path, f"labels/{part}/1.json", document(shape(part), path=path))
    _, records = read(labelme, tmp_path / "labels", images=tmp_path / photos)
    assert [[*record.masks] for record in records.values()] == [[n.split("/")[0]] for n in records]


def test_folders_have_any_unicode_form(tmp_path: Path) -> None:
    """A file system may decompose their names."""
    folder = unicodedata.normalize("NFD", "Süd")
    put_image(tmp_path, f"{folder}/1.png")
    put_image(tmp_path, "West/1.png")
    put_json(tmp_path, f"{folder}/1.json", document(shape(), path="1.png"))
    _, records = read(labelme, tmp_path)
    assert [r.labelled for r in records.values()] == [True, False]


def test_an_image_that_is_only_inside_its_file_is_unpacked(tmp_path: Path) -> None:
    """With its pixels, while its record is used."""
    image = noise(3)
    data = base64.b64encode(to_bytes(image, "PNG")).decode()
    put_json(tmp_path, "deep/a.json", document(shape(), imageData=data))
    source = labelme.read(tmp_path, labelme.Options())
    for record in source.records:
        assert record.name == "a.png"
        np.testing.assert_array_equal(np.array(Image.open(record.path)), image)
        assert list(record.masks) == ["dent"]


def test_later_shapes_hide_earlier_ones(tmp_path: Path) -> None:
    """Also background, and what is ignored by a word of one's own."""
    corner = [[0, 0], [3, 2]]
    put_image(tmp_path, "a.png")
    shapes = [shape("dent", [[0, 0], [7, 5]], "rectangle"), shape("scale", corner, "rectangle")]
    erased = shape("_background_", [[7, 5], [6, 4]], "rectangle")
    put_json(tmp_path, "a.json", document(*shapes, erased))
    source, records = read(labelme, tmp_path, ignore=frozenset({"scale"}))
    assert source.classes == ["dent"]
    assert records["a.png"].ignored is not None
    assert records["a.png"].ignored.sum() == 12
    assert records["a.png"].masks["dent"].sum() == 48 - 12 - 4


def test_what_has_no_meaning_is_left_out(tmp_path: Path) -> None:
    """With a reason, and the rest is read."""
    put_image(tmp_path, "a.png")
    shapes = [
        shape(points=TRIANGLE[:2]),
        shape(kind="cuboid", points=[]),
        shape(points=[[9, 9]] * 3),
        shape(),
    ]
    put_json(tmp_path, "a.json", document(*shapes))
    put_json(tmp_path, "gone.json", document(shape("other"), path="gone.png"))
    source, records = read(labelme, tmp_path)
    assert records["a.png"].masks["dent"].any()
    assert sorted(source.left_out.values()) == [
        "annotations of a missing image",
        "polygon of fewer than 3 points",
        "shape of the type 'cuboid'",
        "shape without a pixel in the image",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points": [[0, 0], [float("nan"), 1], [1, 1]]}, "a.png.*shape 1: .*NaN"),
        ({"points": [[0, 0], [10**9, 1], [1, 1]]}, "a.png.*shape 1: .*far outside"),
        ({"points": "no"}, "shape 1: expected pairs of numbers"),
        ({"points": [[0, 0]] * 3, "shape_type": "rectangle"}, "expected 2 points of a rectangle"),
        ({"points": [[0, 0], [3, 3]], "shape_type": "mask", "mask": "?"}, "in base64"),
        ({"points": [[0, 0], [3, 3]], "shape_type": "mask", "mask": "aaaa"}, "PNG"),
        ({"label": ""}, "a.json: expected a label of shape 1"),
        ({"label": 3}, "a.json: expected a label of shape 1"),
    ],
)
def test_a_damaged_shape_is_refused_by_name(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """With the file and the number of the shape."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "a.json", document(shape() | wrong))
    with pytest.raises(BadInput, match=message):
        read(labelme, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"imagePath": "../../a.png"}, "leads out of"),
        ({"imagePath": None}, "expected an image path"),
        ({"shapes": {}}, "expected a list of objects"),
        ({"imageHeight": 8, "imageWidth": 6}, "turned upright"),
        ({"imageHeight": 7}, "state 7x8, but the image is 6x8"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    """What it says contradicts the image, or leads out of the folder."""
    put_image(tmp_path, "other.png")
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "a.json", document(shape()) | wrong)
    with pytest.raises(BadInput, match=message):
        read(labelme, tmp_path)


def test_a_mask_must_fill_its_corners(tmp_path: Path) -> None:
    """As LabelMe itself demands it."""
    data = base64.b64encode(to_bytes(np.ones((2, 2), np.uint8), "PNG")).decode()
    put_image(tmp_path, "a.png")
    wrong = shape(points=[[0, 0], [3, 3]], kind="mask") | {"mask": data}
    put_json(tmp_path, "a.json", document(wrong))
    with pytest.raises(BadInput, match="mask of 2x2 does not fill 4x4"):
        read(labelme, tmp_path)


def test_all_faults_are_named_together(tmp_path: Path) -> None:
    """Not one for each run."""
    for name in "ab":
        put_image(tmp_path, f"{name}.png")
        wrong = document(shape(points=[["x"]]), shape("dent"), path=f"{name}.png")
        put_json(tmp_path, f"{name}.json", wrong)
    with pytest.raises(BadInput, match="2 faults"):
        read(labelme, tmp_path)


def test_a_label_must_be_one_of_the_classes(tmp_path: Path) -> None:
    """Where the classes are given, in their order."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "a.json", document(shape("dent"), shape("pit")))
    source, _ = read(labelme, tmp_path, classes=("pit", "dent"))
    assert source.classes == ["pit", "dent"]
    with pytest.raises(BadInput, match="shape 1: the label 'dent' is not in 'pit'"):
        read(labelme, tmp_path, classes=("pit",))


def test_labels_have_the_order_of_their_list(tmp_path: Path) -> None:
    """That LabelMe takes as `--labels`; others follow by name."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "a.json", document(shape("dent"), shape("bump"), shape("pit")))
    put_text(tmp_path, "labels.txt", "__ignore__\n_background_\npit\nscratch\n\n")
    source, _ = read(labelme, tmp_path)
    assert source.classes == ["pit", "scratch", "bump", "dent"]


def test_an_export_is_painted_by_labelme(tmp_path: Path) -> None:
    """What is hidden in LabelMe's own label map, import finds again by a flag."""
    path = put_image(tmp_path / "in", "a.png")
    masks = {c.name: np.zeros((6, 8), np.uint8) for c in CLASSES}
    masks["scratch"][:, 2:6] = masks["it's a pit: 3"][2:4] = 1
    record = Record(path, "a.png", (6, 8), masks)
    labelme.write(tmp_path / "out", [record], CLASSES)
    written = json.loads((tmp_path / "out/images/a.json").read_text())
    assert [s["flags"] for s in written["shapes"]] == [{"overlaps": True}] * 2
    assert as_rle(read(labelme, tmp_path / "out")[1]["a.png"].masks) == as_rle(masks)


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    """Nobody can say which of them counts."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "a.json", document(shape()))
    put_json(tmp_path, "b.json", document())
    with pytest.raises(BadInput, match=r"b\.json.*appears twice"):
        read(labelme, tmp_path)


def test_no_other_format_takes_it_for_its_own(tmp_path: Path) -> None:
    """And a lone file is recognised too."""
    put_image(tmp_path, "a.png")
    path = put_json(tmp_path, "a.json", document(shape()))
    assert labelme.recognises(path)
    assert not any(m.recognises(tmp_path) for m in (coco, yolo, cvat, labelstudio))


def test_an_export_refuses_names_that_share_a_file(tmp_path: Path) -> None:
    """`a.png` and `a.jpg` would both have `a.json`."""
    put_image(tmp_path / "in", "a.png")
    shutil.copy(tmp_path / "in/a.png", tmp_path / "in/a.bmp")
    put_json(tmp_path / "in", "a.json", document(shape()))
    source = labelme.read(tmp_path / "in", labelme.Options())
    with pytest.raises(BadInput, match="would share a label file"):
        labelme.write(tmp_path / "out", source.records, CLASSES)
