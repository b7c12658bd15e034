"""A data set's folder: images at any depth, and the files that may be there or not."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from strategies import TRAIN_CSV, noise, to_bytes

from steelseg.core.classes import ClassInfo, default_classes
from steelseg.core.errors import BadInput
from steelseg.core.files import read_json
from steelseg.core.sealed import read_sealed_json, write_sealed_json
from steelseg.data import image_table, optional_files
from steelseg.data.image_table import ImageTable
from steelseg.data.optional_files import ImageFacts
from steelseg.predict import parts, predictions
from steelseg.predict.predictions import PredictionRow

ANNOTATIONS = Path("data/annotations.parquet")
Run = Callable[[], tuple[ImageTable, list[str]]]


@pytest.fixture
def run(raw: Path, capsys: pytest.CaptureFixture) -> Run:
    """Runs the stage `pivot_csv`, and returns its table and the lines that it prints."""

    def run_stage() -> tuple[ImageTable, list[str]]:
        runpy.run_path(str(REPOSITORY / "stages/pivot_csv.py"))["main"]()
        return image_table.read(ANNOTATIONS), capsys.readouterr().out.splitlines()

    return run_stage


def stage(name: str) -> None:
    runpy.run_path(str(REPOSITORY / f"stages/{name}.py"))["main"]()


def move_into_folders(raw: Path) -> None:
    """Put every image into a folder of its own, and its name into both csv files."""
    for folder, names in (("train_images", "abc"), ("test_images", "tu")):
        for name in names:
            (raw / folder / f"coil{name}/cam1").mkdir(parents=True)
            image = raw / folder / f"{name}.png"
            image.rename(raw / folder / f"coil{name}/cam1/1_2.png")
    for path in (raw / "train.csv", raw / "sample_submission.csv"):
        text = path.read_text()
        for name in "abctu":
            text = text.replace(f"{name}.png", f"coil{name}/cam1/1_2.png")
        path.write_text(text)


def test_images_in_folders_keep_their_folder_in_their_name(raw: Path, run: Run) -> None:
    """From both csv files to the table: of equal file names, none is mistaken for another."""
    flat, _ = run()
    move_into_folders(raw)
    table, lines = run()
    assert table.names == [f"coil{name}/cam1/1_2.png" for name in "abc"]
    assert "3 images (3 in folders below)" in lines[1]
    names = table.table.column_names[1:]
    assert table.table.select(names).equals(flat.table.select(names))


def test_a_name_without_its_folder_is_told_where_the_image_is(raw: Path, run: Run) -> None:
    """As tools write names that know a file by its own name only."""
    move_into_folders(raw)
    (raw / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n1_2.png,1,1 1\n")
    with pytest.raises(BadInput, match=r"no such image .* but 'coil./cam1/1_2.png', which"):
        run()


def test_files_that_say_nothing_new_change_nothing(raw: Path, run: Run) -> None:
    """The usual names, no group, all labelled: the same table, to the last byte."""
    run()
    before = ANNOTATIONS.read_bytes()
    (raw / "classes.csv").write_text("ClassId\n2\n1\n")
    (raw / "images.csv").write_text("ImageId,group,label\nc.png,,labelled\na.png,,\n")
    run()
    assert ANNOTATIONS.read_bytes() == before


def test_no_test_images_and_no_sample_are_needed(raw: Path, run: Run) -> None:
    """Classes are those of the masks; the submission is its header alone."""
    (raw / "sample_submission.csv").unlink()
    for path in (raw / "test_images").iterdir():
        path.unlink()
    (raw / "test_images").rmdir()
    table, lines = run()
    assert table.classes == [1, 2]
    assert lines[0].endswith("clean: 1), 0 test images")
    assert not any(line.startswith("test_images") for line in lines)
    tests = image_table.read(Path("data/test_images.parquet"))
    assert (len(tests), tests.thumbnails.shape) == (0, (0, 32, 32))
    predictions.write_predictions(Path("data/predictions.parquet"), [])
    write_sealed_json(Path("data/test_groups.json"), {"groups": {}})
    stage("submit")
    assert Path("submission.csv").read_text() == "ImageId,ClassId,EncodedPixels\n"
    assert read_json(Path("metrics/submit.json")) == {"rows": 0, "masks": 0}
    assert parts.report([], 0, [1]) == {"test_images": 0, "images_class_1": 0, "share_class_1": 0}


def test_without_a_sample_every_pair_is_answered(raw: Path, run: Run) -> None:
    """In the current layout, with or without a mask; and groups of images.csv are judged."""
    (raw / "sample_submission.csv").unlink()
    (raw / "images.csv").write_text("ImageId,group\nt.png,coil 7\n")
    run()
    assert image_table.read(Path("data/test_images.parquet")).groups == ["coil 7", ""]
    rows = [
        PredictionRow(f"{n}.png", c, "1 1" * (c == 1), 1, 0.5, n == "t" and c == 2)
        for n in "tu"
        for c in (1, 2)
    ]
    predictions.write_predictions(Path("data/predictions.parquet"), rows)
    write_sealed_json(Path("data/test_groups.json"), {"groups": {"t.png": "coil 7"}})
    stage("submit")
    text = "ImageId,ClassId,EncodedPixels\nt.png,1,1 1\nt.png,2,\nu.png,1,1 1\nu.png,2,\n"
    assert Path("submission.csv").read_text() == text
    assert Path("data/groups.csv").read_text() == (
        "group,class_id,images,unreadable,alarms,in_order\n"
        "coil 7,1,1,0,0,False\ncoil 7,2,1,0,1,False\n"
    )


def test_unlabelled_images_are_left_out_and_listed(raw: Path, run: Run) -> None:
    """Not taken for clean ones, nor looked at: this one could not even be read."""
    (raw / "train_images/d.png").write_bytes(b"")
    (raw / "images.csv").write_text("ImageId,label\nd.png,unlabelled\nb.png,labelled\n")
    table, lines = run()
    assert table.names == ["a.png", "b.png", "c.png"]
    assert lines[0].endswith("; 1 unlabelled images left out")
    assert read_sealed_json(Path("data/skipped_images.json")) == {"images": {"d.png": "unlabelled"}}
    assert read_json(Path("metrics/pivot_csv.json"))["unlabelled_images"] == 1


@pytest.mark.parametrize("row", ["c.png,1,1 1", "c.png,,"])
def test_a_mask_of_an_unlabelled_image_is_a_contradiction(raw: Path, run: Run, row: str) -> None:
    """As is the word that it is clean; an empty row of the layout of 2019 says nothing."""
    (raw / "images.csv").write_text("ImageId,label\nc.png,unlabelled\n")
    (raw / "train.csv").write_text(f"{TRAIN_CSV}{row}\n")
    with pytest.raises(BadInput, match=r"'c\.png'.*: images\.csv marks .* unlabelled"):
        run()
    (raw / "train.csv").write_text(f"{TRAIN_CSV}c.png,1,\n")
    assert run()[0].names == ["a.png", "b.png"]


def test_all_images_unlabelled_are_refused(raw: Path, run: Run) -> None:
    """There is nothing to train on."""
    rows = "".join(f"{name}.png,unlabelled\n" for name in "abc")
    (raw / "images.csv").write_text(f"ImageId,label\n{rows}")
    with pytest.raises(BadInput, match="expected labelled images, but none of 3 is"):
        run()


def test_groups_stand_in_the_table(raw: Path, run: Run) -> None:
    """Also of names in another Unicode form; images in no row have none."""
    (raw / "train_images/\u00f6.png").write_bytes(to_bytes(noise(7), "PNG"))
    (raw / "images.csv").write_text("ImageId,group\nc.png,coil 7\no\u0308.png,coil 8\nt.png,x\n")
    table, _ = run()
    assert table.groups == ["", "", "coil 7", "coil 8"]


def test_classes_have_the_names_and_colours_of_their_file(raw: Path, run: Run) -> None:
    """Those without a colour get one that no other has; a class may be shown by no image."""
    (raw / "classes.csv").write_text(
        "name,ClassId,color\nscratch,2,#E69F00\n,1,\npit, 3 ,\n", encoding="utf-8"
    )
    table, lines = run()
    first, second, third = table.class_infos
    assert (first.name, third.name) == ("class 1", "pit")
    assert second == ClassInfo(2, "scratch", "#e69f00")
    assert len({one.color for one in table.class_infos}) == 3
    assert "no training image shows" in lines[-1]


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("classes.csv", "ClassId,name\n", "expected one row per class"),
        ("classes.csv", "id\n1\n", "line 1: expected one column `ClassId`, but got 'id'"),
        ("classes.csv", "ClassId\n1\n1\n", "line 3: 'class 1' .* appears twice"),
        ("classes.csv", "ClassId,name\n1,a\n2,a\n", "line 3: 'a' .* appears twice"),
        ("classes.csv", "ClassId,name\n0,a\n", "line 2: expected a class id from 1"),
        ("classes.csv", "ClassId,color\n1,red\n", "line 2: expected a colour such as #e69f00"),
        ("classes.csv", "ClassId,name\n1,a\tb\n", "line 2: expected up to 200 printable"),
        ("classes.csv", "ClassId\n1\n", "class 2: unknown class; the classes are 1"),
        ("images.csv", "ImageId\nd.png\n", "image 'd.png': no such image in the training or"),
        ("images.csv", "ImageId\n../a.png\n", "line 2: expected the name of a file in the image"),
        ("images.csv", "ImageId\na.png\na.png\n", "line 3: image 'a.png' appears twice"),
        ("images.csv", "ImageId,label\na.png,no\n", "line 2: expected `labelled` or `unlabelled`"),
        ("images.csv", "ImageId,group\na.png\n", "line 2: expected 2 fields, but got 1"),
        ("images.csv", "group\nx\n", "line 1: expected one column `ImageId`"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_line(
    raw: Path, run: Run, file: str, text: str, fault: str
) -> None:
    """And nothing is written."""
    (raw / file).write_text(text)
    with pytest.raises(BadInput, match=rf"(?s)\.csv: .*{fault}"):
        run()
    assert not ANNOTATIONS.exists()


@given(st.dictionaries(st.integers(1, 30), st.sampled_from(["", "#e69f00", "#000000"]), min_size=1))
def test_every_class_has_a_colour_of_its_own(colors: dict[int, str]) -> None:
    """Unless two were given the same; without any given they are the usual ones."""
    found = optional_files.with_colors({c: f"{c}" for c in colors}, colors)
    assert [one.id for one in found] == sorted(colors)
    chosen = [one.color for one in found if not colors[one.id]]
    assert len(set(chosen)) == len(chosen)
    assert not set(chosen) & set(colors.values())
    if not any(colors.values()):
        assert chosen == [one.color for one in default_classes(colors)]


def test_nothing_is_said_without_the_file(tmp_path: Path) -> None:
    """All images are labelled, and in no group."""
    assert optional_files.read_images(tmp_path / "images.csv") == {}
    assert ImageFacts() == ("", True)
