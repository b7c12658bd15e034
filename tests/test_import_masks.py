"""Images and masks become a data set's folder, or are refused by name."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from steelseg.__main__ import main
from steelseg.core.errors import BadInput
from steelseg.data import label_csv, rle
from steelseg.formats import masks
from steelseg.formats.record import Options

SIZE_HW = (6, 9)


def save(path: Path, values: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of a mill, one more to predict, and a folder for masks."""
    for name in ("images/a.jpg", "images/b.png", "images/c.bmp"):
        save(tmp_path / name, np.full(SIZE_HW, 120))
    save(tmp_path / "tests/t.jpg", np.full(SIZE_HW, 120))
    (tmp_path / "masks").mkdir()
    return tmp_path


def pairs(folder: Path, classes: tuple[str, ...] = ("1", "2", "3")) -> list[tuple]:
    """Return each image with a class that it shows, and where."""
    source = masks.read(folder / "masks", Options(classes, images=folder / "images"))
    found = [(r.name, name, mask) for r in source.records for name, mask in r.masks.items()]
    if not found:
        raise BadInput("no mask")
    return found


def names(folder: Path) -> list[tuple[str, str]]:
    return [pair[:2] for pair in pairs(folder)]


def import_words(folder: Path, classes: str = "1,2,3") -> list[str]:
    """The words of the command that imports the folder into `set`."""
    words = ["import", str(folder / "masks"), "--images", str(folder / "images")]
    words += ["--to", str(folder / "set"), "--format", "masks", "--test", str(folder / "tests")]
    return [*words, "--classes", classes]


def test_both_forms_come_back_from_the_csv(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Classes as grey values for one image, a file per class for another, none for the third."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 3], SIZE_HW)
    binary = {1: rng.integers(0, 2, SIZE_HW), 2: rng.integers(0, 2, SIZE_HW)}
    save(folder / "masks/a.png", labels)
    save(folder / "masks/b_1.png", binary[1] * 255)
    save(folder / "masks/b_2.png", binary[2])  # 0 and 1 do as well
    save(folder / "masks/b_3.png", np.zeros(SIZE_HW))
    main([*import_words(folder), "--unlabelled", "clean"])
    rows = label_csv.read(folder / "set/train.csv").rows
    read_back = {(r.image, r.class_id): rle.decode(r.rle, SIZE_HW) for r in rows}
    wanted = {("a.jpg", 1): labels == 1, ("a.jpg", 3): labels == 3}
    wanted |= {("b.png", c): mask for c, mask in binary.items()}
    assert read_back.keys() == wanted.keys()
    for pair, mask in wanted.items():
        np.testing.assert_array_equal(read_back[pair], mask)
    assert (folder / "set/classes.csv").read_text().split() == [
        "ClassId,name,color", "1,class", "1,", "2,class", "2,", "3,class", "3,"
    ]  # fmt: skip
    for name in ("train_images/a.jpg", "train_images/b.png", "train_images/c.bmp"):
        assert (folder / "set" / name).is_file()
    assert (folder / "set/test_images/t.jpg").is_file()
    lines = " ".join(capsys.readouterr().out.split())
    assert "3 images (6x9) class 1 2 " in lines
    assert " class 2 1 " in lines
    assert "clean 1 unlabelled 0 with several classes at one pixel 1 1 test images" in lines


def test_palette_indices_are_classes(folder: Path) -> None:
    """Annotation tools save label images with colours for the eye; the index is what counts."""
    image = Image.fromarray(np.eye(*SIZE_HW, dtype=np.uint8) * 2)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(folder / "masks/a.png")
    assert names(folder) == [("a.jpg", "class 2")]


def test_one_bit_masks_are_read(folder: Path) -> None:
    """A PNG of one bit a pixel is 0 and 1."""
    Image.fromarray(np.eye(*SIZE_HW, dtype=bool)).save(folder / "masks/a_1.png")
    ((_, _, mask),) = pairs(folder)
    np.testing.assert_array_equal(mask, np.eye(*SIZE_HW))


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
        ("a_4.png", SPOT, "class '4' is not in --classes 1, 2, 3"),
        ("a_x.png", SPOT, "no such image"),
        ("z.png", SPOT, "no such image"),
        ("a.png", np.zeros((*SIZE_HW, 3)), "but got RGB"),
        ("a.jpg", SPOT, "cannot be read as PNG"),
        ("below/c_1.png", SPOT, r"below/c_1\.png': no such image"),
        ("below/c.gif", SPOT, r"below/c\.gif': no such image"),
        ("c_1.PNG.bak/c_1.png", SPOT, r"bak/c_1\.png': no such image"),
        ("view/all.png", SPOT, r"view/all\.png': no such image"),
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
    there = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit, match=r"(?s)3 faults.*b_1\.png.*'z\.png'.*b\.png") as error:
        main(import_words(folder, "1,2"))
    assert str(error.value).startswith("error: ")
    assert sorted(folder.rglob("*")) == there


def test_masks_that_show_nothing_are_refused(folder: Path) -> None:
    """There is nothing to learn from them, and most likely they were read wrongly."""
    save(folder / "masks/a.png", np.zeros(SIZE_HW))
    with pytest.raises(SystemExit, match="at least one mask with a defect, but found none"):
        main(import_words(folder))
    assert not (folder / "set").exists()


def test_names_that_could_mean_two_images_are_refused(folder: Path) -> None:
    """`a_1.png` may be class 1 of `a` or the classes of `a_1`; `a.jpg` and `a.png` share masks."""
    save(folder / "images/a_1.png", np.full(SIZE_HW, 120))
    save(folder / "masks/a_1.png", SPOT)
    with pytest.raises(BadInput, match=r"may belong to 'a_1\.png' or 'a\.jpg'"):
        pairs(folder)
    save(folder / "images/a.png", np.full(SIZE_HW, 120))
    with pytest.raises(BadInput, match=r"expected names that differ before"):
        pairs(folder)


def test_a_data_set_that_is_there_stays(folder: Path) -> None:
    """It is replaced only when told to, and not where it holds what no import has written."""
    save(folder / "masks/a.png", SPOT)
    (folder / "set").mkdir()
    (folder / "set/train.csv").write_text("mine\n")
    with pytest.raises(SystemExit, match="--force"):
        main(import_words(folder))
    assert (folder / "set/train.csv").read_text() == "mine\n"
    (folder / "set/notes.txt").write_text("mine\n")
    with pytest.raises(SystemExit, match=r"contains 'notes\.txt', which is not part of a data set"):
        main([*import_words(folder), "--force"])
    assert (folder / "set/train.csv").read_text() == "mine\n"
    (folder / "set/notes.txt").unlink()
    main([*import_words(folder), "--force"])
    assert len(label_csv.read(folder / "set/train.csv").rows) == 1


@pytest.mark.parametrize(
    "suffix", ["png", "PNG", "bmp", "BMP", "tif", "tiff", "TIFF", "gif", "Gif"]
)
def test_masks_of_every_lossless_format_are_read(folder: Path, suffix: str) -> None:
    """Whatever the case of their suffix."""
    kind = {"tif": "TIFF"}.get(suffix.lower(), suffix)
    save(folder / f"masks/a_2.{suffix}", SPOT * 255, format=kind.upper())
    save(folder / f"masks/b.{suffix}", SPOT * 3, format=kind.upper())
    assert names(folder) == [("a.jpg", "class 2"), ("b.png", "class 3")]


@pytest.mark.parametrize(
    "lost",
    [
        "c_1.webp",
        "c.npy",
        "c.json",
    ],
)
def test_a_mask_that_would_be_passed_over_is_refused(folder: Path, lost: str) -> None:
    """Its image would become a clean one without a word."""
    save(folder / "masks/a_1.png", SPOT)
    save(folder / "masks" / lost, SPOT, format="PNG")
    with pytest.raises(BadInput, match=rf"{lost}': may be the mask of 'c\.bmp'; expected a PNG"):
        pairs(folder)


def test_one_class_of_an_image_that_would_be_passed_over_is_refused(folder: Path) -> None:
    """The other class has a mask, so that the image alone does not tell."""
    save(folder / "masks/a_1.png", SPOT)
    save(folder / "masks/a_2.webp", SPOT, format="PNG")
    with pytest.raises(BadInput, match=r"a_2\.webp': may be the mask of 'a\.jpg'"):
        pairs(folder)


def test_what_is_passed_over_is_counted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Files beside a mask, previews, and what a Mac leaves behind, each for its reason."""
    over = ["a.json", "a.webp", "._a.png", ".old/c_1.png", "x.txt"]
    for name in ["a.png", *over]:
        save(folder / "masks" / name, SPOT, format="PNG")
    save(folder / "images/more/d.png", SPOT)
    save(folder / "tests/.t.png", SPOT)
    main(import_words(folder, "1"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:-1] == [
        "5 left out",
        "        3  of other suffixes (such as 'a.json')",
        "        2  hidden (such as '._a.png')",
    ]
    assert {line.split()[0]: line.split()[1] for line in lines[3:6]} == {
        "class": "1", "clean": "0", "unlabelled": "3"
    }  # fmt: skip
    assert "--unlabelled clean" in lines[-1]
    assert (folder / "set/train_images/more/d.png").is_file()


def test_two_files_of_one_mask_are_refused(folder: Path) -> None:
    """Which of them is right, nobody knows."""
    save(folder / "masks/a.png", SPOT)
    save(folder / "masks/a.bmp", SPOT)
    with pytest.raises(BadInput, match=r"'a\.png': 'a\.bmp' already has the classes of that image"):
        pairs(folder)


def test_linked_masks_are_read(folder: Path) -> None:
    """A person put the links there."""
    save(folder / "elsewhere/mask", SPOT, format="PNG")
    (folder / "masks/a_1.png").symlink_to(folder / "elsewhere/mask")
    assert names(folder) == [("a.jpg", "class 1")]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_masks_belong_to_images_in_any_unicode_form(folder: Path, form: str) -> None:
    """Images from a Mac, masks from a labelling tool on a server."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    image = unicodedata.normalize(form, "blöße.png")
    save(folder / "images" / image, np.full(SIZE_HW, 120))
    save(folder / "masks" / unicodedata.normalize(other, "blöße_1.png"), SPOT)
    assert names(folder) == [(image, "class 1")]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_have_the_size_of_the_image_as_it_is_shown(
    folder: Path, orientation: int, suffix: str
) -> None:
    """And the one as it is stored is refused where it differs."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = orientation > 4
    save(folder / f"images/t.{suffix}", np.full(SIZE_HW, 9), exif=exif)
    save(folder / "masks/t_1.png", SPOT.T if turned else SPOT)
    assert names(folder) == [(f"t.{suffix}", "class 1")]
    save(folder / "masks/t_1.png", SPOT if turned else SPOT.T)
    with pytest.raises(BadInput, match="like its image, but got"):
        pairs(folder)


def test_one_palette_for_all_masks(folder: Path) -> None:
    """Colours that were reduced to a palette file by file have other numbers in each."""
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0))):
        image = Image.fromarray(SPOT.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, *colour])
        image.save(folder / f"masks/{name}.png")
    with pytest.raises(BadInput, match=r"'b\.png': its palette has .* as number 1"):
        pairs(folder)
