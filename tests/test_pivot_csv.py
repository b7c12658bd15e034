"""What the stage `pivot_csv` prints and reports: every file is counted, and losses are told."""

import runpy
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import ExifTags, Image
from strategies import PIVOT_PARAMS, TRAIN_CSV, noise, to_bytes

from steelseg.core.errors import BadInput
from steelseg.core.files import read_json
from steelseg.data import image_table, rle

Run = Callable[[], tuple[dict[str, Any], list[str]]]


@pytest.fixture
def run(raw: Path, capsys: pytest.CaptureFixture) -> Run:
    """Runs the stage, and returns its report and the lines that it prints."""

    def run_stage() -> tuple[dict[str, Any], list[str]]:
        runpy.run_path(str(REPOSITORY / "stages" / "pivot_csv.py"))["main"]()
        report = read_json(Path("metrics/pivot_csv.json"))
        return report, capsys.readouterr().out.splitlines()

    return run_stage


def save(path: Path, image: Image.Image | np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix, "PNG")
    path.write_bytes(to_bytes(image, kind, **options))


def test_the_lines_add_up_and_the_report_has_their_figures(raw: Path, run: Run) -> None:
    """A sample of everything that lies about in folders of images."""
    for name in ("._a.png", "old/a.png", "old/deep/b.png", "a.webp", "a.json"):
        save(raw / "train_images" / name, noise(1))
    save(raw / "test_images" / "v.png", noise(9))
    report, lines = run()
    assert lines == [
        "5 training images of 6x8 (class 1: 2, class 2: 1, clean: 3), 3 test images",
        "train_images: 8 files: 5 images (2 in folders below), 3 passed over: 1 hidden, "
        "2 of other suffixes (.json, .webp); 3 in no row (clean)",
        "test_images: 3 files: 3 images, 0 passed over; 1 in no row (not requested)",
    ]
    assert report["train_files"] == {
        "files": 8,
        "hidden": 1,
        "of_other_suffixes": 2,
    }
    assert sum(report["train_files"].values()) == 8 + 3
    assert report["test_files"]["files"] == report["test_images"] == 3


def test_names_and_ignored_regions_are_told(raw: Path, run: Run) -> None:
    """Of classes.csv and ignored.csv; the keys of the report stay ids."""
    (raw / "classes.csv").write_text("ClassId,name\n1,scratch\n2,\n3,pit\n")
    (raw / "ignored.csv").write_text("ImageId,EncodedPixels\na.png,48 1\nb.png,1 48\n")
    report, lines = run()
    assert lines[0] == (
        "2 training images of 6x8 (scratch: 1, class 2: 0, pit: 0, clean: 1), 2 test images; "
        "1 unlabelled images left out"
    )
    assert "warning: no training image shows class 2, pit, which will not be learnt" in lines[3]
    assert lines[4] == "ignored.csv: parts of 1 training images are ignored, 1.04% of all pixels"
    assert report["images_per_class"] == {"1": 1, "2": 0, "3": 0}
    assert (report["images_ignored_in_part"], report["unlabelled_images"]) == (1, 1)
    table = image_table.read(Path("data/annotations.parquet"))
    assert table.ignored == ["48 1", None]
    assert [one.name for one in table.class_infos] == ["scratch", "class 2", "pit"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [(".x.png", "hidden"), ("more/.x.png", "hidden"), ("x.webp", "of other suffixes")],
)
def test_a_row_of_an_image_that_is_passed_over_is_told_why(
    file: str, reason: str, raw: Path, run: Run
) -> None:
    """`no such image` alone would send a person looking for a file that is there."""
    save(raw / "train_images" / file, noise(1))
    (raw / "train.csv").write_text(f"{TRAIN_CSV}{Path(file).name},1,1 1\n")
    with pytest.raises(BadInput, match=rf"no such image .* a file that is passed over \({reason}"):
        run()


NFC, NFD = (unicodedata.normalize(form, "blöße.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("on_disk", "in_csv"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_names_match_in_any_unicode_form(on_disk: str, in_csv: str, raw: Path, run: Run) -> None:
    """Training images, clean ones and test images, whichever tool wrote the csv."""
    for name in (f"train_images/{on_disk}", f"train_images/c{on_disk}", f"test_images/{on_disk}"):
        save(raw / name, noise(1))
    with (raw / "train.csv").open("a", encoding="utf-8") as file:
        file.write(f"{in_csv},1,1 3\nc{in_csv},,\n")
    with (raw / "sample_submission.csv").open("a", encoding="utf-8") as file:
        file.write(f"{in_csv}_1,\n")
    report, _ = run()
    assert report["images_per_class"] == {"1": 3, "2": 1}
    assert (report["images"], report["images_in_no_row"]) == (5, 1)
    assert report["test_images_in_no_row"] == 0
    assert on_disk in image_table.read(Path("data/annotations.parquet")).names


@pytest.mark.parametrize("index", [False, True])
def test_a_csv_is_read_as_pandas_writes_it(index: bool, raw: Path, run: Run) -> None:
    """Images joined to their masks: those without have no class, and classes become floats."""
    images = pd.DataFrame({"ImageId": ["a.png", "b.png", "c.png"]})
    masks = pd.DataFrame(
        {"ImageId": ["a.png", "a.png", "b.png"], "ClassId": [1, 2, 1], "EncodedPixels": "1 3"}
    )
    joined = images.merge(masks, how="outer")
    joined.to_csv(raw / "train.csv", index=index)
    assert "c.png,," in (raw / "train.csv").read_text()
    assert "a.png,1.0,1 3" in (raw / "train.csv").read_text()
    report, lines = run()
    assert report["images_per_class"] == {"1": 2, "2": 1}
    assert (report["clean_images"], report["images_in_no_row"]) == (1, 0)
    assert "; 0 in no row (clean)" in lines[1]


def test_an_index_column_of_the_sample_is_no_fault(raw: Path, run: Run) -> None:
    """`submit` would meet it after all of the training."""
    sample = pd.read_csv(raw / "sample_submission.csv")
    sample.to_csv(raw / "sample_submission.csv")
    assert run()[0]["test_images_in_no_row"] == 0


def test_a_class_that_no_image_shows_is_told(raw: Path, run: Run) -> None:
    """It cannot be learnt, but the others can."""
    (raw / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.png,1,1 3\n")
    _, lines = run()
    assert lines[3:] == [
        "warning: no training image shows class 2, which will not be learnt; annotate images of "
        "it, or remove it from classes.csv or sample_submission.csv"
    ]


def test_data_without_any_defect_are_told(raw: Path, run: Run) -> None:
    """A csv of clean images alone is read all the same."""
    (raw / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.png,,\nb.png,,\n")
    report, lines = run()
    assert (report["images"], report["clean_images"], report["images_in_no_row"]) == (3, 3, 1)
    (warning,) = lines[3:]
    assert warning.startswith("warning: no training image shows a defect")


def test_colours_pages_and_transparency_that_are_lost_are_counted(raw: Path, run: Run) -> None:
    """Of training and test images, and grey that is stored as colour is none."""
    params = raw.parents[1] / "params.yaml"
    params.write_text(PIVOT_PARAMS.replace("channels: auto", "channels: grey"))
    red_hw3 = np.zeros((6, 8, 3), np.uint8)
    red_hw3[:3, :, 0] = 200
    grey = Image.fromarray(noise(1))
    save(raw / "train_images/c.png", red_hw3)
    save(raw / "test_images/t.png", red_hw3)
    save(raw / "train_images/b.png", grey.convert("RGB"))
    save(raw / "train_images/d.tif", grey, save_all=True, append_images=[grey, grey])
    save(raw / "test_images/v.png", grey, transparency=int(noise(1)[0, 0]))
    report, lines = run()
    assert report["images_reduced"] == {"colour": 2, "pages": 1, "transparency": 1}
    assert lines[3:] == [
        "warning: 2 of 7 images are in colour and are reduced to grey: differences in hue alone "
        "are lost",
        "warning: 1 of 7 images have several pages, of which only the first is read",
        "warning: 1 of 7 images have transparency, which is dropped",
    ]


def test_what_the_images_are_read_as_is_printed_unless_it_is_grey(raw: Path, run: Run) -> None:
    """And how many are in colour; nothing is lost then."""
    assert not any(line.startswith("pixels:") for line in run()[1])
    red_hw3 = np.zeros((6, 8, 3), np.uint8)
    red_hw3[:3, :, 0] = 200
    save(raw / "train_images/c.png", red_hw3)
    report, lines = run()
    assert report["images_reduced"]["colour"] == 0
    assert "pixels: 3 channels, 8 bits; 1 of 3 training images are in colour" in lines


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_sizes_are_those_of_the_turned_images(orientation: int, raw: Path, run: Run) -> None:
    """RLEs are of the image as it is shown."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for path in [*(raw / "train_images").iterdir(), *(raw / "test_images").iterdir()]:
        save(path, noise(1, (6, 8)), exif=exif)
    last_row = rle.encode(np.arange(8)[:, None] == np.full(6, 7))
    (raw / "train.csv").write_text(f"ImageId,ClassId,EncodedPixels\na.png,1,{last_row}\n")
    report, _ = run()
    assert report["sizes"] == "8x6"


@pytest.mark.realdata
def test_grey_steel_in_three_channels_has_no_colour(raw: Path, run: Run, real_data: Path) -> None:
    """Severstal's JPEGs are of three equal channels."""
    (raw.parent / "real").symlink_to(real_data / "severstal-mini")
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("tiny", "real"))
    report, lines = run()
    assert report["images_reduced"] == {"colour": 0, "pages": 0, "transparency": 0}
    assert len(lines) == 3
