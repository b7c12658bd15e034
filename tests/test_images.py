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
from PIL import Image
from strategies import noise, png, to_bytes

from steelseg.core.errors import BadInput
from steelseg.data.images import MAX_BYTES, decode_grey, list_images, read_grey
from steelseg.data.inspection import inspect_folder

GREY_HW = noise(3, (24, 32))
GREY = Image.fromarray(GREY_HW)
SMOOTH = GREY.resize((32, 24), box=(0, 0, 4, 3))  # JPEG keeps it nearly as it is

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_is_rotated(orientation: int) -> None:
    """Masks are drawn on the pixels as stored; a camera's orientation would move them away."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = decode_grey(to_bytes(SMOOTH, "JPEG"))
    np.testing.assert_array_equal(decode_grey(to_bytes(SMOOTH, "JPEG", exif=exif)), expected)
    np.testing.assert_array_equal(decode_grey(to_bytes(GREY, "PNG", exif=exif)), GREY_HW)


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
    assert read_grey(tmp_path / "a.jpg").sha256 == hashlib.sha256(JPEG).hexdigest()


def test_images_are_listed_by_suffix_and_sorted(tmp_path: Path) -> None:
    """In upper case too; other files are passed over, and names that differ by case are two."""
    names = ["B.JPG", "a.jpeg", "b.jpg", "c.PnG", "d.tif"]
    for name in [*reversed(names), "Thumbs.db", "notes.txt", "jpg", ".jpg"]:
        (tmp_path / name).write_bytes(JPEG)
    assert list_images(tmp_path) == names


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    """Only links that leave it are refused; the folder itself may be a link."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(to_bytes(GREY, "PNG"))
    (folder / "b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to(folder)
    assert [i.image for i in inspect_folder(tmp_path / "link", skip_bad=False).images] == [
        "a.png",
        "b.png",
    ]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file costs nothing on disk and everything in memory."""
    with (tmp_path / "a.png").open("wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)
    with pytest.raises(BadInput, match=r"a\.png: expected at most 536870912 bytes"):
        read_grey(tmp_path / "a.png")


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
        "a.png": png((10_000, 10_000), 8, 2, b""),
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
from steelseg.data.images import read_grey
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sound, *bombs = map(Path, sys.argv[1:])
read_grey(sound)
before = peak_mib()
for path in bombs:
    try:
        read_grey(path)
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
    assert float(finished.stdout) < 8  # MiB; the smallest bomb would take 300


def _claim_size(data: bytes, marker: bytes, offset: int, size: bytes) -> bytes:
    at = data.index(marker) + offset
    return data[:at] + size + data[at + len(size) :]


def _tiff_claiming(size_hw: tuple[int, int]) -> bytes:
    tags = [(256, size_hw[1]), (257, size_hw[0]), (258, 8), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, size_hw[0]), (279, size_hw[0] * size_hw[1])]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
