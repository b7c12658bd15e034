"""Label Studio's JSON export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import as_rle, given_cases, put_image, put_json, read

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.formats import coco, cvat, labelme, labelstudio, outlines, yolo

TRIANGLE = [[12.5, 20], [80, 20], [20, 75]]


def region(label: str = "dent", points: Any = TRIANGLE, **others: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "type": "polygonlabels",
        "value": {"points": points, "closed": True, "polygonlabels": [label]},
        "original_width": 8,
        "original_height": 6,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
        **others,
    }


def annotation(*results: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(results), "was_cancelled": False, **others}


def task(*annotations: dict[str, Any], image: str = "a.png", **others: Any) -> dict[str, Any]:
    return {"id": 7, "annotations": list(annotations), "data": {"image": image}, **others}


@pytest.mark.parametrize("case", range(10))
def test_a_brush_is_what_label_studio_packs(case: int) -> None:
    """Its SDK's encoder, and its decoder's alpha channel, are the oracle."""
    given = given_cases("labelstudio")["cases"][case]
    found = labelstudio.decode_brush(bytes(given["rle"]), tuple(given["size_hw"]))
    assert rle.encode(found) == given["expected"]


def test_single_values_are_read() -> None:
    """The browser packs values that do not repeat together, which the SDK never does."""
    values = [0, 0, 0, 9, 1, 2, 3, 0, 5, 5, 5, 5]
    bits = f"{12:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "0" + "01" + f"{12 - 1:04b}" + "".join(f"{v:08b}" for v in values)
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    np.testing.assert_array_equal(labelstudio.decode_brush(data, (1, 3)), [[1, 0, 1]])
    for length in range(len(data)):
        with pytest.raises(BadInput, match="end early"):
            labelstudio.decode_brush(data[:length], (1, 3))
    with pytest.raises(BadInput, match="of 3x3 pixels, but got 12 values"):
        labelstudio.decode_brush(data, (3, 3))


def test_polygons_and_brushes(tmp_path: Path) -> None:
    """A polygon is that of pycocotools, and labels may stand in an entry of their own."""
    put_image(tmp_path, "a.png")
    packed = given_cases("labelstudio")["cases"][0]
    height, width = packed["size_hw"]
    brush = {"format": "rle", "rle": packed["rle"]}
    size = {"id": "r2", "original_height": height, "original_width": width}
    results = [
        {"type": "brush", "value": brush, **size},
        {"type": "labels", "value": brush | {"labels": ["pit", "dent"]}, **size},
        {"type": "choices", "value": {"choices": ["bad"]}, "id": "r3"},
    ]
    put_image(tmp_path, "b.png", (height, width))
    tasks = [task(annotation(region())), task(annotation(*results), image="b.png")]
    put_json(tmp_path, "export.json", tasks)
    assert labelstudio.recognises(tmp_path)
    source, records = read(labelstudio, tmp_path)
    assert source.classes == ["dent", "pit"]
    pixels = np.array(TRIANGLE) * (8, 6) / 100
    assert as_rle(records["a.png"].masks) == as_rle({"dent": outlines.fill([pixels], (6, 8))})
    assert as_rle(records["b.png"].masks) == dict.fromkeys(["dent", "pit"], packed["expected"])


def test_clean_and_unlabelled(tmp_path: Path) -> None:
    """Submitted without regions is clean; skipped, or not begun, is unlabelled."""
    for name in "abcd":
        put_image(tmp_path, f"{name}.png")
    tasks = [
        task(annotation(region())),
        task(annotation(), image="b.png"),
        task(annotation(region(), was_cancelled=True), image="c.png"),
        task(image="d.png", predictions=[annotation(region())]),
    ]
    put_json(tmp_path, "export.json", tasks)
    _, records = read(labelstudio, tmp_path)
    assert {n: (r.labelled, list(r.masks)) for n, r in records.items()} == {
        "a.png": (True, ["dent"]),
        "b.png": (True, []),
        "c.png": (False, []),
        "d.png": (False, []),
    }


def test_one_of_several_annotators_counts(tmp_path: Path) -> None:
    """The ground truth, else the first; the others are counted."""
    put_image(tmp_path, "a.png")
    first, second = annotation(region("pit")), annotation(region("dent"), id=2)
    put_json(tmp_path, "export.json", [task(first, second)])
    source, records = read(labelstudio, tmp_path)
    assert list(records["a.png"].masks) == ["pit"]
    assert list(source.left_out) == ["task 7: annotation 2"]
    put_json(tmp_path, "export.json", [task(first, second | {"ground_truth": True})])
    source, records = read(labelstudio, tmp_path)
    assert list(records["a.png"].masks) == ["dent"]
    assert list(source.left_out) == ["task 7: annotation 1"]


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/0a1b2c3d-a%20b.png",
        "/data/local-files/?d=mill/coil1/a%20b.png",
        "s3://bucket/mill/coil1/a b.png",
        "http://127.0.0.1:8080/mill/a%20b.png?token=1",
        "a b.png",
    ],
)
def test_where_images_are(tmp_path: Path, image: str) -> None:
    """Uploads have a prefix; of other addresses, the end is that of a file."""
    put_image(tmp_path, "coil1/a b.png")
    put_json(tmp_path, "export.json", [task(annotation(region()), image=image)])
    _, records = read(labelstudio, tmp_path)
    assert records["coil1/a b.png"].masks


def test_a_missing_image_is_not_taken_from_another_folder(tmp_path: Path) -> None:
    """Though one of the same name is there, which nobody has labelled."""
    put_image(tmp_path, "part1/2.png")
    put_image(tmp_path, "part2/1.png")
    image = "/data/local-files/?d=media/part1/1.png"
    put_json(tmp_path, "export.json", [task(annotation(region()), image=image)])
    source, records = read(labelstudio, tmp_path)
    assert not any(record.labelled for record in records.values())
    assert source.left_out == {"task 7": "annotations of a missing image"}


def test_an_import_without_a_mask_names_what_was_left_out(tmp_path: Path) -> None:
    """Or nobody would see that no annotation has found its image."""
    put_image(tmp_path, "in/b.png")
    put_json(tmp_path, "in/export.json", [task(annotation(region()))])
    with pytest.raises(SystemExit, match="found none; left out: 1 annotations of a missing image"):
        main(["import", str(tmp_path / "in"), "--to", str(tmp_path / "out")])


def test_names_that_begin_like_a_prefix(tmp_path: Path) -> None:
    """An image that is there under its whole name is that one."""
    put_image(tmp_path, "0a1b2c3d-a.png")
    put_image(tmp_path, "a.png")
    reference = "/data/upload/3/0a1b2c3d-a.png"
    put_json(tmp_path, "export.json", [task(annotation(region()), image=reference)])
    _, records = read(labelstudio, tmp_path)
    assert {n: r.labelled for n, r in records.items()} == {"0a1b2c3d-a.png": True, "a.png": False}


def test_what_has_no_pixels_is_left_out(tmp_path: Path) -> None:
    """Boxes, regions without a label, and images that are not there."""
    put_image(tmp_path, "a.png")
    box = {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["dent"]}
    bare = {"points": TRIANGLE, "polygonlabels": []}
    results = [
        region(type="rectanglelabels", value=box),
        region(value=bare, id="r2"),
        region(points=TRIANGLE[:2], id="r3"),
    ]
    put_json(tmp_path, "export.json", [task(annotation(*results)), task(image="gone.png", id=8)])
    source, _ = read(labelstudio, tmp_path)
    assert source.left_out == {
        "task 8": "annotations of a missing image",
        "a.png: region r1": "region that is neither a brush nor a polygon",
        "a.png: region r2": "region without a label",
        "a.png: region r3": "polygon of fewer than 3 points",
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"value": {"points": [[1, float("nan")]] * 3, "polygonlabels": ["a"]}}, "region r1.*NaN"),
        ({"value": {"points": [[1, 1e9]] * 3, "polygonlabels": ["a"]}}, "region r1.*far outside"),
        ({"value": {"points": 3, "polygonlabels": ["a"]}}, "region r1: expected pairs"),
        ({"value": {"rle": [1, 2], "polygonlabels": ["a"]}}, "region r1: .*end early"),
        ({"value": {"rle": [256], "polygonlabels": ["a"]}}, "`rle` as a list of bytes"),
        ({"value": {"rle": 2**40, "polygonlabels": ["a"]}}, "`rle` as a list of bytes"),
        ({"value": {"points": TRIANGLE, "polygonlabels": "a"}}, "task 7: expected labels"),
        ({"value": {"points": TRIANGLE, "polygonlabels": [3]}}, "task 7: expected a label"),
        ({"original_width": 9}, "region r1: the annotation is for an image of 6x9"),
        ({"original_width": [8]}, "region r1: the annotation is for an image of 6x"),
        ({"image_rotation": 90}, "region r1: was drawn on an image turned in the editor"),
    ],
)
def test_a_damaged_region_is_refused_by_name(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """With its task or its image."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "export.json", [task(annotation(region() | wrong))])
    with pytest.raises(BadInput, match=message):
        read(labelstudio, tmp_path)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task(), task()], "task 7: 'a.png' appears twice, here or"),
        ([task() | {"annotations": 3}], "task 7: expected a list of annotations"),
        ([task(annotation() | {"result": 3})], "task 7: expected a list of regions"),
        ([task(), 3], "expected a list of tasks"),
    ],
)
def test_a_damaged_task_is_refused(tmp_path: Path, tasks: object, message: str) -> None:
    """By its number."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "export.json", tasks)
    with pytest.raises(BadInput, match=message):
        read(labelstudio, tmp_path)


def test_no_other_format_takes_it_for_its_own(tmp_path: Path) -> None:
    """A folder of Label Studio is recognised as that alone."""
    put_image(tmp_path, "a.png")
    put_json(tmp_path, "export.json", [task(annotation(region()))])
    assert labelstudio.recognises(tmp_path)
    assert not any(m.recognises(tmp_path) for m in (labelme, coco, yolo, cvat))
