"""Label files are read in every layout that is in circulation, row by row as they stand."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import SAMPLE_CSV, TRAIN_CSV, join_columns, label_rows

from steelseg.core.errors import BadInput
from steelseg.data import label_csv
from steelseg.data.label_csv import LabelCsv, Row

ROWS = [Row("a.png", 1, "1 3 10 2", 2), Row("a.png", 2, "48 1", 3), Row("b.png", 1, "7 6", 4)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test may write a csv."""
    return tmp_path / "labels.csv"


def read(path: Path, content: str | bytes) -> LabelCsv:
    """Write a csv and read it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return label_csv.read(path)


QUOTED = '"ImageId","ClassId","EncodedPixels"\n"a.png","1","1 3 10 2"\n"a.png","2","48 1"\n'
VARIANTS = {
    "as Kaggle gives it": TRAIN_CSV,
    "the layout of 2019": join_columns(TRAIN_CSV),
    "a byte-order mark": b"\xef\xbb\xbf" + TRAIN_CSV.encode(),
    "line ends of Windows": TRAIN_CSV.replace("\n", "\r\n"),
    "line ends of old Macs": TRAIN_CSV.replace("\n", "\r"),
    "no line end at the end": TRAIN_CSV.rstrip(),
    "blank lines at the end": TRAIN_CSV + "\n\r\n",
    "quoted fields": QUOTED + '"b.png","1","7 6"\n',
    "columns in another order": "EncodedPixels,ClassId,ImageId\n"
    "1 3 10 2,1,a.png\n48 1,2,a.png\n7 6,1,b.png\n",
    "classes as pandas writes integers beside gaps": TRAIN_CSV.replace(",1,", ",1.0,").replace(
        ",2,", ",2.0,"
    ),
    "the same in the layout of 2019": join_columns(TRAIN_CSV)
    .replace("_1,", "_1.0,")
    .replace("_2,", "_2.0,"),
    "blanks after the commas": TRAIN_CSV.replace(",", ", "),
    "blanks before the commas": TRAIN_CSV.replace(",", " ,"),
    "blanks before quotes": TRAIN_CSV.replace(",1 3 10 2", ', "1 3 10 2"'),
    "an index of pandas by another name": "Unnamed: 0,ImageId,ClassId,EncodedPixels\n"
    "0,a.png,1,1 3 10 2\n1,a.png,2,48 1\n2,b.png,1,7 6\n",
    "further columns, one of them without a name": ",ImageId,Width,ClassId,EncodedPixels\n"
    "0,a.png,8,1,1 3 10 2\n1,a.png,8,2,48 1\n2,b.png,8,1,7 6\n",
}


@pytest.mark.parametrize("content", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_reads_alike(content: str | bytes, path: Path) -> None:
    """What differs between tools that write csv does not matter."""
    assert read(path, content).rows == ROWS


def test_the_order_of_the_columns_is_kept(path: Path) -> None:
    """A submission has them in the order of its sample."""
    assert read(path, SAMPLE_CSV).columns == ["ImageId_ClassId", "EncodedPixels"]
    content = "ImageId,EncodedPixels,ClassId\na.png,,1\n"
    assert read(path, content).columns == ["ImageId", "EncodedPixels", "ClassId"]


def test_rows_keep_their_order(path: Path) -> None:
    """Nothing is sorted: the answer to a sample has its order."""
    rows = read(path, "ImageId,ClassId,EncodedPixels\nb.png,2,\nb.png,1,\na.png,2,\n").rows
    assert [(r.image, r.class_id) for r in rows] == [("b.png", 2), ("b.png", 1), ("a.png", 2)]


def test_underscores_in_a_joined_name_belong_to_the_image(path: Path) -> None:
    """The class stands behind the last one."""
    row = read(path, "ImageId_ClassId,EncodedPixels\nroll_7_cam_2.jpg_4,1 1\n").rows[0]
    assert (row.image, row.class_id) == ("roll_7_cam_2.jpg", 4)


def test_an_empty_rle_is_kept_as_such(path: Path) -> None:
    """The row says that the image does not show the class."""
    assert read(path, "ImageId_ClassId,EncodedPixels\na.jpg_1,\n").rows[0].rle == ""


def test_rows_without_class_and_rle_are_clean_images(path: Path) -> None:
    """Outer joins of pandas write them, with an index or without; they are in no row."""
    labels = read(path, TRAIN_CSV + 'c.png,,\n"d.png","",""\ne.png, , \n')
    assert labels.rows == ROWS
    assert labels.clean == {"c.png": 5, "d.png": 6, "e.png": 7}
    assert read(path, "ImageId,ClassId,EncodedPixels\nc.png,,\n").rows == []


@pytest.mark.parametrize("line", ["c.png,,1 1", "c.png,nan,", "c.png,1.5,1 1", "c.png,-1.0,1 1"])
def test_other_gaps_are_refused(line: str, path: Path) -> None:
    """A mask without a class is a mask that would be lost."""
    with pytest.raises(BadInput, match="line 5: expected a class id from 1 to 1000"):
        read(path, f"{TRAIN_CSV}{line}\n")


def test_pairs_in_two_unicode_forms_are_one(path: Path) -> None:
    """Which of two masks is right, nobody knows; nor whether an image is clean."""
    with pytest.raises(BadInput, match="is already in line 5"):
        read(path, f"{TRAIN_CSV}\u00f6.png,1,1 1\no\u0308.png,1,2 1\n")
    with pytest.raises(BadInput, match="line 6 marks the image as clean"):
        read(path, f"{TRAIN_CSV}\u00f6.png,1,1 1\no\u0308.png,,\n")


def test_lines_are_counted_as_an_editor_does(path: Path) -> None:
    """A fault names the line that its row begins on, also behind blank lines and line breaks."""
    content = 'ImageId,ClassId,EncodedPixels,Note\n\na.png,1,1 1,"two\nlines"\nb.png,x,1 1,\n'
    with pytest.raises(BadInput, match=r"labels\.csv: line 5: expected a class id .* got 'x'"):
        read(path, content)


def test_faults_before_a_broken_quote_are_not_lost(path: Path) -> None:
    """The row that cannot be split is one more fault, named by the line it begins on."""
    with pytest.raises(BadInput) as caught:
        read(path, TRAIN_CSV + 'c.png,0,1 1\n"c.png,1,1 1\nd.png,1,1 1\n')
    first, row, broken = str(caught.value).split("\n")
    assert first.endswith("labels.csv: 2 faults")
    assert row.startswith("  line 5: expected a class id")
    assert broken.startswith("  line 6: cannot be read as csv")


def test_an_rle_of_megabytes_is_read(path: Path) -> None:
    """Python's own limit of 128 KiB a field is no limit here, and is left as it was."""
    limit = csv.field_size_limit()
    rle = " ".join(f"{i} 1" for i in range(1, 1_000_000, 2))
    assert read(path, f"ImageId_ClassId,EncodedPixels\na.jpg_1,{rle}\n").rows[0].rle == rle
    assert csv.field_size_limit() == limit


@given(label_rows())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_layouts_carry_any_legal_row(path: Path, rows: list[tuple[str, int, str]]) -> None:
    """Names with quotes, commas, underscores and HTML come back as they were."""
    for joined in (True, False):
        text = io.StringIO()
        writer = csv.writer(text)
        if joined:
            writer.writerow(["ImageId_ClassId", "EncodedPixels"])
            writer.writerows([f"{image}_{c}", rle] for image, c, rle in rows)
        else:
            writer.writerow(["ClassId", "EncodedPixels", "ImageId"])
            writer.writerows([c, rle, image] for image, c, rle in rows)
        assert [row[:3] for row in read(path, text.getvalue()).rows] == rows
