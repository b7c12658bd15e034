"""Masks in every common layout become the same pixels, and what is unclear is asked for."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from steelseg.__main__ import main
from steelseg.core.classes import ClassInfo
from steelseg.core.errors import BadInput
from steelseg.data import rle
from steelseg.data.optional_files import read_images
from steelseg.formats import class_folders, known, masks
from steelseg.formats.dataset_folder import whole_folder
from steelseg.formats.mask_names import split
from steelseg.formats.record import Options, Record
from steelseg.predict.predictions import PredictionRow, write_predictions

SIZE_HW = (6, 9)
SPOT = np.zeros(SIZE_HW, np.uint8)
SPOT[2, 3:5] = 1
BLOT = np.zeros(SIZE_HW, np.uint8)
BLOT[4:, :2] = 1
RED, GREEN, VOID = (255, 0, 0), (0, 255, 0), (224, 224, 192)

in_one_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def save(path: Path, values: np.ndarray | None = None, **options: object) -> None:
    """Save grey values or colours; without any, a grey image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(SIZE_HW, 120, np.uint8) if values is None else values
    Image.fromarray(values).save(path, **options)


def painted(*layers: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    """Paint masks in colours on black: (H, W, 3)."""
    colours = np.zeros((*SIZE_HW, 3), np.uint8)
    for mask, colour in layers:
        colours[mask > 0] = colour
    return colours


def read(source: Path, **options: object) -> dict[str, Record]:
    """Read a source in the format that it is recognised as; return its records by name."""
    return by_name(known.recognise(source), source, **options)


def by_name(kind: str, source: Path, **options: object) -> dict[str, Record]:
    found = known.load(kind).read(source, Options(**options))
    return {record.name: record for record in found.records}


def assert_shown(record: Record, wanted: Mapping[str, np.ndarray], ignored=None) -> None:
    assert record.masks.keys() == wanted.keys()
    for name, mask in wanted.items():
        np.testing.assert_array_equal(record.masks[name], mask)
    if ignored is None:
        assert record.ignored is None
    else:
        np.testing.assert_array_equal(record.ignored, ignored)


def test_kolektor_sdd2(tmp_path: Path) -> None:
    """Masks have a suffix and lie beside their images; one class, whose name nobody gives."""
    save(tmp_path / "train/10301.png")
    save(tmp_path / "train/10301_GT.png", SPOT * 255)
    save(tmp_path / "train/10302.png")
    save(tmp_path / "train/10302_GT.png", SPOT * 0)
    save(tmp_path / "test/20001.png")
    save(tmp_path / "test/20001_GT.png", BLOT * 255)
    assert known.recognise(tmp_path) == "masks"
    records = read(tmp_path)
    assert list(records) == ["test/20001.png", "train/10301.png", "train/10302.png"]
    assert_shown(records["train/10301.png"], {"defect": SPOT})
    assert records["train/10302.png"].labelled
    assert_shown(records["train/10302.png"], {})


def test_kolektor_sdd(tmp_path: Path) -> None:
    """A folder per part; bitmaps as masks."""
    for part in ("kos01", "kos02"):
        save(tmp_path / part / "Part0.jpg")
        save(tmp_path / part / "Part0_label.bmp", SPOT * 255)
    records = read(tmp_path, classes=("crack",))
    assert list(records) == ["kos01/Part0.jpg", "kos02/Part0.jpg"]
    assert_shown(records["kos02/Part0.jpg"], {"crack": SPOT})


def test_neu_seg(tmp_path: Path) -> None:
    """Label images in a folder beside that of the images, with the same folders below."""
    for part in ("training", "test"):
        save(tmp_path / f"images/{part}/000201.jpg")
        save(tmp_path / f"annotations/{part}/000201.png", SPOT * 3 + BLOT)
    records = read(tmp_path, classes=("inclusion", "patches", "scratches"))
    assert list(records) == ["test/000201.jpg", "training/000201.jpg"]
    assert_shown(records["training/000201.jpg"], {"scratches": SPOT, "inclusion": BLOT})


def test_mvtec(tmp_path: Path) -> None:
    """Folders name the classes; images without defects have no mask and are clean."""
    save(tmp_path / "train/good/000.png")
    save(tmp_path / "test/good/000.png")
    save(tmp_path / "test/bent/000.png")
    save(tmp_path / "ground_truth/bent/000_mask.png", SPOT * 255)
    save(tmp_path / "test/scratch/000.png")
    save(tmp_path / "ground_truth/scratch/000_mask.png", BLOT * 255)
    save(tmp_path / "test/scratch/001.png")
    (tmp_path / "license.txt").write_text("free")
    assert known.recognise(tmp_path) == "mvtec"
    records = read(tmp_path)
    assert len(records) == 5
    assert_shown(records["test/bent/000.png"], {"bent": SPOT})
    assert_shown(records["test/scratch/000.png"], {"scratch": BLOT})
    assert [r.name for r in records.values() if not r.labelled] == ["test/scratch/001.png"]
    save(tmp_path / "ground_truth/scratch/007_mask.png", BLOT * 255)
    with pytest.raises(BadInput, match=r"007_mask\.png: no image of this name"):
        read(tmp_path)


def test_dagm(tmp_path: Path) -> None:
    """A class per texture, in the order of their numbers; images without a label are clean."""
    for texture in ("Class10", "Class2"):
        save(tmp_path / texture / "Train/0576.PNG")
        save(tmp_path / texture / "Train/Label/0576_label.PNG", SPOT * 255)
        save(tmp_path / texture / "Train/0577.PNG")
        save(tmp_path / texture / "Test/0001.PNG")
        (tmp_path / texture / "Train/Label/Labels.txt").write_text("1")
    assert known.recognise(tmp_path) == "dagm"
    source = known.load("dagm").read(tmp_path, Options())
    assert source.classes == ["Class2", "Class10"]
    records = {record.name: record for record in source.records}
    assert len(records) == 6
    assert_shown(records["Class10/Train/0576.PNG"], {"Class10": SPOT})
    assert all(record.labelled for record in records.values())
    assert len(source.left_out) == 2


def test_magnetic_tiles(tmp_path: Path) -> None:
    """Soft masks beside their images; exposures of a tile are one group."""
    soft = SPOT * 255
    soft[0] = 127  # as if it had been a JPEG
    names = ["MT_Crack/Imgs/exp1_num_10.jpg", "MT_Free/Imgs/exp2_num_40.jpg"]
    names += ["MT_Free/Imgs/exp1_num_900.jpg", "MT_Crack/Imgs/exp2_num_930.jpg"]
    for name in names:
        save(tmp_path / name)
        save(tmp_path / name.replace("jpg", "png"), soft if "Crack" in name else SPOT * 0)
    save(tmp_path / names[3].replace("jpg", "png"), SPOT * 0)
    assert known.recognise(tmp_path) == "class_folders"
    source = class_folders.read(tmp_path, Options())
    records = {record.name: record for record in source.records}
    assert source.classes == ["Crack"]
    assert_shown(records[names[0]], {"Crack": SPOT})
    assert [records[name].group for name in names] == ["tile 10"] * 2 + ["tile 900"] * 2
    assert [records[name].labelled for name in names] == [True, True, True, False]
    assert list(source.left_out) == [names[3]]  # a defect that nobody has drawn
    save(tmp_path / names[1].replace("jpg", "png"), soft)
    with pytest.raises(BadInput, match="has a mask, but is in a folder of clean images"):
        list(class_folders.read(tmp_path, Options()).records)


def test_folders_of_classes_below_those_of_images_and_masks(tmp_path: Path) -> None:
    """The folder says the class, and which images are clean."""
    for name in ("good/1", "scratch/1", "dent/1"):
        save(tmp_path / f"images/{name}.png")
    save(tmp_path / "masks/scratch/1.png", SPOT * 255)
    save(tmp_path / "masks/dent/1.png", painted((BLOT, (255, 255, 255))))
    assert known.recognise(tmp_path) == "class_folders"
    records = read(tmp_path)
    assert_shown(records["images/scratch/1.png"], {"scratch": SPOT})
    assert_shown(records["images/dent/1.png"], {"dent": BLOT})
    assert records["images/good/1.png"].labelled
    save(tmp_path / "masks/dent/1_mask.png", SPOT * 255)
    with pytest.raises(BadInput, match=r"1_mask\.png': 'images/dent/1\.png' has another mask"):
        read(tmp_path)


EXPOSURES = {  # exposures and numbers, and where each group begins
    "in order": ("1:10 2:30 3:40 4:50 5:60 6:70 1:900 2:920", [0, 6]),
    "the last ones are missing": ("1:10 2:30 1:900 2:920", [0, 2]),
    "the first ones are missing": ("1:10 2:30 6:40 4:900 5:910", [0]),
    "taken in turns": ("1:10 1:12 2:30 2:31 3:40 1:900", [0, 5]),
    "with exposure 0": ("0:10 1:20 6:30 0:40 1:50", [0, 3]),
}


@pytest.mark.parametrize(("text", "starts"), EXPOSURES.values(), ids=EXPOSURES)
def test_tiles_are_found_by_their_numbers(text: str, starts: list[int]) -> None:
    """What is in doubt is one group: a group that is too large does no harm."""
    names = ["MT_Free/Imgs/exp{}_num_{}.jpg".format(*part.split(":")) for part in text.split()]
    groups = list(class_folders.find_tiles(names[::-1]).items())
    ordered = [dict(groups)[name] for name in names]
    assert [i for i, g in enumerate(ordered) if i == 0 or g != ordered[i - 1]] == starts
    assert class_folders.find_tiles([*names, "MT_Free/Imgs/other.jpg"]) == {}


def test_voc_with_a_palette(tmp_path: Path) -> None:
    """255 is ignored, and classes are the values that there are; no mask, no label."""
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[7, 8, 9] * 252, *VOID]
    for name in ("a", "b"):
        save(tmp_path / f"JPEGImages/{name}.jpg")
    values = SPOT * 2 + BLOT * 255
    image = Image.fromarray(values).convert("P")
    image.putpalette(palette)
    (tmp_path / "SegmentationClass").mkdir()
    image.save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "ImageSets").mkdir()
    assert known.recognise(tmp_path) == "voc"
    records = read(tmp_path)
    assert_shown(records["a.jpg"], {"class 2": SPOT}, BLOT)
    assert not records["b.jpg"].labelled
    assert_shown(read(tmp_path, classes=("dent", "scratch"))["a.jpg"], {"scratch": SPOT}, BLOT)
    image.putdata((SPOT * 2).ravel().tolist())
    image.save(tmp_path / "SegmentationClass/a.png")
    assert_shown(read(tmp_path)["a.jpg"], {"class 2": SPOT})
    image.putdata(values.ravel().tolist())
    image.save(tmp_path / "SegmentationClass/a.png")
    with pytest.raises(BadInput, match="expected masks in the folder SegmentationClass"):
        by_name("voc", tmp_path / "ImageSets", images=tmp_path / "JPEGImages")
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ndent\nscratch\n")
    assert_shown(read(tmp_path)["a.jpg"], {"scratch": SPOT}, BLOT)


def test_segmentation_masks_of_cvat(tmp_path: Path) -> None:
    """Colours, and labelmap.txt says which; one of its labels may be ignored."""
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += ["scratch:255,0,0::", "unsure:0,255,0::"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines) + "\n")
    save(tmp_path / "JPEGImages/coil/a.jpg")
    save(tmp_path / "SegmentationClass/coil/a.png", painted((SPOT, RED), (BLOT, GREEN)))
    source = known.load("voc").read(tmp_path, Options())
    assert source.colors == {"scratch": "#ff0000", "unsure": "#00ff00"}
    (record,) = source.records
    assert_shown(record, {"scratch": SPOT, "unsure": BLOT})
    records = read(tmp_path, ignore=frozenset({"unsure"}))
    assert_shown(records["coil/a.jpg"], {"scratch": SPOT}, BLOT)
    ordered = known.load("voc").read(tmp_path, Options(("unsure", "scratch")))
    assert ordered.classes == ["unsure", "scratch"]
    assert_shown(next(ordered.records), {"scratch": SPOT, "unsure": BLOT})
    with pytest.raises(BadInput, match="'unsure' is not in --classes scratch"):
        read(tmp_path, classes=("scratch",))
    save(tmp_path / "SegmentationClass/coil/a.png", painted((SPOT, (1, 2, 3))))
    with pytest.raises(BadInput, match=r"colours of the legend, but got #010203 \(2 pixels\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scratch:255,0::\n", r"line 1: expected `name:r,g,b::`, but got 'scratch:255,0::'"),
        ("a:1,2,3::\n\nb:1,2,3::\n", "line 3: 'a' also has the colour #010203"),
        ("# nothing\n", "expected one line per class"),
        ("background:0,0,0::\n", "expected the name of a class"),
        (b"\xff\xfe:0,0,0::\n", "expected text in UTF-8"),
    ],
)
def test_labelmaps_that_say_nothing_are_refused(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """With the line."""
    save(tmp_path / "JPEGImages/a.jpg")
    save(tmp_path / "SegmentationClass/a.png", painted((SPOT, RED)))
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "labelmap.txt").write_bytes(data)
    with pytest.raises(BadInput, match=rf"labelmap\.txt: {message}"):
        read(tmp_path)


def test_colour_maps_ask_for_a_legend(tmp_path: Path) -> None:
    """And say which colours there are, how often."""
    save(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", painted((SPOT, RED), (BLOT, GREEN)))
    with pytest.raises(BadInput, match=r"--legend.*#000000 \(48 .*#00ff00 \(4 .*#ff0000 \(2 "):
        read(tmp_path)
    legend = {"#ff0000": "scratch", "#00ff00": "dent"}
    assert_shown(read(tmp_path, legend=legend)["a.jpg"], {"scratch": SPOT, "dent": BLOT})
    with pytest.raises(BadInput, match=r"got RGB with the colours .*#ff0000 \(2 pixels\)"):
        read(tmp_path, classes=("scratch", "dent"))
    unsure = {"legend": {"#ff0000": "scratch"}, "ignore": frozenset({"#00ff00"})}
    assert_shown(read(tmp_path, **unsure)["a.jpg"], {"scratch": SPOT}, BLOT)
    unsure = Options(legend=legend, ignore=frozenset({"#00ff00"}))
    assert masks.read(tmp_path, unsure).classes == ["scratch"]
    nothing = {"#ff0000": "scratch", "#00ff00": "background"}
    assert_shown(read(tmp_path, legend=nothing)["a.jpg"], {"scratch": SPOT})


def test_values_have_names_by_a_legend(tmp_path: Path) -> None:
    """Whatever the values are; their order is that of the classes."""
    save(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", SPOT * 70 + BLOT * 9)
    legend = {"70": "scratch", "9": "dent"}
    source = masks.read(tmp_path, Options(legend=legend))
    assert source.classes == ["scratch", "dent"]
    (record,) = source.records
    assert_shown(record, {"scratch": SPOT, "dent": BLOT})
    assert_shown(read(tmp_path)["a.jpg"], {"class 70": SPOT, "class 9": BLOT})


def test_void_among_values_is_asked_for(tmp_path: Path) -> None:
    """255 beside classes is most likely none of them."""
    save(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", SPOT * 2 + BLOT * 255)
    with pytest.raises(BadInput, match="is 255 void"):
        read(tmp_path)
    assert_shown(read(tmp_path, ignore=frozenset({"255"}))["a.jpg"], {"class 2": SPOT}, BLOT)
    with pytest.raises(BadInput, match="255 void"):
        read(tmp_path, classes=("1", "2"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_label_images_of_more_bits(tmp_path: Path, kind: type, suffix: str) -> None:
    """PNG has 16 bits, TIFF has 32 too."""
    if kind == np.int32 and suffix == "png":
        return
    top = 700 if kind != np.uint8 else 70
    save(tmp_path / "images/a.jpg")
    save(tmp_path / f"masks/a.{suffix}", SPOT.astype(kind) * top + BLOT)
    records = read(tmp_path)
    assert_shown(records["a.jpg"], {f"class {top}": SPOT, "class 1": BLOT})
    with pytest.raises(BadInput, match=f"but got {top}"):
        read(tmp_path, classes=("1", "2"))
    save(tmp_path / f"masks/a.{suffix}", SPOT.astype(kind) * np.iinfo(np.uint8).max)
    assert_shown(read(tmp_path)["a.jpg"], {"defect": SPOT})


@pytest.mark.parametrize(
    ("images", "masks", "kind"),
    [
        ("images/{}.jpg", "masks/{}.png", "masks"),
        ("{}.png", "{}_mask.png", "masks"),
        ("MT_Crack/Imgs/{}.jpg", "MT_Crack/Imgs/{}.png", "class_folders"),
    ],
)
def test_numbered_images_have_masks_of_their_own(
    tmp_path: Path, images: str, masks: str, kind: str
) -> None:
    """`part_2` is a second image of a part, not class 2 of `part`, which has a mask too."""
    if kind == "class_folders":
        save(tmp_path / "MT_Free/Imgs/other.jpg")
    for name, mask in {"part": SPOT, "part_2": BLOT, "part_2_1": SPOT}.items():
        save(tmp_path / images.format(name))
        save(tmp_path / masks.format(name), mask * 255)
    found = {n: r for n, r in read(tmp_path).items() if r.masks}
    for name, mask in {"part": SPOT, "part_2": BLOT, "part_2_1": SPOT}.items():
        key = images.format(name).removeprefix("images/")
        assert_shown(found[key], {"Crack" if kind == "class_folders" else "defect": mask})


def test_a_file_for_each_class(tmp_path: Path) -> None:
    """The class stands in the name or in the folder; colours of such a file do not matter."""
    save(tmp_path / "images/plate_7.jpg")
    save(tmp_path / "images/plate_8.jpg")
    save(tmp_path / "masks/plate_7_scratch.png", SPOT * 255)
    save(tmp_path / "masks/plate_7_long_dent.png", painted((BLOT, RED)))
    save(tmp_path / "masks/rust/plate_8.png", SPOT * 255)
    save(tmp_path / "masks/plate_8_ignored.png", BLOT * 255)
    records = read(tmp_path)
    assert_shown(records["plate_7.jpg"], {"scratch": SPOT, "long_dent": BLOT})
    assert_shown(records["plate_8.jpg"], {"rust": SPOT}, BLOT)
    with pytest.raises(BadInput, match=r"class 'rust' is not in --classes scratch, long_dent$"):
        read(tmp_path, classes=("scratch", "long_dent"))


def test_a_threshold_takes_soft_masks(tmp_path: Path) -> None:
    """Without it they are refused, and the message tells of it."""
    save(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a_mask.png", SPOT * 250 + BLOT * 100 + 3)
    with pytest.raises(BadInput, match=r"0 and 1, but got 3, 103, 253 .*--threshold 127"):
        read(tmp_path, classes=("dent",))
    assert_shown(read(tmp_path, threshold=127)["a.jpg"], {"defect": SPOT})
    (tmp_path / "masks/a_mask.png").unlink()
    big = np.kron(SPOT, np.full((16, 16), 255)).astype(np.uint8)
    save(tmp_path / "images/a.jpg", big)
    save(tmp_path / "masks/a.jpg", big, quality=100)
    assert_shown(read(tmp_path, threshold=127)["a.jpg"], {"defect": big // 255})


def test_what_is_unclear_is_asked_for(tmp_path: Path) -> None:
    """None of the formats, or two of them."""
    save(tmp_path / "one/a.jpg")
    with pytest.raises(BadInput, match=r"(?s)the format was not recognised.*kaggle.*masks"):
        known.recognise(tmp_path / "one")
    save(tmp_path / "two/train/good/a.png")
    save(tmp_path / "two/ground_truth/bent/a_mask.png", SPOT)
    save(tmp_path / "two/SegmentationClass/a.png", SPOT)
    with pytest.raises(BadInput, match="looks like voc and mvtec; choose one with --format"):
        known.recognise(tmp_path / "two")
    with pytest.raises(BadInput, match="no such file or folder"):
        known.recognise(tmp_path / "three")


def test_images_are_told_from_masks_by_their_names() -> None:
    """By a folder, else by a suffix, else by what a JPEG is not."""
    assert split(["images/a.png", "labels/a.png"]) == (["images/a.png"], ["labels/a.png"])
    assert split(["images/masks/a.png"]) == (["images/masks/a.png"], [])
    assert split(["a.png", "a_2_mask.png"]) == (["a.png"], ["a_2_mask.png"])
    assert split(["a.jpg", "a.png", "b.png"]) == (["a.jpg", "b.png"], ["a.png"])
    assert split(["a.png", "a_1.png"]) == (["a.png", "a_1.png"], [])


def import_words(source: Path, *more: str) -> list[str]:
    return ["import", str(source), "--to", str(source.parent / "set"), *more]


def test_test_images_come_from_the_source_or_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Their masks are not read, and masks among them are no images."""
    source = tmp_path / "source"
    for name in ("train/1", "test/2"):
        save(source / f"{name}.png")
        save(source / f"{name}_GT.png", SPOT * 255)
    save(tmp_path / "more/3.png")
    save(tmp_path / "more/3_GT.png", SPOT * 255)
    words = import_words(source, "--test", str(source / "test"), str(tmp_path / "more"))
    main(words)
    names = sorted(p.relative_to(tmp_path / "set") for p in (tmp_path / "set").rglob("*.png"))
    assert [n.as_posix() for n in names] == [
        "test_images/3.png", "test_images/test/2.png", "train_images/train/1.png"
    ]  # fmt: skip
    assert "2 test images" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"source/nothing: no such folder"):
        main([*import_words(source, "--test", str(source / "nothing")), "--force"])
    assert len(list((tmp_path / "set").rglob("*.png"))) == 3


def test_masks_alone_are_recognised_by_where_their_images_are(tmp_path: Path) -> None:
    """They look like images, and are none."""
    save(tmp_path / "photos/coil/a.jpg")
    save(tmp_path / "source/coil/a.png", SPOT)
    main(import_words(tmp_path / "source", "--images", str(tmp_path / "photos")))
    assert (tmp_path / "set/train_images/coil/a.jpg").is_file()


def test_names_of_classes_that_no_csv_can_hold_are_refused(tmp_path: Path) -> None:
    """Before anything is there."""
    save(tmp_path / "source/images/a.png")
    save(tmp_path / "source/masks/a.png", SPOT)
    with pytest.raises(SystemExit, match="printable characters"):
        main(import_words(tmp_path / "source", "--classes", "a\nb"))
    assert not (tmp_path / "set").exists()


def test_images_are_linked_and_the_source_stays(tmp_path: Path) -> None:
    """Hard links, since a symbolic one would break with its source; or copies, if wanted."""
    source = tmp_path / "source"
    save(source / "images/a.png")
    save(source / "masks/a.png", SPOT)
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    main(import_words(source))
    taken = tmp_path / "set/train_images/a.png"
    assert taken.samefile(source / "images/a.png")
    main(import_words(source, "--force", "--copy"))
    assert not taken.samefile(source / "images/a.png")
    assert taken.read_bytes() == (source / "images/a.png").read_bytes()
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(SystemExit, match="expected a folder that neither is in"):
        main(["import", str(source), "--to", str(source / "set")])


def test_a_data_set_survives_when_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one stands where it stood."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.csv").write_text("mine")
    rename = Path.rename

    def fail(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device", str(path))
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space"), whole_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set/train.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    """Test folders are each named from their own start."""
    source = tmp_path / "source"
    save(source / "images/a.png")
    save(source / "masks/a.png", SPOT)
    for folder in ("one", "two"):
        save(tmp_path / folder / "t.png")
    words = import_words(source, "--test", str(tmp_path / "one"), str(tmp_path / "two"))
    with pytest.raises(SystemExit, match=r"both would be 't\.png' in test_images"):
        main(words)
    assert not (tmp_path / "set").exists()


def test_a_data_set_comes_through_as_it_is(tmp_path: Path) -> None:
    """All of its files, whatever is in them, but for colours' case and clean images' rows."""
    source = tmp_path / "source"
    for name in ("train_images/b/1.png", "train_images/2.png", "test_images/t.png"):
        save(source / name)
    texts = {
        "train.csv": "ImageId,ClassId,EncodedPixels\nb/1.png,4,2 3\n",
        "classes.csv": "ClassId,name,color\n2,dent,#00ff00\n4,scratch,#ff0000\n",
        "images.csv": "ImageId,group,label\n2.png,coil 7,unlabelled\nb/1.png,,labelled\n",
        "ignored.csv": "ImageId,EncodedPixels\n2.png,9 2\n",
        "sample_submission.csv": "ImageId,ClassId,EncodedPixels\nt.png,2,1 1\n",
    }
    for name, text in texts.items():
        (source / name).write_text(text)
    main(import_words(source))
    read_back = {p.name: p.read_text() for p in (tmp_path / "set").glob("*.csv")}
    assert read_back == texts


def test_classes_that_a_sample_submission_does_not_ask_for_are_refused(tmp_path: Path) -> None:
    """It lists the classes, unless classes.csv does."""
    source = tmp_path / "source"
    for name in ("train_images/1.png", "test_images/t.png"):
        save(source / name)
    (source / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n1.png,4,2 3\n")
    sample = "ImageId,ClassId,EncodedPixels\nt.png,2,1 1\nt.png,3,1 1\n"
    (source / "sample_submission.csv").write_text(sample)
    with pytest.raises(SystemExit, match=r"train\.csv: line 2: .*unknown class 4; .* are 2, 3$"):
        main(import_words(source))


NAMES = ["a.png", "a.jpg", "a_1.png", "b/a.png", "masks/c.png", "c_mask.png", "b/c.tif"]
mask = st.integers(0, 2**54 - 1).map(
    lambda bits: np.array([bits >> i & 1 for i in range(54)], np.uint8).reshape(SIZE_HW)
)


@st.composite
def records(draw: st.DrawFn, top: int) -> list[Record]:
    """Draw what is on images; in half of the cases no classes overlap."""
    drawn = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
        dent, other, unknown = draw(mask), draw(mask), draw(mask)
        if draw(st.booleans()):
            other = other & (1 - dent)
        shown = {"dent": dent, f"class {top}": other}
        shown = {c: m & (1 - unknown) for c, m in shown.items() if draw(st.booleans())}
        shown = {c: m for c, m in shown.items() if m.any()}
        ignored = unknown if draw(st.booleans()) and unknown.any() else None
        if draw(st.integers(0, 3)) == 0:
            shown, ignored, labelled = {}, None, False
        else:
            labelled = True
        drawn.append(Record(Path(name), name, SIZE_HW, shown, ignored, labelled))
    return drawn


@given(st.data(), st.sampled_from([2, 254, 255, 256, 1000]))
@in_one_folder
def test_label_images_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, top: int
) -> None:
    """Whatever overlaps, is ignored or unlabelled, and whatever images are called."""
    folder = tmp_path_factory.mktemp("export")
    classes = [ClassInfo(1, "dent", "#ff0000"), ClassInfo(top, f"class {top}", "#00ff00")]
    drawn = [r._replace(path=folder / "of" / r.name) for r in data.draw(records(top))]
    for record in drawn:
        save(record.path)
    masks.write(folder / "to", drawn, classes)
    if not any(record.labelled for record in drawn):
        return
    source = masks.read(folder / "to", Options())
    assert (source.classes, source.ids) == (["dent", f"class {top}"], (1, top))
    assert source.colors == {"dent": "#ff0000", f"class {top}": "#00ff00"}
    found = {record.name: record for record in source.records}
    assert found.keys() == {record.name for record in drawn}
    for record in drawn:
        assert found[record.name].labelled == record.labelled
        assert_shown(found[record.name], record.masks, record.ignored)


def test_labels_are_exported_and_imported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A whole data set, by the two commands."""
    source = tmp_path / "set"
    for name in ("train_images/b/1.png", "train_images/2.png"):
        save(source / name)
    (source / "train.csv").write_text(
        f"ImageId,ClassId,EncodedPixels\nb/1.png,4,{rle.encode(SPOT)}\nb/1.png,7,1 5\n"
    )
    (source / "classes.csv").write_text("ClassId,name,color\n4,dent,#ff0000\n7,rust,#00ff00\n")
    main(["export", str(source), "--to", str(tmp_path / "out"), "--format", "masks"])
    assert "2 images, 2 masks of dent, rust" in capsys.readouterr().out
    main(["import", str(tmp_path / "out"), "--to", str(tmp_path / "again")])
    for name in ("train.csv", "classes.csv"):
        assert (tmp_path / "again" / name).read_text() == (source / name).read_text()
    with pytest.raises(SystemExit, match="already exists; name a new folder"):
        main(["export", str(source), "--to", str(tmp_path / "out"), "--format", "masks"])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_predictions_are_exported(tmp_path: Path, suffix: str) -> None:
    """The stage's own file, or a submission; what is predicted empty is clean."""
    images = tmp_path / "set/test_images"
    for name in ("t.png", "u.png"):
        save(images / name)
    text = rle.encode(SPOT)
    path = tmp_path / f"predictions.{suffix}"
    if suffix == "csv":
        path.write_text(f"ImageId,ClassId,EncodedPixels\nt.png,2,{text}\nu.png,2,\n")
    else:
        empty = PredictionRow("u.png", 2, "", 0, 0.1)
        write_predictions(path, [PredictionRow("t.png", 2, text, 2, 0.9), empty])
    words = ["export", str(path), "--to", str(tmp_path / "out"), "--format", "masks"]
    with pytest.raises(SystemExit, match="expected --images"):
        main(words)
    main([*words, "--images", str(images)])
    found = by_name("masks", tmp_path / "out")
    assert_shown(found["t.png"], {"class 2": SPOT})
    assert_shown(found["u.png"], {})
    assert found["u.png"].labelled


@pytest.mark.realdata
def test_magnetic_tiles_as_published(
    tmp_path: Path, capsys: pytest.CaptureFixture, real_data: Path
) -> None:
    """With no further option, and the test images of another folder."""
    source = real_data / "magnetic-tile"
    words = ["import", str(source / "train"), "--to", str(tmp_path / "tiles")]
    main([*words, "--test", str(source / "test_images")])
    text = capsys.readouterr().out
    for line in ("1067 images", "277 test images", "clean 751", "unlabelled 4", "5: Uneven 76"):
        assert line in " ".join(text.split())
    facts = read_images(tmp_path / "tiles/images.csv")
    assert len(facts) == 1067
    assert 150 < len({fact.group for fact in facts.values()}) < 200
