"""Every fault of the raw data is refused: one clear message, and nothing is written.

Each case spoils one thing of a sound data set and says what the message must hold.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from conftest import REPOSITORY
from PIL import Image
from strategies import (
    PIVOT_PARAMS,
    SAMPLE_CSV,
    TRAIN_CSV,
    join_columns,
    noise,
    png,
    to_bytes,
    write_project,
)

from steelseg.core.errors import BadInput
from steelseg.core.files import read_json
from steelseg.core.sealed import read_sealed_json
from steelseg.data.listing import Listing
from steelseg.predict.predictions import PredictionRow, write_predictions

PIVOT_CSV = REPOSITORY / "stages" / "pivot_csv.py"
HEADER = "ImageId,ClassId,EncodedPixels\n"
HUGE = "9" * 5000


class Case(NamedTuple):
    """What is wrong, how to spoil a data set with it, and regular expressions for the message."""

    name: str
    spoil: Callable[[Path], object]
    expected: tuple[str, ...]


def csv_case(name: str, content: str | bytes, *expected: str, file: str = "train.csv") -> Case:
    """Spoil a data set with another content of a csv file."""
    data = content if isinstance(content, bytes) else content.encode()
    return Case(name, lambda root: (root / file).write_bytes(data), (rf"{file}: ", *expected))


def row_case(name: str, row: str, *expected: str) -> Case:
    """Spoil a data set with one more row, in line 5."""
    return csv_case(name, f"{TRAIN_CSV}{row}\n", "line 5: ", *expected)


def image_case(name: str, data: bytes, *expected: str, file: str = "b.png") -> Case:
    """Spoil a data set with one bad image, the others being sound."""
    path = Path("train_images") / file
    return Case(name, lambda root: (root / path).write_bytes(data), (file, *expected))


WHOLE_NUMBERS = "expected whole numbers separated by spaces, but got "
BAD_RLES = [
    ("an odd number of values", "1 3 10", "pairs of start and length, but got 3 values"),
    ("one value", "7", "pairs of start and length, but got 1 values"),
    ("a word", "1 x", f"{WHOLE_NUMBERS}'x'"),
    ("nan, as pandas may write it", "nan", f"{WHOLE_NUMBERS}'nan'"),
    ("-1, as some kernels write for no mask", "-1", f"{WHOLE_NUMBERS}'-1'"),
    ("a float", "1.0 3", f"{WHOLE_NUMBERS}'1.0'"),
    ("an exponent", "1e1 3", f"{WHOLE_NUMBERS}'1e1'"),
    ("a negative start", "-4 3", f"{WHOLE_NUMBERS}'-4'"),
    ("a plus sign", "+4 3", f"{WHOLE_NUMBERS}'\\+4'"),
    ("hexadecimal", "0x4 3", f"{WHOLE_NUMBERS}'0x4'"),
    ("digits of another script", "\u0663 3", WHOLE_NUMBERS),
    ("a superscript digit", "\u00b3 3", WHOLE_NUMBERS),
    ("a full-width digit", "\uff13 3", WHOLE_NUMBERS),
    ("an underscore in a number", "1_0 3", f"{WHOLE_NUMBERS}'1_0'"),
    ("a tab between numbers", "1\t3", WHOLE_NUMBERS),
    ("a NUL between numbers", "1\0003", WHOLE_NUMBERS),
    ("a no-break space", "1\u00a03", WHOLE_NUMBERS),
    ("a semicolon", "1;3", f"{WHOLE_NUMBERS}'1;3'"),
    ("a start of 0", "0 3", "run `0 3`: expected starts of at least 1"),
    ("a length of 0", "5 0", "run `5 0`: expected lengths of at least 1"),
    ("a run past the end", "47 3", "run `47 3`: runs past the end of 6x8 pixels"),
    ("a start past the end", "49 1", "run `49 1`: runs past the end of 6x8 pixels"),
    ("runs that overlap", "1 3 3 2", "run `3 2`: expected runs that are sorted"),
    ("runs that are not sorted", "10 2 1 3", "run `1 3`: expected runs that are sorted"),
    ("the same run twice", "1 3 1 3", "run `1 3`: expected runs that are sorted"),
    ("a number beyond 64 bits", "1 99999999999999999999", "expected numbers inside the image"),
    ("numbers whose sum is beyond 64 bits", f"{2**62} {2**62}", "numbers inside the image"),
    ("a number of 5000 digits", f"{HUGE} 1", "expected numbers inside the image"),
]
RLE_CASES = [
    case
    for name, rle, expected in BAD_RLES
    for case in (
        row_case(name, f"c.png,2,{rle}", "image 'c.png', class 2: ", expected),
        csv_case(
            f"{name}, 2019 layout",
            join_columns(TRAIN_CSV) + f"c.png_2,{rle}\n",
            "line 5: image 'c.png', class 2: ",
            expected,
        ),
    )
]

CLASS_ID = "expected a class id from 1 to 1000, but got "
FILE_NAME = "expected the name of a file in the image folder, but got "
ROW_CASES = [
    row_case("an unknown class", "c.png,3,1 1", "class 3: unknown class; the classes are 1, 2"),
    row_case("class 0", "c.png,0,1 1", f"{CLASS_ID}'0'"),
    row_case("class -1", "c.png,-1,1 1", f"{CLASS_ID}'-1'"),
    row_case("class 1.5", "c.png,1.5,1 1", f"{CLASS_ID}'1.5'"),
    row_case("class 1.00", "c.png,1.00,1 1", f"{CLASS_ID}'1.00'"),
    row_case("class 0.0", "c.png,0.0,1 1", f"{CLASS_ID}'0.0'"),
    row_case("class 01", "c.png,01,1 1", f"{CLASS_ID}'01'"),
    row_case("no class", "c.png,,1 1", f"{CLASS_ID}''"),
    row_case("a class with a tab", "c.png,\t1,1 1", rf"{CLASS_ID}'\\t1'"),
    row_case("a class in another script", "c.png,\u0661,1 1", CLASS_ID),
    row_case("a huge class", "c.png,1001,1 1", f"{CLASS_ID}'1001'"),
    row_case("a class of 5000 digits", f"c.png,{HUGE},1 1", f"{CLASS_ID}'99+\\.\\.\\.99+'"),
    row_case("a pair that is there twice", "b.png,1,", "'b.png', class 1 is already .* line 4"),
    row_case("an image that is not on disk", "d.png,1,1 1", "'d.png', class 1: no such image"),
    row_case("a name in another case", "A.png,1,1 1", "'A.png', class 1: no such image"),
    row_case("an image of the test folder", "t.png,1,1 1", "'t.png', class 1: no such image"),
    row_case("a name without its suffix", "c,1,1 1", "'c', class 1: no such image"),
    row_case("a parent folder", "../c.png,1,1 1", f"{FILE_NAME}'../c.png'"),
    row_case("an absolute path", "/etc/passwd,1,1 1", f"{FILE_NAME}'/etc/passwd'"),
    row_case("a backslash", r"..\c.png,1,1 1", rf"{FILE_NAME}'\.\.\\\\c.png'"),
    row_case("a sub-folder", "x/c.png,1,1 1", "'x/c.png', class 1: no such image"),
    row_case("a folder above", "x/../c.png,1,1 1", f"{FILE_NAME}'x/../c.png'"),
    row_case("a path from the root", "/c.png,1,1 1", f"{FILE_NAME}'/c.png'"),
    row_case("only dots", "..,1,1 1", f"{FILE_NAME}'\\.\\.'"),
    row_case("no name", ",1,1 1", f"{FILE_NAME}''"),
    row_case("a tab before the name", "\tc.png,1,1 1", rf"{FILE_NAME}'\\tc.png'"),
    row_case("a clean image that is not on disk", "d.png,,", "image 'd.png': no such image"),
    csv_case(
        "a clean image that has a mask",
        TRAIN_CSV + "b.png,,\n",
        "line 4: image 'b.png', class 1: line 5 marks the image as clean",
    ),
    csv_case(
        "an image that is clean twice",
        TRAIN_CSV + "c.png,,\nc.png,,\n",
        "line 6: 'c.png' is already in line 5",
    ),
    row_case("a clean image without a name", ",,", f"{FILE_NAME}''"),
    row_case("a newline in the name", '"c\n.png",1,1 1', rf"{FILE_NAME}'c\\n.png'"),
    row_case("a NUL in the name", "c\0.png,1,1 1", rf"{FILE_NAME}'c\\x00.png'"),
    row_case("an escape sequence in the name", "\x1b[2J.png,1,1 1", r"'\\x1b\[2J.png'"),
    row_case("HTML in the name", "<b>.png,1,1 1", "'<b>.png', class 1: no such image"),
    row_case("a name of 5000 letters", f"{'x' * 5000},1,1 1", r"'x+\.\.\.x+'.*: no such image"),
    row_case("too few fields", "c.png,1", "expected 3 fields, but got 2"),
    row_case("too many fields", "c.png,1,1 1,", "expected 3 fields, but got 4"),
    row_case("a row of blanks", "  ", "expected 3 fields, but got 1"),
    row_case("a quote that is not closed", 'c.png,1,"1 1', "cannot be read as csv"),
    row_case("text after a quote", 'c.png,1,"1 1"x', "cannot be read as csv"),
    csv_case(
        "a pair without an underscore, 2019 layout",
        join_columns(TRAIN_CSV) + "c.png,1 1\n",
        "line 5: expected an image and a class joined by `_`, but got 'c.png'",
    ),
    csv_case(
        "a pair without a class, 2019 layout",
        join_columns(TRAIN_CSV) + "c.png_,1 1\n",
        f"line 5: {CLASS_ID}''",
    ),
    csv_case(
        "a pair that is there twice, 2019 layout",
        join_columns(TRAIN_CSV) + "a.png_1,\n",
        "line 5: image 'a.png', class 1 is already in line 2",
    ),
]

FILE_CASES = [
    Case("no csv", lambda root: (root / "train.csv").unlink(), ("train.csv: no such file",)),
    csv_case("an empty csv", "", "a header and rows, but the file is empty"),
    csv_case("a csv of blank lines", "\n\n", "a header and rows, but the file is empty"),
    csv_case("a csv of a byte-order mark", b"\xef\xbb\xbf", "the file is empty"),
    csv_case("a header only", HEADER, "expected rows below the header, but there are none"),
    csv_case("no header", "a.png,1,1 3\n", "line 1: missing column `EncodedPixels`"),
    csv_case("a missing column", "ImageId,ClassId\na.png,1\n", "column `EncodedPixels`; expected"),
    csv_case("two missing columns", "Id,EncodedPixels\na,1 1\n", "column `ImageId`, `ClassId`"),
    csv_case("a column twice", HEADER.strip() + ",ClassId\na.png,1,,1\n", "`ClassId`, but got 2"),
    csv_case("columns in another case", TRAIN_CSV.lower(), "missing column `EncodedPixels`"),
    csv_case("semicolons", TRAIN_CSV.replace(",", ";"), "got 'ImageId;ClassId;EncodedPixels'"),
    csv_case("Latin-1", TRAIN_CSV.encode() + b"\xe4.png,1,1 1\n", "line 5: .*UTF-8.*0xe4"),
    csv_case("UTF-16", TRAIN_CSV.encode("utf-16"), "line 1: expected UTF-8 text"),
    csv_case(
        "a header of 9 MB", "x" * 9_000_000, "line 1: missing column", r"but got 'x+\.\.\.x+'"
    ),
    csv_case("a JPEG", to_bytes(noise(1), "JPEG"), "line 1: expected UTF-8 text"),
    csv_case("an unclosed quote at once", '"', "line 1: cannot be read as csv"),
    csv_case("a bad sample", "Id\n1\n", "missing column", file="sample_submission.csv"),
    csv_case("an empty sample", "", "file is empty", file="sample_submission.csv"),
    csv_case(
        "a sample with a bad class",
        SAMPLE_CSV + "v.png_x,1 1\n",
        f"line 6: {CLASS_ID}'x'",
        file="sample_submission.csv",
    ),
    csv_case(
        "a sample with a column that nobody can answer",
        "ImageId_ClassId,EncodedPixels,Usage\nt.png_1,,Public\n",
        "line 1: unknown column 'Usage'; expected",
        file="sample_submission.csv",
    ),
    csv_case(
        "a sample with an index that does not count",
        ",ImageId_ClassId,EncodedPixels\nx,t.png_1,\n",
        "line 1: unknown column ''; expected",
        file="sample_submission.csv",
    ),
    csv_case(
        "a sample that asks for no class",
        "ImageId,ClassId,EncodedPixels\nt.png,1,\nu.png,,\n",
        "line 3: image 'u.png': expected a class id",
        file="sample_submission.csv",
    ),
    csv_case(
        "a sample that asks for another image",
        SAMPLE_CSV + "v.png_1,1 1\n",
        "line 6: no image 'v.png' in the test folder",
        file="sample_submission.csv",
    ),
    Case(
        "a folder instead of the csv",
        lambda root: [(root / "train.csv").unlink(), (root / "train.csv").mkdir()],
        ("train.csv: expected a csv file, but this is something else",),
    ),
]


def remove_images(folder: Path) -> None:
    """Empty a folder."""
    for path in folder.iterdir():
        path.unlink()


def link_to_nothing(root: Path) -> None:
    """Put a link to a file that is not there in an image's place, as an unmounted disk does."""
    (root / "train_images" / "b.png").unlink()
    (root / "train_images" / "b.png").symlink_to(root / "gone" / "b.png")


def link_in_a_loop(root: Path) -> None:
    """Put a link to itself in an image's place."""
    (root / "train_images" / "b.png").unlink()
    (root / "train_images" / "b.png").symlink_to("b.png")


def replace_folder_by_loop(root: Path) -> None:
    """Put a link to itself in a folder's place."""
    (root / "train_images").rename(root / "other")
    (root / "train_images").symlink_to("train_images")


JPEG = to_bytes(noise(5), "JPEG")
LARGE_JPEG = to_bytes(noise(5, (64, 64)), "JPEG")
GREY = Image.fromarray(noise(5))
EIGHT_BITS = "b.png: expected 8 bits per channel, as in most training images, but got "
UNKNOWN_CONTENT = "expected JPEG, PNG, BMP or TIFF, but the content is none of them"
IMAGE_CASES = [
    image_case("a zero-byte file", b"", "expected an image, but the file is empty"),
    image_case("text", b"no image", UNKNOWN_CONTENT, file="d.jpg"),
    image_case("zeros", bytes(1000), UNKNOWN_CONTENT),
    image_case("a GIF", to_bytes(GREY, "GIF"), UNKNOWN_CONTENT),
    image_case("a WebP image", to_bytes(GREY, "WEBP"), UNKNOWN_CONTENT),
    image_case("a JPEG's first bytes", JPEG[:20], UNKNOWN_CONTENT + "|decoded"),
    image_case("half a JPEG", LARGE_JPEG[: len(LARGE_JPEG) // 2], "truncated", file="b.jpg"),
    image_case("a JPEG without its end", LARGE_JPEG[:-2], "truncated", file="b.jpg"),
    image_case("half a JPEG with an end", LARGE_JPEG[:2000] + b"\xff\xd9", "before the last pixel"),
    image_case("half a PNG", to_bytes(GREY, "PNG")[:70], "cannot be decoded as an image"),
    image_case("half a BMP", to_bytes(GREY, "BMP")[:-9], "cannot be decoded as an image"),
    image_case("half a TIFF", to_bytes(GREY, "TIFF")[:-60], "cannot be decoded as an image"),
    image_case("a grey PNG of 16 bits", png((6, 8), 16, 0), f"{EIGHT_BITS}16 bits"),
    image_case("a colour PNG of 16 bits", png((6, 8), 16, 2), f"{EIGHT_BITS}16 bits"),
    image_case("a PNG of 16 bits with alpha", png((6, 8), 16, 6), f"{EIGHT_BITS}16 bits"),
    image_case(
        "a TIFF of floats", to_bytes(GREY.convert("F"), "TIFF"), f"{EIGHT_BITS}numbers of 32 bits"
    ),
    image_case(
        "a TIFF in other colours",
        to_bytes(GREY.convert("RGB").convert("LAB"), "TIFF"),
        "expected grey, RGB or CMYK, but got 'LAB'; save it as grey or RGB",
    ),
    image_case(
        "another TIFF in other colours",
        to_bytes(GREY.convert("RGB").convert("YCbCr"), "TIFF"),
        "expected grey, RGB or CMYK, but got 'YCbCr'; save it as grey or RGB",
    ),
    image_case("a PNG without pixels", png((0, 8), 8, 0), UNKNOWN_CONTENT),
    image_case("a bomb", png((30_000, 30_000), 8, 0, b""), "the header says (30000x30000|more)"),
    image_case("a bigger bomb", png((60_000, 60_000), 8, 0, b""), "the header says more"),
    Case(
        "no folder of images",
        lambda root: (root / "train_images").rename(root / "images"),
        ("train_images: no such folder of images",),
    ),
    Case(
        "an empty folder of images",
        lambda root: remove_images(root / "train_images"),
        (r"train_images: expected images \(.bmp, .*\), but found none",),
    ),
    Case(
        "no test images among other files",
        lambda root: [
            remove_images(root / "test_images"),
            (root / "test_images" / "t.webp").write_bytes(b""),
        ],
        ("test_images: expected images .* found none among 1 files",),
    ),
    Case(
        "a file instead of a folder of images",
        lambda root: [
            (root / "train_images").rename(root / "images"),
            (root / "train_images").write_text("x"),
        ],
        ("train_images: no such folder of images",),
    ),
    Case("a loop instead of a folder", replace_folder_by_loop, ("no such folder of images",)),
    Case(
        "a folder with the name of an image",
        lambda root: (root / "train_images" / "x.jpg").mkdir(),
        ("train_images: x.jpg: expected an image file, but this is something else",),
    ),
    Case("a link to nothing", link_to_nothing, ("train_images: b.png: cannot be read: No such",)),
    Case("a link in a loop", link_in_a_loop, ("train_images: b.png: cannot be read: ",)),
    Case(
        "a newline in a file's name",
        lambda root: (root / "train_images" / "x\ny.jpg").write_bytes(JPEG),
        (FILE_NAME + r"'x\\ny.jpg'",),
    ),
    Case(
        "a file name that is not UTF-8",
        lambda root: (root / "train_images" / os.fsdecode(b"\xff.jpg")).write_bytes(JPEG),
        (FILE_NAME + r"'\\udcff.jpg'",),
    ),
]


def params_case(name: str, old: str, new: str, *expected: str) -> Case:
    """Spoil params.yaml, which stands above the data."""
    text = PIVOT_PARAMS.replace(old, new)
    return Case(name, lambda root: (root.parents[1] / "params.yaml").write_text(text), expected)


PARAMS_CASES = [
    params_case(
        "an unknown parameter",
        "  csv:",
        "  cvs: x\n  csv:",
        "params.yaml: unknown parameter `pivot_csv.cvs`; did you mean `csv`",
    ),
    params_case("a missing parameter", "  csv: train.csv\n", "", "parameter `csv` is missing"),
    params_case("a number for a name", "train.csv", "03", "raw/tiny/03: no such file"),
    params_case("a list for a name", "train.csv", "[3]", "`pivot_csv.csv`: .* but got \\[3\\]"),
    params_case("nothing for a name", "csv: train.csv", "csv:", "`pivot_csv.csv`: .* got None"),
    params_case("another choice", "stop", "halt", "expected 'stop' or 'skip', but got 'halt'"),
    params_case("another data set", "tiny", "huge", "raw/huge/train.csv: no such file"),
    params_case("a NUL in a path", "tiny", r'"a\0b"', "train.csv: cannot be read: .* null"),
    params_case("a path of 300 letters", "tiny", "x" * 300, "cannot be read: File name too long"),
]

CASES = [*RLE_CASES, *ROW_CASES, *FILE_CASES, *IMAGE_CASES, *PARAMS_CASES]


@pytest.fixture(scope="session")
def stage() -> ModuleType:
    """The script of the stage `pivot_csv`, as a module."""
    spec = importlib.util.spec_from_file_location("pivot_csv", PIVOT_CSV)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound data set, in a project that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path)


def outputs(project: Path) -> list[Path]:
    """Whatever a stage has written, temporary files included."""
    return [p for folder in ("data", "metrics") for p in (project / folder).rglob("*")]


def test_there_are_enough_cases() -> None:
    """Each has a name of its own."""
    assert len({case.name for case in CASES}) == len(CASES) > 120


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_one_clear_message(case: Case, root: Path, stage: ModuleType) -> None:
    """The message names file, place, value and what was expected, and nothing is written."""
    case.spoil(root)
    with pytest.raises(BadInput) as caught:
        stage.main()
    message = str(caught.value)
    for expected in case.expected:
        assert re.search(expected, message), message
    assert len(message) < 600
    assert re.fullmatch(r"[^\n]+", message), "one fault makes one line"
    assert "0x7f" not in message, "an address in memory says nothing to a person"
    assert outputs(Path.cwd()) == []


def test_a_sound_data_set_passes(root: Path, stage: ModuleType) -> None:
    """What the cases spoil is sound without them."""
    stage.main()
    report = read_json(Path("metrics/pivot_csv.json"))
    assert (report["images"], report["clean_images"], report["test_images"]) == (3, 1, 2)


def test_many_faults_are_reported_together(root: Path, stage: ModuleType) -> None:
    """The first 20 are shown and all are counted, those of rows and of RLEs each in one run."""
    rows = "".join(f"x{i}.png,{1 + i % 3},1 1\n" for i in range(30))
    (root / "train.csv").write_text(TRAIN_CSV + rows)
    with pytest.raises(BadInput) as caught:
        stage.main()
    first, *shown, last = str(caught.value).split("\n")
    assert first == "raw/tiny/train.csv: 30 faults"
    assert len(shown) == 20
    assert "line 5: image 'x0.png', class 1: no such image" in shown[0]
    assert "line 7: image 'x2.png', class 3: unknown class" in shown[2]
    assert last == "  ... and 10 more"


def test_bad_images_are_reported_together(root: Path, stage: ModuleType) -> None:
    """All faults of a folder, and not one per run."""
    (root / "train_images" / "b.png").write_bytes(b"")
    (root / "train_images" / "d.png").write_bytes(b"no image")
    with pytest.raises(BadInput) as caught:
        stage.main()
    assert str(caught.value).split("\n") == [
        "raw/tiny/train_images: 2 faults",
        "  b.png: expected an image, but the file is empty",
        "  d.png: expected JPEG, PNG, BMP or TIFF, but the content is none of them",
    ]


def test_bad_training_images_can_be_skipped(root: Path, stage: ModuleType) -> None:
    """They are left out and counted, and their rows are no error."""
    Path("params.yaml").write_text(PIVOT_PARAMS.replace("stop", "skip"))
    (root / "train_images" / "b.png").write_bytes(LARGE_JPEG[:300])
    (root / "train_images" / "d.png").write_bytes(b"no image")
    (root / "train_images" / "x\ny.png").write_bytes(to_bytes(noise(1), "PNG"))
    (root / "train_images" / "e.png").mkdir()
    stage.main()
    report = read_json(Path("metrics/pivot_csv.json"))
    assert report["skipped_bad_images"] == 4
    skipped = read_sealed_json(Path("data/skipped_images.json"))["images"]
    assert list(skipped) == ["b.png", "d.png", "e.png", "x\ny.png"]
    assert skipped["d.png"] == "expected JPEG, PNG, BMP or TIFF, but the content is none of them"
    assert report["images"] == 2
    assert report["images_per_class"] == {"1": 1, "2": 1}


def test_skipping_leaves_no_empty_set(root: Path, stage: ModuleType) -> None:
    """Where no image is sound, the folder is refused all the same."""
    Path("params.yaml").write_text(PIVOT_PARAMS.replace("stop", "skip"))
    for path in (root / "train_images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="train_images: 3 faults"):
        stage.main()
    assert outputs(Path.cwd()) == []


def test_bad_test_images_are_never_skipped(root: Path, stage: ModuleType) -> None:
    """The sample submission asks for them."""
    Path("params.yaml").write_text(PIVOT_PARAMS.replace("stop", "skip"))
    (root / "test_images" / "t.png").write_bytes(b"")
    with pytest.raises(BadInput, match=r"test_images: t\.png: .* empty"):
        stage.main()


def test_an_image_deleted_while_others_are_read(
    root: Path, stage: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a fault of that image and no traceback."""
    listing = Listing(["a.png", "b.png", "c.png", "gone.png"], {})
    monkeypatch.setattr("steelseg.data.inspection.list_files", lambda _, **__: listing)
    with pytest.raises(BadInput, match=r"gone\.png: cannot be read: No such file"):
        stage.main()


@pytest.mark.parametrize("name", ["open", "iterdir"])
def test_what_may_not_be_read_is_refused(
    name: str, root: Path, stage: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing rights are a fault of the file or the folder; a test that runs as root has them."""

    allow = getattr(Path, name)

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith("train"):
            raise PermissionError(13, "Permission denied")
        return allow(path, *arguments, **options)

    monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(BadInput, match=r"raw/tiny/train.*: cannot be read: Permission denied"):
        stage.main()


def run_script(project: Path, script: str = "pivot_csv") -> subprocess.CompletedProcess[str]:
    """Run a stage as `dvc repro` does; a stage that waits for a pipe would run into the limit."""
    return subprocess.run(
        [sys.executable, REPOSITORY / "stages" / f"{script}.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_pipe(path: Path) -> None:
    """Put a pipe, to which nobody writes, in a file's place."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


SCRIPT_CASES = [
    row_case("a bad RLE", "c.png,1,1 3 5", "^error: raw/tiny/train.csv: line 5: "),
    Case(
        "a pipe instead of the csv",
        lambda root: make_pipe(root / "train.csv"),
        ("^error: raw/tiny/train.csv: expected a csv file",),
    ),
    Case(
        "a pipe instead of an image",
        lambda root: make_pipe(root / "train_images" / "d.png"),
        ("^error: raw/tiny/train_images: d.png: expected an image file",),
    ),
    Case(
        "an endless device instead of an image",
        lambda root: (
            ((root / "train_images").rename(root / "x") and (root / "train_images").mkdir())
            or (root / "train_images" / "d.png").symlink_to("/dev/zero")
        ),
        ("^error: raw/tiny/train_images: d.png: expected an image file, but this is something",),
    ),
]


@pytest.mark.parametrize("case", SCRIPT_CASES, ids=lambda case: case.name)
def test_the_script_fails_with_one_message(case: Case, tmp_path: Path) -> None:
    """Exit status 1, the message on stderr and nothing else anywhere, no traceback."""
    (tmp_path / "data").mkdir()
    root = write_project(tmp_path)
    case.spoil(root)
    finished = run_script(tmp_path)
    assert finished.returncode == 1
    for expected in case.expected:
        assert re.search(expected, finished.stderr), finished.stderr
    assert finished.stderr.count("error: ") == finished.stderr.count("\n") == 1
    assert finished.stdout == ""
    assert outputs(tmp_path) == []


def test_submit_fails_with_one_message(root: Path, stage: ModuleType) -> None:
    """A sample that asks for another image gets no submission, not half a one."""
    stage.main()
    rows = [PredictionRow(f"{name}.png", c, "", 0, 0.0) for name in "tu" for c in (1, 2)]
    write_predictions(Path("data/predictions.parquet"), rows)
    (root / "sample_submission.csv").write_text(SAMPLE_CSV + "v.png_1,\n")
    finished = run_script(Path.cwd(), "submit")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: raw/tiny/sample_submission.csv: line 6: ")
    assert finished.stderr.count("\n") == 1
    assert not Path("submission.csv").exists()
    assert not Path("metrics/submit.json").exists()


def test_check_params_fails_with_one_message(tmp_path: Path) -> None:
    """A parameter that nobody reads stops the pipeline before anything has run."""
    (tmp_path / "dvc.yaml").write_text((REPOSITORY / "dvc.yaml").read_text())
    (tmp_path / "params.yaml").write_text("epchs: 6\n")
    finished = run_script(tmp_path, "check_params")
    expected = "error: params.yaml: unknown parameter `epchs`; did you mean `epochs`?\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (1, "", expected)


def test_a_sound_data_set_leaves_stderr_empty(tmp_path: Path) -> None:
    """A log file holds no progress bars."""
    write_project(tmp_path)
    finished = run_script(tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
