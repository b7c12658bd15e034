"""Documents that are damaged anywhere are read or refused, and nothing else happens."""

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotated import given_cases, put_image, put_text, read
from hypothesis import given, settings
from hypothesis import strategies as st

from steelseg.core.errors import BadInput
from steelseg.formats import coco, cvat, labelme, labelstudio, yolo

BRUSH = given_cases("labelstudio")["cases"][0]
SIZE_HW = tuple(BRUSH["size_hw"])
HEIGHT, WIDTH = SIZE_HW
SQUARE = [[1, 1], [2, 1], [2, 2]]
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 2, 1, 2, 2]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, HEIGHT * WIDTH - 1]},
        },
    ],
    "categories": [{"id": 1, "name": "dent", "supercategory": "none"}],
}
LABELME = {
    "shapes": [
        {"label": "dent", "points": SQUARE, "shape_type": "polygon", "flags": {}},
        {"label": "dent", "points": SQUARE[:2], "shape_type": "circle"},
        {"label": "dent", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "aaaa"},
    ],
    "imagePath": "a.png",
    "imageData": None,
    "imageHeight": HEIGHT,
    "imageWidth": WIDTH,
}
SIZE = {"original_height": HEIGHT, "original_width": WIDTH, "image_rotation": 0}
POLYGON = {"points": [[1, 1], [80, 1], [80, 80]], "polygonlabels": ["dent"]}
STROKE = {"rle": BRUSH["rle"], "format": "rle", "brushlabels": ["dent"]}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-a.png"},
        "annotations": [
            {
                "id": 1,
                "was_cancelled": False,
                "result": [
                    {"id": "r", "type": "polygonlabels", "value": POLYGON, **SIZE},
                    {"id": "s", "type": "brushlabels", "value": STROKE, **SIZE},
                ],
            }
        ],
    }
]
CVAT = f"""<annotations><meta><task><labels><label><name>dent</name><color>#c06060</color></label>
</labels></task></meta><image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
<polygon label="dent" points="1,1;2,1;2,2" z_order="0"/>
<box label="dent" xtl="0" ytl="0" xbr="2" ybr="2" rotation="30" z_order="1"/>
<ellipse label="dent" cx="2" cy="2" rx="1" ry="1"/>
<mask label="dent" rle="1, 2, 1" left="0" top="0" width="2" height="2"/></image></annotations>"""
YOLO = "0 0.1 0.1 0.9 0.1 0.9 0.9\n0 0.5 0.5 0.1 0.1\n"

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**70, 10**400, -1, 1e308]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["../a.png", "/", "..", ".", "a.png/", "C:", "\x00", "\ud800", "a" * 5000]),
    st.lists(st.one_of(st.integers(), st.text(max_size=2), st.lists(st.floats())), max_size=4),
    st.dictionaries(st.sampled_from(["size", "counts", "rle", "points"]), st.integers()),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a document with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@st.composite
def damaged(draw: Any, whole: Any) -> str:
    """Replace or drop one or two values of a document."""
    document = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(list(places(document))))
        if draw(st.integers(0, 4)):
            container[key] = draw(ODD)
        else:
            del container[key]
        if not document:
            break
    return json.dumps(document)


@st.composite
def cut(draw: Any, text: str) -> str:
    """Replace a few characters of a text."""
    start = draw(st.integers(0, len(text)))
    stop = draw(st.integers(start, min(len(text), start + 6)))
    between = st.text(st.sampled_from("0123456789.,;-en<>&\" '/\x00é"), max_size=6)
    return text[:start] + draw(between) + text[stop:]


def try_to_read(module: Any, name: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        put_image(Path(folder), "in/a.png", SIZE_HW)
        put_text(Path(folder, "in"), "data.yaml", "names: [dent]")
        put_text(Path(folder, "in"), name, text)
        try:
            source, records = read(module, Path(folder, "in"))
        except BadInput:
            return
        assert set(records) == {"a.png"} or module is labelme
        for record in records.values():
            assert set(record.masks) <= set(source.classes)
            assert all(m.shape == record.size_hw and m.max() == 1 for m in record.masks.values())


@pytest.mark.parametrize(
    ("module", "whole"), [(coco, COCO), (labelme, LABELME), (labelstudio, LABEL_STUDIO)]
)
@given(data=st.data())
@settings(max_examples=40)
def test_damaged_json(module: Any, whole: Any, data: Any) -> None:
    """Whatever stands where something else was expected."""
    try_to_read(module, "a.json", data.draw(damaged(whole)))


@pytest.mark.parametrize(
    ("module", "name", "whole"),
    [(cvat, "annotations.xml", CVAT), (yolo, "a.txt", YOLO), (yolo, "data.yaml", "names: [dent]")],
)
@given(data=st.data())
@settings(max_examples=40)
def test_damaged_text(module: Any, name: str, whole: str, data: Any) -> None:
    """A few characters are others."""
    try_to_read(module, name, data.draw(cut(whole)))
