"""CVAT for images 1.1."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated import as_rle, drawn, given_cases, put_image, put_text, read
from pycocotools import mask as coco_mask

from steelseg.core.errors import BadInput
from steelseg.formats import coco, cvat, labelme, labelstudio, yolo

pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")

LABELS = """<labels><label><name>dent</name><color>#C06060</color><type>any</type></label>
<label><name>pit</name><color>no</color></label>
<label><name>ok</name><type>tag</type></label>
<label><name>leg</name><parent>dent</parent></label></labels>"""
POLYGON = '<polygon label="dent" points="1.00,1.00;6.00,1.00;1.00,4.00" z_order="0"/>'


def document(shapes: str, image: str = 'name="a.png" width="8" height="6"') -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><id>1</id>{LABELS}</task></meta>"
        f'<image id="0" {image}>{shapes}</image></annotations>'
    )


def read_one(folder: Path, shapes: str, size_hw: tuple[int, int] = (6, 8)) -> dict[str, str]:
    """Read one image with shapes; the masks."""
    put_image(folder, "images/a.png", size_hw)
    size = f'name="a.png" width="{size_hw[1]}" height="{size_hw[0]}"'
    put_text(folder, "annotations.xml", document(shapes, size))
    return as_rle(read(cvat, folder)[1]["a.png"].masks)


def test_a_document_of_another_tool(tmp_path: Path) -> None:
    """Datumaro's: polygons, boxes and masks have the pixels that it makes of them itself."""
    given = given_cases("datumaro")
    put_text(tmp_path, "default.xml", given["cvat"])
    for stem, expected in given["expected"].items():
        put_image(tmp_path, f"images/{stem}.jpg", tuple(expected["size_hw"]))
    assert cvat.recognises(tmp_path)
    source, records = read(cvat, tmp_path)
    assert source.classes == ["scratch", "dent", "pit"]
    found = {name: as_rle(record.masks) for name, record in records.items()}
    assert found == {f"{k}.jpg": e["cvat"] for k, e in given["expected"].items()}


def test_clean_and_unlabelled(tmp_path: Path) -> None:
    """An image without a shape is unlabelled, unless it has a tag; colours are kept."""
    text = document(POLYGON).replace(
        "</annotations>",
        '<image id="1" name="b.png" width="8" height="6"></image>'
        '<image id="2" name="c.png" width="8" height="6"><tag label="ok"/></image></annotations>',
    )
    for name in ("a.png", "b.png", "c.png", "new.png"):
        put_image(tmp_path, name)
    put_text(tmp_path, "annotations.xml", text)
    source, records = read(cvat, tmp_path)
    assert {n: (r.labelled, list(r.masks)) for n, r in records.items()} == {
        "a.png": (True, ["dent"]),
        "b.png": (False, []),
        "c.png": (True, []),
        "new.png": (False, []),
    }
    assert source.classes == ["dent", "pit"]
    assert source.colors == {"dent": "#c06060"}


def test_a_mask_is_rows_in_a_window(tmp_path: Path) -> None:
    """Runs begin with background; the last may be missing nothing."""
    mask = '<mask label="pit" rle="0, 1, 2, 3" left="5" top="2" width="3" height="2"/>'
    expected = drawn(*["........"] * 2, ".....#..", ".....###", *["........"] * 2)
    assert read_one(tmp_path, mask) == as_rle({"pit": expected})


def test_a_turned_box_is_a_polygon(tmp_path: Path) -> None:
    """Around its middle, clockwise in degrees."""
    box = '<box label="pit" xtl="4" ytl="8" xbr="16" ybr="12" rotation="90.00"/>'
    upright = coco_mask.decode(coco_mask.frPyObjects([[12, 4, 12, 16, 8, 16, 8, 4]], 20, 20))
    assert read_one(tmp_path, box, (20, 20)) == as_rle({"pit": upright[:, :, 0]})


def test_an_ellipse_is_that_of_opencv(tmp_path: Path) -> None:
    """With whole numbers of pixels, as CVAT rounds them."""
    ellipse = '<ellipse label="pit" cx="9.6" cy="8.4" rx="6.2" ry="3.5" rotation="30"/>'
    expected = np.zeros((20, 20), np.uint8)
    cv2.ellipse(expected, (10, 8), (6, 4), 30, 0, 360, 1, -1)
    assert read_one(tmp_path, ellipse, (20, 20)) == as_rle({"pit": expected})


def test_a_shape_hides_others_below(tmp_path: Path) -> None:
    """By `z_order`, wherever it stands; in one plane, both count."""
    whole = '<box label="dent" xtl="0" ytl="0" xbr="8" ybr="6" z_order="{}"/>'
    corner = '<box label="pit" xtl="0" ytl="0" xbr="2" ybr="2" z_order="{}"/>'
    for order, n_pixels in [((0, 0), (48, 4)), ((0, 1), (44, 4)), ((0, -1), (48, 0))]:
        put_image(tmp_path, "a.png")
        text = corner.format(order[1]) + whole.format(order[0])
        put_text(tmp_path, "annotations.xml", document(text))
        masks = read(cvat, tmp_path)[1]["a.png"].masks
        assert tuple(int(masks[c].sum()) if c in masks else 0 for c in ("dent", "pit")) == n_pixels


def test_what_has_no_area_is_left_out(tmp_path: Path) -> None:
    """With a reason; an image of which nothing remains is unlabelled, not clean."""
    put_image(tmp_path, "a.png")
    shapes = (
        '<polyline label="dent" points="1,1;2,2"/><points label="dent" points="1,1"/>'
        '<polygon label="dent" points="1,1;2,2"/>' + POLYGON.replace(" z", ' outside="1" z')
    )
    text = document(shapes).replace(
        "</annotations>", '<image id="1" name="gone.png" width="8" height="6"/></annotations>'
    )
    put_text(tmp_path, "annotations.xml", text)
    source, records = read(cvat, tmp_path)
    assert source.left_out == {
        "gone.png": "annotations of a missing image",
        "a.png: polyline 1": "polyline, which has no area",
        "a.png: points 2": "points, which has no area",
        "a.png: polygon 3": "polygon of fewer than 3 points",
        "a.png: polygon 4": "shape outside the view",
    }
    assert not records["a.png"].labelled


def test_a_project_has_subsets(tmp_path: Path) -> None:
    """Images of one name in two of them are told apart."""
    for name in ("images/train/a.png", "images/val/a.png"):
        put_image(tmp_path, name)
    image = 'name="a.png" subset="val" task_id="2" width="8" height="6"'
    put_text(tmp_path, "annotations.xml", document(POLYGON, image))
    _, records = read(cvat, tmp_path)
    assert {name: bool(record.masks) for name, record in records.items()} == {
        "train/a.png": False,
        "val/a.png": True,
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("6.00,1.00", "nan,1.00", "a.png.*polygon 1: .*NaN"),
        ("6.00,1.00", "1e9,1.00", "a.png.*polygon 1: .*far outside"),
        ("6.00,1.00", "6.00", "polygon 1: expected pairs"),
        ("6.00,1.00", "six,1", "polygon 1: expected points"),
        ('label="dent"', 'label="rust"', "polygon 1: the label 'rust' is not in 'dent, pit'"),
        ('label="dent"', "", "polygon 1: expected a label"),
        ('z_order="0"', 'z_order="x"', "polygon 1: expected a number as `z_order`"),
        ('z_order="0"', 'z_order="1e300"', "polygon 1: expected a `z_order`"),
        (POLYGON, '<box label="dent" xtl="1"/>', "box 1: expected a number as `ytl`"),
        (POLYGON, '<mask label="pit" rle="12" left="6" top="0" width="4" height="3"/>', "leaves"),
        (POLYGON, '<mask label="pit" rle="11" left="0" top="0" width="4" height="3"/>', "add up"),
        (POLYGON, '<mask label="pit" rle="-1" left="0" top="0" width="4" height="3"/>', "`rle`"),
        ('width="8"', 'width="9"', "state 6x9, but the image is 6x8"),
        ('width="8"', "", "expected a number as `width`"),
        ('name="a.png"', 'name="../a.png"', "leads out of"),
        ('name="a.png"', "", "expected the name of an image"),
    ],
)
def test_a_damaged_shape_is_refused_by_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """With the image and the number of the shape."""
    put_image(tmp_path, "in/a.png")
    put_text(tmp_path, "in/annotations.xml", document(POLYGON).replace(old, new))
    with pytest.raises(BadInput, match=message):
        read(cvat, tmp_path / "in")


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotations>", f"{ENTITIES}<annotations>", "declares entities"),
        ("<annotations>", '<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotations>', "declares"),
        ("</image>", "", "cannot be read as XML"),
        ("<image", '<track id="0"></track><image', "annotates a video"),
    ],
)
def test_a_damaged_document_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """No entity is expanded, and no file is fetched."""
    put_image(tmp_path, "a.png")
    put_text(tmp_path, "annotations.xml", document(POLYGON).replace(old, new))
    with pytest.raises(BadInput, match=rf"annotations\.xml: .*{message}"):
        read(cvat, tmp_path)


def test_no_other_format_takes_it_for_its_own(tmp_path: Path) -> None:
    """A folder of CVAT is recognised as that alone, and a lone document too."""
    put_image(tmp_path, "a.png")
    path = put_text(tmp_path, "annotations.xml", document(POLYGON))
    assert cvat.recognises(tmp_path)
    assert cvat.recognises(path)
    assert not any(m.recognises(tmp_path) for m in (labelme, coco, yolo, labelstudio))
