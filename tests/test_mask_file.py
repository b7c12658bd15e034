"""A mask means what it shows, in whatever order its palette is; what is unclear is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from strategies import png

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data.decoding import decode
from steelseg.formats.mask_file import read_foreground, read_labels

SIZE_HW = (6, 9)
BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)
SPOT = np.zeros(SIZE_HW, np.uint8)
SPOT[2, 3:5] = 1
# as the development kit of the Pascal VOC challenge lists them
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
VOC += [(0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]
RANDOM = np.random.default_rng(3).integers(0, 4, SIZE_HW).astype(np.uint8)

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path: Path, values_hw: np.ndarray, palette: list = (), **options: Any) -> Path:
    """Write values as grey, or as numbers of a palette of RGB colours."""
    image = Image.fromarray(values_hw.astype(np.uint8))
    if palette:
        image = Image.fromarray(values_hw.astype(np.uint8)).convert("P")
        image.putpalette([level for colour in palette for level in colour])
    image.save(path, **options)
    return path


def labels(path: Path, classes: tuple[int, ...] = (1, 2, 3), seen: dict | None = None):
    return read_labels(path, SIZE_HW, classes, {} if seen is None else seen)


BITS = [{"bits": 1}, {"bits": 2}, {"bits": 4}, {"bits": 8}]


@pytest.mark.parametrize("options", BITS)
@pytest.mark.parametrize("white", [0, 1])
def test_black_and_white_by_colour(white: int, options: dict, tmp_path: Path) -> None:
    """An editor that saves two colours may number white 0."""
    palette = [WHITE, BLACK] if white == 0 else [BLACK, WHITE]
    path = save(tmp_path / "a.png", np.where(SPOT, white, 1 - white), palette, **options)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
@pytest.mark.parametrize("palette", [[WHITE, BLACK], [BLACK, WHITE, RED]])
def test_every_format_with_a_palette(palette: list, suffix: str, tmp_path: Path) -> None:
    """All of them keep what was drawn."""
    white = palette.index(WHITE)
    path = save(tmp_path / f"a.{suffix}", np.where(SPOT, white, 1 - white), palette)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


@given(st.data())
@in_one_folder
def test_grey_palettes_are_read_by_grey_in_any_order(tmp_path: Path, data: st.DataObject) -> None:
    """A palette is any list of greys with those that are used among them."""
    greys = data.draw(st.permutations(range(256)))[: data.draw(st.integers(4, 256))]
    order = [greys.index(v) if v in greys else None for v in range(4)]
    wanted = np.array([v if order[v] is not None else greys[0] for v in range(4)])[RANDOM]
    numbers = np.array([0 if n is None else n for n in order])[RANDOM]
    path = save(tmp_path / "a.png", numbers, [(g, g, g) for g in greys])
    classes = tuple(sorted({*np.unique(wanted).tolist(), 1, 2, 3} - {0}))
    np.testing.assert_array_equal(labels(path, classes), wanted)


def test_quantised_labels_are_read_by_grey(tmp_path: Path) -> None:
    """Pillow numbers colours by how often they are there."""
    Image.fromarray(RANDOM).quantize(4).save(tmp_path / "a.png")
    numbers = np.asarray(Image.open(tmp_path / "a.png"))
    assert (numbers != RANDOM).any()
    np.testing.assert_array_equal(labels(tmp_path / "a.png"), RANDOM)


@pytest.mark.parametrize("colours", [[BLACK, RED, GREEN, (0, 0, 255)], VOC[:4]])
def test_palettes_of_annotation_tools_are_read_by_number(colours: list, tmp_path: Path) -> None:
    """Their colours are for the eye."""
    np.testing.assert_array_equal(labels(save(tmp_path / "a.png", RANDOM, colours)), RANDOM)


@pytest.mark.parametrize("class_id", range(1, 11))
def test_each_class_of_the_voc_palette(class_id: int, tmp_path: Path) -> None:
    """The colour of class 7 is a grey of 128, which is no class here."""
    path = save(tmp_path / "a.png", SPOT * class_id, VOC)
    np.testing.assert_array_equal(labels(path, tuple(range(1, 11))), SPOT * class_id)


@given(st.permutations(range(11)))
@in_one_folder
def test_voc_colours_in_another_order_are_right_or_refused(
    tmp_path: Path, order: list[int]
) -> None:
    """Optimisers sort palettes, and then the number is no class any more."""
    values = RANDOM * 3
    numbers = np.argsort(order)[values]
    path = save(tmp_path / "a.png", numbers, [VOC[i] for i in order])
    classes = tuple(range(1, 11))
    used = np.unique(numbers)
    has_black_first = order[0] == 0
    if has_black_first and any(order[n] != n for n in used):
        with pytest.raises(BadInput, match="can be read by colour or by number"):
            labels(path, classes)
    else:
        np.testing.assert_array_equal(labels(path, classes), values)


def test_voc_colours_with_black_behind_are_read_by_colour(tmp_path: Path) -> None:
    """The number of black shows that the numbers are no classes."""
    path = save(tmp_path / "a.png", 1 - SPOT, [VOC[3], BLACK])
    np.testing.assert_array_equal(labels(path), SPOT * 3)


REFUSED_PALETTES = {
    "black is not number 0": (1 - SPOT, [RED, BLACK], "in which number 0, no defect, is black"),
    "number 0 is white": (SPOT, [WHITE, RED], "in which number 0, no defect, is black"),
    "a grey that is another class": (SPOT, [BLACK, (2, 2, 2), RED], "by grey or by number"),
    "greys that are no classes": (SPOT, [BLACK, (90, 90, 90)], "but got 90"),
    "a number that is no class": (SPOT * 4, [BLACK, RED, RED, RED, GREEN], "but got 4"),
    "void": (SPOT * 255, [*VOC, *[(9, 9, 7)] * 244, (224, 224, 192)], r"but got 255 \(.* void"),
}


@pytest.mark.parametrize(
    ("numbers", "palette", "message"), REFUSED_PALETTES.values(), ids=REFUSED_PALETTES
)
def test_ambiguous_labels_are_refused(
    numbers: np.ndarray, palette: list, message: str, tmp_path: Path
) -> None:
    """With what to do."""
    with pytest.raises(BadInput, match=message):
        labels(save(tmp_path / "a.png", numbers, palette))


def test_one_number_has_one_colour_in_all_masks_of_a_folder(tmp_path: Path) -> None:
    """Colours that were quantised file by file are numbered by their frequency in each."""
    seen: dict = {}
    labels(save(tmp_path / "a.png", RANDOM, [BLACK, RED, GREEN, (0, 0, 255)]), seen=seen)
    labels(save(tmp_path / "b.png", SPOT, [BLACK, RED]), seen=seen)
    for palette in ([BLACK, GREEN], [BLACK, (1, 2, 3)]):
        path = save(tmp_path / "c.png", SPOT, palette)
        with pytest.raises(BadInput, match=r"as number 1, unlike that of another mask; save"):
            labels(path, seen=seen)


@pytest.mark.parametrize(
    "palette", [[BLACK, RED], [BLACK, *VOC[1:2]], [BLACK, (128, 128, 128), RED]]
)
def test_one_colour_on_black_is_a_mask(palette: list, tmp_path: Path) -> None:
    """A file per class may have the class's colour."""
    path = save(tmp_path / "a.png", SPOT, palette)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


@pytest.mark.parametrize(
    "palette", [[RED, BLACK], [RED, GREEN], [WHITE, RED], [RED, WHITE], [(0, 0, 255), BLACK]]
)
def test_ambiguous_masks_are_refused(palette: list, tmp_path: Path) -> None:
    """By colour and by number, other pixels are the defect."""
    with pytest.raises(BadInput, match="save it as grey, 255 where the defect is"):
        read_foreground(save(tmp_path / "a.png", SPOT, palette), SIZE_HW)


def test_two_colours_on_black_are_refused(tmp_path: Path) -> None:
    """One of them is of another class."""
    with pytest.raises(BadInput, match="or one colour on a black"):
        read_foreground(save(tmp_path / "a.png", RANDOM % 3, [BLACK, RED, GREEN]), SIZE_HW)


@pytest.mark.parametrize("palette", [[WHITE, BLACK], [BLACK, WHITE]])
@pytest.mark.parametrize("clear", [BLACK, WHITE])
def test_transparent_black_is_black_and_other_transparency_is_refused(
    palette: list, clear: tuple, tmp_path: Path
) -> None:
    """What shines through a transparent white, nobody knows."""
    white = palette.index(WHITE)
    numbers = np.where(SPOT, white, 1 - white)
    path = save(tmp_path / "a.png", numbers, palette, transparency=palette.index(clear))
    if clear == WHITE:
        with pytest.raises(BadInput, match="expected transparency only where black"):
            read_foreground(path, SIZE_HW)
    else:
        np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


def test_transparency_of_grey_files_counts_too(tmp_path: Path) -> None:
    """A PNG can make one grey level transparent."""
    path = save(tmp_path / "a.png", SPOT * 255, transparency=255)
    with pytest.raises(BadInput, match="expected transparency only where black"):
        read_foreground(path, SIZE_HW)
    path = save(tmp_path / "b.png", SPOT * 255, transparency=0)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


def test_a_bitmap_that_is_misread_is_refused(tmp_path: Path) -> None:
    """Pillow takes 8 bits a pixel for one where the palette is black and white."""
    path = save(tmp_path / "a.bmp", SPOT, [BLACK, WHITE])
    assert not np.array(Image.open(path)).any()
    with pytest.raises(BadInput, match="Pillow misreads; save it as PNG"):
        read_foreground(path, SIZE_HW)
    with pytest.raises(BadInput, match="Pillow misreads; save it as PNG"):
        decode(path.read_bytes(), GREY)
    Image.fromarray(SPOT == 1).save(path)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


def test_pixels_beyond_the_palette_are_refused(tmp_path: Path) -> None:
    """What Pillow writes of labels that were called a palette image and given no palette."""
    image = Image.new("P", SIZE_HW[::-1])
    image.putdata(RANDOM.ravel().tolist())
    image.save(tmp_path / "a.png")
    assert (np.array(Image.open(tmp_path / "a.png")) != RANDOM).any()
    for read in (labels, lambda path: read_foreground(path, SIZE_HW)):
        with pytest.raises(BadInput, match="beyond the end of its palette; save it as grey"):
            read(tmp_path / "a.png")


def pack(values_hw: np.ndarray, bits: int) -> bytes:
    """Write the rows of a PNG of few bits."""
    shifts = np.arange(bits)[::-1]
    as_bits = values_hw[..., None] >> shifts & 1
    rows = np.packbits(as_bits.reshape(len(values_hw), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_are_read_by_number(bits: int, tmp_path: Path) -> None:
    """Viewers, and Pillow, stretch them to 0 to 255."""
    (tmp_path / "a.png").write_bytes(png(SIZE_HW, bits, 0, pack(RANDOM, bits)))
    np.testing.assert_array_equal(labels(tmp_path / "a.png"), RANDOM)
    (tmp_path / "b.png").write_bytes(png(SIZE_HW, bits, 0, pack(SPOT, bits)))
    np.testing.assert_array_equal(read_foreground(tmp_path / "b.png", SIZE_HW), SPOT)
    with pytest.raises(BadInput, match="can be read by grey or by number"):
        labels(tmp_path / "b.png", (1, {2: 85, 4: 17}[bits]))


def test_one_bit_is_black_and_white_or_class_1(tmp_path: Path) -> None:
    """The smallest files that some tools write."""
    Image.fromarray(SPOT == 1).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_foreground(tmp_path / "a.png", SIZE_HW), SPOT)
    np.testing.assert_array_equal(labels(tmp_path / "a.png"), SPOT)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("palette", [[], [WHITE, BLACK]])
def test_masks_are_turned_as_they_are_shown(
    orientation: int, palette: list, tmp_path: Path
) -> None:
    """A mask that an editor saved with the orientation of its photograph."""
    undo = {
        2: np.fliplr(SPOT),
        3: np.rot90(SPOT, 2),
        4: np.flipud(SPOT),
        5: SPOT.T,
        6: np.rot90(SPOT),
        7: np.rot90(SPOT, 2).T,
        8: np.rot90(SPOT, -1),
    }
    stored = undo[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / "a.png", 1 - stored if palette else stored * 255, palette, exif=exif)
    np.testing.assert_array_equal(read_foreground(path, SIZE_HW), SPOT)


RAMP = np.arange(54).reshape(SIZE_HW)
LABEL_HINTS = {
    "one class in black and white": (SPOT * 255, (1, 2, 3), "but got 255 (is it one class"),
    "one class in another grey": (SPOT * 236, (1, 2, 3), "but got 236 (is it one class"),
    "4 bits": (SPOT * 17, (1, 2, 3), "but got 17 (are they classes times 17"),
    "2 bits": (RANDOM * 85, (1, 2, 3), "but got 85, 170, 255 (are they classes times 85"),
    "one class of 2 bits": (SPOT * 85, (1, 2, 3), "but got 85 (are they classes times 85"),
    "void": (np.where(SPOT, 255, RANDOM), (1, 2, 3), "but got 255 (is 255 void, or unsure?"),
    "a class too many": (RANDOM, (1, 2), "but got 3 (are they class ids that are missing"),
    "JPEG or smoothing": (RAMP, (1, 2), "but got 3, 4, 5, 6, 7, ... (JPEG, and resizing"),
}


@pytest.mark.parametrize(("values", "classes", "message"), LABEL_HINTS.values(), ids=LABEL_HINTS)
def test_hints_for_labels_name_what_is_likely(
    values: np.ndarray, classes: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    """After the values that mean nothing."""
    with pytest.raises(BadInput) as caught:
        labels(save(tmp_path / "a.png", values), classes)
    assert message in str(caught.value)


MASK_HINTS = {
    "another white": (SPOT * 236, "but got 236 (is its white another grey?"),
    "a background of 1": (SPOT * 254 + 1, "but got 1 (is its background not black?"),
    "class ids": (RANDOM, "but got 1, 2, 3 (are they class ids? Then name it `<image>.png`"),
    "a soft edge": (SPOT * 255 + np.roll(SPOT, 1) * 90, "(JPEG, and resizing with smoothing"),
}


@pytest.mark.parametrize(("values", "message"), MASK_HINTS.values(), ids=MASK_HINTS)
def test_hints_for_masks_name_what_is_likely(
    values: np.ndarray, message: str, tmp_path: Path
) -> None:
    """After the values that mean nothing."""
    with pytest.raises(BadInput) as caught:
        read_foreground(save(tmp_path / "a.png", values), SIZE_HW)
    assert message in str(caught.value)


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    """Colours without a palette, floats, several pages, and what lost its values on the way."""
    refused = {
        "expected 8-bit grey values or a palette, but got RGB": Image.new("RGB", (9, 6)),
        "but got RGBA": Image.new("RGBA", (9, 6)),
        "but got F; save it as grey": Image.new("F", (9, 6)),
    }
    for message, image in refused.items():
        path = tmp_path / ("a.tif" if image.mode == "F" else "a.png")
        image.save(path)
        with pytest.raises(BadInput, match=message):
            labels(path)
    spot = Image.fromarray(SPOT)
    spot.save(tmp_path / "a.tif", save_all=True, append_images=[spot])
    with pytest.raises(BadInput, match="expected one page"):
        labels(tmp_path / "a.tif")
    spot.save(tmp_path / "a.png", "JPEG")
    with pytest.raises(BadInput, match=r"cannot be read as PNG, .* it is a JPEG"):
        labels(tmp_path / "a.png")
    spot.save(tmp_path / "a.png", "WEBP")
    with pytest.raises(BadInput, match="expected PNG, BMP, TIFF or GIF, but the content is none"):
        labels(tmp_path / "a.png")
