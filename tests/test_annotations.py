"""One row per image, clean images included, whatever the layout of the csv."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from strategies import SIZE_HW, TRAIN_CSV, join_columns, noise, pivoted, to_bytes, write_dataset

from steelseg.core import sealed
from steelseg.core.classes import default_classes
from steelseg.core.errors import BadInput
from steelseg.data import annotations, image_table, label_csv, rle
from steelseg.data.image_table import METADATA, ImageTable
from steelseg.data.inspection import Inspection, inspect_folder
from steelseg.data.near_duplicates import thumbnail


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training images, of which c.png is in no row, and two test images."""
    return write_dataset(tmp_path / "tiny")


def build(root: Path, csv_text: str | None = None) -> ImageTable:
    """Pivot a data set, with another text in its csv if one is given."""
    if csv_text is not None:
        (root / "train.csv").write_text(csv_text)
    return pivoted(root)[0]


def test_clean_images_come_from_the_folder(root: Path) -> None:
    """The current csv lists defects only; an image in no row is a clean one."""
    table = build(root)
    assert table.names == ["a.png", "b.png", "c.png"]
    assert table.rles(1) == ["1 3 10 2", "7 6", None]
    assert table.rles(2) == ["48 1", None, None]
    assert table.combinations() == ["1+2", "1", "clean"]


def test_both_layouts_give_the_same_table(root: Path) -> None:
    """The layout of 2019 lists every pair, with an empty RLE where there is no defect."""
    every_pair = join_columns(TRAIN_CSV) + "b.png_2,\nc.png_1,\nc.png_2,\n"
    assert build(root).table.equals(build(root, every_pair).table)


def test_the_order_of_rows_does_not_matter(root: Path) -> None:
    """The table is sorted by image."""
    header, *rows = TRAIN_CSV.splitlines()
    turned = "\n".join([header, *reversed(rows)]) + "\n"
    assert build(root).table.equals(build(root, turned).table)


def test_rles_are_written_in_one_way(root: Path) -> None:
    """Blanks and leading zeros are legal, and mean the same."""
    table = build(root, "ImageId,ClassId,EncodedPixels\na.png,1, 01  3 10 002 \n")
    assert table.rles(1)[0] == "1 3 10 2"


def test_images_are_measured(root: Path) -> None:
    """Size, checksum, brightness and thumbnail are those of the pixels."""
    table = build(root)
    image_hw = noise(ord("b"))
    assert set(table.sizes_hw) == {SIZE_HW}
    assert table.column("mean")[1] == pytest.approx(image_hw.mean())
    assert table.column("std")[1] == pytest.approx(image_hw.std())
    expected = thumbnail(image_hw).astype(np.float16)
    np.testing.assert_array_equal(table.thumbnails[1], expected)


def test_names_are_compared_as_they_stand(root: Path) -> None:
    """Names that differ by case are two images, each with its own rows."""
    (root / "train_images" / "A.png").write_bytes(to_bytes(noise(9), "PNG"))
    table = build(root, TRAIN_CSV + "A.png,2,5 1\n")
    assert dict(zip(table.names, table.rles(2), strict=True)) == {
        "A.png": "5 1",
        "a.png": "48 1",
        "b.png": None,
        "c.png": None,
    }


def test_test_images_have_no_annotations(root: Path) -> None:
    """Their table has the same columns otherwise."""
    inspection = inspect_folder(root / "test_images", skip_bad=False)
    table = annotations.build_unannotated(inspection)
    assert (table.names, table.classes) == (["t.png", "u.png"], [])


def test_the_report_counts_images_and_classes(root: Path) -> None:
    """The baseline is the share of pairs without a defect."""
    labels = label_csv.read(root / "train.csv")
    train = inspect_folder(root / "train_images", skip_bad=False)
    test = inspect_folder(root / "test_images", skip_bad=False)
    sample = label_csv.read(root / "sample_submission.csv")
    tests = annotations.build_unannotated(test)
    report = annotations.report(build(root), tests, (train, test), labels, sample)
    assert report["clean_images"] == report["images_in_no_row"] == 1
    assert report["images_per_class"] == {"1": 2, "2": 1}
    assert report["images_per_combination"] == {"1": 1, "1+2": 1, "clean": 1}
    assert report["all_empty_pair_dice"] == pytest.approx(3 / 6)
    lines = annotations.describe(report, (train, test), default_classes([1, 2]))
    assert "class 1: 2, class 2: 1, clean: 1" in next(lines)


def test_rows_of_skipped_images_are_passed_over(root: Path) -> None:
    """An image that was left out is not there, but its rows are no fault."""
    (root / "train_images" / "b.png").write_bytes(b"")
    inspection = inspect_folder(root / "train_images", skip_bad=True)
    labels = label_csv.read(root / "train.csv")
    table = annotations.build(inspection, labels, default_classes([1, 2]), root)
    assert table.names == ["a.png", "c.png"]
    assert list(inspection.skipped) == ["b.png"]


def test_every_image_has_its_own_size(root: Path) -> None:
    """Masks are held to the size of their image."""
    (root / "train_images" / "0.png").write_bytes(to_bytes(noise(0, (9, 10)), "PNG"))
    with (root / "train.csv").open("a") as file:
        file.write("0.png,1,90 1\n")
    table = build(root)
    assert dict(zip(table.names, table.sizes_hw, strict=True)) == {
        "0.png": (9, 10),
        **dict.fromkeys(["a.png", "b.png", "c.png"], SIZE_HW),
    }
    assert table.rles(1)[0] == "90 1"
    with (root / "train.csv").open("a") as file:
        file.write("0.png,2,90 2\n")
    with pytest.raises(BadInput, match="past the end"):
        build(root)


def test_a_table_comes_back_from_its_file(root: Path, tmp_path: Path) -> None:
    """Also from a folder that looks like a partition of a Hive table."""
    table = build(root)
    path = tmp_path / "fold=3" / "annotations.parquet"
    image_table.write(path, table)
    back = image_table.read(path)
    assert back.table.equals(table.table, check_metadata=True)
    assert (back.sizes_hw, back.classes) == (table.sizes_hw, table.classes)
    np.testing.assert_array_equal(back.thumbnails, table.thumbnails)


def test_equal_tables_make_equal_files(root: Path, tmp_path: Path) -> None:
    """DVC compares bytes."""
    for name in ("one", "two"):
        image_table.write(tmp_path / name, build(root))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_table_of_someone_else_is_refused(root: Path, tmp_path: Path) -> None:
    """Sound Parquet is not enough, nor a folder of it."""
    path = tmp_path / "x.parquet"
    pq.write_table(build(root).table, path)
    with pytest.raises(BadInput, match=r"x\.parquet: is damaged, or not from this pipeline"):
        image_table.read(path)
    with pytest.raises(BadInput, match="is damaged, or not from this pipeline"):
        image_table.read(tmp_path)
    with pytest.raises(BadInput, match=r"y\.parquet: no such file"):
        image_table.read(tmp_path / "y.parquet")


@pytest.mark.parametrize("meta", ["{", "[]", "{}"])
def test_a_table_without_its_metadata_is_refused(meta: str, tmp_path: Path) -> None:
    """The classes stand there."""
    table = pa.table({"image": ["a.png"]}).replace_schema_metadata({METADATA: meta})
    sealed.write_sealed_table(tmp_path / "x.parquet", table)
    with pytest.raises(BadInput, match=r"x\.parquet: was not written by pivot_csv"):
        image_table.read(tmp_path / "x.parquet")


@pytest.mark.realdata
def test_both_layouts_of_real_images_give_the_same_table(real_data: Path) -> None:
    """22 images of the competition: 8 clean ones, which one csv lists and the other does not."""
    root = real_data / "severstal-mini"
    train = inspect_folder(root / "train_images", skip_bad=False)
    tables = [
        annotations.build(
            train, label_csv.read(root / name), default_classes([1, 2, 3, 4]), root / name
        )
        for name in ("train.csv", "train_2019_layout.csv")
    ]
    assert tables[0].table.equals(tables[1].table)
    assert set(tables[0].sizes_hw) == {(256, 1600)}
    assert tables[0].combinations().count("clean") == 8
    assert [sum(r is not None for r in tables[0].rles(c)) for c in (1, 2, 3, 4)] == [4, 1, 9, 2]


@pytest.mark.realdata
def test_real_neu_images_are_sound(real_data: Path) -> None:
    """Other images, another size, other classes: nothing is refused, nothing is lost."""
    root = real_data / "neu-seg"
    labels = label_csv.read(root / "train.csv")
    train: Inspection = inspect_folder(root / "train_images", skip_bad=False)
    table = annotations.build(train, labels, default_classes([1, 2, 3]), root)
    assert (len(table), set(table.sizes_hw)) == (3568, {(200, 200)})
    assert sum(r is not None for c in (1, 2, 3) for r in table.rles(c)) == len(labels.rows)
    row = labels.rows[0]
    found = table.rles(row.class_id)[table.names.index(row.image)]
    assert found == rle.encode(rle.decode(row.rle, (200, 200)))


def test_the_metadata_is_json(root: Path) -> None:
    """Other programs can read it."""
    meta = json.loads(build(root).table.schema.metadata[METADATA])
    assert meta["classes"][1] == {"id": 2, "name": "class 2", "color": "#56b4e9"}
