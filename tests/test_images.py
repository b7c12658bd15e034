"""Images come out as grey pixels, unsound ones not at all."""

import hashlib
import os
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from strategies import noise, png, to_bytes

from steelseg.core.arrays import Pixels
from steelseg.core.classes import default_classes
from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY as EIGHT_BITS
from steelseg.data import annotations, cache_writer
from steelseg.data.cache import Cache
from steelseg.data.decoding import decode, look, read
from steelseg.data.images import MAX_BYTES, size_of
from steelseg.data.inspection import inspect_folder, losses
from steelseg.data.label_csv import LabelCsv
from steelseg.predict.model import to_pixels
from steelseg.score import source

GREY_HW = noise(3, (24, 32))
GREY = Image.fromarray(GREY_HW)
SMOOTH = GREY.resize((32, 24), box=(0, 0, 4, 3))  # JPEG keeps it nearly as it is


def decode_grey(data: bytes) -> Pixels:
    """Decode as a data set of grey images of 8 bits has it."""
    return decode(data, EIGHT_BITS)


LOSSLESS = {
    "grey": GREY,
    "grey with alpha": GREY.convert("LA"),
    "palette": GREY.convert("P"),
    "RGB": GREY.convert("RGB"),
    "RGBA": GREY.convert("RGBA"),
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", LOSSLESS)
def test_every_pixel_format_gives_the_same_grey(mode: str, file_format: str) -> None:
    """Severstal keeps grey steel as colour; what a file calls it does not matter."""
    image_hw = decode_grey(to_bytes(LOSSLESS[mode], file_format))
    assert image_hw.dtype == np.uint8
    np.testing.assert_array_equal(image_hw, GREY_HW)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(file_format: str) -> None:
    """Bits become 0 and 255."""
    image_hw = decode_grey(to_bytes(GREY.convert("1", dither=0), file_format))
    np.testing.assert_array_equal(image_hw, np.where(GREY_HW > 127, 255, 0))


@pytest.mark.parametrize(("depth", "levels"), [(2, [0, 85, 170, 255]), (4, [0, 17, 34, 51])])
def test_few_bits_span_the_whole_range(depth: int, levels: list[int]) -> None:
    """Grey levels of 2 and 4 bits are stretched to 0 to 255."""
    row = bytes([0b00_01_10_11]) if depth == 2 else bytes([0x01, 0x23])
    np.testing.assert_array_equal(decode_grey(png((1, 4), depth, 0, b"\0" + row)), [levels])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_jpegs_of_every_kind(mode: str, options: dict[str, int]) -> None:
    """Grey, colour and print colours give nearly the grey that went in."""
    image_hw = decode_grey(to_bytes(SMOOTH.convert(mode), "JPEG", quality=95, **options))
    assert np.abs(image_hw.astype(int) - np.asarray(SMOOTH)).max() <= 12


# what a viewer does to the stored pixels: EXIF 2.32, page 38, or any camera held upside down
TURN = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", TURN)
def test_images_are_turned_as_viewers_show_them(
    orientation: int, file_format: str, mode: str
) -> None:
    """Masks are drawn on what is shown; 24x32 and not square, so that the size turns too."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = SMOOTH.convert(mode)
    expected = TURN[orientation](decode_grey(to_bytes(stored, file_format)))
    data = to_bytes(stored, file_format, exif=exif)
    image_hw = decode_grey(data)
    np.testing.assert_array_equal(image_hw, expected)
    assert image_hw.flags.c_contiguous
    assert size_of(data) == expected.shape


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_whoever_reads_an_image_reads_it_alike(file_format: str, tmp_path: Path) -> None:
    """Training, by its cache; predictions, scoring and serving, by paths and by bytes; the demo."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"a.{file_format.lower()}"
    path.write_bytes(to_bytes(SMOOTH, file_format, exif=exif))
    expected = np.rot90(decode_grey(to_bytes(SMOOTH, file_format)), -1)
    table = annotations.build(
        inspect_folder(tmp_path, skip_bad=False),
        LabelCsv([], [], [], {}),
        default_classes([1]),
        tmp_path,
    )
    assert list(cache_writer.write(tmp_path / "cache", tmp_path, table, 1)) == [1]
    place = source.place(str(tmp_path))
    for image_hw in (
        Cache(tmp_path / "cache").image(0),
        read(path, EIGHT_BITS).image,
        to_pixels(path, EIGHT_BITS),
        to_pixels(path.read_bytes(), EIGHT_BITS),
        decode_grey(source.read_bytes(place, path.name)),
    ):
        np.testing.assert_array_equal(image_hw, expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    """Viewers pass over it too."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(decode_grey(to_bytes(GREY, "PNG", exif=exif)), GREY_HW)


def test_the_end_of_a_turned_jpeg_is_looked_for_where_it_is_stored() -> None:
    """The last block that is decoded is not the last one that is shown."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    jpeg = to_bytes(noise(4, (64, 64)), "JPEG", exif=exif)
    assert decode_grey(jpeg).shape == (64, 64)
    with pytest.raises(BadInput, match="truncated"):
        decode_grey(jpeg[: len(jpeg) // 2] + b"\xff\xd9")


RED_HW3 = np.zeros((24, 32, 3), np.uint8)
RED_HW3[...] = 76  # the luminance of pure red
RED_HW3[4:8, 4:8] = (255, 0, 0)
HALF = GREY.copy()
HALF.putalpha(Image.fromarray(noise(1, (24, 32))))
OPAQUE = GREY.convert("RGB")
OPAQUE.putalpha(255)
LOSSES = {
    "grey": (to_bytes(GREY, "PNG"), set()),
    "grey as RGB": (to_bytes(GREY.convert("RGB"), "PNG"), set()),
    "grey as a JPEG of three channels": (to_bytes(SMOOTH.convert("RGB"), "JPEG"), set()),
    "grey as print colours": (to_bytes(SMOOTH.convert("CMYK"), "TIFF"), set()),
    "opaque": (to_bytes(OPAQUE, "PNG"), set()),
    "a red spot": (to_bytes(RED_HW3, "PNG"), {"colour"}),
    "a red spot in a JPEG": (to_bytes(RED_HW3, "JPEG", quality=95), {"colour"}),
    "a red spot by a palette": (to_bytes(Image.fromarray(RED_HW3).quantize(2), "PNG"), {"colour"}),
    "a tint of a few levels": (to_bytes(RED_HW3 // 16, "PNG"), set()),
    "see-through grey": (to_bytes(HALF, "PNG"), {"transparency"}),
    "a see-through level": (to_bytes(GREY, "PNG", transparency=7), {"transparency"}),
    "two pages": (to_bytes(GREY, "TIFF", save_all=True, append_images=[GREY]), {"pages"}),
    "a JPEG of one pixel": (to_bytes(GREY.convert("RGB").resize((1, 1)), "JPEG"), set()),
}


@pytest.mark.parametrize(("data", "expected"), LOSSES.values(), ids=LOSSES)
def test_what_grey_pixels_do_not_hold_is_told(data: bytes, expected: set[str]) -> None:
    """Red and green of one luminance are one grey: somebody must say so."""
    assert set(losses(look(data), EIGHT_BITS)) == expected


def test_a_red_spot_of_its_background_s_luminance_vanishes() -> None:
    """What `losses` is there for."""
    assert np.ptp(decode_grey(to_bytes(RED_HW3, "PNG"))) == 0


def test_a_bitmap_of_16_bits_for_all_channels_is_no_image_of_16_bits_a_channel() -> None:
    """5, 6 and 5 bits, as cameras of Windows CE wrote them."""
    pixels = (31 << 11 | 63 << 5 | 31, 0)
    masks = struct.pack("<III", 31 << 11, 63 << 5, 31)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0) + masks
    data = header + struct.pack("<HH", *pixels)
    bitmap = b"BM" + struct.pack("<IHHI", 14 + len(data), 0, 0, 14 + len(header)) + data
    np.testing.assert_array_equal(decode_grey(bitmap), [[255, 0]])


@pytest.mark.filterwarnings("ignore:::PIL")
def test_corrupt_metadata_do_not_matter() -> None:
    """Only the pixels count."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"
    expected = decode_grey(to_bytes(SMOOTH, "JPEG"))
    np.testing.assert_array_equal(decode_grey(to_bytes(SMOOTH, "JPEG", exif=exif)), expected)


def test_bytes_after_the_end_do_not_matter() -> None:
    """Cameras append previews, and some tools blanks."""
    jpeg = to_bytes(SMOOTH, "JPEG")
    np.testing.assert_array_equal(decode_grey(jpeg + b"\0" * 99 + jpeg), decode_grey(jpeg))


JPEG = to_bytes(noise(4, (64, 64)), "JPEG", quality=90)
LAST_MCU = 400  # bytes that certainly hold the last block and the end of the file


@given(st.integers(1, len(JPEG) - LAST_MCU), st.booleans())
def test_a_truncated_jpeg_is_refused(n_bytes: int, has_end: bool) -> None:
    """Wherever it was cut, and if somebody closed it with an end-of-image marker too."""
    with pytest.raises(BadInput):
        decode_grey(JPEG[:n_bytes] + (b"\xff\xd9" if has_end else b""))


@pytest.mark.parametrize("grey", [0, 127, 128, 129, 255])
@pytest.mark.parametrize("size_hw", [(64, 64), (61, 67), (1, 1)])
def test_an_even_image_is_whole(grey: int, size_hw: tuple[int, int]) -> None:
    """Missing blocks decode to a grey of 128, but not every such block is missing."""
    jpeg = to_bytes(np.full(size_hw, grey, np.uint8), "JPEG")
    np.testing.assert_array_equal(decode_grey(jpeg), np.full(size_hw, grey))


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    """It says later whether the file has changed."""
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert read(tmp_path / "a.jpg", EIGHT_BITS).sha256 == hashlib.sha256(JPEG).hexdigest()


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file costs nothing on disk and everything in memory."""
    with (tmp_path / "a.png").open("wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)
    with pytest.raises(BadInput, match=r"a\.png: expected at most 1073741824 bytes"):
        read(tmp_path / "a.png", EIGHT_BITS)


def test_decoding_on_threads_leaves_the_warning_filters_alone() -> None:
    """They belong to the whole process."""
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode_grey, [JPEG] * 200))
    assert all(np.array_equal(image_hw, images[0]) for image_hw in images)
    assert warnings.filters == before


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """A header of a few bytes can ask for gigabytes; a process that reads it must not grow."""
    size_hw = (30_000, 30_000)
    bombs = {
        "a.png": png((25_000, 25_000), 8, 2, b""),
        "b.png": png((60_000, 60_000), 8, 0, b""),
        "c.jpg": _claim_size(JPEG, b"\xff\xc0", 5, struct.pack(">HH", *size_hw)),
        "d.bmp": _claim_size(to_bytes(GREY, "BMP"), b"BM", 18, struct.pack("<ii", *size_hw)),
        "e.tif": _tiff_claiming(size_hw),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    program = """
import resource, sys
from pathlib import Path
from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data.decoding import read
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sound, *bombs = map(Path, sys.argv[1:])
read(sound, GREY)
before = peak_mib()
for path in bombs:
    try:
        read(path, GREY)
    except BadInput as error:
        assert "the header says" in str(error), error
    else:
        raise AssertionError(path)
print(peak_mib() - before)
"""
    (tmp_path / "sound.jpg").write_bytes(JPEG)
    finished = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "sound.jpg", *(tmp_path / n for n in bombs)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(finished.stdout) < 8  # MiB; the smallest bomb would take 600


def _claim_size(data: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    at = data.index(marker) + offset
    return data[:at] + size + data[at + len(size) :]


def _tiff_claiming(size_hw: tuple[int, int]) -> bytes:
    tags = [(256, size_hw[1]), (257, size_hw[0]), (258, 8), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, size_hw[0]), (279, size_hw[0] * size_hw[1])]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
