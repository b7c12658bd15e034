"""COCO documents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CLASSES, as_rle, drawn, given_cases, put_image, put_json, put_text, read
from PIL import ExifTags, Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from strategies import noise, to_bytes

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.formats import coco, cvat, documents, labelme, labelstudio, yolo
from steelseg.formats.record import Options

# of pycocotools' decoder under NumPy 2, which only these tests use
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
DENTS = [{"id": 3, "name": "dent"}, {"id": 90, "name": "pit"}]


def annotation(number: int = 1, **others: Any) -> dict[str, Any]:
    defaults = {"image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [SQUARE]}
    return {"id": number, **defaults, **others}


def document(*annotations: dict[str, Any], **others: Any) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}]
    return {
        "images": images,
        "annotations": list(annotations),
        "categories": DENTS,
        **others,
    }


def test_a_document_of_another_tool(tmp_path: Path) -> None:
    """Datumaro's, which is CVAT's too: boxes are no masks, and drawn masks are called crowds."""
    given = given_cases("datumaro")
    put_json(tmp_path, "annotations/instances_default.json", given["coco"])
    for stem, expected in given["expected"].items():
        put_image(tmp_path, f"images/default/{stem}.jpg", tuple(expected["size_hw"]))
    assert coco.recognises(tmp_path)
    source, records = read(coco, tmp_path)
    assert source.classes == ["scratch", "dent", "pit"]
    found = {name: as_rle(record.masks) for name, record in records.items()}
    assert found == {f"default/{k}.jpg": e["coco"] for k, e in given["expected"].items()}
    ignored = [r.ignored for _, r in sorted(records.items()) if r.ignored is not None]
    crowds = [e["crowd"] for _, e in sorted(given["expected"].items()) if e["crowd"]]
    assert crowds
    assert [rle.encode(mask) for mask in ignored] == crowds
    assert set(source.left_out.values()) <= {"box without a mask"}


def test_clean_and_unlabelled(tmp_path: Path) -> None:
    """Listed without annotations is clean, not listed is unlabelled."""
    for name in ("a.png", "b.png", "below/c.png"):
        put_image(tmp_path, name)
    images = [{"id": i, "file_name": f"{n}.png"} for i, n in enumerate("ab", 1)]
    put_json(tmp_path, "coco.json", document(annotation(), images=images))
    _, records = read(coco, tmp_path)
    assert {n: (r.labelled, list(r.masks)) for n, r in records.items()} == {
        "a.png": (True, ["dent"]),
        "b.png": (True, []),
        "below/c.png": (False, []),
    }


def test_all_ways_to_write_pixels(tmp_path: Path) -> None:
    """Several polygons of one annotation, run lengths in both forms, and a crowd."""
    put_image(tmp_path, "a.png")
    left, right = drawn("##......", *["........"] * 5), drawn(*["......#."] * 6)
    packed = coco_mask.encode(np.asfortranarray(right))["counts"].decode()
    entries = [
        annotation(1, segmentation=[SQUARE, [5, 4, 8, 4, 8, 6]]),
        annotation(2, segmentation={"size": [6, 8], "counts": [0, 1, 5, 1, 41]}, category_id=90),
        annotation(3, segmentation={"size": [6, 8], "counts": packed}, iscrowd=1),
    ]
    put_json(tmp_path, "coco.json", document(*entries))
    source, records = read(coco, tmp_path)
    triangle = coco_mask.frPyObjects([SQUARE, [5, 4, 8, 4, 8, 6]], 6, 8)
    both = coco_mask.decode(coco_mask.merge(triangle))
    assert as_rle(records["a.png"].masks) == as_rle({"dent": both, "pit": left})
    np.testing.assert_array_equal(records["a.png"].ignored, right)
    assert source.ids == (3, 90)


def test_a_category_above_others_is_no_class(tmp_path: Path) -> None:
    """Roboflow writes one with the name of the project, and the id 0; then ids are 1, 2, ..."""
    put_image(tmp_path, "train/a.png")
    categories = [
        {"id": 0, "name": "steel", "supercategory": "none"},
        {"id": 1, "name": "dent", "supercategory": "steel"},
    ]
    whole = document(annotation(category_id=1), categories=categories)
    put_json(tmp_path, "train/_annotations.coco.json", whole)
    source, records = read(coco, tmp_path)
    assert (source.classes, source.ids) == (["dent"], (1,))
    assert list(records) == ["train/a.png"]


def test_a_category_zero_is_a_class(tmp_path: Path) -> None:
    """Its id is not kept, since ids of classes begin with 1."""
    put_image(tmp_path, "a.png")
    whole = document(annotation(category_id=0), categories=[{"id": 0, "name": "dent"}])
    put_json(tmp_path, "coco.json", whole)
    source, _ = read(coco, tmp_path)
    assert (source.classes, source.ids) == (["dent"], ())


def test_an_ignored_category_is_no_class(tmp_path: Path) -> None:
    """The ids of the others are kept; classes that are given have ids of their own."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "coco.json", document(annotation(1), annotation(2, category_id=90)))
    source, records = read(coco, tmp_path, ignore=frozenset({"dent"}))
    assert (source.classes, source.ids) == (["pit"], (90,))
    assert records["a.png"].ignored is not None
    source, _ = read(coco, tmp_path, classes=("pit", "dent"))
    assert (source.classes, source.ids) == (["pit", "dent"], ())


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    """In a folder that is named."""
    put_image(tmp_path, "pictures/coil/a.png")
    put_json(tmp_path, "labels/coco.json", document(annotation()))
    with pytest.raises(BadInput, match="--images names another"):
        read(coco, tmp_path / "labels")
    _, records = read(coco, tmp_path / "labels", images=tmp_path / "pictures")
    assert records["coil/a.png"].masks


def test_a_turned_photograph_is_labelled_upright(tmp_path: Path) -> None:
    """Stored as 6x8 and shown as 8x6; labels of the stored pixels are refused."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "a.jpg").write_bytes(to_bytes(noise(0, (6, 8)), "JPEG", exif=exif))
    images = [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 6}]
    put_json(tmp_path, "coco.json", document(annotation(), images=images))
    _, records = read(coco, tmp_path)
    assert records["a.jpg"].masks["dent"].shape == records["a.jpg"].size_hw == (8, 6)
    images[0] |= {"height": 6, "width": 8}
    put_json(tmp_path, "coco.json", document(annotation(), images=images))
    with pytest.raises(BadInput, match="before it was turned upright"):
        read(coco, tmp_path)


def test_a_document_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is read."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "coco.json", document(annotation()))
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    with pytest.raises(BadInput, match=r"coco\.json: expected at most 100 bytes"):
        read(coco, tmp_path)


def test_several_documents(tmp_path: Path) -> None:
    """One for training and one for validation; a document itself can be the source."""
    images = [{"id": 1, "file_name": "b.png"}]
    put_image(tmp_path, "train/a.png")
    put_image(tmp_path, "val/b.png")
    put_json(tmp_path, "annotations/train.json", document(annotation()))
    path = put_json(tmp_path, "annotations/val.json", document(annotation(), images=images))
    _, records = read(coco, tmp_path)
    assert all(record.masks for record in records.values())
    _, records = read(coco, path)
    assert {name: bool(record.masks) for name, record in records.items()} == {
        "train/a.png": False,
        "val/b.png": True,
    }
    put_json(tmp_path, "annotations/val.json", document(annotation()))
    with pytest.raises(BadInput, match=r"'train/a\.png' appears twice"):
        read(coco, tmp_path)


def test_what_has_no_pixels_is_left_out(tmp_path: Path) -> None:
    """Boxes, lines, shapes beside the image, and images that are not there."""
    put_image(tmp_path, "a.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}]
    entries = [
        annotation(1, segmentation=[]),
        annotation(2, segmentation=[[1, 1, 4, 4]]),
        annotation(3, segmentation=[[-5, -5, -4, -4, -5, -4]]),
        annotation(4, image_id=2),
    ]
    put_json(tmp_path, "coco.json", document(*entries, images=images))
    source, records = read(coco, tmp_path)
    assert source.left_out == {
        "gone.png": "annotations of a missing image",
        "a.png: annotation 1": "box without a mask",
        "a.png: annotation 2": "polygon of fewer than 3 points",
        "a.png: annotation 3": "shape without a pixel in the image",
    }
    assert not records["a.png"].masks
    assert not records["a.png"].labelled


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segmentation": [[1, 1, float("nan"), 4, 3, 3]]}, "a.png.*annotation 1: .*NaN"),
        ({"segmentation": [[1, 1, 1e12, 4, 3, 3]]}, "a.png.*annotation 1: .*far outside"),
        ({"segmentation": [[1, 1, 2]]}, "annotation 1: expected pairs"),
        ({"segmentation": "mask.png"}, "annotation 1: expected polygons or run lengths"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, "of an image of 6x8"),
        ({"segmentation": {"size": [6, 8], "counts": [47]}}, "add up to 6x8"),
        ({"segmentation": {"size": [6, 8], "counts": "~~~"}}, "compressed RLE"),
        ({"segmentation": {"size": [6, 8]}}, "list of whole numbers"),
        ({"image_id": 7}, "annotation 1: there is no image 7"),
        ({"image_id": "1"}, "annotation 1: expected a whole number as `image_id`"),
        ({"category_id": 4}, "annotation 1: there is no category 4"),
    ],
)
def test_a_damaged_annotation_is_refused_by_name(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """With its id, and the image where it has one."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "coco.json", document(annotation(**wrong), annotation(2)))
    with pytest.raises(BadInput, match=message):
        read(coco, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": [{"id": 1, "file_name": "../a.png"}]}, "leads out of"),
        ({"images": [{"id": 1}]}, "expected the `file_name` of image 1"),
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2}, "image id 1 appears twice"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 6}]}, "turned upright"),
        ({"images": {}}, "expected a list of objects as `images`"),
        ({"categories": [{"id": 3}]}, "expected a category with a name"),
        ({"categories": DENTS[:1] * 2}, "the category 'dent' .3. appears twice"),
    ],
)
def test_a_damaged_document_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    """Naming the document, or the image."""
    put_image(tmp_path, "in/a.png")
    put_json(tmp_path, "in/coco.json", document(annotation(), **wrong))
    with pytest.raises(BadInput, match=message):
        read(coco, tmp_path / "in")


def test_a_path_that_may_be_two_images_is_refused(tmp_path: Path) -> None:
    """Rather than to take the first."""
    put_image(tmp_path, "one/a.png")
    put_image(tmp_path, "two/a.png")
    put_json(tmp_path, "coco.json", document(annotation()))
    with pytest.raises(BadInput, match=r"'a\.png' may be one/a\.png or two/a\.png"):
        read(coco, tmp_path)


def test_an_import_of_crowds_alone_names_them(tmp_path: Path) -> None:
    """CVAT's export of drawn masks has nothing else."""
    put_image(tmp_path, "in/a.png")
    put_json(tmp_path, "in/coco.json", document(annotation(iscrowd=1)))
    with pytest.raises(SystemExit, match="but found none; ignored regions in 1 images"):
        main(["import", str(tmp_path / "in"), "--to", str(tmp_path / "out")])


@pytest.mark.parametrize("text", ["[" * 100_000, "", "\x00", "NaN" * 9])
def test_no_json_is_refused(tmp_path: Path, text: str) -> None:
    """However deep it is nested."""
    put_image(tmp_path, "a.png")
    put_text(tmp_path, "a.json", '{"images": "annotations" "categories"' + text)
    with pytest.raises(BadInput, match=r"a\.json: cannot be read as JSON"):
        read(coco, tmp_path)
    deep = '{"images": [], "annotations": [], "categories": ' + text
    put_text(tmp_path, "a.json", deep)
    with pytest.raises(BadInput, match=r"a\.json: cannot be read as JSON"):
        read(coco, tmp_path)


def test_an_export_is_read_by_pycocotools(tmp_path: Path) -> None:
    """With the masks and the sizes that were written."""
    put_image(tmp_path / "in", "coil/a.png")
    put_json(tmp_path / "in", "c.json", document(annotation(), annotation(2, iscrowd=1)))
    source = coco.read(tmp_path / "in", Options())
    dents = [CLASSES[0]._replace(id=3, name="dent")]
    coco.write(tmp_path / "out", source.records, dents)
    written = COCO(str(tmp_path / "out/annotations/instances_default.json"))
    dent, crowd = written.loadAnns([1, 2])
    assert (dent["category_id"], dent["iscrowd"], crowd["iscrowd"]) == (3, 0, 1)
    assert dent["area"] == written.annToMask(dent).sum() == 9
    assert (tmp_path / "out/images" / written.loadImgs([1])[0]["file_name"]).is_file()


def test_no_other_format_takes_it_for_its_own(tmp_path: Path) -> None:
    """A folder of COCO is recognised as that alone."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "coco.json", document(annotation()))
    assert coco.recognises(tmp_path)
    assert not any(m.recognises(tmp_path) for m in (labelme, yolo, cvat, labelstudio))
