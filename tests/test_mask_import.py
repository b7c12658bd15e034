"""Masks as PNG become the csv that the pipeline reads, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.data import label_csv, rle
from steelseg.data.mask_import import read_pairs

SIZE_HW = (6, 9)


def save(path: Path, values: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of three training images and one test image, without labels."""
    for name in ("train_images/a.jpg", "train_images/b.png", "train_images/c.bmp"):
        save(tmp_path / name, np.full(SIZE_HW, 120))
    save(tmp_path / "test_images/t.jpg", np.full(SIZE_HW, 120))
    (tmp_path / "masks").mkdir()
    return tmp_path


def pairs(folder: Path, classes: tuple[int, ...] = (1, 2, 3)) -> list:
    return read_pairs(folder / "train_images", folder / "masks", classes)


def test_both_forms_come_back_from_the_csv(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Classes as grey values for one image, a file per class for another, none for the third."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 3], SIZE_HW)
    binary = {1: rng.integers(0, 2, SIZE_HW), 2: rng.integers(0, 2, SIZE_HW)}
    save(folder / "masks/a.png", labels)
    save(folder / "masks/b_1.png", binary[1] * 255)
    save(folder / "masks/b_2.png", binary[2])  # 0 and 1 do as well
    save(folder / "masks/b_3.png", np.zeros(SIZE_HW))
    images = folder / "train_images"
    main(["import-masks", str(images), str(folder / "masks"), "--classes", "1,2,3"])
    rows = label_csv.read(folder / "train.csv").rows
    read_back = {(r.image, r.class_id): rle.decode(r.rle, SIZE_HW) for r in rows}
    wanted = {("a.jpg", 1): labels == 1, ("a.jpg", 3): labels == 3}
    wanted |= {("b.png", c): mask for c, mask in binary.items()}
    assert read_back.keys() == wanted.keys()
    for pair, mask in wanted.items():
        np.testing.assert_array_equal(read_back[pair], mask)
    sample = label_csv.read(folder / "sample_submission.csv").rows
    assert [(r.image, r.class_id) for r in sample] == [("t.jpg", 1), ("t.jpg", 2), ("t.jpg", 3)]
    assert "4 masks of 2 images; 1 images are clean" in capsys.readouterr().out


def test_palette_indices_are_classes(folder: Path) -> None:
    """Annotation tools save label images with colours for the eye; the index is what counts."""
    image = Image.fromarray(np.eye(*SIZE_HW, dtype=np.uint8) * 2)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(folder / "masks/a.png")
    assert [(p.image, p.class_id) for p in pairs(folder)] == [("a.jpg", 2)]


def test_one_bit_masks_are_read(folder: Path) -> None:
    """A PNG of one bit a pixel is 0 and 1."""
    Image.fromarray(np.eye(*SIZE_HW, dtype=bool)).save(folder / "masks/a_1.png")
    (pair,) = pairs(folder)
    np.testing.assert_array_equal(rle.decode(pair.rle, SIZE_HW), np.eye(*SIZE_HW))


SPOT = np.zeros(SIZE_HW)
SPOT[2, 3] = 1


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a_1.png", SPOT * 254, "0 and 255, or 0 and 1, but got 254"),
        ("a_1.png", SPOT * 254 + 1, "but got 1 "),
        ("a.png", SPOT * 7, "classes 1, 2, 3, but got 7"),
        ("a.png", SPOT * 255, "but got 255"),
        ("a.png", SPOT[:, 1:], "expected 6x9 like its image, but got 6x8"),
        ("a_4.png", SPOT, "class '4' is none of --classes 1, 2, 3"),
        ("a_x.png", SPOT, "no such image"),
        ("z.png", SPOT, "no such image"),
        ("a.png", np.zeros(SIZE_HW), "at least one mask that shows a defect"),
        ("a.png", np.zeros((*SIZE_HW, 3)), "but got RGB"),
        ("a.jpg", SPOT, "cannot be read as PNG"),
    ],
)
def test_what_means_nothing_is_refused(
    folder: Path, name: str, values: np.ndarray, message: str
) -> None:
    """With the file's name and what was expected."""
    save(folder / "masks" / name, values)
    with pytest.raises(BadInput, match=message):
        pairs(folder)


def test_a_mask_saved_as_jpeg_under_another_name_is_refused(folder: Path) -> None:
    """Its values between would become masks of their own."""
    save(folder / "masks/a_1.png", SPOT * 255, format="JPEG")
    with pytest.raises(BadInput, match=r"'a_1\.png': cannot be read as PNG"):
        pairs(folder)


def test_all_faults_are_named_and_nothing_is_written(folder: Path) -> None:
    """Two files are wrong, and one is right."""
    save(folder / "masks/a.png", SPOT)
    save(folder / "masks/b.png", SPOT * 9)
    save(folder / "masks/b_1.png", SPOT)
    save(folder / "masks/z.png", SPOT)
    images = folder / "train_images"
    with pytest.raises(SystemExit, match=r"(?s)3 faults.*'b\.png'.*'b_1\.png'.*'z\.png'") as error:
        main(["import-masks", str(images), str(folder / "masks"), "--classes", "1,2"])
    assert str(error.value).startswith("error: ")
    assert not (folder / "train.csv").exists()


def test_names_that_could_mean_two_images_are_refused(folder: Path) -> None:
    """`a_1.png` may be class 1 of `a` or the classes of `a_1`; `a.jpg` and `a.png` share masks."""
    save(folder / "train_images/a_1.png", np.full(SIZE_HW, 120))
    save(folder / "masks/a_1.png", SPOT)
    with pytest.raises(BadInput, match=r"may belong to 'a_1\.png' or 'a\.jpg'"):
        pairs(folder)
    save(folder / "train_images/a.png", np.full(SIZE_HW, 120))
    with pytest.raises(BadInput, match=r"expected names that differ before"):
        pairs(folder)


def test_labels_that_are_there_stay(folder: Path) -> None:
    """train.csv is replaced only when told to, a sample submission never."""
    save(folder / "masks/a.png", SPOT)
    for name in ("train.csv", "sample_submission.csv"):
        (folder / name).write_text("mine\n")
    words = ["import-masks", str(folder / "train_images"), str(folder / "masks"), "--classes", "1"]
    with pytest.raises(SystemExit, match="--force"):
        main(words)
    assert (folder / "train.csv").read_text() == "mine\n"
    main([*words, "--force"])
    assert len(label_csv.read(folder / "train.csv").rows) == 1
    assert (folder / "sample_submission.csv").read_text() == "mine\n"
